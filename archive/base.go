package archive

import (
	"cmp"
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

// Base is a base snapshot: the database as it stood after the transaction Seq, or with more (see Ahead).
// It is the content of its manifest, which is written last and commits the base.
type Base struct {
	ID       string          `json:"id"`
	Epoch    uint64          `json:"epoch"`
	Seq      change.Seq      `json:"seq"`      // it holds every transaction up to here
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
	// Ahead are transactions behind Seq that it holds too, ascending, where it does not hold all that stand between: others whose commit the
	// source had written to its log, and not let anybody see, when the base was taken. It is nil where the base is a place in the order of commits.
	//
	// The base holds exactly the transactions up to Seq and those of Ahead. So a restore from it ends at none before the last of Ahead, and
	// replays what stands behind Seq without them. The others may come behind those of Ahead although they committed before: neither
	// saw what the other did, and each kept its locks until it was seen, so that they are about different rows and definitions.
	Ahead []change.Seq `json:"ahead,omitempty"`
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

// Upto returns the last transaction that the base holds: a restore from it ends there, or behind that.
func (b *Base) Upto() change.Seq {
	if n := len(b.Ahead); n > 0 {
		return b.Ahead[n-1]
	}
	return b.Seq
}

// Place says in words what the base holds.
func (b *Base) Place() string {
	if n := len(b.Ahead); n > 0 {
		return fmt.Sprintf("after %s, with %d of those behind it, up to %s", b.Seq, n, b.Upto())
	}
	return "after " + b.Seq.String()
}

// Holds reports whether the base holds a transaction.
func (b *Base) Holds(seq change.Seq) bool {
	_, ahead := slices.BinarySearch(b.Ahead, seq)
	return seq <= b.Seq || ahead
}

// Skip returns what tells which transactions behind Seq the base holds; nil when there are none.
func (b *Base) Skip() func(change.Seq) bool {
	if len(b.Ahead) == 0 {
		return nil
	}
	return b.Holds
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

const (
	manifestName = "manifest.json"
	// aheadName is the manifest's name where there is something in Ahead. A reader that does not know of that must not take the base for one
	// without: it finds no manifest, and so no base.
	aheadName = "manifest.ahead.json"
)

// manifestKey returns the key of the base's manifest.
func (b *Base) manifestKey() string {
	if len(b.Ahead) > 0 {
		return b.Key(aheadName)
	}
	return b.Key(manifestName)
}

// readManifest reads the manifest of a base, and says under which key it is; an error that wraps fs.ErrNotExist says that the base
// was never committed.
func (a *Archive) readManifest(ctx context.Context, epoch uint64, id string) (b *Base, key string, err error) {
	at := Base{ID: id, Epoch: epoch}
	b, key = &Base{}, at.Key(manifestName)
	err = readJSON(ctx, a.Store, key, b)
	if errors.Is(err, fs.ErrNotExist) {
		b, key = &Base{}, at.Key(aheadName)
		err = readJSON(ctx, a.Store, key, b)
	}
	switch {
	case err != nil:
		return nil, key, err
	case b.ID != id || b.Epoch != epoch:
		return nil, key, fmt.Errorf("%w: %s speaks of base %q of epoch %d", ErrCorrupt, key, b.ID, b.Epoch)
	case b.manifestKey() != key || b.Partial && len(b.Ahead) > 0 || len(b.Ahead) > 0 && b.Ahead[0] <= b.Seq || !ascending(b.Ahead):
		return nil, key, fmt.Errorf("%w: %s says that the base holds %d transactions behind %s, out of order or where there are none", ErrCorrupt, key, len(b.Ahead), b.Seq)
	}
	return b, key, nil
}

func ascending(all []change.Seq) bool {
	for i := 1; i < len(all); i++ {
		if all[i] <= all[i-1] {
			return false
		}
	}
	return true
}

// CommitBase writes the manifest: from now on the base exists.
func (a *Archive) CommitBase(ctx context.Context, b *Base) error {
	b.Finished = time.Now().UTC().Format(time.RFC3339)
	failpoint.Hit(failpoint.BaseCommitting)
	err := createOwn(ctx, a.Store, b.manifestKey(), b)
	failpoint.Hit(failpoint.BaseCommitted)
	return err
}

// Bases returns the committed bases of an epoch, oldest first. Bases that were
// never committed are passed over: they do not exist. So are those of which Prune has removed
// what a restore needs besides, and those with a partial base of tables between Seq and Upto.
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
	slices.SortStableFunc(all, func(x, y Base) int { // ids tell seconds: of two in one, the one that holds less is the older
		return cmp.Or(strings.Compare(x.begun(), y.begun()), cmp.Compare(x.Seq, y.Seq), cmp.Compare(x.Upto(), y.Upto()))
	})
	var mends []change.Seq
	for i := range all {
		if all[i].Partial && len(all[i].Tables) > 0 {
			mends = append(mends, all[i].Seq)
		}
	}
	return slices.DeleteFunc(all, func(b Base) bool {
		// The tables of a partial base would lose what the base holds of transactions behind it: they are not replayed.
		torn := slices.ContainsFunc(mends, func(s change.Seq) bool { return s > b.Seq && s < b.Upto() })
		return torn || b.first() < pruned.From()
	}), err
}

// begun is the second in which the base was begun, as text that sorts.
func (b *Base) begun() string {
	stamp, _, _ := strings.Cut(b.ID, "-")
	return stamp
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
		b, _, err := a.readManifest(ctx, epoch, id)
		switch {
		case err == nil:
			all = append(all, *b)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		after = basesKey(epoch) + id + "0" // '0' follows '/': sorts after every object of the base
	}
}
