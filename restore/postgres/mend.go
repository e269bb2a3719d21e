package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"txreel/archive"
	"txreel/change"
)

// nextMends returns the partial bases that the replay has still to come by, in their order.
func (t *Target) nextMends(ctx context.Context) ([]*archive.Base, error) {
	done, err := t.doneNames(ctx, "SELECT base FROM txreel_restore.mends")
	if err != nil {
		return nil, err
	}
	var next []*archive.Base
	for i := range t.job.Plan.Mends {
		if b := &t.job.Plan.Mends[i]; !done[b.ID] && t.mends(b) {
			next = append(next, b)
		}
	}
	slices.SortStableFunc(next, func(a, b *archive.Base) int { return cmp.Compare(a.Seq, b.Seq) })
	return next, nil
}

// mends reports whether a partial base has a table that is restored.
func (t *Target) mends(b *archive.Base) bool {
	return slices.ContainsFunc(b.Tables, func(tab archive.BaseTable) bool {
		return t.job.Plan.Partial == nil || t.job.Plan.Partial.Selection.Names(tab.Schema, tab.Name) || t.job.Plan.Partial.Chosen(tab.Schema, tab.Name)
	})
}

// mendAt puts the tables of partial bases that were taken after a transaction in place of what is there. The transaction has been
// applied, and nothing behind it.
func (r *replay) mendAt(ctx context.Context, seq change.Seq) error {
	for len(r.mends) > 0 && r.mends[0].Seq <= seq {
		b := r.mends[0]
		if b.Seq < seq {
			return fmt.Errorf("partial base %s belongs after transaction %s, the target holds %s", b.ID, b.Seq, seq)
		}
		if err := r.end(); err != nil {
			return err
		}
		if err := r.pipe.drain(); err != nil {
			return err
		}
		if r.open {
			return errors.New("a transaction of the target is open in front of a partial base")
		}
		if err := inTx(ctx, r.conn, func() error { return r.mend(ctx, b) }); err != nil {
			return fmt.Errorf("partial base %s: %w", b.ID, err)
		}
		r.mends = r.mends[1:]
	}
	return nil
}

// mend does so in one transaction of the target, which also notes it.
func (r *replay) mend(ctx context.Context, b *archive.Base) error {
	if _, err := r.conn.Exec(ctx, "INSERT INTO txreel_restore.mends VALUES ($1)", b.ID); err != nil {
		return fmt.Errorf("note it: %w", err)
	}
	for i := range b.Tables {
		tab := table{BaseTable: &b.Tables[i]}
		if err := json.Unmarshal(tab.Engine, &tab.Table); err != nil {
			return fmt.Errorf("%w: its manifest: %s: %w", archive.ErrCorrupt, tab.name(), err)
		}
		skip, err := r.passes(ctx, &change.Relation{ID: tab.OID, Schema: tab.Schema, Name: tab.Name})
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		// Not TRUNCATE, which foreign keys forbid.
		if _, err := r.conn.Exec(ctx, "DELETE FROM ONLY "+tab.quoted()); err != nil {
			return fmt.Errorf("empty table %s: %w", tab.name(), err)
		}
		for k := range tab.Chunks {
			if err := r.target.copyObject(ctx, r.conn, b, copySQL(&tab), tab.name(), &tab.Chunks[k]); err != nil {
				return err
			}
		}
		if _, err := r.conn.Exec(ctx, "DELETE FROM txreel_restore.inexact WHERE relation = $1::regclass", tab.quoted()); err != nil {
			return fmt.Errorf("note that table %s is exact: %w", tab.name(), err)
		}
		r.counts[tab.name()] = tab.Rows
	}
	counts, err := json.Marshal(r.counts)
	if err != nil {
		return err
	}
	if _, err := r.conn.Exec(ctx, "UPDATE txreel_restore.progress SET rows = $1", string(counts)); err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	return nil
}
