package archive

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
)

// Base is a base snapshot: the database as it stood after the transaction Seq.
// It is the content of manifest.json, which is written last and commits the base.
type Base struct {
	ID       string          `json:"id"`
	Epoch    uint64          `json:"epoch"`
	Seq      change.Seq      `json:"seq"`      // the last transaction it holds
	Position change.Position `json:"position"` // where the source's log stood
	Reason   string          `json:"reason"`   // why it was taken
	Started  string          `json:"started"`  // RFC 3339
	Finished string          `json:"finished"`
	Server   string          `json:"server"` // the source's version
	Tables   []BaseTable     `json:"tables"`
	Objects  []BaseObject    `json:"objects"`          // schema and the like
	Coverage []Coverage      `json:"coverage"`         // Invariant 9
	Engine   json.RawMessage `json:"engine,omitempty"` // what only the engine's own restore reads
	// Partial says that it is a part of what there was after Seq. Either it has some tables, whose rows came to be what they are by changes that are in
	// no log: a restore from a base of before puts them in place of what it has. Or it has the schema only: a
	// restore says how that differs.
	Partial bool `json:"partial,omitempty"`
	// From is what it was made of, where that is an earlier base and the record behind it; nil when the source was read.
	From *BaseOrigin `json:"from,omitempty"`
}

// BaseOrigin is the base that another one was made of, without the source.
type BaseOrigin struct {
	Base string     `json:"base"`
	Seq  change.Seq `json:"seq"`
}

// BaseTable is a table in a base.
type BaseTable struct {
	Schema  string          `json:"schema"`
	Name    string          `json:"name"`
	Version HexVersion      `json:"version"` // change.Table.Version at the base
	Rows    int64           `json:"rows"`
	Content string          `json:"content,omitempty"` // of the rows, see internal/rowsum; "" where it is not on record
	Chunks  []BaseObject    `json:"chunks"`
	Engine  json.RawMessage `json:"engine,omitempty"`
}

// BaseObject is an object of a base.
type BaseObject struct {
	Name   string `json:"name"` // its key below the base
	Size   int64  `json:"size"`
	Raw    int64  `json:"raw,omitempty"` // bytes before compression
	Rows   int64  `json:"rows,omitempty"`
	SHA256 string `json:"sha256"`
}

// HexVersion is a table's definition version, hexadecimal in JSON since numbers
// there have 53 bits.
type HexVersion uint64

// MarshalText encodes the version as 16 hexadecimal digits.
func (v HexVersion) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(v)), nil }

// UnmarshalText reads hexadecimal digits.
func (v *HexVersion) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	*v = HexVersion(n)
	return err
}

// Coverage is one line of the coverage statement: what of the database the record
// holds, and how exactly.
type Coverage struct {
	Class  string `json:"class"` // exact, bounded or missing
	What   string `json:"what"`
	Detail string `json:"detail"`
}

// The classes of Coverage.
const (
	Exact   = "exact"   // as it stood at every point
	Bounded = "bounded" // within the limits the detail names
	Missing = "missing" // not in the record
)

// Versions returns the definition version of every table in the base.
func (b *Base) Versions() map[string]uint64 {
	m := make(map[string]uint64, len(b.Tables))
	for i := range b.Tables {
		t := &b.Tables[i]
		m[(&change.Table{Schema: t.Schema, Name: t.Name}).String()] = uint64(t.Version)
	}
	return m
}

// Size returns the bytes the base occupies, without its manifest.
func (b *Base) Size() int64 {
	var n int64
	for i := range b.Tables {
		for _, c := range b.Tables[i].Chunks {
			n += c.Size
		}
	}
	for _, o := range b.Objects {
		n += o.Size
	}
	return n
}

// first returns the first transaction that a restore reads which begins with the base.
func (b *Base) first() change.Seq { return b.Seq + 1 }

// Key returns the key of one of the base's objects.
func (b *Base) Key(name string) string { return basesKey(b.Epoch) + b.ID + "/" + name }

func basesKey(epoch uint64) string { return epochKey(epoch) + "/bases/" }

// NewBase returns a Base with a new ID, ready to have objects created below it.
func NewBase(epoch uint64, reason string) (*Base, error) {
	var r [4]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	return &Base{
		ID:    now.Format("20060102T150405Z") + "-" + hex.EncodeToString(r[:]),
		Epoch: epoch, Reason: reason, Started: now.Format(time.RFC3339),
	}, nil
}

// CreateObject stores one object of a base that is being taken. It may be called
// concurrently. An object that is there already with the same bytes is fine: nobody
// else writes below this base, so a create took effect and its answer was lost.
func (a *Archive) CreateObject(ctx context.Context, b *Base, name string, body io.ReaderAt, size int64) (BaseObject, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(body, 0, size)); err != nil {
		return BaseObject{}, err
	}
	failpoint.Hit(failpoint.BaseObjectCreating)
	err := a.Store.Create(ctx, b.Key(name), body, size)
	failpoint.Hit(failpoint.BaseObjectCreated)
	if errors.Is(err, fs.ErrExist) {
		same, readErr := sameObject(ctx, a.Store, b.Key(name), body, size)
		if same || readErr != nil {
			err = readErr
		}
	}
	if err != nil {
		return BaseObject{}, fmt.Errorf("create %s: %w", b.Key(name), err)
	}
	return BaseObject{Name: name, Size: size, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

const manifestName = "manifest.json"

// CommitBase writes the manifest: from now on the base exists.
func (a *Archive) CommitBase(ctx context.Context, b *Base) error {
	b.Finished = time.Now().UTC().Format(time.RFC3339)
	failpoint.Hit(failpoint.BaseCommitting)
	err := createOwn(ctx, a.Store, b.Key(manifestName), b)
	failpoint.Hit(failpoint.BaseCommitted)
	return err
}

// Bases returns the committed bases of an epoch, oldest first. Bases that were
// never committed are passed over: they do not exist. So are those of which Prune has removed
// what a restore needs besides.
func (a *Archive) Bases(ctx context.Context, epoch uint64) ([]Base, error) {
	all, err := a.committed(ctx, epoch)
	return slices.DeleteFunc(all, func(b Base) bool { return b.Partial }), err
}

// SchemaOnly reports whether it is a partial base of the schema.
func (b *Base) SchemaOnly() bool { return b.Partial && len(b.Objects) > 0 }

// PartialBases returns the partial bases of an epoch, oldest first.
func (a *Archive) PartialBases(ctx context.Context, epoch uint64) ([]Base, error) {
	all, err := a.committed(ctx, epoch)
	return slices.DeleteFunc(all, func(b Base) bool { return !b.Partial }), err
}

func (a *Archive) committed(ctx context.Context, epoch uint64) ([]Base, error) {
	pruned, err := a.Pruned(ctx, epoch)
	if err != nil {
		return nil, err
	}
	all, err := a.manifests(ctx, epoch)
	return slices.DeleteFunc(all, func(b Base) bool { return b.first() < pruned.From() }), err
}

// manifests returns the committed bases of an epoch, in order of their IDs.
func (a *Archive) manifests(ctx context.Context, epoch uint64) ([]Base, error) {
	var all []Base
	after := ""
	for {
		objects, err := a.Store.List(ctx, basesKey(epoch), after, 1)
		if err != nil {
			return nil, fmt.Errorf("list bases of epoch %d: %w", epoch, err)
		}
		if len(objects) == 0 {
			return all, nil
		}
		id, _, ok := strings.Cut(strings.TrimPrefix(objects[0].Key, basesKey(epoch)), "/")
		if !ok {
			return nil, fmt.Errorf("%w: %s is no key of a base", ErrCorrupt, objects[0].Key)
		}
		var b Base
		err = readJSON(ctx, a.Store, basesKey(epoch)+id+"/"+manifestName, &b)
		switch {
		case err == nil && (b.ID != id || b.Epoch != epoch):
			return nil, fmt.Errorf("%w: %s%s/%s speaks of base %q of epoch %d", ErrCorrupt, basesKey(epoch), id, manifestName, b.ID, b.Epoch)
		case err == nil:
			all = append(all, b)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		after = basesKey(epoch) + id + "0" // '0' follows '/': sorts after every object of the base
	}
}
