package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// proveLimit bounds how long a snapshot waits for the archive to prove it.
const proveLimit = 90 * time.Second

// FinishBase waits until the archive has passed all that the base has seen of the
// source, works out which transaction is the last one the base holds, checks against the
// record that the base is what it says, and commits it. Something has to move the archive: a
// capture, which writes at least a heartbeat a minute. waiting, if not nil, is called about
// once a second until it has.
func FinishBase(ctx context.Context, a *archive.Archive, base *archive.Base, waiting func()) error {
	var e mybase.Engine
	if err := json.Unmarshal(base.Engine, &e); err != nil {
		return fmt.Errorf("the base's manifest: %w", err)
	}
	flavor := gtid.MySQL
	if e.Flavor == mariaDB {
		flavor = gtid.MariaDB
	}
	f := finish{archive: a, epoch: base.Epoch, flavor: flavor, at: moment{place: place{e.File, e.Offset}}}
	var defined, read *gtid.Set
	for _, s := range []struct {
		text string
		set  **gtid.Set
	}{{string(base.Position), &f.at.set}, {e.DefinedUntil, &defined}, {e.ReadUntil, &read}} {
		var err error
		if *s.set, err = gtid.Parse(flavor, s.text); err != nil {
			return fmt.Errorf("the base's manifest: %w", err)
		}
	}
	for {
		tail, err := a.Tail(ctx, base.Epoch)
		if err != nil {
			return err
		}
		if tail.Seq > 0 {
			held, err := gtid.Parse(flavor, string(tail.Position))
			if err != nil {
				return err
			}
			if held.Contains(f.at.set) && held.Contains(read) {
				break
			}
		}
		if err := waitMore(ctx, waiting); err != nil {
			return err
		}
	}
	var err error
	if base.Seq, err = f.seq(ctx); err != nil {
		return err
	}
	if err := f.exact(ctx, base.Seq); err != nil {
		return err
	}
	if err := f.undisturbed(ctx, base.Seq, defined, read); err != nil {
		return err
	}
	return a.CommitBase(ctx, base)
}

// waitMore waits a second.
func waitMore(ctx context.Context, waiting func()) error {
	if waiting != nil {
		waiting()
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Second):
		return nil
	}
}

// finish compares a snapshot with the record.
type finish struct {
	archive *archive.Archive
	epoch   uint64
	flavor  gtid.Flavor
	at      moment
}

// seq finds the last transaction that the snapshot's set holds: the set is a prefix of
// the log, and so of the record.
func (f *finish) seq(ctx context.Context) (change.Seq, error) {
	tail, err := f.archive.Tail(ctx, f.epoch)
	if err != nil {
		return 0, err
	}
	e, found, err := f.archive.FirstBehind(ctx, f.epoch, func(t *change.Txn) (bool, error) {
		inside, err := f.inside(t, f.at.set)
		return !inside, err
	})
	switch {
	case err != nil:
		return 0, err
	case !found:
		return tail.Seq, nil
	case e.Seq == 1:
		return 0, errors.New("the epoch begins behind the base's snapshot: take another base")
	}
	return e.Seq - 1, nil
}

// inside reports whether a set holds a transaction of the record, or all that a
// heartbeat has seen.
func (f *finish) inside(t *change.Txn, set *gtid.Set) (bool, error) {
	if t.Kind == change.TxnHeartbeat {
		held, err := gtid.Parse(f.flavor, string(t.Position))
		return err == nil && set.Contains(held), err
	}
	g, err := gtid.ParseGTID(t.XID)
	return err == nil && set.Has(g), err
}

// exact checks that the record up to seq is the snapshot's set, no less, and that it
// ends where the snapshot's place in the log is: what the log holds up to that place is what
// the views showed.
func (f *finish) exact(ctx context.Context, seq change.Seq) error {
	set, err := f.heldAt(ctx, seq)
	if err != nil {
		return err
	}
	if !set.Equal(f.at.set) {
		return fmt.Errorf("the base's snapshot is the GTID set %s, the record holds %s up to transaction %s: the base is no place of the record; take another one", f.at.set, set, seq)
	}
	for x, err := range f.archive.Segments(ctx, f.epoch, seq) {
		if err != nil {
			return err
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Seq < seq || t.Kind != change.TxnSource {
				continue
			}
			behind, err := endsBehind(t, f.at.place)
			if err != nil {
				return err
			}
			if t.Seq > seq {
				if !behind {
					return fmt.Errorf("transaction %s (%s) was in the log when the base's snapshot was taken, and is not in its GTID set: the base is not exact; take another one", t.Seq, t.XID)
				}
				return nil
			}
			if behind {
				return fmt.Errorf("transaction %s (%s) is in the GTID set of the base's snapshot, and was not in the log yet: the base is not exact; take another one", t.Seq, t.XID)
			}
		}
	}
	return nil // what is behind cannot end before: FinishBase has seen the archive pass
}

// heldAt returns the set that the record holds up to a transaction.
func (f *finish) heldAt(ctx context.Context, seq change.Seq) (*gtid.Set, error) {
	for x, err := range f.archive.Segments(ctx, f.epoch, seq) {
		if err != nil {
			return nil, err
		}
		if x.Last() == seq {
			return gtid.Parse(f.flavor, string(x.End))
		}
		var set *gtid.Set
		if x.First() > 1 {
			for y, err := range f.archive.Segments(ctx, f.epoch, x.First()-1) {
				if err != nil {
					return nil, err
				}
				if set, err = gtid.Parse(f.flavor, string(y.End)); err != nil {
					return nil, err
				}
				break
			}
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Seq > seq {
				break
			}
			if t.Kind == change.TxnHeartbeat {
				if set, err = gtid.Parse(f.flavor, string(t.Position)); err != nil {
					return nil, err
				}
				continue
			}
			g, err := gtid.ParseGTID(t.XID)
			if err != nil {
				return nil, err
			}
			if set == nil {
				return nil, fmt.Errorf("%w: epoch %d does not begin with a heartbeat, so that nobody can say which GTIDs it begins behind", archive.ErrCorrupt, f.epoch)
			}
			set.Add(g)
		}
		return set, nil
	}
	return nil, fmt.Errorf("%w: transaction %s is not in epoch %d", archive.ErrCorrupt, seq, f.epoch)
}

// endsBehind reports whether a transaction ends behind a place in the log.
func endsBehind(t *change.Txn, at place) (bool, error) {
	file, offset, ok := strings.Cut(string(t.Position), ":")
	pos, err := strconv.ParseUint(offset, 10, 64)
	if !ok || err != nil {
		return false, fmt.Errorf("%w: transaction %s ends at %q, which is no place in a binlog", archive.ErrCorrupt, t.Seq, t.Position)
	}
	end := place{file, pos}
	if !end.passed(at) && !at.passed(end) {
		return false, fmt.Errorf("transaction %s ends at %s, the base's snapshot stands at %s: these are not the same log: take the base from the server that is recorded, and not from a replica of it", t.Seq, end, at)
	}
	return end != at && end.passed(at), nil
}

// undisturbed looks through what was committed while the base was read, for statements
// that make it worthless.
func (f *finish) undisturbed(ctx context.Context, seq change.Seq, defined, read *gtid.Set) error {
	for x, err := range f.archive.Segments(ctx, f.epoch, seq+1) {
		if err != nil {
			return err
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Seq <= seq || t.Kind != change.TxnSource {
				continue
			}
			g, err := gtid.ParseGTID(t.XID)
			if err != nil {
				return err
			}
			early := defined.Has(g)
			if !early && !read.Has(g) {
				return nil
			}
			if early && altersAny(t.Note) || movesTables(t.Note) {
				return fmt.Errorf("%w: transaction %s (%s) did %.100q meanwhile; take another base", errChanged, t.Seq, t.XID, t.Note)
			}
		}
	}
	return nil
}

// statementOf takes off a note the default database, which stands before the statement.
func statementOf(note string) string {
	rest, is := strings.CutPrefix(note, "use `")
	for is {
		_, after, found := strings.Cut(rest, "`")
		if !found {
			break
		}
		if after, is = strings.CutPrefix(after, "; "); is {
			return after
		}
		rest, is = strings.CutPrefix(after, "`") // a doubled one belongs to the name
	}
	return note
}

// altersAny reports whether a statement may change a definition or an account.
func altersAny(note string) bool {
	note = statementOf(note)
	switch word, _, _ := strings.Cut(strings.ToUpper(strings.TrimLeft(note, " (")), " "); word {
	case "", "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "ANALYZE", "OPTIMIZE", "REPAIR", "FLUSH", "XA", "TRUNCATE", "BEGIN", "COMMIT", "SAVEPOINT":
		return false
	}
	return true
}

// movesTables reports whether a statement may have put other rows under a table's name.
func movesTables(note string) bool {
	upper := strings.ToUpper(statementOf(note))
	if !strings.Contains(upper, "TABLE") {
		return false
	}
	return strings.Contains(upper, "RENAME") || strings.Contains(upper, "EXCHANGE") || strings.HasPrefix(upper, "ALTER") && len(note) >= change.MaxNote-4
}

// proveSet asks the archive whether a set is all that the log held up to a place:
// whether the transaction behind it ends behind the place. A server that is still
// bringing one from its log into its tables shows the same position and set as one that
// is not.
func (b *baseRun) proveSet(ctx context.Context, at *moment) error {
	looked, err := Clock(ctx, b.control)
	if err != nil {
		return err
	}
	f := finish{archive: b.archive, epoch: b.base.Epoch, flavor: gtid.MySQL, at: *at}
	for deadline := time.Now().Add(proveLimit); ; {
		proven, err := f.proven(ctx, looked)
		if proven || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the archive has not come past %s within %s, which must prove the snapshot: see that a capture is running, or GRANT BACKUP_ADMIN ON *.* TO %s; GRANT SELECT ON performance_schema.log_status TO %s",
				at.place, proveLimit, b.access.user, b.access.user)
		}
		if err := waitMore(ctx, b.Waiting); err != nil {
			return err
		}
	}
}

// proven looks for what the record holds behind the set: a transaction, or a
// heartbeat of a time after the place was looked up.
func (f *finish) proven(ctx context.Context, looked change.Time) (bool, error) {
	tail, err := f.archive.Tail(ctx, f.epoch)
	if err != nil || tail.Seq == 0 {
		return false, err
	}
	held, err := gtid.Parse(f.flavor, string(tail.Position))
	if err != nil || !held.Contains(f.at.set) {
		return false, err
	}
	seq, err := f.seq(ctx)
	if err != nil {
		return false, err
	}
	for x, err := range f.archive.Segments(ctx, f.epoch, seq) {
		if err != nil {
			return false, err
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			switch {
			case t.Kind == change.TxnHeartbeat && t.CommitTime > looked:
				return true, nil
			case t.Seq <= seq || t.Kind != change.TxnSource:
				continue
			}
			behind, err := endsBehind(t, f.at.place)
			if err == nil && !behind {
				err = errMoved
			}
			return err == nil, err
		}
	}
	return false, nil
}
