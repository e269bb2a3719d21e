package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
)

// Hold keeps Prune from what is needed to restore, or to prove, what was committed from one moment to another: the content
// of an object below holds/. The last one of a name says whether it holds. None is ever removed, so who placed and who
// lifted it stays on record.
type Hold struct {
	Name   string      `json:"name"`
	Number uint64      `json:"number"`
	From   change.Time `json:"from,omitempty"` // µs; zero is the record's beginning
	To     change.Time `json:"to,omitempty"`   // µs; zero is its end
	Lifted bool        `json:"lifted,omitempty"`
	Reason string      `json:"reason"`
	On     string      `json:"on"` // RFC 3339
	By     string      `json:"by"`
}

// ErrHoldExists is returned by PlaceHold when a hold of the name holds already.
var ErrHoldExists = errors.New("there is a hold of this name")

const holdsKey = "holds/"

func holdKey(name string, number uint64) string {
	return fmt.Sprintf("%s%s/%08d.json", holdsKey, name, number)
}

// CheckHoldName says why a name cannot name a hold, or returns nil.
func CheckHoldName(name string) error {
	if CheckMarkName(name) != nil {
		return fmt.Errorf("hold name %q: use up to 200 of the characters A-Z a-z 0-9 . _ -", name)
	}
	return nil
}

// Holds returns the last word on every hold there ever was, in order of their names.
func (a *Archive) Holds(ctx context.Context) ([]Hold, error) {
	var all []Hold
	err := a.lastNumbers(ctx, holdsKey, func(name string, number uint64) error {
		h := Hold{}
		key := holdKey(name, number)
		if err := readJSON(ctx, a.Store, key, &h); err != nil {
			return notFoundIsCorrupt(err)
		}
		if h.Name != name || h.Number != number || h.To != 0 && h.To < h.From {
			return fmt.Errorf("%w: %s speaks of number %d of hold %q, from %s to %s", ErrCorrupt, key, h.Number, h.Name, h.From, h.To)
		}
		all = append(all, h)
		return nil
	})
	slices.SortFunc(all, func(x, y Hold) int { return cmp.Compare(x.Name, y.Name) })
	return all, err
}

// PlaceHold puts a hold on record, with number and time. From when it returns no Prune begins to remove what it needs.
func (a *Archive) PlaceHold(ctx context.Context, h Hold) (Hold, error) {
	last, err := a.hold(ctx, h.Name)
	switch {
	case err != nil:
		return h, err
	case last != nil && !last.Lifted:
		return *last, fmt.Errorf("%w: %q was placed on %s by %s (%s)", ErrHoldExists, h.Name, last.On, last.By, last.Reason)
	case h.To != 0 && h.To < h.From:
		return h, fmt.Errorf("hold %q ends at %s, before it begins at %s", h.Name, h.To, h.From)
	}
	h.Lifted = false
	return a.recordHold(ctx, last, h)
}

// LiftHold puts on record that a hold holds no more. It returns an error wrapping fs.ErrNotExist when none does.
func (a *Archive) LiftHold(ctx context.Context, name, reason, by string) (Hold, error) {
	last, err := a.hold(ctx, name)
	if err != nil {
		return Hold{}, err
	}
	if last == nil || last.Lifted {
		return Hold{}, fmt.Errorf("hold %q: %w", name, fs.ErrNotExist)
	}
	h := *last
	h.Lifted, h.Reason, h.By = true, reason, by
	return a.recordHold(ctx, last, h)
}

func (a *Archive) recordHold(ctx context.Context, last *Hold, h Hold) (Hold, error) {
	h.Number, h.On = 1, time.Now().UTC().Format(time.RFC3339)
	if last != nil {
		h.Number = last.Number + 1
	}
	failpoint.Hit(failpoint.HoldCreating)
	return h, createOwn(ctx, a.Store, holdKey(h.Name, h.Number), h)
}

// hold returns the last word on a hold; nil when there is none.
func (a *Archive) hold(ctx context.Context, name string) (*Hold, error) {
	if err := CheckHoldName(name); err != nil {
		return nil, err
	}
	all, err := a.Holds(ctx)
	for i := range all {
		if all[i].Name == name {
			return &all[i], err
		}
	}
	return nil, err
}

// lastNumbers calls f with the last number of each name below a prefix, whose objects are prefix, name, "/", a number of
// eight digits, ".json".
func (a *Archive) lastNumbers(ctx context.Context, prefix string, f func(name string, number uint64) error) error {
	after, name, last := "", "", uint64(0)
	done := func() error {
		if name == "" {
			return nil
		}
		return f(name, last)
	}
	for {
		objects, err := a.Store.List(ctx, prefix, after, page)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range objects {
			n, digits, ok := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
			number, err := strconv.ParseUint(strings.TrimSuffix(digits, ".json"), 10, 64)
			if !ok || err != nil || fmt.Sprintf("%s%s/%08d.json", prefix, n, number) != o.Key {
				return fmt.Errorf("%w: %s is no key of an object there", ErrCorrupt, o.Key)
			}
			if n != name {
				if err := done(); err != nil {
					return err
				}
			}
			name, last, after = n, number, o.Key
		}
		if len(objects) < page {
			return done()
		}
	}
}
