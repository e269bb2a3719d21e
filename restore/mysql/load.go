package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-mysql-org/go-mysql/mysql"
	"golang.org/x/sync/errgroup"

	"txreel/archive"
	"txreel/internal/failpoint"
	"txreel/restore"
	"txreel/sources/mysql/mybase"
)

// loadBase brings the target to where the base is: every database, object, row and
// account of it. An interrupted run goes on where it was.
func (t *Target) loadBase(ctx context.Context) error {
	b := t.job.Plan.Base
	if len(b.Tables)+len(b.Objects) == 0 {
		return nil
	}
	l := &loader{
		archive: t.job.Archive, base: b, workers: max(t.job.Workers, 1), mariadb: t.version.mariadb(), scratch: t.scratch, control: t.control,
		connect: t.cfg.connectLoader, warn: t.warn,
		progress: func(rows, total int64) { t.job.Progress(restore.PhaseBase, rows, total, "rows") },
	}
	return l.run(ctx)
}

// loader loads one base into a server. It keeps its notes in txreel_restore.
type loader struct {
	archive  *archive.Archive
	base     *archive.Base
	workers  int
	mariadb  bool
	scratch  bool // see Target
	control  *conn
	connect  func(context.Context) (*conn, error) // a session that may send files
	progress func(rows, total int64)
	warn     func(format string, args ...any)

	schema   mybase.Schema
	accounts mybase.Accounts
	tables   []*loadTable
	done     map[string]bool // steps on record
}

// loadTable is a table of the base on its way into the target.
type loadTable struct {
	mybase.Table
	*archive.BaseTable
	parts  createTable
	chunks []*archive.BaseObject // not loaded yet, in the order of the rows
	active int                   // sessions at work on it
}

func (t *loadTable) quoted() string { return quote(t.Schema, t.Name) }

// run does all of it, in an order in which everything finds what it needs.
func (l *loader) run(ctx context.Context) error {
	if err := l.open(ctx); err != nil {
		return err
	}
	session, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { session.close() }()
	for _, step := range []struct {
		name string
		do   func(context.Context, *conn) error
	}{
		{"databases", l.createDatabases},
		{"sequences", l.createSequences},
		{"tables", l.createTables},
		{"rows", func(ctx context.Context, _ *conn) error { return l.loadRows(ctx) }},
		{"indexes", func(ctx context.Context, _ *conn) error { return l.addIndexes(ctx) }},
		{"foreign keys", l.addForeignKeys},
		{"accounts", l.createAccounts},
		{"routines", l.createRoutines},
		{"views", l.createViews},
		{"triggers", l.createTriggers},
		{"events", l.createEvents},
		{"privileges", l.grantAll},
	} {
		if l.done[step.name] {
			continue
		}
		if err := step.do(ctx, session); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RestoreStepDone)
		if err := l.note(ctx, step.name); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RestoreStepNoted)
	}
	return nil
}

// open reads the base's documents and the notes of an interrupted run.
func (l *loader) open(ctx context.Context) error {
	if err := l.readJSON(ctx, mybase.SchemaObject, &l.schema); err != nil {
		return err
	}
	if err := l.readJSON(ctx, mybase.AccountsObject, &l.accounts); err != nil {
		return err
	}
	create := make(map[string]string)
	for i := range l.schema.Tables {
		d := &l.schema.Tables[i]
		create[quote(d.Schema, d.Name)] = string(d.SQL)
	}
	for i := range l.base.Tables {
		t := &loadTable{BaseTable: &l.base.Tables[i]}
		if err := json.Unmarshal(t.BaseTable.Engine, &t.Table); err != nil {
			return fmt.Errorf("%w: base %s: table %s: %w", archive.ErrCorrupt, l.base.ID, t.quoted(), err)
		}
		sql, ok := create[t.quoted()]
		if !ok {
			return fmt.Errorf("%w: base %s has rows of table %s and no definition", archive.ErrCorrupt, l.base.ID, t.quoted())
		}
		var err error
		if t.parts, err = parseCreateTable(sql); err != nil {
			return fmt.Errorf("definition of table %s: %w", t.quoted(), err)
		}
		t.parts.settle(t)
		l.tables = append(l.tables, t)
	}
	return l.openNotes(ctx)
}

// openNotes makes the tables of notes that are not there yet, and lets the server
// take files.
func (l *loader) openNotes(ctx context.Context) error {
	for _, sql := range []string{
		"CREATE TABLE IF NOT EXISTS txreel_restore.steps (name VARCHAR(700) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY) ENGINE=InnoDB",
		"INSERT IGNORE INTO txreel_restore.settings SELECT 'local_infile', @@GLOBAL.local_infile FROM (SELECT 1) x WHERE @@GLOBAL.local_infile = 0",
		"SET GLOBAL local_infile = 1",
	} {
		if err := l.control.exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare the target for the base: %w", err)
		}
	}
	return l.readNotes(ctx)
}

func (l *loader) readNotes(ctx context.Context) error {
	l.done = make(map[string]bool)
	rows, err := l.control.query(ctx, "SELECT name FROM txreel_restore.steps")
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	for _, r := range rows {
		l.done[r.text(0)] = true
	}
	return nil
}

// note puts on record that something is done.
func (l *loader) note(ctx context.Context, name string) error {
	l.done[name] = true
	if err := l.control.exec(ctx, "INSERT IGNORE INTO txreel_restore.steps VALUES ("+literal(name)+")"); err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	return nil
}

// loadRows loads all chunks that are not on record, several at a time.
func (l *loader) loadRows(ctx context.Context) error {
	noted, err := l.notedChunks(ctx)
	if err != nil {
		return err
	}
	q := &chunkQueue{alone: l.mariadb}
	var total, finished int64
	for _, t := range l.tables {
		total += t.Rows
		if err := l.restartTable(ctx, t, noted); err != nil {
			return err
		}
		for i := range t.Chunks {
			c := &t.Chunks[i]
			if rows, ok := noted[c.Name]; ok {
				finished += rows
				continue
			}
			t.chunks = append(t.chunks, c)
		}
		if len(t.chunks) > 0 {
			q.add(t)
		}
	}
	var rows atomic.Int64
	rows.Store(finished)
	g, gctx := errgroup.WithContext(ctx)
	for range min(l.workers, max(q.left, 1)) {
		g.Go(func() error {
			session, err := l.connect(gctx)
			if err != nil {
				return err
			}
			defer func() { session.close() }()
			for {
				t, c := q.take(gctx)
				if c == nil {
					return gctx.Err()
				}
				err := l.loadChunk(gctx, session, t, c)
				q.release(t)
				if err != nil {
					q.stop()
					return err
				}
				l.progress(rows.Add(c.Rows), total)
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return l.checkLoaded(ctx)
}

// notedChunks reads which chunks are loaded, and how many rows they had.
func (l *loader) notedChunks(ctx context.Context) (map[string]int64, error) {
	rows, err := l.control.query(ctx, "SELECT name, row_count FROM txreel_restore.chunks")
	if err != nil {
		return nil, fmt.Errorf("read the restore's progress: %w", err)
	}
	noted := make(map[string]int64)
	for _, r := range rows {
		var n int64
		if _, err := fmt.Sscan(r.text(1), &n); err != nil {
			return nil, fmt.Errorf("read the restore's progress: %w", err)
		}
		noted[r.text(0)] = n
	}
	return noted, nil
}

// restartTable empties a table without transactions of which chunks are missing: one may
// be there in part.
func (l *loader) restartTable(ctx context.Context, t *loadTable, noted map[string]int64) error {
	if t.Transactional || !slices.ContainsFunc(t.Chunks, func(c archive.BaseObject) bool { _, ok := noted[c.Name]; return !ok }) {
		return nil
	}
	for _, c := range t.Chunks {
		delete(noted, c.Name)
		if err := l.control.exec(ctx, "DELETE FROM txreel_restore.chunks WHERE name = "+literal(c.Name)); err != nil {
			return fmt.Errorf("note progress: %w", err)
		}
	}
	if err := l.control.exec(ctx, "DELETE FROM "+t.quoted()); err != nil {
		return fmt.Errorf("empty table %s: %w", t.quoted(), err)
	}
	return nil
}

// checkLoaded compares the rows on record with the manifest.
func (l *loader) checkLoaded(ctx context.Context) error {
	noted, err := l.notedChunks(ctx)
	if err != nil {
		return err
	}
	for _, t := range l.tables {
		var rows, chunks int64
		for _, c := range t.Chunks {
			rows += noted[c.Name]
			chunks += c.Rows
		}
		if chunks != t.Rows {
			return fmt.Errorf("%w: base %s: the chunks of table %s hold %d rows, the table %d", archive.ErrCorrupt, l.base.ID, t.quoted(), chunks, t.Rows)
		}
		if rows != t.Rows {
			return fmt.Errorf("the target notes %d rows of table %s, the manifest %d", rows, t.quoted(), t.Rows)
		}
	}
	return nil
}

// noteFirst begins a transaction with a note. Several that wait for the sessions of a killed restore may lock each other out when these end: the server takes back
// what one of them has done, which is nothing but the note.
func noteFirst(ctx context.Context, session *conn, note string) (err error) {
	for range 10 {
		if err = session.exec(ctx, "START TRANSACTION"); err == nil {
			err = session.exec(ctx, note)
		}
		if !isError(err, mysql.ER_LOCK_DEADLOCK) {
			return err
		}
	}
	return err
}

// loadChunk loads one chunk, and notes it in the same transaction.
func (l *loader) loadChunk(ctx context.Context, session *conn, t *loadTable, c *archive.BaseObject) (err error) {
	key := l.base.Key(c.Name)
	note := fmt.Sprintf("INSERT INTO txreel_restore.chunks VALUES (%s, %d)", literal(c.Name), c.Rows)
	// The note comes first: should a killed restore's session still be loading the chunk,
	// this waits for it and then fails. A table without transactions is noted behind its
	// rows, and emptied when a note is missing.
	after := []string{note}
	if t.Transactional {
		after = []string{"COMMIT"}
		if err := noteFirst(ctx, session, note); err != nil {
			return fmt.Errorf("note chunk %s: %w", key, err)
		}
	}
	r, err := l.archive.OpenObject(ctx, l.base, *c)
	if err != nil {
		return err
	}
	defer r.Close()
	answer, err := session.load(ctx, "LOAD DATA LOCAL INFILE 'txreel' INTO TABLE "+t.quoted()+
		` CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' `+t.LoadClauses(), r)
	switch {
	case r.Err() != nil:
		return r.Err() // what the server says of it is only that the connection was lost
	case err != nil:
		return fmt.Errorf("load %s into %s: %w", key, t.quoted(), err)
	case answer.warnings > 0:
		if err := l.checkWarnings(ctx, session, t, key); err != nil {
			return err
		}
	}
	if answer.affected != uint64(c.Rows) {
		return fmt.Errorf("%s: %d rows went into %s, the manifest says %d: the target may hold rows of its own, or reads a value in another way than the source wrote it", key, answer.affected, t.quoted(), c.Rows)
	}
	failpoint.Hit(failpoint.RestoreChunkSent)
	for _, sql := range after {
		if err := session.exec(ctx, sql); err != nil {
			return fmt.Errorf("load %s into %s: %w", key, t.quoted(), err)
		}
	}
	failpoint.Hit(failpoint.RestoreChunkCommitted)
	return nil
}

// checkWarnings refuses a chunk of which the server took a value for another. An ENUM
// that holds 0, the value of what was no member, is the only thing it may remark on.
func (l *loader) checkWarnings(ctx context.Context, session *conn, t *loadTable, key string) error {
	rows, err := session.query(ctx, "SHOW WARNINGS")
	if err != nil {
		return fmt.Errorf("load %s into %s: %w", key, t.quoted(), err)
	}
	for _, r := range rows {
		fine := r.text(1) == "1265" && slices.ContainsFunc(t.Columns, func(c mybase.Column) bool {
			return c.Form == mybase.FormNumber && strings.Contains(r.text(2), "column '"+c.Name+"'")
		})
		if !fine {
			return fmt.Errorf("load %s into %s: the target does not take the source's values as they are: %s (%s)", key, t.quoted(), r.text(2), r.text(1))
		}
	}
	return nil
}

// chunkQueue hands out chunks so that sessions get in each other's way as little as
// possible: the largest table first, and one that fewer sessions are at work on before
// that.
type chunkQueue struct {
	// alone lets one session at a time work on a table: MariaDB fills an empty one under a
	// lock on all of it, and takes one for AUTO_INCREMENT.
	alone   bool
	mu      sync.Mutex
	wake    *sync.Cond
	tables  []*loadTable
	left    int
	stopped bool
}

func (q *chunkQueue) add(t *loadTable) {
	q.tables = append(q.tables, t)
	q.left += len(t.chunks)
}

func size(t *loadTable) (n int64) {
	for _, c := range t.chunks {
		n += c.Raw
	}
	return n
}

// take returns the next chunk, or nil when there are none, ctx has ended or stop was
// called.
func (q *chunkQueue) take(ctx context.Context) (*loadTable, *archive.BaseObject) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.wake == nil {
		q.wake = sync.NewCond(&q.mu)
	}
	for q.left > 0 && !q.stopped && ctx.Err() == nil {
		var best *loadTable
		for _, t := range q.tables {
			if len(t.chunks) == 0 || t.active > 0 && (q.alone || !t.Transactional) {
				continue
			}
			if best == nil || t.active < best.active || t.active == best.active && size(t) > size(best) {
				best = t
			}
		}
		if best != nil {
			c := best.chunks[0]
			best.chunks = best.chunks[1:]
			best.active++
			q.left--
			return best, c
		}
		q.wake.Wait() // every table has its session, which will wake us
	}
	return nil, nil
}

func (q *chunkQueue) release(t *loadTable) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.active--
	q.wake.Broadcast()
}

// stop lets nobody wait any longer.
func (q *chunkQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.wake.Broadcast()
}

// each calls do for every number below n, on as many sessions as the job allows.
func (l *loader) each(ctx context.Context, n int, do func(ctx context.Context, session *conn, i int) error) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(l.workers, n) {
		g.Go(func() error {
			session, err := l.connect(ctx)
			if err != nil {
				return err
			}
			defer func() { session.close() }()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(ctx, session, i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// errNoObject says that a base lacks what every base has.
var errNoObject = errors.New("the base has no such object")
