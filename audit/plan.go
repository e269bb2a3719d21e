package audit

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"txreel/archive"
	"txreel/change"
)

// header is the first line of an export: whose history it is, and which part.
type header struct {
	Record        string             `json:"record"`
	Format        int                `json:"format"`
	Archive       string             `json:"archive"`
	Engine        string             `json:"engine"`
	System        string             `json:"system"`
	Database      string             `json:"database"`
	Epoch         uint64             `json:"epoch"`
	EpochCause    string             `json:"epoch_cause"`
	EpochStarted  string             `json:"epoch_started"`
	From          change.Seq         `json:"from"`
	To            change.Seq         `json:"to"`
	Since         string             `json:"since,omitempty"`
	Until         string             `json:"until,omitempty"`
	Tables        []string           `json:"tables,omitempty"`
	Ops           []string           `json:"ops,omitempty"`
	RecordedUntil string             `json:"recorded_until,omitempty"` // latest commit time in the epoch
	GapBefore     *Gap               `json:"gap_before"`
	GapAfter      *Gap               `json:"gap_after"`
	PrunedBefore  *Pruned            `json:"pruned_before,omitempty"`
	Coverage      []archive.Coverage `json:"coverage"` // Invariant 9: of the base the range builds on
}

// Gap says that transactions may be missing before or behind an export's range.
type Gap struct {
	Epoch    uint64          `json:"epoch"` // the epoch that ends in it
	Seq      change.Seq      `json:"seq"`   // the last transaction held before it
	Position change.Position `json:"position"`
	Detected string          `json:"detected,omitempty"`
	Detail   string          `json:"detail"`
}

// Pruned says that an export begins where the epoch does since what came before was pruned. The epoch's next segment names the
// hash.
type Pruned struct {
	Seq      change.Seq      `json:"seq"` // the last transaction that was removed
	Position change.Position `json:"position"`
	Hash     archive.HexHash `json:"hash"` // of its segment
	On       string          `json:"on"`
	By       string          `json:"by"`
}

// Summary says what an export holds. It is the export's last line.
type Summary struct {
	Record   string     `json:"record"`
	Complete bool       `json:"complete"`
	Archive  string     `json:"archive"`
	Epoch    uint64     `json:"epoch"`
	From     change.Seq `json:"from"`
	To       change.Seq `json:"to"`
	// FirstSeq and LastSeq are those read; nil when the range is empty.
	FirstSeq       *change.Seq     `json:"first_seq"`
	LastSeq        *change.Seq     `json:"last_seq"`
	LastPosition   change.Position `json:"last_position,omitempty"`
	LastCommitTime string          `json:"last_commit_time,omitempty"`
	Transactions   uint64          `json:"transactions"` // all of the range, whatever the filters
	Heartbeats     uint64          `json:"heartbeats"`
	Changes        uint64          `json:"changes"` // written
	Skipped        uint64          `json:"skipped"` // left out by the filters
	// SkippedStatements are those of Skipped that were statements, which filters on
	// tables leave out because nobody knows which tables they changed.
	SkippedStatements uint64 `json:"skipped_statements,omitempty"`
	Undecoded         uint64 `json:"undecoded"` // lines with what could not be decoded
	// LastSegment and LastHash name the segment that holds LastSeq. Each segment
	// repeats the hash of the one before, so the hash stands for all of the epoch up to there.
	LastSegment string           `json:"last_segment,omitempty"`
	LastHash    *archive.HexHash `json:"last_segment_hash,omitempty"`
	GapBefore   *Gap             `json:"gap_before"`
	GapAfter    *Gap             `json:"gap_after"`
	// PrunedBefore is what was removed right in front of the range; nil where nothing was.
	PrunedBefore *Pruned `json:"pruned_before,omitempty"`
}

// plan decides which transactions are exported, and refuses what cannot be complete.
func plan(ctx context.Context, a *archive.Archive, opts ExportOptions) (*header, error) {
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	i, err := chooseEpoch(epochs, opts.Epoch)
	if err != nil {
		return nil, err
	}
	epoch := &epochs[i]
	tail, err := a.Tail(ctx, epoch.Number)
	if err != nil {
		return nil, err
	}
	h := &header{
		Record: "header", Format: 1,
		Archive: a.Identity.Archive, Engine: a.Identity.Engine, System: a.Identity.System, Database: a.Identity.Database,
		Epoch: epoch.Number, EpochCause: epoch.Cause, EpochStarted: epoch.Started,
		From: max(opts.From, 1), To: tail.Seq, Tables: opts.Tables,
	}
	for _, op := range opts.Ops {
		h.Ops = append(h.Ops, op.String())
	}
	if tail.Seq > 0 {
		h.RecordedUntil = tail.Latest.String()
	}
	switch {
	case opts.To > tail.Seq || opts.From > tail.Seq+1:
		return nil, fmt.Errorf("transaction %s of epoch %d: the archive ends with %s: %w", max(opts.To, opts.From), epoch.Number, tail.Seq, fs.ErrNotExist)
	case opts.To > 0 && opts.From > opts.To || opts.Until != 0 && opts.Since > opts.Until:
		return nil, fmt.Errorf("the export's range ends before it begins")
	case opts.To > 0:
		h.To = opts.To
	}
	if err := h.pruned(ctx, a, opts); err != nil {
		return nil, err
	}
	if err := h.narrow(ctx, a, opts, tail); err != nil {
		return nil, err
	}
	if err := h.gaps(ctx, a, opts, epochs, i, tail); err != nil {
		return nil, err
	}
	h.Coverage, err = coverage(ctx, a, epoch.Number, h.From)
	return h, err
}

func chooseEpoch(epochs []archive.Epoch, number uint64) (int, error) {
	switch {
	case len(epochs) == 0:
		return 0, fmt.Errorf("the archive has no epoch yet: %w", fs.ErrNotExist)
	case number == 0 && len(epochs) > 1:
		return 0, fmt.Errorf("%w: the archive has epochs %d to %d, and transactions may be missing between them; export each epoch by itself",
			ErrGap, epochs[0].Number, epochs[len(epochs)-1].Number)
	case number == 0:
		return 0, nil
	}
	i := slices.IndexFunc(epochs, func(e archive.Epoch) bool { return e.Number == number })
	if i < 0 {
		return 0, fmt.Errorf("epoch %d: %w", number, fs.ErrNotExist)
	}
	return i, nil
}

// pruned lets the range begin behind what was pruned, and refuses one that names what is not there.
func (h *header) pruned(ctx context.Context, a *archive.Archive, opts ExportOptions) error {
	p, err := a.Pruned(ctx, h.Epoch)
	if err != nil || p == nil {
		return err
	}
	for _, seq := range []change.Seq{opts.From, opts.To} {
		if seq > 0 && seq <= p.Tail.Seq {
			return &archive.PrunedError{Pruned: *p, Asked: fmt.Sprintf("transaction %s of epoch %d", seq, h.Epoch)}
		}
	}
	if p.Tail.Seq >= h.To && opts.To == 0 {
		return &archive.PrunedError{Pruned: *p, Asked: fmt.Sprintf("epoch %d", h.Epoch)}
	}
	h.From = max(h.From, p.From())
	h.PrunedBefore = &Pruned{Seq: p.Tail.Seq, Position: p.Tail.Position, Hash: p.Tail.Hash, On: p.On, By: p.By}
	return nil
}

// narrow applies Since and Until.
func (h *header) narrow(ctx context.Context, a *archive.Archive, opts ExportOptions, tail archive.Tail) error {
	if opts.Since != 0 {
		h.Since = opts.Since.String()
		e, ok, err := a.FirstAfter(ctx, h.Epoch, opts.Since-1)
		if err != nil {
			return err
		}
		if !ok {
			e.Seq = tail.Seq + 1
		}
		h.From = max(h.From, e.Seq)
	}
	if opts.Until != 0 {
		h.Until = opts.Until.String()
		e, ok, err := a.FirstAfter(ctx, h.Epoch, opts.Until)
		if err != nil {
			return err
		}
		if ok {
			h.To = min(h.To, e.Seq-1)
		}
	}
	return nil
}

// gaps states the gaps that border on the range, and refuses a range that reaches
// over one (Invariant 6).
func (h *header) gaps(ctx context.Context, a *archive.Archive, opts ExportOptions, epochs []archive.Epoch, i int, tail archive.Tail) error {
	var before, after *Gap
	epoch := &epochs[i]
	if p := epoch.Previous; p != nil {
		before = &Gap{Epoch: p.Epoch, Seq: p.Seq, Position: p.Position, Detail: epoch.Cause + ": " + epoch.Detail}
	}
	g, err := a.Gap(ctx, epoch.Number)
	switch {
	case err != nil:
		return err
	case g != nil:
		after = &Gap{Epoch: epoch.Number, Seq: g.Tail.Seq, Position: g.Tail.Position, Detected: g.Detected, Detail: g.Detail}
	case i+1 < len(epochs):
		next := &epochs[i+1]
		after = &Gap{Epoch: epoch.Number, Seq: tail.Seq, Position: tail.Position, Detected: next.Started, Detail: next.Cause + ": " + next.Detail}
	}
	if !opts.AllowGap {
		if began, err := time.Parse(time.RFC3339, epoch.Started); before != nil && opts.Since != 0 && opts.From == 0 && (err != nil || opts.Since < change.Time(began.UnixMicro())) {
			return fmt.Errorf("%w: epoch %d began at %s after a gap (%s); export from a later moment, or only what the epoch holds", ErrGap, epoch.Number, epoch.Started, before.Detail)
		}
		if after != nil && opts.Until > tail.Latest && opts.To == 0 {
			return fmt.Errorf("%w: epoch %d ends at %s in a gap (%s); export up to an earlier moment, or only what the epoch holds", ErrGap, epoch.Number, tail.Latest, after.Detail)
		}
	}
	if h.From == 1 {
		h.GapBefore = before
	}
	if p := h.PrunedBefore; p != nil && h.From != p.Seq+1 {
		h.PrunedBefore = nil // what the range begins behind is there
	}
	if h.To == tail.Seq {
		h.GapAfter = after
	}
	return nil
}

// coverage returns the coverage statement of the newest base that the transaction
// from builds on, or of the oldest one behind it.
func coverage(ctx context.Context, a *archive.Archive, epoch uint64, from change.Seq) ([]archive.Coverage, error) {
	bases, err := a.Bases(ctx, epoch)
	if err != nil {
		return nil, err
	}
	var best *archive.Base
	for i := range bases {
		b := &bases[i]
		if best == nil || b.Seq < from && (best.Seq >= from || b.Seq >= best.Seq) || b.Seq >= from && best.Seq >= from && b.Seq < best.Seq {
			best = b
		}
	}
	if best == nil {
		return []archive.Coverage{}, nil
	}
	return best.Coverage, nil
}
