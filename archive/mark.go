package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"txreel/change"
	"txreel/internal/failpoint"
)

// Mark is a named point of the record: the content of an object below marks/.
type Mark struct {
	Name       string          `json:"name"`
	Epoch      uint64          `json:"epoch"`
	Seq        change.Seq      `json:"seq"` // the transaction that carries the mark
	XID        string          `json:"xid"`
	Position   change.Position `json:"position"`
	CommitTime change.Time     `json:"commit_time"` // µs
}

func marksKey(epoch uint64) string { return epochKey(epoch) + "/marks/" }

func markKey(epoch uint64, name string) string { return marksKey(epoch) + name + ".json" }

// CheckMarkName says why a name cannot name a mark, or returns nil.
func CheckMarkName(name string) error {
	if len(name) > 200 || strings.Contains(name, "/") || CheckKey(name) != nil {
		return fmt.Errorf("mark name %q: use up to 200 of the characters A-Z a-z 0-9 . _ -", name)
	}
	return nil
}

// CreateMark stores a mark. A name that is taken in the epoch by another mark is an
// error wrapping fs.ErrExist.
func (a *Archive) CreateMark(ctx context.Context, m Mark) error {
	if err := CheckMarkName(m.Name); err != nil {
		return err
	}
	failpoint.Hit(failpoint.MarkCreating)
	err := createOwn(ctx, a.Store, markKey(m.Epoch, m.Name), m)
	failpoint.Hit(failpoint.MarkCreated)
	return err
}

// Mark returns the mark of that name in the epoch, or an error wrapping
// fs.ErrNotExist.
func (a *Archive) Mark(ctx context.Context, epoch uint64, name string) (Mark, error) {
	var m Mark
	if err := CheckMarkName(name); err != nil {
		return m, err
	}
	err := a.readMark(ctx, epoch, markKey(epoch, name), &m)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("mark %q of epoch %d: %w", name, epoch, fs.ErrNotExist)
	}
	return m, err
}

func (a *Archive) readMark(ctx context.Context, epoch uint64, key string, m *Mark) error {
	if err := readJSON(ctx, a.Store, key, m); err != nil {
		return err
	}
	if m.Epoch != epoch || markKey(epoch, m.Name) != key {
		return fmt.Errorf("%w: %s speaks of mark %q of epoch %d", ErrCorrupt, key, m.Name, m.Epoch)
	}
	return nil
}

// Marks returns the marks of an epoch in order of their names.
func (a *Archive) Marks(ctx context.Context, epoch uint64) ([]Mark, error) {
	var all []Mark
	after := ""
	for {
		objects, err := a.Store.List(ctx, marksKey(epoch), after, page)
		if err != nil {
			return nil, fmt.Errorf("list marks of epoch %d: %w", epoch, err)
		}
		for _, o := range objects {
			var m Mark
			if err := a.readMark(ctx, epoch, o.Key, &m); err != nil {
				return nil, err
			}
			all = append(all, m)
			after = o.Key
		}
		if len(objects) < page {
			return all, nil
		}
	}
}
