package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/capture"
	"txreel/sources/postgres"
)

// budgetFlags bound what a PostgreSQL source keeps for a capture.
type budgetFlags struct {
	WALBudget   byteSize `name:"wal-budget" default:"0" help:"PostgreSQL: log the source may keep for the slot; capture warns at a quarter, half and three quarters of it (default: as recorded, else max_slot_wal_keep_size, else 10GiB)."`
	AtWALBudget string   `name:"at-wal-budget" enum:",keep,drop" default:"" help:"PostgreSQL: at the budget, keep the slot, so that nothing is lost; or drop it, record the gap and begin anew with a base, so that the source's disk is never at risk (default: as recorded, else keep)."`
}

// errBudget is a gap by choice.
var errBudget = fmt.Errorf("%w by choice", capture.ErrGap)

// walBudget keeps the log that a source keeps for its slot within a budget. It belongs to a capture.
type walBudget struct {
	budgetFlags
	log     zerolog.Logger
	choice  *archive.Choice // nil before the archive was read
	level   int64           // quarters of the budget that were reported
	dropped string          // says of a slot that was dropped what is not on record yet
}

// choose returns what the operator decided, the record and the flags taken together, and puts it on record.
func (b *walBudget) choose(ctx context.Context, a *archive.Archive, epoch uint64) (*archive.Choice, error) {
	last, err := a.LastChoice(ctx, epoch)
	if err != nil {
		return nil, err
	}
	c := archive.Choice{AtBudget: archive.AtBudgetKeep}
	if last != nil {
		c.AtBudget, c.Budget = last.AtBudget, last.Budget
	}
	if b.WALBudget > 0 {
		c.Budget = int64(b.WALBudget)
	}
	if b.AtWALBudget != "" {
		c.AtBudget = b.AtWALBudget
	}
	b.choice = &c
	return &c, a.RecordChoice(ctx, epoch, last, c.AtBudget, c.Budget)
}

// budgetOf returns the budget that is reported on.
func budgetOf(c *archive.Choice, h *postgres.Health) int64 {
	var set int64
	if c != nil {
		set = c.Budget
	}
	if n := h.Budget(set); n >= 0 {
		return n
	}
	return postgres.DefaultBudget
}

// looked warns when another quarter of the budget is used up.
func (b *walBudget) looked(h *postgres.Health) {
	budget := budgetOf(b.choice, h)
	if budget <= 0 {
		return
	}
	level := min(h.RetainedBytes/max(budget/4, 1), 4)
	event, was := b.log.Info(), b.level
	b.level = level
	switch {
	case level == was:
		return
	case level > was:
		event = b.log.Warn()
	}
	at := "nothing: it keeps the slot, and with it the log (--at-wal-budget keep)"
	if b.choice != nil && b.choice.AtBudget == archive.AtBudgetDrop {
		at = "the slot is dropped, and a new epoch begins (--at-wal-budget drop)"
	}
	event.Int64("retained_bytes", h.RetainedBytes).Int64("budget_bytes", budget).Int64("percent", h.RetainedBytes*100/budget).Str("wal_status", h.WALStatus).
		Str("at_the_budget", at).Msg("log that the source keeps for the slot")
}

// guard drops the slot where the source keeps too much log for it. It needs no archive: the store may be what is
// down. The slot goes first, and the gap is put on record when the archive can be had: a slot that is missing is a
// gap to every start, should this process not live to say why (Invariant 6).
func (d *postgresDatabase) guard(ctx context.Context) error {
	b := d.budget
	if b == nil || b.choice == nil || b.choice.AtBudget != archive.AtBudgetDrop {
		return nil
	}
	return d.connected(ctx, func(conn *pgx.Conn) error {
		h, dropped, err := postgres.DropOverBudget(ctx, conn, postgres.SourceOptions{Slot: d.Slot, DropAtBudget: true, Budget: b.choice.Budget})
		if h != nil {
			b.looked(h)
		}
		if dropped {
			b.dropped = fmt.Sprintf("the source kept %s of log for slot %q, the budget is %s: the slot was dropped, as --at-wal-budget drop demands",
				humanize.IBytes(uint64(h.RetainedBytes)), d.Slot, humanize.IBytes(uint64(budgetOf(b.choice, h))))
			b.log.Error().Msg(b.dropped)
		}
		return err
	})
}

// overrun returns the gap that a slot left which was dropped for its budget, and otherwise nil.
func (b *walBudget) overrun() error {
	if b == nil || b.dropped == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", errBudget, b.dropped)
}

// consented reports whether the gap was the operator's choice, which includes to go on behind it.
func consented(cause string) bool { return cause == archive.CauseBudget }

// isBudget reports whether err is such a gap.
func isBudget(err error) bool { return errors.Is(err, errBudget) }
