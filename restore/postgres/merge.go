package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/restore"
	"txreel/restore/postgres/fold"
)

// stretch is a part of the record between two points where definitions change, or tables are put in place: those behind from, up to to.
type stretch struct {
	from, to change.Seq
	changes  uint64 // of rows, about
}

// stretches cuts the record from the base to the cut.
func (t *Target) stretches() []stretch {
	p := t.job.Plan
	var all []stretch
	from := p.Base.Seq
	cut := func(to change.Seq, changes uint64) {
		if to > from {
			all = append(all, stretch{from, to, changes})
		}
	}
	for i, changes := range p.Between {
		end, next := p.Seq, p.Seq
		if i < len(p.Definitions) {
			end, next = p.Definitions[i]-1, p.Definitions[i]
		}
		for k := range p.Mends {
			if at := p.Mends[k].Seq; at > from && at < end && t.mends(&p.Mends[k]) {
				cut(at, changes)
				from = at
			}
		}
		cut(end, changes)
		from = next
	}
	return all
}

// replayAll applies what of the record has not been: stretches with many changes are merged, the others applied one by one.
func (t *Target) replayAll(ctx context.Context) error {
	p, r := t.job.Plan, t.replay
	exact := func(to change.Seq) error {
		if to == t.applied {
			return nil
		}
		if err := t.replayStream(ctx, t.job.Archive.Stream(ctx, p.Epoch, t.applied+1, to, t.opts.TempDir)); err != nil {
			return err
		}
		if r.whole != to {
			return fmt.Errorf("the record ended at transaction %s, it should go on to %s", r.whole, to)
		}
		return nil
	}
	for _, s := range t.stretches() {
		if s.changes < t.mergeFrom() || s.from < t.applied || s.from == p.Base.Seq || t.opts.Exact {
			continue
		}
		if err := exact(s.from); err != nil {
			return err
		}
		if err := t.merge(ctx, s); err != nil {
			return err
		}
	}
	return exact(p.Seq)
}

func (t *Target) mergeFrom() uint64 {
	if t.opts.MergeFrom > 0 {
		return t.opts.MergeFrom
	}
	return restore.MergeFrom
}

// merge reduces a stretch of the record to what it makes of each row, and puts that into the target's tables, all in one transaction. It
// does so for tables whose rows a key tells apart. Where others have changes too, those are left to the replay, which then passes
// over the former. Where merging is not possible, it leaves the target as it is, and all to the replay.
func (t *Target) merge(ctx context.Context, s stretch) error {
	for passes := fold.Passes(int64(s.changes), t.memory()); ; passes *= 2 {
		err := t.mergeIn(ctx, s, passes)
		switch {
		case errors.Is(err, fold.ErrMemory) && passes < fold.MaxPasses:
			continue
		case errors.Is(err, fold.ErrNotFoldable), errors.Is(err, fold.ErrContradiction):
			// The replay tells what is wrong, if anything is, and where.
			t.warn("%v: the transactions %s to %s were replayed one by one", err, s.from+1, s.to)
			return nil
		case err != nil:
			return fmt.Errorf("merge the transactions %s to %s: %w", s.from+1, s.to, err)
		}
		return t.replay.mendAt(ctx, t.applied)
	}
}

func (t *Target) mergeIn(ctx context.Context, s stretch, passes int) error {
	if err := t.replay.land(); err != nil {
		return err
	}
	conn, err := t.worker(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	// A server sets little aside for sorting and hashing; this is one statement at a time.
	if err := run(ctx, conn, "SET work_mem = '64MB'; SET jit = off; BEGIN"); err != nil {
		return err
	}
	tables, err := readMergeable(ctx, conn)
	if err != nil {
		return err
	}
	m := &merger{ctx: ctx, conn: conn, tables: tables}
	p := t.job.Plan
	f := fold.New(t.job.Archive, fold.Span{Epoch: p.Epoch, From: s.from, To: s.to, Only: true, Skip: p.Base.Skip()}, m.folded(), fold.Options{
		Jobs: t.job.Workers, Memory: t.memory(), Passes: passes, SpillDir: t.opts.TempDir, Progress: func(done int64) {
			t.job.Progress(restore.PhaseReplay, int64(s.from-p.Base.Seq)+done, int64(p.Seq-p.Base.Seq), "transactions")
		},
	})
	for pass := range passes {
		if err := f.History(ctx, pass, m); err != nil {
			return err
		}
		if err := m.learn(f); err != nil {
			return err
		}
	}
	if err := m.carryOut(f.Others()); err != nil {
		return err
	}
	return t.noteMerged(ctx, m, s, f.Others())
}

// noteMerged commits a merge with the progress that it makes. Where other tables have changes in the stretch, the target stands where it stood,
// but for what is noted.
func (t *Target) noteMerged(ctx context.Context, m *merger, s stretch, others bool) error {
	r := t.replay
	counts := maps.Clone(r.counts)
	ahead := &merged{upto: s.to, tables: make(map[uint32]bool)}
	for i := range m.tables {
		tab := &m.tables[i]
		if !tab.touched {
			continue
		}
		ahead.tables[tab.source] = true
		if tab.truncated {
			counts[tab.name()] = 0
		}
		counts[tab.name()] += tab.delta
	}
	rows, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	at := s.to
	if others {
		at = r.noted
	}
	_, err = m.conn.Exec(ctx, "INSERT INTO txreel_restore.merged VALUES ($1, $2, $3)", s.from.String(), s.to.String(), ahead.numbers())
	if err == nil {
		var tag pgconn.CommandTag
		tag, err = m.conn.Exec(ctx, "UPDATE txreel_restore.progress SET seq = $1, rows = $2 WHERE seq = $3", at.String(), string(rows), r.noted.String())
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("it does not stand at transaction %s any more", r.noted)
		}
	}
	if err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	failpoint.Hit(failpoint.RestoreMerging)
	if err := run(ctx, m.conn, "COMMIT"); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RestoreMerged)
	r.counts, r.seq, r.whole, r.noted, t.applied = counts, at, at, at, at
	if others {
		r.ahead = ahead
	}
	return nil
}

// merged says which tables hold the record further than the target as a whole does.
type merged struct {
	upto   change.Seq
	tables map[uint32]bool // by their numbers in the source
}

func (m *merged) numbers() []int64 {
	var all []int64
	for n := range m.tables {
		all = append(all, int64(n))
	}
	slices.Sort(all)
	return all
}

// has reports whether what a transaction changes of a table is in the target already.
func (m *merged) has(seq change.Seq, rel *change.Relation) bool {
	return m != nil && seq <= m.upto && m.tables[rel.ID]
}

// readMerged returns what has been merged: how many transactions, and what of it lies ahead of where the target stands; nil if nothing does.
func (t *Target) readMerged(ctx context.Context) (ahead *merged, transactions int64, err error) {
	rows, err := t.control.Query(ctx, "SELECT since, upto, relations FROM txreel_restore.merged")
	var since, upto string
	var numbers []int64
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&since, &upto, &numbers}, func() error {
			from, err := change.ParseSeq(since)
			to, err2 := change.ParseSeq(upto)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			transactions += int64(to - from)
			if to > t.applied {
				ahead = &merged{upto: to, tables: make(map[uint32]bool)}
				for _, n := range numbers {
					ahead.tables[uint32(n)] = true
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the restore's progress: %w", err)
	}
	return ahead, transactions, nil
}
