// Package reduce leaves out of recorded MySQL and MariaDB transactions the updates of rows that a later transaction overwrites
// anyway, so that a replica does not execute them.
//
// Everything else stays as it was recorded: each transaction with its GTID, all inserts and deletes, the last update of each row
// within a window of the record, all statements. A replica finds a row of InnoDB by its primary key and makes of it all that the image after the update
// holds, whatever the row held before. So an update U of a row may go where these hold, and goes nowhere else:
//   - a later transaction of the window updates or deletes the same row, and no statement stands in between, nor a transaction
//     of which it is not plain what it does and that it was committed, nor the other half of an ALTER that MariaDB logs in two;
//   - both images of U hold every column;
//   - U changes no column that other rows may depend on in between: of the primary key, of a unique index, of a foreign key
//     on either side, AUTO_INCREMENT. Which these are, a Catalog knows.
//
// What a target holds in between is nothing that the source ever held. At the end of each window, and so at the end of
// the replay, it is what the source held. A replica that commits in the order of the record, and was killed, goes on behind its last transaction:
// what it lacks of the updates that were left out stands behind that. One that goes on within a transaction, by what it has of it, must not: another Stream
// may leave out others.
package reduce

import (
	"context"
	"fmt"
	"slices"

	"txreel/change"
	"txreel/segment"
)

// Table is what must be known of a table for updates of it to be left out.
type Table struct {
	Columns int
	// Guarded are the positions, ascending, of the columns of which an update may change none.
	Guarded []int
	// Key are the positions of the primary key's columns, ascending; they are in Guarded as well.
	Key []int
}

// key returns which of Guarded the primary key has.
func (t *Table) key() (at []int) {
	for i, column := range t.Guarded {
		if slices.Contains(t.Key, column) {
			at = append(at, i)
		}
	}
	return at
}

// TableKey is how Tables names a table.
func TableKey(schema, name string) string { return schema + "\x00" + name }

// Tables are the tables whose updates may be left out, by TableKey.
type Tables map[string]*Table

// Catalog knows the tables. It is asked and told by one goroutine.
type Catalog interface {
	// Tables returns the tables as the next transaction finds them; nil while that is not known. It may wait until the replica has
	// executed everything before. passed is how many bytes of the record were handed on as they are since they were known last.
	Tables(ctx context.Context, passed int64) (Tables, error)
	// Altered says that a transaction may make the tables others than they were.
	Altered(seq change.Seq)
}

// Source is where the record comes from, such as an archive.Stream.
type Source interface {
	Next() (segment.Record, error)
}

// Stream hands on the record of a source without the updates that are overwritten. It is not safe for concurrent use.
type Stream struct {
	src     Source
	catalog Catalog
	limit   int // bytes of a window
	most    int // what limit grows to
	window  window
	passing *judge        // of the transaction that is handed on as it comes; nil for none
	passed  int64         // bytes of those since the last window
	halves  map[half]bool // of ALTERs under way, which build indexes that no catalog has yet
	err     error         // what the source ended with, behind the window
}

// The bytes of the record among which updates are looked for that others overwrite: few at first, so that a replica soon
// has something to do.
const (
	firstWindow = 16 << 20
	// DefaultWindow is the most that a Stream holds in memory of the record, and of what it knows of the rows in it, but for one message.
	DefaultWindow = 128 << 20
)

// NewStream returns a Stream that holds up to window bytes of the record.
func NewStream(src Source, catalog Catalog, window int) *Stream {
	return &Stream{src: src, catalog: catalog, limit: min(firstWindow, window), most: window, halves: make(map[half]bool)}
}

// LeftOut returns how many updates were left out of what was handed on so far.
func (s *Stream) LeftOut() int64 { return s.window.leftOut }

// Next returns the next record; its Raw is valid until the next call. Errors are those of the source and of the catalog, and one
// wrapping binlog.ErrMalformed where the rows of a table cannot be read.
func (s *Stream) Next(ctx context.Context) (segment.Record, error) {
	for {
		if rec, ok := s.window.next(); ok {
			return rec, nil
		}
		if s.err != nil {
			return segment.Record{}, s.err
		}
		if s.passing != nil {
			return s.pass()
		}
		if err := s.fill(ctx); err != nil {
			s.err = err
		}
	}
}

// fill takes a window from the source, or begins to pass on where nothing may be left out.
func (s *Stream) fill(ctx context.Context) (err error) {
	var tables Tables
	if len(s.halves) == 0 {
		if tables, err = s.catalog.Tables(ctx, s.passed); err != nil {
			return err
		}
	}
	if tables == nil {
		s.passing = new(judge)
		return nil
	}
	s.passed = 0
	w := &s.window
	w.begin(tables)
	for more := true; more; {
		rec, err := s.src.Next()
		if err != nil {
			w.dropOpen()
			s.err = err
			return nil
		}
		if more, err = s.take(w, &rec); err != nil {
			w.dropOpen()
			return err
		}
	}
	s.limit = min(2*s.limit, s.most)
	return nil
}

// take puts a record into the window, and reports whether others may follow.
func (s *Stream) take(w *window, rec *segment.Record) (more bool, err error) {
	switch rec.Kind {
	case segment.Definition:
		return true, w.define(rec.Raw)
	case segment.Begin:
		w.open(rec)
		return true, nil
	case segment.Message:
		if err := w.message(rec.Raw); err != nil {
			return false, fmt.Errorf("transaction %s: %w", w.judge.seq, err)
		}
		if w.judge.left > 0 || w.size() >= s.most { // too large to be held
			w.cut()
			s.passing = new(judge)
			*s.passing = w.judge
			s.told(s.passing)
			return false, nil
		}
		return true, nil
	}
	if err := w.commit(rec); err != nil {
		return false, fmt.Errorf("transaction %s: %w; --exact replays all rows as they were recorded", rec.Seq, err)
	}
	s.told(&w.judge)
	return !w.judge.alters && w.size() < s.limit, nil
}

// told tells the catalog of a transaction that may alter tables.
func (s *Stream) told(j *judge) {
	if !j.alters {
		return
	}
	s.catalog.Altered(j.seq)
	if j.first != (half{}) {
		s.halves[j.first] = true
	}
	delete(s.halves, j.second)
}

// pass hands on a record as it is.
func (s *Stream) pass() (segment.Record, error) {
	rec, err := s.src.Next()
	if err != nil {
		s.err = err
		return rec, err
	}
	switch rec.Kind {
	case segment.Definition:
		err = s.window.format.set(rec.Raw)
	case segment.Begin:
		*s.passing = judge{seq: rec.Seq}
	case segment.Message:
		s.passed += int64(len(rec.Raw))
		if err = s.passing.message(s.window.format.Format, rec.Raw); err == nil {
			s.told(s.passing)
		}
	default:
		s.passing = nil
	}
	if err != nil {
		s.err = err
	}
	return rec, err
}
