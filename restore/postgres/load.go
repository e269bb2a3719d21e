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
)

// chunk is a part of a table's data.
type chunk struct {
	table *table
	*archive.BaseObject
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
	done, err := t.doneNames(ctx, "SELECT name FROM txreel_restore.chunks")
	if err != nil {
		return err
	}
	var chunks []chunk
	var total, finished int64
	for i := range t.tables {
		for k := range t.tables[i].Chunks {
			c := chunk{table: &t.tables[i], BaseObject: &t.tables[i].Chunks[k]}
			total += c.Rows
			if done[c.Name] {
				finished += c.Rows
			} else {
				chunks = append(chunks, c)
			}
		}
	}
	// The largest first, so that no session is left alone with one at the end.
	slices.SortStableFunc(chunks, func(a, b chunk) int { return cmp.Compare(b.Size, a.Size) })
	var rows atomic.Int64
	rows.Store(finished)
	err = t.parallel(ctx, len(chunks), func(ctx context.Context, conn *pgx.Conn, i int) error {
		if err := t.loadChunk(ctx, conn, chunks[i]); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RestoreChunkCommitted)
		t.job.Progress(restore.PhaseBase, rows.Add(chunks[i].Rows), total, "rows")
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.loadLargeObjects(ctx, done); err != nil {
		return err
	}
	return t.checkLoaded(ctx)
}

// loadChunk copies one chunk, and notes it in the same transaction.
func (t *Target) loadChunk(ctx context.Context, conn *pgx.Conn, c chunk) error {
	key := t.job.Plan.Base.Key(c.Name)
	return inTx(ctx, conn, func() error {
		// The note comes first: should a killed restore's session still be loading the
		// chunk, this waits for it and then fails.
		if _, err := conn.Exec(ctx, "INSERT INTO txreel_restore.chunks VALUES ($1, $2)", c.Name, c.Rows); err != nil {
			return fmt.Errorf("note chunk %s: %w", key, err)
		}
		if err := t.copyObject(ctx, conn, t.job.Plan.Base, copySQL(c.table), c.table.name(), c.BaseObject); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RestoreChunkSent)
		return nil
	})
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
