package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"txreel/capture"
	"txreel/sources/postgres/lsn"
)

// ReadHealth asks the server how much log the slot holds back, and how much it
// may. It fails when the slot does not exist.
func ReadHealth(ctx context.Context, conn *pgx.Conn, slot string) (*Health, error) {
	h := &Health{At: time.Now()}
	err := conn.QueryRow(ctx, `
		select coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint,
		       coalesce(s.wal_status, ''),
		       (select case when setting = '-1' then -1 else setting::bigint * 1048576 end
		          from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size')
		  from pg_catalog.pg_replication_slots s where s.slot_name = $1`, slot).
		Scan(&h.RetainedBytes, &h.WALStatus, &h.LimitBytes)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("slot %q does not exist in the source", slot)
	}
	if err != nil {
		return nil, wrapSQL("look at slot "+slot, err)
	}
	return h, nil
}

// DefaultBudget is the budget for retained log that is reported on where neither the operator nor the server
// (max_slot_wal_keep_size) sets a limit: what doctor advises for the server's own.
const DefaultBudget = 10 << 30

// ErrOverBudget is wrapped when the source keeps more log for the slot than SourceOptions allow.
var ErrOverBudget = errors.New("the source keeps more log for the slot than its budget")

// Budget returns how much log the source may keep for the slot: what the operator set or, with zero, the server's own
// limit. It is negative where there is neither.
func (h *Health) Budget(set int64) int64 {
	if set > 0 {
		return set
	}
	return h.LimitBytes
}

// within returns an error wrapping ErrOverBudget when the slot is to be dropped rather than to keep that much log.
func (h *Health) within(o *SourceOptions) error {
	budget := h.Budget(o.Budget)
	switch {
	case !o.DropAtBudget:
		return nil
	case budget < 0:
		return errors.New("the source may keep any amount of log for the slot (max_slot_wal_keep_size = -1), so there is no budget at which to drop it: set one with --wal-budget")
	case h.RetainedBytes < budget:
		return nil
	}
	return fmt.Errorf("%w: it keeps %d bytes, the budget is %d", ErrOverBudget, h.RetainedBytes, budget)
}

// DropOverBudget drops the slot if the source keeps more log for it than o allows, and returns what it found; nil when
// there is no slot. A walsender that is just being left is waited for.
func DropOverBudget(ctx context.Context, conn *pgx.Conn, o SourceOptions) (h *Health, dropped bool, err error) {
	o.defaults()
	deadline := time.Now().Add(o.BusyWait)
	for {
		slot, err := ReadSlot(ctx, conn, o.Slot)
		if err != nil || !slot.Exists {
			return nil, false, err
		}
		if h, err = ReadHealth(ctx, conn, o.Slot); err != nil {
			return nil, false, err
		}
		if !errors.Is(h.within(&o), ErrOverBudget) {
			return h, false, nil
		}
		err = DropSlot(ctx, conn, o.Slot)
		if !errors.Is(err, capture.ErrOtherCapture) || time.Now().After(deadline) {
			return h, err == nil, err
		}
		select {
		case <-ctx.Done():
			return h, false, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// readFence reads the source's clock and then the end of its log: what commits by
// that time stands before that position.
func readFence(ctx context.Context, conn *pgx.Conn) (*fence, error) {
	f := &fence{}
	var err error
	if f.time, err = Clock(ctx, conn); err != nil {
		return nil, err
	}
	var text string
	var page lsn.LSN
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.current_setting('wal_block_size')::bigint`).Scan(&text, &page); err != nil {
		return nil, wrapSQL("look at the server's log", err)
	}
	f.at, err = lsn.Parse(text)
	// At the start of a page the next record comes behind the page's header, but the
	// last one ended before it.
	const longHeader = 40
	if f.at%page <= longHeader {
		f.at -= f.at % page
	}
	return f, err
}
