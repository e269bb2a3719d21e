// Package rowlog decodes the events of a binary log of MySQL or MariaDB into changes:
// every value as SELECT would print it with the time zone +00:00 and utf8mb4, and three
// states apart: a value, NULL, and what the log does not hold.
//
// # What differs from SELECT
//
// A FLOAT has all digits that tell it from its neighbours, where SELECT rounds to six.
// Bytes (BINARY, BLOB, BIT, GEOMETRY, VECTOR) are bytes, as are characters that their
// column's character set has no meaning for, or whose character set is not known. ENUM and SET are
// numbers where their names are not known. A JSON document that was updated in part is whole if
// the log holds it before the update, else not logged.
//
// # Names and types
//
// They come from the log (binlog_row_metadata=FULL). What it lacks comes from the Schema,
// until a statement that may change a table of the same database passes; then and without
// one, columns are called "@1", "@2" and so on. MariaDB's UUID, INET4 and INET6, the
// width of ZEROFILL and the digits of FLOAT(m,d) are in no log: they take a Schema. So do the
// fractions of times in MariaDB's own format (mysql56_temporal_format=OFF), without which such rows are refused.
//
// # Statements
//
// A statement that the log holds as text, DDL or one that the server logged instead of
// rows, is an OpStatement with its default database. Passwords in it are redacted. What
// frames a transaction is none, but XA COMMIT and XA ROLLBACK of a prepared transaction
// are: its rows were reported where it was prepared, and whether they came to be is only
// known there. An ALTER that MariaDB logs in two phases is given where it is committed,
// and not at all if it is taken back. The values of user variables that a statement uses come before it, each an
// OpMessage with the prefix "user_var" and the content "@`name` := value"; what else prepares
// a statement (INSERT_ID, the seeds of RAND) is no change. The statement that changed rows,
// where the server logs it beside them, is an OpMessage with the prefix "query".
package rowlog

import (
	"errors"
	"fmt"
	"io"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/rowlog/charset"
	"txreel/sources/mysql/rowlog/jsonb"
)

// maxInflated bounds what the compressed part of a message may become at once.
const maxInflated = 256 << 20

// Decoder turns events into changes. It must be shown every event in order, beginning
// with a FORMAT_DESCRIPTION. After an error it goes on with the next. It is not safe for
// concurrent use.
type Decoder struct {
	schema Schema
	stale  map[string]bool // databases, in lower case, that schema no longer knows
	blind  bool            // schema knows nothing any more

	format   *binlog.Format
	mapped   binlog.TableMap
	known    map[string]*table // by TABLE_MAP event
	tables   map[uint64]*table // by table id
	kept     int               // what known weighs, in columns
	charsets map[string]*charset.Charset

	undone  bool // the transaction begins or takes back an ALTER in two phases
	state   state
	rows    rows
	one     change.Event // what Next gives once
	payload bool         // events of a TRANSACTION_PAYLOAD are left

	// Memory that is used again.
	old, new []change.Value
	docs     []document
	text     []byte // of the values of one row
	inflated []byte // of the rows of one event
	inflater binlog.Inflater
	unpacker binlog.Unpacker
	columns  columnInflater
	patch    jsonb.Patch
}

// state is what Next has left to give of the last event.
type state uint8

const (
	yieldNothing state = iota
	yieldOne
	yieldRows
)

// NewDecoder makes a Decoder. The schema may be nil.
func NewDecoder(schema Schema) *Decoder {
	return &Decoder{
		schema:   schema,
		stale:    make(map[string]bool),
		known:    make(map[string]*table),
		tables:   make(map[uint64]*table),
		charsets: make(map[string]*charset.Charset),
		old:      make([]change.Value, 0, 16), // an image without columns is not a missing one
		new:      make([]change.Value, 0, 16),
	}
}

// Size returns the bytes of the event that begins with raw: more than len(raw) when it
// goes on in the messages that follow.
func (d *Decoder) Size(raw []byte) int64 {
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return int64(len(raw)) // Decode says what is wrong
	}
	return int64(h.Size)
}

// Decode takes the next event, whole. Next gives what it changed; both alias raw.
func (d *Decoder) Decode(raw []byte) error {
	d.state, d.payload = yieldNothing, false
	sum := binlog.ChecksumNone
	if d.format != nil {
		sum = d.format.Checksum
	}
	e, err := binlog.Parse(raw, sum)
	if err != nil {
		return err
	}
	if e.Type == binlog.TypeFormatDescription {
		return d.setFormat(&e)
	}
	if d.format == nil {
		return fmt.Errorf("a %s event before any FORMAT_DESCRIPTION: nothing says how to read it", e.Type)
	}
	return d.event(&e)
}

func (d *Decoder) setFormat(e *binlog.Event) error {
	f, err := binlog.ParseFormat(e)
	if err != nil {
		return err
	}
	if d.format != nil && f.Version != d.format.Version {
		clear(d.known)
		d.kept = 0
	}
	d.format = f
	clear(d.tables)
	return nil
}

// Next fills ev with the next change of the event and reports whether there was one.
// What ev points to is valid until the next call of Next or Decode, except its Relation,
// which stays and is the same as long as the log describes the table in the same way.
func (d *Decoder) Next(ev *change.Event) (bool, error) {
	for {
		*ev = change.Event{}
		state := d.state
		d.state = yieldNothing
		switch state {
		case yieldOne:
			*ev = d.one
			return true, nil
		case yieldRows:
			is, err := d.row(ev)
			if is {
				d.state = yieldRows
				return true, nil
			}
			if err != nil {
				return false, d.abandon(ev, err)
			}
		}
		if !d.payload {
			return false, nil
		}
		if err := d.nextOfPayload(); err != nil {
			return false, d.abandon(ev, err)
		}
	}
}

// abandon gives up the rest of the message.
func (d *Decoder) abandon(ev *change.Event, err error) error {
	*ev = change.Event{}
	d.state, d.payload = yieldNothing, false
	return err
}

func (d *Decoder) openPayload(e *binlog.Event) error {
	p, err := binlog.ParsePayload(e)
	if err != nil {
		return err
	}
	if err := d.unpacker.Open(&p); err != nil {
		return err
	}
	d.payload = true
	return nil
}

func (d *Decoder) nextOfPayload() error {
	e, err := d.unpacker.Next(maxInflated)
	if errors.Is(err, io.EOF) {
		d.payload = false
		return nil
	}
	if err != nil {
		return err
	}
	if e.Type == binlog.TypeTransactionPayload || e.Type == binlog.TypeFormatDescription {
		return fmt.Errorf("a %s event within a TRANSACTION_PAYLOAD, where none can be", e.Type)
	}
	return d.event(&e)
}

// event takes an event other than FORMAT_DESCRIPTION.
func (d *Decoder) event(e *binlog.Event) error {
	switch {
	case e.Type.HoldsRows():
		return d.openRows(e)
	case e.Type.Begins():
		d.tidy()
		g, err := binlog.ParseGroup(e)
		d.undone = err == nil && g.FlagsMore&(binlog.FLXStartAlter|binlog.FLXRollbackAlter) != 0
		return err
	case e.Type.Frames():
		return nil
	}
	switch e.Type {
	case binlog.TypeTableMap:
		return d.tableMap(e)
	case binlog.TypeXID, binlog.TypeXAPrepare, binlog.TypeIntvar, binlog.TypeRand, binlog.TypeTransactionContext, binlog.TypeViewChange,
		binlog.TypeIgnorable:
		return nil
	case binlog.TypeQuery, binlog.TypeQueryCompressed, binlog.TypeExecuteLoadQuery:
		return d.query(e)
	case binlog.TypeRowsQuery, binlog.TypeAnnotateRows:
		return d.rowsQuery(e)
	case binlog.TypeUserVar:
		return d.userVar(e)
	case binlog.TypeTransactionPayload:
		return d.openPayload(e)
	case binlog.TypeBeginLoadQuery, binlog.TypeAppendBlock, binlog.TypeDeleteFile:
		return errors.New("a block of the file of a LOAD DATA statement: its rows are not decoded")
	case binlog.TypeIncident:
		return d.incident(e)
	}
	if !e.Type.Known() && e.Has(binlog.FlagIgnorable) {
		return nil
	}
	return fmt.Errorf("this build cannot decode a %s event", e.Type)
}

func (d *Decoder) incident(e *binlog.Event) error {
	i, err := binlog.ParseIncident(e)
	if err != nil {
		return err
	}
	return fmt.Errorf("the server reports that changes are missing from its log: incident %d, %q", i.Number, i.Message)
}

// give lets Next give one event.
func (d *Decoder) give(ev change.Event) {
	d.one, d.state = ev, yieldOne
}

// inflateRows brings back the rows of a compressed event of MariaDB.
func (d *Decoder) inflateRows(data []byte) (out []byte, err error) {
	d.inflated, err = d.inflater.Append(d.inflated[:0], data, maxInflated)
	return d.inflated, err
}
