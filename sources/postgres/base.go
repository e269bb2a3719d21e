package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/spill"
	"txreel/sources"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgbase"
)

// BaseOptions say how a base is taken.
type BaseOptions struct {
	URL         string
	Publication string // txreel's own, which a restored database must not have
	Timeline    string // of the server that the epoch records, as a decimal number; "" if that is not known
	sources.BaseRequest
	Jobs     int    // tables and parts of tables read at once; default 2
	PgDump   string // the pg_dump to run; "" looks for one
	SpillDir string
	// LockTimeout bounds, in milliseconds, how long the base waits for write
	// transactions that run when it starts, and for locks on tables. Default 10 s.
	LockTimeout int
	// Progress, if not nil, is called from time to time, by several goroutines.
	Progress func(sources.BaseProgress)
}

const (
	// chunkPages is how much of a table becomes one object: 64 MiB.
	chunkPages = 8192
	// schemaMemory is how much of the dumped schema stays in memory.
	schemaMemory = 16 << 20
	// defaultLockTimeout is how long bases and slots wait for others, in milliseconds.
	defaultLockTimeout = 10_000
	// lockPatience is how long pg_dump waits for a table's lock, in milliseconds, before it lets go of all that it has, to try again: it holds many at once, and
	// after deadlock_timeout, a second, the server may end a statement of the application that waits for one of them in turn.
	lockPatience = 500
	// exportTimeout bounds the steps that hold the exporting transaction open.
	exportTimeout = time.Minute
)

// TakeBase reads the database, or some of its tables, as it stood at one position of its log, and
// stores it below the base it returns. The base is not committed: its Seq can be told only
// once the archive has passed its position (see FinishBase). The source sees
// ordinary reads, by Jobs+1 sessions in one snapshot.
func TakeBase(ctx context.Context, a *archive.Archive, epoch uint64, o BaseOptions) (*archive.Base, error) {
	if o.Jobs < 1 {
		o.Jobs = 2
	}
	if o.LockTimeout <= 0 { // which the server would take for "no limit"
		o.LockTimeout = defaultLockTimeout
	}
	base, err := archive.NewBase(epoch, o.Reason)
	if err != nil {
		return nil, err
	}
	base.Partial = o.Partial()
	b := &baseRun{BaseOptions: o, archive: a, base: base}
	defer b.close()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	if err := b.sameTimeline(ctx); err != nil {
		return nil, err
	}
	if b.tables, err = readTables(ctx, b.leader); err != nil {
		return nil, err
	}
	if base.Partial {
		b.tables = slices.DeleteFunc(b.tables, func(t tableInfo) bool { return !slices.Contains(o.Tables, t.OID) })
	}
	for _, t := range b.tables {
		if t.foreign {
			return nil, fmt.Errorf("table %s, or a column or type of it, has a name that is not ASCII, in a database that is not in UTF-8: txreel keeps the values of such a database, and cannot keep such a name: rename it",
				strings.ToValidUTF8(quoteIdent(t.Schema, t.Name), "?"))
		}
		b.progress.Total += t.Pages
	}
	if !base.Partial || o.Schema {
		if err := b.dumpSchema(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.copyTables(ctx); err != nil {
		return nil, err
	}
	if !base.Partial {
		if err := b.copyLargeObjects(ctx); err != nil {
			return nil, err
		}
	}
	return base, b.describe(ctx)
}

type baseRun struct {
	BaseOptions
	archive  *archive.Archive
	base     *archive.Base
	leader   *pgx.Conn       // holds the snapshot in a transaction until the base is whole
	snapshot string          // its name, for the other sessions
	seen     string          // what it sees (pg_snapshot)
	visible  *pgbase.Visible // nil where a slot tells its place
	slotWhy  string          // why a slot had to
	tables   []tableInfo
	mu       sync.Mutex
	progress sources.BaseProgress
}

func (b *baseRun) close() {
	if b.leader != nil {
		closeConn(b.leader.PgConn())
	}
}

// open makes the snapshot: an ordinary one where the record can tell its place, or else one that a slot tells the place of.
func (b *baseRun) open(ctx context.Context) error {
	switch {
	case b.base.Partial:
		b.slotWhy = "a part of the database is put in place behind one transaction"
	case b.Proof:
		b.slotWhy = "restores are to be compared with it"
	default:
		since, err := lastRead(ctx, b.archive, b.base.Epoch)
		if err != nil {
			return err
		}
		b.slotWhy = "no base of the epoch was read from the source before"
		if since != nil {
			ok, why, err := b.openVisible(ctx, since)
			if ok || err != nil {
				return err
			}
			b.slotWhy = why
		}
	}
	if err := b.openSlot(ctx); err != nil {
		return err
	}
	return wrapSQL("look at the base's snapshot", b.leader.QueryRow(ctx, `select pg_catalog.pg_current_snapshot()::text`).Scan(&b.seen))
}

// sameTimeline refuses the snapshot of a server that was promoted since the epoch began, which others may reach at the same address: its history is not the one
// that is recorded. A server that answers this goes on with its timeline as long as the session lasts.
func (b *baseRun) sameTimeline(ctx context.Context) error {
	if b.Timeline == "" {
		return nil
	}
	var is string
	// A file's name begins with its timeline, in eight hexadecimal digits.
	err := b.leader.QueryRow(ctx, `select ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::int::text`).Scan(&is)
	if err != nil {
		return wrapSQL("ask the source for its timeline", err)
	}
	if is != b.Timeline {
		return fmt.Errorf("epoch %d records timeline %s, and the server that a base was to be read from is on timeline %s: it was promoted or restored", b.base.Epoch, b.Timeline, is)
	}
	return nil
}

// openSlot makes a snapshot whose place in the log is known exactly: a logical
// slot's consistent point, of a temporary slot that lives just as long. The snapshot
// holds every transaction whose commit record lies before that point, the stream
// carries every other one.
func (b *baseRun) openSlot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout+time.Duration(b.LockTimeout)*time.Millisecond)
	defer cancel()
	cfg, err := connConfig(b.URL, "txreel base", true)
	if err != nil {
		return err
	}
	exporter, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer closeConn(exporter) // and with it goes the slot
	name := fmt.Sprintf("txreel_base_%d", exporter.PID())
	var point, exported string
	for _, step := range []struct {
		sql   string
		value func([][]byte)
	}{
		{sql: "SET lock_timeout = " + strconv.Itoa(b.LockTimeout)},
		{sql: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"},
		{"CREATE_REPLICATION_SLOT " + quoteIdent(name) + " TEMPORARY LOGICAL pgoutput USE_SNAPSHOT", func(row [][]byte) { point = string(row[1]) }},
		{"SELECT pg_catalog.pg_export_snapshot()", func(row [][]byte) { exported = string(row[0]) }},
	} {
		results, err := exporter.Exec(ctx, step.sql).ReadAll()
		if err != nil {
			return explainSlot(name, err, readBlocker(ctx, b.URL, err))
		}
		if step.value == nil {
			continue
		}
		if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 1 {
			return fmt.Errorf("unexpected answer to %q", step.sql)
		}
		step.value(results[0].Rows[0])
	}
	at, err := lsn.Parse(point)
	if err != nil {
		return err
	}
	b.base.Position = at.Position()
	if b.leader, err = b.join(ctx, exported); err != nil {
		return err
	}
	// The leader's own export outlives the slot.
	return wrapSQL("export the snapshot", b.leader.QueryRow(ctx, `select pg_catalog.pg_export_snapshot()`).Scan(&b.snapshot))
}

// join opens a session that sees the snapshot.
func (b *baseRun) join(ctx context.Context, snapshot string) (*pgx.Conn, error) {
	conn, err := Connect(ctx, b.URL)
	if err != nil {
		return nil, err
	}
	if err := b.see(ctx, conn, snapshot); err != nil {
		closeConn(conn.PgConn())
		return nil, err
	}
	return conn, nil
}

// see begins a transaction that sees the snapshot, and gives up what the one before it had locked.
func (b *baseRun) see(ctx context.Context, conn *pgx.Conn, snapshot string) error {
	sql := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " + quoteLiteral(snapshot) +
		"; SET LOCAL lock_timeout = " + strconv.Itoa(b.LockTimeout)
	if conn.PgConn().TxStatus() != 'I' {
		sql = "COMMIT; " + sql
	}
	return wrapSQL("join the base's snapshot", conn.PgConn().Exec(ctx, sql).Close())
}

// dumpSchema stores what pg_dump says of the schema in the snapshot.
func (b *baseRun) dumpSchema(ctx context.Context) error {
	body := spill.New(b.SpillDir, schemaMemory)
	defer body.Reset()
	for until := time.Now().Add(time.Duration(b.LockTimeout) * time.Millisecond); ; {
		err := pgDump(ctx, b.URL, b.PgDump, b.snapshot, majorVersion(b.leader.PgConn()), min(b.LockTimeout, lockPatience), body)
		if err == nil {
			break
		}
		if !errors.Is(err, errLocked) || time.Now().After(until) {
			return err
		}
		body.Reset()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPatience * time.Millisecond):
		}
	}
	object, err := b.archive.CreateObject(ctx, b.base, pgbase.SchemaObject, body, body.Size())
	b.base.Objects = append(b.base.Objects, object)
	return err
}

// chunk is a range of a table's blocks.
type chunk struct {
	table    int
	number   int
	from, to int64 // to < 0: to the end
	pages    int64
}

func (b *baseRun) chunks() []chunk {
	var all []chunk
	for i, t := range b.tables {
		n := int(max(1, (t.Pages+chunkPages-1)/chunkPages))
		for k := range n {
			c := chunk{table: i, number: k, from: int64(k) * chunkPages, to: int64(k+1) * chunkPages, pages: min(chunkPages, t.Pages-int64(k)*chunkPages)}
			if k == n-1 {
				c.to = -1
			}
			all = append(all, c)
		}
	}
	return all
}

func (b *baseRun) copyTables(ctx context.Context) error {
	chunks := b.chunks()
	stored := make([][]archive.BaseObject, len(b.tables))
	for _, c := range chunks {
		stored[c.table] = append(stored[c.table], archive.BaseObject{})
	}
	var next atomic.Int64
	group, work := errgroup.WithContext(ctx)
	for range min(b.Jobs, len(chunks)) {
		group.Go(func() error {
			conn, err := b.join(work, b.snapshot)
			if err != nil {
				return err
			}
			defer closeConn(conn.PgConn())
			w, err := pgbase.NewChunk(b.SpillDir)
			if err != nil {
				return err
			}
			defer w.Release()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(chunks) {
					return nil
				}
				c := chunks[i]
				if stored[c.table][c.number], err = b.copyChunk(work, conn.PgConn(), w, c); err != nil {
					return err
				}
				// Whoever holds one table's lock and waits for another's can meet the application halfway, whose
				// statement the server may then end. And it need not wait for the whole base.
				if err := b.see(work, conn, b.snapshot); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := b.findUnpublished(ctx); err != nil {
		return err
	}
	for i := range b.tables {
		entry, err := b.tables[i].entry(stored[i])
		if err != nil {
			return err
		}
		b.base.Tables = append(b.base.Tables, entry)
	}
	return nil
}

func (b *baseRun) copyChunk(ctx context.Context, conn *pgconn.PgConn, w *pgbase.Chunk, c chunk) (archive.BaseObject, error) {
	t := &b.tables[c.table]
	w.Reset()
	tag, err := conn.CopyTo(ctx, w, t.copySQL(c))
	if err != nil {
		return archive.BaseObject{}, explainCopy(quoteIdent(t.Schema, t.Name), err)
	}
	if err := t.unchanged(ctx, conn); err != nil {
		return archive.BaseObject{}, err
	}
	if w.Rows.Rows != tag.RowsAffected() {
		return archive.BaseObject{}, fmt.Errorf("copy table %s: %d lines came, the server speaks of %d rows: take another base", quoteIdent(t.Schema, t.Name), w.Rows.Rows, tag.RowsAffected())
	}
	if err := w.Close(); err != nil {
		return archive.BaseObject{}, err
	}
	o, err := b.archive.CreateObject(ctx, b.base, fmt.Sprintf("data/%d/%06d.copy.zst", t.OID, c.number), w.Body, w.Body.Size())
	o.Raw, o.Rows = w.Raw, tag.RowsAffected()
	b.mu.Lock()
	t.rows.Merge(w.Rows.Sum)
	b.progress.Done += c.pages
	b.progress.Rows += o.Rows
	b.progress.Bytes += o.Raw
	p := b.progress
	b.mu.Unlock()
	if b.Progress != nil {
		b.Progress(p)
	}
	return o, err
}

// unchanged checks that what COPY read was what the snapshot speaks of. The name is
// looked up in the catalog as it is now, and a table that was truncated or written anew
// since the snapshot shows it no rows (TRUNCATE and some forms of ALTER TABLE are not
// MVCC-safe): both would be silent holes. COPY's lock is held until the transaction ends, so
// that nothing can change between it and this look; a later chunk looks for itself.
func (t *tableInfo) unchanged(ctx context.Context, conn *pgconn.PgConn) error {
	name := quoteIdent(t.Schema, t.Name)
	results, err := conn.Exec(ctx, "select r::oid, pg_catalog.pg_relation_filenode(r) from (select "+quoteLiteral(name)+"::pg_catalog.regclass as r) x").ReadAll()
	if err != nil {
		return wrapSQL("look at table "+name, err)
	}
	row := results[0].Rows[0]
	if string(row[0]) != strconv.Itoa(int(t.OID)) || string(row[1]) != strconv.Itoa(int(t.File)) {
		return fmt.Errorf("table %s was truncated, written anew or replaced while the base was taken, so that its rows as of the base's snapshot are gone: take another base", name)
	}
	return nil
}

// copySQL names the columns, so that generated ones stay out, and only this table:
// partitions and children are tables of their own.
func (t *tableInfo) copySQL(c chunk) string {
	columns := ""
	for i, col := range t.Columns {
		if i > 0 {
			columns += ", "
		}
		columns += quoteIdent(col.Name)
	}
	name := quoteIdent(t.Schema, t.Name)
	if c.from == 0 && c.to < 0 && columns != "" { // the grammar has no empty list; rows of no columns are empty lines
		return "COPY " + name + " (" + columns + ") TO STDOUT"
	}
	where := fmt.Sprintf("ctid >= '(%d,0)'", c.from)
	if c.to >= 0 {
		where += fmt.Sprintf(" and ctid < '(%d,0)'", c.to)
	}
	return "COPY (SELECT " + columns + " FROM ONLY " + name + " WHERE " + where + ") TO STDOUT"
}

// describe fills in what the manifest says besides tables.
func (b *baseRun) describe(ctx context.Context) error {
	e, err := readEngine(ctx, b.leader, b.Publication)
	if err != nil {
		return err
	}
	b.base.Server = b.leader.PgConn().ParameterStatus("server_version")
	if !b.base.Partial {
		if b.base.Coverage, err = readCoverage(ctx, b.leader, b.Publication); err != nil {
			return err
		}
		if err := b.describeGlobals(ctx, e); err != nil {
			return err
		}
	}
	e.Snapshot, e.Visible, e.Slot = b.seen, b.visible, b.slotWhy
	if b.visible != nil {
		e.Slot = ""
	}
	b.base.Engine, err = json.Marshal(e)
	return err
}

// FinishBase waits until the archive has passed the base's position, works out
// which transactions the base holds, and commits it. Something has to
// move the archive: a capture, which writes at least a heartbeat a minute. waiting, if
// not nil, is called about once a second until it has.
func FinishBase(ctx context.Context, a *archive.Archive, base *archive.Base, waiting func()) error {
	at, err := lsn.FromPosition(base.Position)
	if err != nil {
		return err
	}
	engine, err := engineOf(base)
	if err != nil {
		return err
	}
	for {
		tail, err := a.Tail(ctx, base.Epoch)
		if err != nil {
			return err
		}
		if tail.Seq > 0 {
			end, err := lsn.FromPosition(tail.Position)
			if err != nil {
				return err
			}
			if end >= at {
				base.Seq = tail.Seq
				break
			}
		}
		if waiting != nil {
			waiting()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	if engine.Visible != nil {
		if err := placeVisible(ctx, a, base, &engine, at); err != nil {
			return err
		}
		return a.CommitBase(ctx, base)
	}
	// A commit record that starts before the base's position ends at or before it.
	e, found, err := a.FirstBehind(ctx, base.Epoch, func(t *change.Txn) (bool, error) {
		end, err := lsn.FromPosition(t.Position)
		return end > at, err
	})
	if err != nil {
		return err
	}
	if found {
		base.Seq = e.Seq - 1
	}
	return a.CommitBase(ctx, base)
}
