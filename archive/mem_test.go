package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"txreel/change"
	"txreel/segment"
)

// memStore is a Store in memory that counts requests and injects faults.
type memStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	keys    []string // sorted
	counts  counts
	// before and after are asked around each request, outside the lock; an error
	// from before keeps the request from taking effect, one from after hides that it
	// did.
	before, after func(op, key string) error
	overwrites    bool
}

type counts struct{ creates, opens, lists int }

func (c counts) all() int { return c.creates + c.opens + c.lists }

func (c counts) sub(o counts) counts {
	return counts{c.creates - o.creates, c.opens - o.opens, c.lists - o.lists}
}

func newMem() *memStore { return &memStore{objects: make(map[string][]byte)} }

func (s *memStore) String() string { return "memory" }

func (s *memStore) count() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

func (s *memStore) Create(_ context.Context, key string, body io.ReaderAt, size int64) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(body, 0, size), b); err != nil {
		return err
	}
	if err := ask(s.before, "create", key); err != nil {
		return err
	}
	s.mu.Lock()
	s.counts.creates++
	_, taken := s.objects[key]
	if !taken || s.overwrites {
		s.set(key, b)
	}
	s.mu.Unlock()
	if taken && !s.overwrites {
		return fmt.Errorf("create %s: %w", key, fs.ErrExist)
	}
	return ask(s.after, "create", key)
}

// set puts an object there whatever was there before.
func (s *memStore) set(key string, b []byte) {
	if i, ok := slices.BinarySearch(s.keys, key); !ok {
		s.keys = slices.Insert(s.keys, i, key)
	}
	s.objects[key] = b
}

func (s *memStore) remove(key string) {
	if i, ok := slices.BinarySearch(s.keys, key); ok {
		s.keys = slices.Delete(s.keys, i, i+1)
	}
	delete(s.objects, key)
}

func (s *memStore) Open(_ context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	if err := ask(s.before, "open", key); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.opens++
	b, ok := s.objects[key]
	if !ok {
		return nil, 0, fmt.Errorf("open %s: %w", key, fs.ErrNotExist)
	}
	return cut(b, off, n)
}

// cut is the range of an object that Store.Open speaks of.
func cut(b []byte, off, n int64) (io.ReadCloser, int64, error) {
	size := int64(len(b))
	if off < 0 {
		off, n = max(size+off, 0), -1
	}
	if off > size {
		return nil, 0, fmt.Errorf("offset %d past the end at %d", off, size)
	}
	if n < 0 || n > size-off {
		n = size - off
	}
	return io.NopCloser(bytes.NewReader(b[off : off+n])), size, nil
}

func (s *memStore) List(_ context.Context, prefix, after string, limit int) ([]Object, error) {
	if limit > 1000 {
		return nil, fmt.Errorf("list of %d keys takes more than one request", limit)
	}
	if err := ask(s.before, "list", prefix); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.lists++
	i, _ := slices.BinarySearch(s.keys, max(prefix, after))
	var found []Object
	for ; i < len(s.keys) && len(found) < limit; i++ {
		k := s.keys[i]
		if k > after && strings.HasPrefix(k, prefix) {
			found = append(found, Object{Key: k, Size: int64(len(s.objects[k]))})
		} else if k > after {
			break
		}
	}
	return found, nil
}

func ask(hook func(op, key string) error, op, key string) error {
	if hook == nil {
		return nil
	}
	return hook(op, key)
}

// clone returns an independent store with the same objects and no hooks.
func (s *memStore) clone() *memStore {
	c := newMem()
	c.keys = slices.Clone(s.keys)
	for k, b := range s.objects {
		c.objects[k] = b
	}
	return c
}

var testIdentity = Identity{Engine: "postgres", System: "7435790134215863241", Database: "shop"}

func newArchive(t testing.TB, store Store) *Archive {
	t.Helper()
	a, err := Init(context.Background(), store, testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newEpoch returns a new archive with epoch 1.
func newEpoch(t testing.TB, store Store) *Archive {
	t.Helper()
	a := newArchive(t, store)
	if _, err := a.StartEpoch(context.Background(), nil, CauseFirst, "", nil); err != nil {
		t.Fatal(err)
	}
	return a
}

func newWriter(t testing.TB, a *Archive, epoch uint64) *Writer {
	t.Helper()
	w, err := a.NewWriter(context.Background(), epoch, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// txn is a transaction of a model.
type txn struct {
	xid     string
	pos     change.Position
	time    change.Time
	message string
}

func numbered(i int) txn {
	return txn{xid: strconv.Itoa(700 + i), pos: change.Position(fmt.Sprintf("0/%08X", i*16)), time: change.Time(i) * 1_000_000, message: fmt.Sprintf("Irow %d", i)}
}

var testDefinition = &change.Definition{Messages: [][]byte{[]byte("Rpublic.orders")}}

var testTable = &change.Table{Schema: "public", Name: "orders", Version: 7}

func appendTxn(w *Writer, x txn) error {
	for _, m := range []change.Message{
		{Kind: change.KindBegin, Raw: []byte("B")},
		{Kind: change.KindData, Raw: []byte(x.message), Defs: []*change.Definition{testDefinition}, Touched: []change.Touch{{Table: testTable, Op: change.OpInsert, Rows: 1}}},
		{Kind: change.KindCommit, Raw: []byte("C"), XID: x.xid, Position: x.pos, CommitTime: x.time},
	} {
		if err := w.Append(&m); err != nil {
			return err
		}
	}
	return nil
}

// shipAll seals the transactions of w and ships them, rollups included.
func shipAll(t testing.TB, w *Writer, end change.Position) *Sealed {
	t.Helper()
	s, err := w.Seal(end)
	if err == nil {
		err = w.Ship(context.Background(), s)
	}
	if err == nil {
		err = w.RollUp(context.Background(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Release(s)
	return s
}

// writeSegments writes segments with the given numbers of transactions, from's
// numbers on, and returns the number behind the last.
func writeSegments(t testing.TB, w *Writer, from int, sizes ...int) int {
	t.Helper()
	for _, n := range sizes {
		for range n {
			if err := appendTxn(w, numbered(from)); err != nil {
				t.Fatal(err)
			}
			from++
		}
		shipAll(t, w, numbered(from-1).pos)
	}
	return from
}

// read returns the transactions that a Stream delivers, and the definitions before
// the first of them.
func read(a *Archive, epoch uint64, from, to change.Seq) (all []txn, defs int, err error) {
	s := a.Stream(context.Background(), epoch, from, to, "")
	defer s.Close()
	var cur txn
	for {
		rec, err := s.Next()
		if err == io.EOF {
			return all, defs, nil
		}
		if err != nil {
			return all, defs, err
		}
		switch rec.Kind {
		case segment.Definition:
			if len(all) == 0 && cur.message == "" {
				defs++
			}
		case segment.Begin:
			cur = txn{}
			if want := from + change.Seq(len(all)); rec.Seq != want {
				return all, defs, fmt.Errorf("transaction %s delivered where %s must be", rec.Seq, want)
			}
		case segment.Message:
			if len(rec.Raw) > 1 {
				cur.message = string(rec.Raw)
			}
		case segment.Commit:
			cur.xid, cur.pos, cur.time = rec.XID, rec.Position, rec.CommitTime
			all = append(all, cur)
		}
	}
}

func rng(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}
