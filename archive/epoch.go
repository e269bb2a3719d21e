package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/segment"
)

// Causes of an epoch.
const (
	CauseFirst = "first" // the archive's first
	CauseGap   = "gap"   // the record before it ends in a gap
	// CauseDiverged is a gap with a cause of its own: the source was reset or restored, or
	// another server took its place, and its history is not the one on record.
	CauseDiverged = "diverged"
	// CauseBudget is a gap by choice (see Choice): the source kept more log than it may.
	CauseBudget = "budget"
)

// isGap reports whether an epoch of the cause follows a gap.
func isGap(cause string) bool {
	return cause == CauseGap || cause == CauseDiverged || cause == CauseBudget
}

// Epoch is an unbroken run of segments: the content of epoch.json.
type Epoch struct {
	Number   uint64            `json:"epoch"`
	Cause    string            `json:"cause"`
	Detail   string            `json:"detail,omitempty"` // the cause in a sentence
	Started  string            `json:"started"`          // RFC 3339
	Previous *Tail             `json:"previous,omitempty"`
	Source   map[string]string `json:"source,omitempty"` // the source's incarnation, in its own terms
}

// Gap says where and why the record of an epoch ends: the content of gap.json. A
// break is itself recorded (Invariant 6).
type Gap struct {
	Detected string `json:"detected"`        // RFC 3339
	Cause    string `json:"cause,omitempty"` // CauseGap when it is absent
	Detail   string `json:"detail"`
	Tail     Tail   `json:"tail"`
}

// Tail is the last thing an epoch holds durably. Its Seq is zero while the epoch
// has no segment.
type Tail struct {
	Epoch    uint64          `json:"epoch"`
	Segment  change.Seq      `json:"segment"` // first Seq of the last segment
	Seq      change.Seq      `json:"seq"`
	Position change.Position `json:"position"`
	Latest   change.Time     `json:"latest"` // latest commit time so far, µs
	Hash     HexHash         `json:"hash"`
}

// HexHash is a segment's hash, hexadecimal in JSON.
type HexHash segment.Hash

// MarshalText encodes the hash as hexadecimal digits.
func (h HexHash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *HexHash) UnmarshalText(b []byte) error {
	if len(b) != 2*len(h) {
		return fmt.Errorf("hash of %d digits, want %d", len(b), 2*len(h))
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Epochs lists the epochs in order.
func (a *Archive) Epochs(ctx context.Context) ([]Epoch, error) {
	var all []Epoch
	after := ""
	for {
		// One key per epoch is enough to find them; the segments are never listed.
		objects, err := a.Store.List(ctx, "epochs/", after, 1)
		if err != nil {
			return nil, fmt.Errorf("list epochs: %w", err)
		}
		if len(objects) == 0 {
			return all, nil
		}
		number, _, ok := strings.Cut(strings.TrimPrefix(objects[0].Key, "epochs/"), "/")
		n, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || epochKey(n) != "epochs/"+number {
			return nil, fmt.Errorf("%w: %s is no key of an epoch", ErrCorrupt, objects[0].Key)
		}
		var e Epoch
		if err := readJSON(ctx, a.Store, epochJSON(n), &e); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return nil, err
		}
		if e.Number != n {
			return nil, fmt.Errorf("%w: %s/epoch.json speaks of epoch %d", ErrCorrupt, epochKey(n), e.Number)
		}
		all = append(all, e)
		after = epochKey(n) + "0" // '0' follows '/': sorts after every key of the epoch
	}
}

// StartEpoch creates the epoch that follows the ones given, as Epochs returned
// them. With the cause of a gap that is put on record in the epoch before it,
// unless it is already. It returns an error wrapping fs.ErrExist when another writer was faster.
func (a *Archive) StartEpoch(ctx context.Context, have []Epoch, cause, detail string, source map[string]string) (Epoch, error) {
	if n := len(have); n > 0 && isGap(cause) {
		if err := a.RecordGap(ctx, have[n-1].Number, cause, detail); err != nil { // Invariant 6
			return Epoch{}, err
		}
	}
	e := Epoch{Number: 1, Cause: cause, Detail: detail, Started: time.Now().UTC().Format(time.RFC3339), Source: source}
	if n := len(have); n > 0 {
		e.Number = have[n-1].Number + 1
		tail, err := a.Tail(ctx, have[n-1].Number)
		if err != nil {
			return Epoch{}, err
		}
		e.Previous = &tail
	}
	failpoint.Hit(failpoint.EpochCreating)
	err := createJSON(ctx, a.Store, epochJSON(e.Number), e)
	failpoint.Hit(failpoint.EpochCreated)
	return e, err
}

// RecordGap writes down that the epoch ends in a gap of the given cause. A gap that is on record
// already stays as it is.
func (a *Archive) RecordGap(ctx context.Context, epoch uint64, cause, detail string) error {
	tail, err := a.Tail(ctx, epoch)
	if err != nil {
		return err
	}
	g := Gap{Detected: time.Now().UTC().Format(time.RFC3339), Cause: cause, Detail: detail, Tail: tail}
	failpoint.Hit(failpoint.GapCreating)
	if err := createJSON(ctx, a.Store, gapJSON(epoch), g); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	failpoint.Hit(failpoint.GapCreated)
	return nil
}

// Gap returns the gap the epoch ends in, or nil.
func (a *Archive) Gap(ctx context.Context, epoch uint64) (*Gap, error) {
	var g Gap
	err := readJSON(ctx, a.Store, gapJSON(epoch), &g)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if g.Cause == "" {
		g.Cause = CauseGap
	}
	return &g, nil
}

func epochKey(n uint64) string { return fmt.Sprintf("epochs/%08d", n) }

func epochJSON(n uint64) string { return epochKey(n) + "/epoch.json" }

func gapJSON(n uint64) string { return epochKey(n) + "/gap.json" }

func segmentsKey(epoch uint64) string { return epochKey(epoch) + "/segments/" }

// SegmentKey returns the key of the segment that begins with seq.
func SegmentKey(epoch uint64, seq change.Seq) string {
	return segmentsKey(epoch) + seq.String() + ".seg"
}

// parseSegmentKey returns the Seq in a key below segmentsKey.
func parseSegmentKey(epoch uint64, key string) (change.Seq, error) {
	name, ok := strings.CutPrefix(key, segmentsKey(epoch))
	digits, seg := strings.CutSuffix(name, ".seg")
	seq, err := change.ParseSeq(digits)
	if !ok || !seg || err != nil || seq == 0 || len(digits) != 16 || digits != strings.ToLower(digits) {
		return 0, fmt.Errorf("%w: %s is no key of a segment", ErrCorrupt, key)
	}
	return seq, nil
}
