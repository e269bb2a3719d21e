package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"txreel/archive"
	"txreel/change"
)

// memory is a Store that counts requests.
type memory struct {
	mu       sync.Mutex
	keys     []string // sorted
	objects  map[string][]byte
	requests int
}

func newMemory() *memory { return &memory{objects: make(map[string][]byte)} }

func (m *memory) Create(_ context.Context, key string, body io.ReaderAt, size int64) error {
	b := make([]byte, size)
	if _, err := body.ReadAt(b, 0); err != nil && err != io.EOF {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	if _, ok := m.objects[key]; ok {
		return fmt.Errorf("%s: %w", key, fs.ErrExist)
	}
	m.objects[key] = b
	i := sort.SearchStrings(m.keys, key)
	m.keys = slices.Insert(m.keys, i, key)
	return nil
}

func (m *memory) Open(_ context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	b, ok := m.objects[key]
	size := int64(len(b))
	switch {
	case !ok:
		return nil, 0, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	case off < 0:
		b = b[max(0, size+off):]
	case n < 0:
		b = b[off:]
	default:
		b = b[off:min(off+n, size)]
	}
	return io.NopCloser(bytes.NewReader(b)), size, nil
}

func (m *memory) List(_ context.Context, prefix, after string, limit int) ([]archive.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	var found []archive.Object
	for i := sort.SearchStrings(m.keys, max(prefix, after)); i < len(m.keys) && len(found) < limit; i++ {
		if k := m.keys[i]; k > after {
			if !strings.HasPrefix(k, prefix) {
				break
			}
			found = append(found, archive.Object{Key: k, Size: int64(len(m.objects[k]))})
		}
	}
	return found, nil
}

func (m *memory) String() string { return "memory" }

// remove deletes what the Store itself cannot.
func (m *memory) remove(key string) {
	delete(m.objects, key)
	m.keys = slices.DeleteFunc(m.keys, func(k string) bool { return k == key })
}

// below returns the keys with the prefix.
func (m *memory) below(prefix string) (list []string) {
	for _, k := range m.keys {
		if strings.HasPrefix(k, prefix) {
			list = append(list, k)
		}
	}
	return list
}

// testTxn is a transaction to be written into a test archive.
type testTxn struct {
	kind     change.TxnKind // zero: a transaction of the source
	xid      string
	position change.Position
	at       change.Time
	received change.Time
	note     string
	messages []change.Message // data
}

// recorder writes test archives.
type recorder struct {
	t     testing.TB
	store *memory
	a     *archive.Archive
	epoch uint64
	w     *archive.Writer
	last  change.Position
}

func newRecorder(t testing.TB, store *memory, engine string) *recorder {
	t.Helper()
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: engine, System: "7412", Database: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, store: store, a: a}
	r.startEpoch(archive.CauseFirst, "")
	return r
}

func (r *recorder) startEpoch(cause, detail string) {
	r.t.Helper()
	have, err := r.a.Epochs(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := r.a.StartEpoch(r.t.Context(), have, cause, detail, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.epoch = e.Number
	if r.w != nil {
		r.w.Close()
	}
	if r.w, err = r.a.NewWriter(r.t.Context(), e.Number, r.t.TempDir()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.w.Close)
}

func (r *recorder) add(txns ...testTxn) {
	r.t.Helper()
	for _, x := range txns {
		r.last = x.position
		if x.kind == change.TxnHeartbeat {
			r.check(r.w.Heartbeat(x.position, x.at))
			continue
		}
		r.check(r.w.Append(&change.Message{Kind: change.KindBegin}))
		for i := range x.messages {
			m := x.messages[i]
			m.Kind = change.KindData
			r.check(r.w.Append(&m))
		}
		r.check(r.w.Append(&change.Message{Kind: change.KindCommit, XID: x.xid, Position: x.position, CommitTime: x.at, Received: x.received, Note: x.note}))
	}
}

// ship ends the segment.
func (r *recorder) ship() {
	r.t.Helper()
	s, err := r.w.Seal(r.last)
	r.check(err)
	r.check(r.w.Ship(r.t.Context(), s))
	r.check(r.w.RollUp(r.t.Context(), s))
	r.w.Release(s)
}

func (r *recorder) check(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}
