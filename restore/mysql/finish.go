package mysql

import (
	"context"
	"fmt"

	"txreel/internal/failpoint"
	"txreel/restore"
)

// Finish implements restore.Target.
func (t *Target) Finish(ctx context.Context) error { return t.explainAccount(t.finish(ctx)) }

func (t *Target) finish(ctx context.Context) error {
	if t.phase != phaseFinish {
		if err := t.enter(ctx, phaseFinish); err != nil {
			return err
		}
	}
	if err := t.dropReplica(ctx); err != nil {
		return err
	}
	failpoint.Hit(failpoint.RestoreReplicaDropped)
	if err := t.findPrepared(ctx); err != nil {
		return err
	}
	if !t.scratch { // where events must not run
		if err := t.settleEvents(ctx); err != nil {
			return err
		}
	}
	if err := t.warnNumbers(ctx); err != nil {
		return err
	}
	t.checkAccount(ctx)
	return t.putBack(ctx)
}

// findPrepared warns of XA transactions that were prepared before the cut and decided
// behind it.
func (t *Target) findPrepared(ctx context.Context) error {
	all, err := t.prepared(ctx)
	for _, id := range all {
		t.warn("an XA transaction is prepared and was not decided at this point: it holds its locks until XA COMMIT %s or XA ROLLBACK %s", id, id)
	}
	return err
}

// prepared returns the XA transactions that are prepared, as XA COMMIT and XA ROLLBACK take them.
func (t *Target) prepared(ctx context.Context) ([]string, error) {
	rows, err := t.control.query(ctx, "XA RECOVER")
	if err != nil {
		return nil, fmt.Errorf("look for prepared XA transactions: %w", err)
	}
	var all []string
	for _, r := range rows {
		var global, branch int
		data := r.text(3)
		if _, err := fmt.Sscan(r.text(1), &global); err != nil {
			return nil, fmt.Errorf("look for prepared XA transactions: %w", err)
		}
		if _, err := fmt.Sscan(r.text(2), &branch); err != nil || global+branch > len(data) {
			return nil, fmt.Errorf("look for prepared XA transactions: %q of %d and %d bytes", data, global, branch)
		}
		all = append(all, fmt.Sprintf("X'%x', X'%x', %s", data[:global], data[global:global+branch], r.text(0)))
	}
	return all, nil
}

// Verify implements restore.Target.
func (t *Target) Verify(ctx context.Context) (*restore.Verification, error) {
	v, err := t.verify(ctx)
	return v, t.explainAccount(err)
}

func (t *Target) verify(ctx context.Context) (*restore.Verification, error) {
	executed, err := t.executed(ctx)
	if err != nil {
		return nil, err
	}
	if !executed.Equal(t.goal) {
		return nil, fmt.Errorf("the target has executed %s, base and transactions make %s", clip(executed.String()), clip(t.goal.String()))
	}
	if all, err := t.replicaStatuses(ctx); err != nil {
		return nil, err
	} else if len(all) > 0 {
		return nil, fmt.Errorf("somebody has made the target a replica of %s:%s while the restore ran", all[0].host, all[0].port)
	}
	tables, err := t.compareTables(ctx)
	if err != nil {
		return nil, err
	}
	return &restore.Verification{Tables: tables, Warnings: t.warnings, Overwritten: t.leftOut.Load()}, nil
}
