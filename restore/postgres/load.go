package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/internal/failpoint"
	"txreel/restore"
	"txreel/restore/postgres/fold"
)

// chunk is a part of a table's data.
type chunk struct {
	table int
	*archive.BaseObject
}

// load is chunks of one table that are loaded in one transaction, in one piece unless they must not be apart.
type load struct {
	chunks []chunk
	// filter, if not nil, is what the rows of the chunks go through.
	filter *fold.Fold
	pass   int
}

func (l *load) size() (n int64) {
	for _, c := range l.chunks {
		n += c.Size
	}
	return n
}

func (l *load) rows() (n int64) {
	if l.pass == 0 {
		for _, c := range l.chunks {
			n += c.Rows
		}
	}
	return n
}

// Load implements restore.Target.
func (t *Target) Load(ctx context.Context) (err error) {
	defer t.lost(&err)
	if len(t.job.Plan.Definitions) > 0 {
		t.grammar.Go(readyGrammar)
	}
	if !t.resumed {
		if err := t.createSchema(ctx); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RestoreBookOpened)
	}
	folded, err := t.loadFolded(ctx)
	if err == nil && !folded {
		err = t.loadPlain(ctx)
	}
	if err != nil {
		return err
	}
	if t.job.Plan.Partial != nil { // large objects belong to no table
		return nil
	}
	return t.loadLargeObjects(ctx)
}

// loadPlain loads the tables as the base has them.
func (t *Target) loadPlain(ctx context.Context) error {
	var loads []load
	for i := range t.tables {
		for k := range t.tables[i].Chunks {
			loads = append(loads, load{chunks: []chunk{{i, &t.tables[i].Chunks[k]}}})
		}
	}
	if err := t.loadAll(ctx, loads); err != nil {
		return err
	}
	return t.checkLoaded(ctx)
}

// loadAll carries out what of some loads has not been done.
func (t *Target) loadAll(ctx context.Context, loads []load) error {
	done, err := t.doneNames(ctx, "SELECT name FROM txreel_restore.chunks")
	if err != nil {
		return err
	}
	var total, finished int64
	for i := range loads {
		total += loads[i].rows()
	}
	left := loads[:0:0]
	for _, l := range loads {
		if done[l.note(l.chunks[0])] { // with all the others
			finished += l.rows()
		} else {
			left = append(left, l)
		}
	}
	// The largest first, so that no session is left alone with one at the end.
	slices.SortStableFunc(left, func(a, b load) int { return cmp.Compare(b.size(), a.size()) })
	var rows atomic.Int64
	rows.Store(finished)
	return t.parallel(ctx, len(left), func(ctx context.Context, conn *pgx.Conn, i int) error {
		if err := inTx(ctx, conn, func() error { return t.carryOut(ctx, conn, &left[i]) }); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RestoreChunkCommitted)
		t.job.Progress(restore.PhaseBase, rows.Add(left[i].rows()), total, "rows")
		return nil
	})
}

// note is the name under which a chunk of a load is noted when it is done.
func (l *load) note(c chunk) string {
	if l.pass == 0 {
		return c.Name
	}
	return fmt.Sprintf("%s#%d", c.Name, l.pass)
}

// carryOut copies the chunks of a load and notes them, within a transaction.
func (t *Target) carryOut(ctx context.Context, conn *pgx.Conn, l *load) error {
	for _, c := range l.chunks {
		key := t.job.Plan.Base.Key(c.Name)
		rows := c.Rows
		if l.pass > 0 { // counted once
			rows = 0
		}
		// The note comes first: should a killed restore's session still be loading the
		// chunk, this waits for it and then fails.
		if _, err := conn.Exec(ctx, "INSERT INTO txreel_restore.chunks VALUES ($1, $2)", l.note(c), rows); err != nil {
			return fmt.Errorf("note chunk %s: %w", key, err)
		}
		tab := &t.tables[c.table]
		if l.filter == nil {
			if err := t.copyObject(ctx, conn, t.job.Plan.Base, copySQL(tab), tab.name(), c.BaseObject); err != nil {
				return err
			}
			continue
		}
		taken, err := t.copyFiltered(ctx, conn, l.filter, c)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "UPDATE txreel_restore.chunks SET taken = $2 WHERE name = $1", l.note(c), taken); err != nil {
			return fmt.Errorf("note chunk %s: %w", key, err)
		}
	}
	failpoint.Hit(failpoint.RestoreChunkSent)
	return nil
}

// copyFiltered loads what a Filter leaves of a chunk, and returns how many of its rows the record had something to say about.
func (t *Target) copyFiltered(ctx context.Context, conn *pgx.Conn, f *fold.Fold, c chunk) (int64, error) {
	base, tab := t.job.Plan.Base, &t.tables[c.table]
	r, err := t.job.Archive.OpenObject(ctx, base, *c.BaseObject)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	filter := f.Filter(c.table, r)
	tag, err := conn.PgConn().CopyFrom(ctx, filter, copySQL(tab))
	switch {
	case filter.Err() != nil:
		return 0, filter.Err() // the object's, too: what the server says of it is only "COPY failed"
	case err != nil:
		return 0, fmt.Errorf("load %s into %s: %w", base.Key(c.Name), tab.name(), err)
	case filter.Seen() != c.Rows || tag.RowsAffected() != filter.Rows():
		return 0, fmt.Errorf("%w: %s holds %d rows, of which the target took %d of %d; the manifest says %d",
			archive.ErrCorrupt, base.Key(c.Name), filter.Seen(), tag.RowsAffected(), filter.Rows(), c.Rows)
	}
	return filter.Taken(), nil
}

func copySQL(t *table) string {
	if len(t.Columns) == 0 { // the grammar has no empty list
		return "COPY " + t.quoted() + " FROM STDIN"
	}
	var names []string
	for _, c := range t.Columns {
		names = append(names, quote(c.Name))
	}
	return "COPY " + t.quoted() + " (" + strings.Join(names, ", ") + ") FROM STDIN"
}

// checkLoaded compares the rows noted with the manifest.
func (t *Target) checkLoaded(ctx context.Context) error {
	var got int64
	if err := t.control.QueryRow(ctx, "SELECT coalesce(sum(rows), 0)::int8 FROM txreel_restore.chunks").Scan(&got); err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	var want int64
	for i := range t.tables {
		var rows int64
		for _, c := range t.tables[i].Chunks {
			rows += c.Rows
		}
		if rows != t.tables[i].Rows {
			return fmt.Errorf("%w: base %s: the chunks of table %s hold %d rows, the table %d",
				archive.ErrCorrupt, t.job.Plan.Base.ID, t.tables[i].name(), rows, t.tables[i].Rows)
		}
		want += rows
	}
	if got != want {
		return fmt.Errorf("the target notes %d rows of the base, the manifest %d", got, want)
	}
	return nil
}
