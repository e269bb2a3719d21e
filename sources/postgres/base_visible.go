package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgbase"
)

// A base behind another one of its epoch needs no slot, and waits for no transaction. It is read in an ordinary snapshot, which tells of each
// transaction whether it sees it; which place in the record that is the record itself tells, once it has passed everything that the
// snapshot may see. Commits become visible in another order than they are written to the log: each backend writes its commit record, waits until that
// is on disk and with whoever it has to wait for, and then makes itself seen. So the base may hold transactions ahead of others
// (archive.Base.Ahead).

// maxAhead is how many transactions a base may hold ahead of one that it does not. So many pass a commit that waits for a standby which is gone.
const maxAhead = 1 << 16

// flushPatience is how long the server may take to have on disk what the snapshot sees, in front of a base: three rounds of its WAL writer, which
// are at most ten seconds each.
const flushPatience = 40 * time.Second

// visibility is what a snapshot sees (pg_snapshot): every transaction before xmin that committed, none from xmax on, and of those between
// the ones that are not in xip. Ids are whole ones, of 64 bits, and of top-level transactions.
type visibility struct {
	xmin, xmax uint64
	xip        []uint64 // in progress; ascending
}

func parseVisibility(text string) (v visibility, err error) {
	bad := func() (visibility, error) { return visibility{}, fmt.Errorf("%q is not a snapshot", text) }
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return bad()
	}
	v.xmin, err = strconv.ParseUint(parts[0], 10, 64)
	if err == nil {
		v.xmax, err = strconv.ParseUint(parts[1], 10, 64)
	}
	if err != nil {
		return bad()
	}
	for one := range strings.SplitSeq(parts[2], ",") {
		if parts[2] == "" {
			break
		}
		x, err := strconv.ParseUint(one, 10, 64)
		if err != nil || x < v.xmin || x >= v.xmax {
			return bad()
		}
		v.xip = append(v.xip, x)
	}
	slices.Sort(v.xip)
	return v, nil
}

// sees reports whether the snapshot sees a transaction that has committed.
func (v *visibility) sees(xid uint64) bool {
	if xid < v.xmin || xid >= v.xmax {
		return xid < v.xmin
	}
	_, running := slices.BinarySearch(v.xip, xid)
	return !running
}

// covers reports whether the snapshot sees all that an earlier one saw. It does, unless the earlier one is of a slot, which goes by commit
// records alone: such a commit may wait for a standby to this day, and nobody but decoding has seen it.
func (v *visibility) covers(earlier *visibility) bool {
	return v.xmax >= earlier.xmax && !slices.ContainsFunc(v.xip, earlier.sees)
}

// openVisible makes a plain snapshot for a base behind since. It returns false, and why, where a slot has to tell its place.
func (b *baseRun) openVisible(ctx context.Context, since *archive.Base) (ok bool, why string, err error) {
	e, err := engineOf(since)
	if err != nil {
		return false, "", err
	}
	if e.Snapshot == "" {
		return false, "the base before it does not say what its snapshot saw", nil
	}
	earlier, err := parseVisibility(e.Snapshot)
	if err != nil {
		return false, "", fmt.Errorf("%w: manifest of base %s: %w", archive.ErrCorrupt, since.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	conn, err := Connect(ctx, b.URL)
	if err != nil {
		return false, "", err
	}
	defer func() {
		if !ok {
			closeConn(conn.PgConn())
		}
	}()
	sql := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = " + strconv.Itoa(b.LockTimeout)
	if err := conn.PgConn().Exec(ctx, sql).Close(); err != nil {
		return false, "", wrapSQL("begin the base's transaction", err)
	}
	var seen, exported string
	err = conn.QueryRow(ctx, `select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_export_snapshot()`).Scan(&seen, &exported)
	if err != nil {
		return false, "", wrapSQL("export the snapshot", err)
	}
	now, err := parseVisibility(seen)
	if err != nil {
		return false, "", err
	}
	if !now.covers(&earlier) {
		return false, "a transaction that base " + since.ID + " holds is not visible yet to anybody else", nil
	}
	at, err := durableEnd(ctx, conn)
	if err != nil {
		return false, "", err
	}
	b.base.Position = at.Position()
	b.leader, b.snapshot = conn, exported
	b.seen, b.visible = seen, &pgbase.Visible{Since: since.Seq}
	return true, "", nil
}

// durableEnd returns a position behind which nothing stands that a snapshot taken before sees, and waits until the server has all up to there on
// disk: with synchronous_commit off commits are visible before that, and after a crash they never were.
func durableEnd(ctx context.Context, conn *pgx.Conn) (lsn.LSN, error) {
	var inserted string
	var page, file uint64
	err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.current_setting('wal_block_size')::bigint,
		pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))`).Scan(&inserted, &page, &file)
	if err != nil {
		return 0, wrapSQL("look where the log ends", err)
	}
	end, err := lsn.Parse(inserted)
	if err != nil {
		return 0, err
	}
	end = behindRecords(end, page, file)
	for until := time.Now().Add(flushPatience); ; {
		var flushed bool
		if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_flush_lsn() >= $1::text::pg_lsn`, end.String()).Scan(&flushed); err != nil {
			return 0, wrapSQL("look what of the log is on disk", err)
		}
		if flushed {
			return end, nil
		}
		if time.Now().After(until) {
			return 0, fmt.Errorf("the server has not written its log to disk up to %s within %s, so that what a base would hold could be undone by a crash: take another base", end, flushPatience)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// behindRecords returns the end of the last record before the place where the next one would be inserted: at the beginning of a page that is behind
// the page's header, and a record that ends with the page before ends in front of it. Records and flushes never end within a header.
func behindRecords(insert lsn.LSN, page, file uint64) lsn.LSN {
	const short, long = 24, 40 // headers of a page, and of the first one of a file
	begin := insert - insert%lsn.LSN(page)
	header := lsn.LSN(short)
	if uint64(begin)%file == 0 {
		header = long
	}
	if insert <= begin+header {
		return begin
	}
	return insert
}

// placeVisible works out which transactions of the record the base holds. The record must have passed the base's position.
//
// Every transaction up to since is one of them, by visibility.covers; none that ends behind the base's position is, since that was
// read after the snapshot was taken. Those between are asked for one by one.
func placeVisible(ctx context.Context, a *archive.Archive, base *archive.Base, e *pgbase.Engine, at lsn.LSN) error {
	v, err := parseVisibility(e.Snapshot)
	if err != nil {
		return err
	}
	p := placing{seen: v, at: at, prefix: true}
	p.whole = e.Visible.Since
	for x, err := range a.Segments(ctx, base.Epoch, e.Visible.Since+1) {
		if err != nil {
			return err
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Seq <= e.Visible.Since {
				continue
			}
			more, err := p.look(t)
			if err != nil {
				return fmt.Errorf("base %s: %w", base.ID, err)
			}
			if !more {
				base.Seq, base.Ahead = p.whole, p.ahead
				return nil
			}
		}
	}
	base.Seq, base.Ahead = p.whole, p.ahead
	return nil
}

// placing goes through the record in the order of commits.
type placing struct {
	seen   visibility
	at     lsn.LSN
	prefix bool       // all transactions so far are seen
	whole  change.Seq // the last of them
	ahead  []change.Seq
	behind *change.Txn // the first one that is not
}

// look takes note of the next transaction, and reports whether there may be more that the snapshot sees.
func (p *placing) look(t *change.Txn) (more bool, err error) {
	end, err := lsn.FromPosition(t.Position)
	if err != nil {
		return false, err
	}
	seen := end <= p.at // fences and heartbeats have no id, and change nothing: they belong to what is in front of them
	if t.XID != "" {
		xid, err := strconv.ParseUint(t.XID, 10, 64)
		if err != nil {
			return false, fmt.Errorf("transaction %s has the id %q: %w", t.Seq, t.XID, err)
		}
		if seen = p.seen.sees(xid); seen && end > p.at {
			return false, fmt.Errorf("its snapshot sees transaction %s (%s), which ends at %s, behind the base's position %s: take another base", t.Seq, t.XID, end, p.at)
		}
	}
	switch {
	case end > p.at:
		return false, nil
	case seen && p.prefix:
		p.whole = t.Seq
	case seen && t.XID != "":
		if len(p.ahead) == maxAhead {
			return false, fmt.Errorf("transaction %s (%s) had been written to the source's log and was not visible to anybody while %d others behind it were: "+
				"its COMMIT waits for a standby (pg_stat_activity, wait_event SyncRep); take another base when it does not", p.behind.Seq, p.behind.XID, maxAhead)
		}
		p.ahead = append(p.ahead, t.Seq)
	case !seen && p.prefix:
		first := *t
		p.prefix, p.behind = false, &first
	}
	return true, nil
}

// lastRead returns the newest whole base of an epoch that was read from the source; nil when there is none.
func lastRead(ctx context.Context, a *archive.Archive, epoch uint64) (last *archive.Base, err error) {
	all, err := a.Bases(ctx, epoch)
	for i := range all {
		if b := &all[i]; b.From == nil && (last == nil || b.Seq >= last.Seq) {
			last = b
		}
	}
	return last, err
}

func engineOf(b *archive.Base) (e pgbase.Engine, err error) {
	if len(b.Engine) == 0 { // it says nothing of its source
		return e, nil
	}
	if err := json.Unmarshal(b.Engine, &e); err != nil {
		return e, fmt.Errorf("%w: manifest of base %s: engine: %w", archive.ErrCorrupt, b.ID, err)
	}
	return e, nil
}
