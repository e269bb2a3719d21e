// Package fold reduces the record between a base and a point to what is left of it: the final row of each key. It goes
// through the record from its end to its beginning, so that the first it meets of a key is what remains, and memory holds keys and
// no rows. What the record leaves out comes from the base, less the rows that the record overwrites or deletes.
//
// The first image that is met of a key is its last. What stands before it is only held against it: in front of an insert the key must
// be free, in front of an update or a delete there must be a row, in the record or else in the base. An update
// whose image lacks values that it left alone (unchanged TOAST) waits for an older image to have them from, under the key of
// before. Tables whose log has whole rows of before (replica identity FULL) are multisets of rows: a row that is deleted
// takes one that was inserted before it, or one of the base.
//
// All of a table's rows up to a TRUNCATE, those of the base with them, are passed over.
//
// This holds between two changes of definitions only, and under what PostgreSQL demands of a replica identity: its key is
// unique at every moment, and NULL never (documentation of ALTER TABLE, section REPLICA IDENTITY).
package fold

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"txreel/archive"
	"txreel/change"
)

// Errors that callers tell apart.
var (
	// ErrNotFoldable is wrapped when the record has changes that only their replay one by one carries out.
	ErrNotFoldable = errors.New("the record cannot be folded")
	// ErrMemory is wrapped when the memory allowed does not do: another Fold with more passes needs less.
	ErrMemory = errors.New("folding takes more memory than it may")
	// ErrContradiction is wrapped when a change does not fit what is there without it: the record is not whole, or the
	// base is not the one that it continues.
	ErrContradiction = errors.New("the record contradicts itself")
)

// Span is the part of the record that is folded: what an epoch holds behind From, up to To.
type Span struct {
	Epoch    uint64
	From, To change.Seq
	// Skip, if not nil, names transactions behind From that are passed over, since the base has them.
	Skip func(change.Seq) bool
	// Passed, if not nil, names segments by their first transaction that hold no change of the tables, by their index: they are
	// not fetched, and changes of other tables in those that are count for nothing.
	Passed func(first change.Seq) bool
	// Only tells that changes of other tables than those given count for nothing. Others reports whether there were any.
	Only bool
}

// Table is a table of the base.
type Table struct {
	Schema, Name string
	Columns      []string // of which the base has values, in its order
	Keys         int64    // of how many keys the record may speak, about
	ID           uint32   // the number by which the record knows it; zero: it is known by its name
	Key          []string // columns that tell rows apart at every moment, for a log that has rows whole; none: rows are compared whole
}

// Options are how a Fold works.
type Options struct {
	Jobs     int   // segments read, and rows written, at once; at least 1
	Memory   int64 // bytes that it may take, about
	Passes   int   // how often the record is gone through, each time for a part of the keys: a power of two, at least 1
	SpillDir string
	// Progress, if not nil, is called with the number of transactions gone through.
	Progress func(done int64)
}

// MaxPasses bounds Options.Passes.
const MaxPasses = 1 << 16

// Passes returns into how many passes a number of keys is to be divided, so that memory holds them.
func Passes(keys, memory int64) int {
	passes := 1
	for passes < MaxPasses && keys*3*slotSize/int64(passes) > memory/2 {
		passes *= 2
	}
	return passes
}

// Sink takes final rows.
type Sink interface {
	// Rows takes some rows of a table, as lines of COPY's text format with the table's columns, which are valid
	// during the call. Calls with different workers, numbers below Options.Jobs, may come at the same time.
	Rows(ctx context.Context, worker, table int, lines []byte, rows int64) error
}

// Merger is a Sink of tables that have the rows of before in themselves, where no Filter reads them: rows are replaced there.
type Merger interface {
	Sink
	// Gone takes keys whose rows are to go, if they have one and Rows has no other for it: the columns of the key, as lines. Calls may
	// come at the same time like those of Rows.
	Gone(ctx context.Context, worker, table int, lines []byte, keys int64) error
	// Partial takes rows that lack values, which the row has that is there now: the key of that one, then for all columns in one field which are
	// missing (1) and which are not (0), then the columns, NULL if missing. It is called when all else has been.
	Partial(ctx context.Context, table int, lines []byte, rows int64) error
}

// Fold folds one Span. It is not safe for concurrent use, but for what says otherwise.
type Fold struct {
	archive *archive.Archive
	span    Span
	opts    Options
	tables  []table
	byName  map[string]int
	byID    map[uint32]int
	others  atomic.Bool
	merging bool   // into a Merger
	seed    uint64 // of the hashes: nobody can make two keys that meet
	pass    uint64
	shift   int // of a hash, to its pass
	most    int // bytes that a piece takes before it is full

	waiters []waiter
	free    []int32 // of them
	foreign int     // keys of other passes that something waits on
	spent   int64   // bytes of waiters
	scratch row
}

// table is what is known of a Table.
type table struct {
	Table
	index   map[string]int // of Columns
	id      uint32         // by which the record knows it
	touched bool
	closed  bool  // a TRUNCATE was met: what is older is nothing to us
	delta   int64 // rows inserted less those deleted, since that TRUNCATE
	waiting int   // waiters
	// key names the columns of the replica identity; nil before it was met, empty for a multiset.
	key      []int
	keys     slots // of a table with a key; of another one: rows deleted whose insert has not been met
	expected int64 // keys that are to be found in the base
}

// New prepares to fold a span of an archive onto a base with the given tables.
func New(a *archive.Archive, span Span, tables []Table, o Options) *Fold {
	f := &Fold{archive: a, span: span, opts: o, byName: make(map[string]int, len(tables)), byID: make(map[uint32]int), seed: rand.Uint64()}
	f.tables = make([]table, len(tables))
	for i, t := range tables {
		f.tables[i].Table = t
		f.tables[i].index = make(map[string]int, len(t.Columns))
		for k, c := range t.Columns {
			f.tables[i].index[c] = k
		}
		if t.ID != 0 {
			f.byID[t.ID] = i
		} else {
			f.byName[t.Schema+"."+t.Name] = i
		}
	}
	f.most = int(min(max(o.Memory/2/int64(f.pieces()), 1<<20), largestPiece))
	f.shift = 64 - bits.TrailingZeros(uint(o.Passes))
	return f
}

// largestPiece is the most that f.most is: larger ones gain nothing.
const largestPiece = 16 << 20

// pieces is how many pieces there are: in the hands of readers, of writers, and one of the folding itself.
func (f *Fold) pieces() int { return 2*f.jobs() + 1 }

func (f *Fold) jobs() int { return max(f.opts.Jobs, 1) }

// reset forgets what was found in another pass.
func (f *Fold) reset(pass int) {
	f.pass, f.foreign, f.spent = uint64(pass), 0, 0
	f.waiters, f.free = nil, nil
	for i := range f.tables {
		t := &f.tables[i]
		*t = table{Table: t.Table, index: t.index}
		t.keys.room(min(t.Keys/int64(f.opts.Passes), mostRoom))
	}
}

// mostRoom is for how many keys of a table memory is taken beforehand at most.
const mostRoom = 4 << 20

// mine reports whether a key belongs to the pass.
func (f *Fold) mine(k key) bool { return k.hi>>f.shift == f.pass } // a shift by 64 gives 0

// Result is what a pass through the record tells of a table.
type Result struct {
	Touched   bool   // the record speaks of it
	ID        uint32 // by which number
	Key       []int  // by which columns its rows are told apart, in the order of the record; none if they are compared whole
	Truncated bool   // nothing of the base remains
	Delta     int64  // rows inserted less those deleted, since it was truncated or from the base on; the same in every pass
	// Unordered tells that the rows of the base must go through one Filter after another, in one piece of work: there may
	// be rows in it that are the same, of which some go.
	Unordered bool
	// Expected is how many rows of the base the Filters of this pass must take, or how many go from the table of a Merger.
	Expected int64
}

// Result returns what History has found of a table.
func (f *Fold) Result(i int) Result {
	t := &f.tables[i]
	r := Result{Touched: t.touched, ID: t.id, Key: t.key, Truncated: t.closed, Delta: t.delta, Expected: t.expected}
	if t.closed {
		r.Expected = 0
	}
	r.Unordered = len(t.key) == 0 && t.keys.used > 0 && !t.closed
	return r
}

// Others reports whether the record that has been gone through has changes of other tables than those given.
func (f *Fold) Others() bool { return f.others.Load() }

// memory is what the keys and waiters take.
func (f *Fold) memory() int64 {
	n := f.spent
	for i := range f.tables {
		n += f.tables[i].keys.size()
	}
	return n
}

// finish is called when all of the record has been gone through.
func (f *Fold) finish() error {
	for i := range f.tables {
		t := &f.tables[i]
		if t.closed && t.waiting > 0 {
			return fmt.Errorf("%w: %d rows of table %s.%s are older than the table's TRUNCATE", ErrContradiction, t.waiting, t.Schema, t.Name)
		}
	}
	return nil
}
