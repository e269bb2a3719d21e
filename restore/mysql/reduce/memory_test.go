package reduce

import (
	"context"
	"io"
	"runtime"
	"testing"

	"txreel/change"
	"txreel/segment"
)

// generated is a Source that makes transactions as they are asked for.
type generated struct {
	messages func(n int) [][]byte
	kind     change.TxnKind
	most, n  int
	bytes    int
	queue    []segment.Record
}

func (g *generated) Next() (segment.Record, error) {
	if len(g.queue) == 0 {
		if g.n == g.most {
			return segment.Record{}, io.EOF
		}
		g.n++
		list := transaction(change.Seq(g.n), xidOf(uint64(g.n)), g.messages(g.n)...)
		for i := range list {
			list[i].TxnKind = g.kind
			g.bytes += len(list[i].Raw)
		}
		g.queue = list
		if g.n == 1 {
			g.queue = append([]segment.Record{{Kind: segment.Definition, Raw: definition()}}, g.queue...)
		}
	}
	r := g.queue[0]
	g.queue = g.queue[1:]
	return r, nil
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemorySmall holds a window of transactions of one small update each.
func TestMemorySmall(t *testing.T) {
	const window = 32 << 20
	g := &generated{most: 1_000_000, messages: func(n int) [][]byte {
		return [][]byte{gtidEvent(uint64(n)), queryEvent("BEGIN"), mapEvent(1, "t"),
			rowsEvent(31, 1, true, tuple{id: int32(n), w: 1}, tuple{id: int32(n), w: 2}), xidEvent(uint64(n))}
	}}
	before := heap()
	s := NewStream(g, &catalog{}, window)
	s.limit = window
	if _, err := s.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	held := heap() - before
	t.Logf("%d transactions of %d bytes, window.size() %d, heap %d", g.n, g.bytes, s.window.size(), held)
	if held > 2*window {
		t.Errorf("a window of %d bytes takes %d of the heap, %.1f times as much", window, held, float64(held)/window)
	}
	runtime.KeepAlive(s)
}

// TestMemoryHeartbeats holds transactions without a message, as heartbeats are.
func TestMemoryHeartbeats(t *testing.T) {
	const window = 1 << 20
	g := &generated{most: 500_000, kind: change.TxnHeartbeat, messages: func(int) [][]byte { return nil }}
	before := heap()
	s := NewStream(g, &catalog{}, window)
	if _, err := s.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	held := heap() - before
	t.Logf("%d transactions of %d bytes, window.size() %d, heap %d", g.n, g.bytes, s.window.size(), held)
	if held > 2*window {
		t.Errorf("a window of %d bytes takes %d of the heap, and would take more: it was not full when the record was over", window, held)
	}
	runtime.KeepAlive(s)
}
