package mysql

import (
	"context"
	"fmt"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
)

// survey walks the indexes from the base to the cut. It computes what the target will have
// executed, checks on the way that the record's own account of that agrees, and returns
// the last transaction up to which the target has executed all.
func (t *Target) survey(ctx context.Context, executed *gtid.Set) (change.Seq, error) {
	p := t.job.Plan
	t.goal, t.replay = t.base.Clone(), 0
	t.past = newPast(t.version.mariadb(), t.engine.LowerCaseTableNames != 0, t.soundTables())
	held, all := p.Base.Seq, true
	if p.Seq == p.Base.Seq {
		return held, t.checkExecuted(executed)
	}
	for x, err := range t.job.Archive.Segments(ctx, p.Epoch, p.Base.Seq+1) {
		if err != nil {
			return 0, err
		}
		if x.First() > p.Seq {
			break
		}
		for i := range x.Txns {
			e := &x.Txns[i].Txn
			if e.Seq <= p.Base.Seq || e.Seq > p.Seq {
				continue
			}
			t.past.add(e)
			if e.Kind == change.TxnSource {
				g, err := gtid.ParseGTID(e.XID)
				if err != nil {
					return 0, fmt.Errorf("%w: %s: transaction %s: %w", archive.ErrCorrupt, x.Key, e.Seq, err)
				}
				if !t.goal.Add(g) {
					return 0, fmt.Errorf("%w: %s: transaction %s (%s) is recorded twice, or the base held it already", archive.ErrCorrupt, x.Key, e.Seq, g)
				}
				t.replay++
				all = all && executed.Has(g)
			}
			if all {
				held = e.Seq
			}
		}
		if x.Last() > p.Seq {
			continue
		}
		end, err := gtid.Parse(t.version.flavor, string(x.End))
		if err != nil {
			return 0, fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, x.Key, err)
		}
		if !end.Equal(t.goal) {
			return 0, fmt.Errorf("%w: %s: behind it the source stood at %s, base and transactions make %s", archive.ErrCorrupt, x.Key, end, t.goal)
		}
	}
	return held, t.checkExecuted(executed)
}

// checkExecuted refuses a target that has executed what is no part of the goal.
func (t *Target) checkExecuted(executed *gtid.Set) error {
	if !executed.Contains(t.base) {
		return fmt.Errorf("the target has lost transactions of the base (%s): restore into a fresh server", executed.Missing(t.base))
	}
	if !t.goal.Contains(executed) {
		return fmt.Errorf("%w: the target has executed what is no part of this restore (%s): something else writes to it, or replicates into it",
			restore.ErrNotEmpty, t.goal.Missing(executed))
	}
	return nil
}

// find returns the Seq of a transaction behind after, or where the zero GTID is asked for, of the first one
// that is not executed; zero when it is not there.
func (t *Target) find(ctx context.Context, after change.Seq, want gtid.GTID, executed *gtid.Set) change.Seq {
	p := t.job.Plan
	for x, err := range t.job.Archive.Segments(ctx, p.Epoch, after+1) {
		if err != nil || x.First() > p.Seq {
			return 0 // it serves an error's text only
		}
		for i := range x.Txns {
			e := &x.Txns[i].Txn
			if e.Kind != change.TxnSource || e.Seq <= after {
				continue
			}
			g, err := gtid.ParseGTID(e.XID)
			if err == nil && (g == want || want.IsZero() && !executed.Has(g)) {
				return e.Seq
			}
		}
	}
	return 0
}
