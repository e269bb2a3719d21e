package capture

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/dir"
)

// scripted is a Source that does what a test says.
type scripted struct {
	next     func(ctx context.Context) (*change.Message, error)
	acked    []change.Position
	position change.Position
}

func (s *scripted) Next(ctx context.Context) (*change.Message, error) {
	m, err := s.next(ctx)
	if err == nil && m.Position != "" {
		s.position = m.Position
	}
	return m, err
}

func (s *scripted) Position() change.Position { return s.position }

func (s *scripted) Wake() {}

func (s *scripted) Ack(p change.Position) { s.acked = append(s.acked, p) }

// tick is an idle source's silence.
func tick(ctx context.Context, p change.Position) (*change.Message, error) {
	select {
	case <-time.After(200 * time.Millisecond):
		return &change.Message{Kind: change.KindIdle, Position: p, CommitTime: change.Time(time.Now().UnixMicro())}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// messages is a Source's script: it is idle at position behind the last message.
func messages(end change.Position, list ...change.Message) func(context.Context) (*change.Message, error) {
	return func(ctx context.Context) (*change.Message, error) {
		if len(list) == 0 {
			return tick(ctx, end)
		}
		m := list[0]
		list = list[1:]
		return &m, nil
	}
}

func begin() change.Message { return change.Message{Kind: change.KindBegin, Raw: []byte("B")} }

func data(size int) change.Message {
	m := change.Message{Kind: change.KindData, Raw: make([]byte, size)}
	_, _ = rand.Read(m.Raw) // does not compress
	return m
}

func commit(n int) change.Message {
	return change.Message{Kind: change.KindCommit, XID: fmt.Sprint(n), Position: position(n), CommitTime: change.Time(n)}
}

// writer begins an archive; wrap may put something in front of its store.
func writer(t *testing.T, wrap func(archive.Store) archive.Store) *archive.Writer {
	t.Helper()
	plain, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var s archive.Store = plain
	a, err := archive.Init(t.Context(), s, archive.Identity{Engine: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.StartEpoch(t.Context(), nil, archive.CauseFirst, "", nil); err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		a.Store = wrap(s)
	}
	w, err := a.NewWriter(t.Context(), 1, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// hung is a store that does not answer before its caller gives up, once it is on.
type hung struct {
	archive.Store
	after int // creates that still work
}

func (h *hung) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if h.after > 0 {
		h.after--
		return h.Store.Create(ctx, key, body, size)
	}
	<-ctx.Done()
	return fmt.Errorf("%w: %w", archive.ErrUnreachable, ctx.Err())
}

// bubble runs a test on a clock of its own; it fails when a goroutine is left over.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Parallel()
	synctest.Test(t, test)
}

func TestAgeDecidesWhenAnIdleSourceShips(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begun := time.Now()
		var shipped []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		src := &scripted{next: messages(position(9), begin(), data(10), commit(1), begin(), data(10), commit(2))}
		err := Run(ctx, src, writer(t, nil), Options{FlushAge: 2 * time.Second, Shipped: func(s *archive.Sealed) {
			if s.First != 1 || s.Last != 2 || s.End != position(9) {
				t.Errorf("shipped %+v", s.Summary)
			}
			shipped = append(shipped, time.Since(begun))
		}})
		// The answer is looked at with the next tick.
		if !errors.Is(err, context.DeadlineExceeded) || len(shipped) != 1 || shipped[0] < 2*time.Second || shipped[0] > 2400*time.Millisecond {
			t.Fatalf("%v, shipped after %v", err, shipped)
		}
		if len(src.acked) != 1 || src.acked[0] != position(9) {
			t.Fatalf("acknowledged %v", src.acked)
		}
	})
}

func TestHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		beat := make(chan struct{}, 1)
		status := &Status{}
		var at []time.Duration
		begun := time.Now()
		idle := position(5)
		src := &scripted{position: position(5), next: func(ctx context.Context) (*change.Message, error) { return tick(ctx, idle) }}
		err := Run(ctx, src, writer(t, nil), Options{Beat: beat, Status: status,
			Start: &change.Message{Position: position(5), CommitTime: 1},
			Shipped: func(s *archive.Sealed) {
				at = append(at, time.Since(begun).Round(time.Second))
				switch len(at) {
				case 1: // the start; a beat that would not move the archive waits for one that does
					beat <- struct{}{}
				case 3:
					idle = position(6) // now it does
				}
			}})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		want := []int{0, 60, 120, 121, 181, 241, 301, 361, 421, 481, 541, 601}
		ok := len(at) >= 11 && len(at) <= 12
		for i := range at {
			ok = ok && i < len(want) && (at[i]-time.Duration(want[i])*time.Second).Abs() <= 2*time.Second
		}
		if !ok {
			t.Fatalf("heartbeats after %v, want about %v", at, want)
		}
		s := status.Snapshot()
		if time.Since(s.CaughtUp) > time.Second || time.Since(s.Progress()) > time.Second || s.Segments != uint64(len(at)) || s.Transactions != uint64(len(at)) {
			t.Fatalf("%+v", s)
		}
	})
}

// A source that knows no position, has a transaction open or waits for the store gives
// no occasion for a heartbeat.
func TestNoHeartbeatOverWhatIsPending(t *testing.T) {
	for name, list := range map[string][]change.Message{
		"no position":      {},
		"open transaction": {begin(), data(10)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				end := position(9)
				if name == "no position" {
					end = ""
				}
				src := &scripted{next: messages(end, list...)}
				err := Run(ctx, src, writer(t, nil), Options{Shipped: func(s *archive.Sealed) { t.Errorf("shipped %+v", s.Summary) }})
				if !errors.Is(err, context.DeadlineExceeded) || len(src.acked) > 0 {
					t.Fatalf("%v, acknowledged %v", err, src.acked)
				}
			})
		})
	}
}

func TestStopShipsWhatIsWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		list := []change.Message{begin(), data(10), commit(1), begin(), data(10), commit(2), begin(), data(10)}
		n := 0
		src := &scripted{next: func(ctx context.Context) (*change.Message, error) {
			if n == len(list) {
				cancel()
				return nil, ctx.Err()
			}
			n++
			return &list[n-1], nil
		}}
		w := writer(t, nil)
		if err := Run(ctx, src, w, Options{}); err != context.Canceled { //nolint:errorlint // a stop that went well says nothing else
			t.Fatal(err)
		}
		if w.Tail().Seq != 2 || w.Tail().Position != position(2) || len(src.acked) != 1 || src.acked[0] != position(2) {
			t.Fatalf("tail %+v, acknowledged %v", w.Tail(), src.acked)
		}
	})
}

// TestHungStore fills a capture whose store does not answer: it gathers so much and
// no more, and ends in time when it is told to.
func TestHungStore(t *testing.T) {
	for name, o := range map[string]struct {
		fail  bool // the source ends before the stop
		grace time.Duration
		want  time.Duration
	}{
		"stop":            {want: 10 * time.Second},
		"stop with grace": {grace: 3 * time.Second, want: 3 * time.Second},
		"source ends":     {fail: true, want: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const size = 64 << 10
				const flush = 1 << 20
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var taken, n int
				gone := errors.New("source is gone")
				src := &scripted{next: func(ctx context.Context) (*change.Message, error) {
					n++
					if o.fail && n == 40 {
						return nil, gone
					}
					var m change.Message
					switch n % 3 {
					case 1:
						m = begin()
					case 2:
						m = data(size)
						taken += size
					default:
						m = commit(n)
					}
					return &m, nil
				}}
				w := writer(t, func(s archive.Store) archive.Store { return &hung{Store: s} })
				ended := make(chan error)
				go func() { ended <- Run(ctx, src, w, Options{FlushSize: flush, Grace: o.grace}) }()
				synctest.Wait() // nothing moves any more
				// One segment is on its way; a frame of the format waits beside each.
				if limit := (1+4)*flush + 2<<20 + size; taken > limit || !o.fail && taken < 4*flush {
					t.Errorf("gathered %d bytes, the limit is %d", taken, limit)
				}
				begun := time.Now()
				cancel()
				err := <-ended
				if took := time.Since(begun); took != o.want {
					t.Errorf("ended after %v, want %v", took, o.want)
				}
				if !errors.Is(err, archive.ErrUnreachable) || o.fail != errors.Is(err, gone) || len(src.acked) > 0 {
					t.Errorf("%v, acknowledged %v", err, src.acked)
				}
			})
		})
	}
}

// Nobody else asks for messages while a transaction arrives that never seems to end:
// what was shipped before it must be acknowledged all the same, and what was whole
// must not wait for it.
func TestHugeTransactionHoldsNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		status := &Status{}
		src := &scripted{}
		n := 0
		src.next = func(ctx context.Context) (*change.Message, error) {
			n++
			var m change.Message
			switch {
			case n == 1 || n == 4:
				m = begin()
			case n == 2:
				m = data(10)
			case n == 3:
				m = commit(1)
			case n > 20*lookEvery:
				return nil, fmt.Errorf("acknowledged %v, status %+v", src.acked, status.Snapshot())
			case len(src.acked) > 0 && time.Since(status.Snapshot().Received) == 0:
				cancel()
				return nil, ctx.Err()
			default:
				if n%lookEvery == 0 {
					time.Sleep(time.Millisecond) // lets the uploader work
				}
				m = data(100)
			}
			return &m, nil
		}
		if err := Run(ctx, src, writer(t, nil), Options{Status: status}); err != context.Canceled { //nolint:errorlint // nothing else happened
			t.Fatal(err)
		}
		if len(src.acked) != 1 || src.acked[0] != position(1) {
			t.Fatalf("acknowledged %v", src.acked)
		}
	})
}

// A commit that finds no place in the segment is not covered by the position that the segment ends
// with: the next start asks for it again.
func TestRefusedCommitIsNotPassedOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bad := commit(2)
		bad.XID = strings.Repeat("x", 1<<20)
		src := &scripted{next: messages(position(9), begin(), data(10), commit(1), begin(), data(10), bad)}
		w := writer(t, nil)
		err := Run(t.Context(), src, w, Options{})
		if err == nil || errors.Is(err, context.Canceled) || len(src.acked) > 0 || w.Tail().Position >= position(2) {
			t.Fatalf("%v, acknowledged %v, the record ends at %+v", err, src.acked, w.Tail())
		}
	})
}

// A position that no record can hold ends the capture for good, and is told from an outage.
func TestLongPosition(t *testing.T) {
	long := change.Position(strings.Repeat("x", change.MaxPosition+1))
	begun := &change.Message{Kind: change.KindIdle, Position: position(0)}
	for name, c := range map[string]struct {
		start *change.Message
		next  func(context.Context) (*change.Message, error)
	}{
		"start":       {&change.Message{Kind: change.KindIdle, Position: long}, messages(position(1))},
		"heartbeat":   {begun, messages(long)},
		"transaction": {begun, messages(long, begin(), data(10), commit(1))},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := writer(t, nil)
				err := Run(t.Context(), &scripted{next: c.next}, w, Options{Start: c.start, FlushAge: 3 * time.Second})
				if !errors.Is(err, ErrLongPosition) || w.Tail().Seq > 1 {
					t.Fatalf("%v, the record ends at %s", err, w.Tail().Seq)
				}
			})
		})
	}
}

func TestFailedShipIsFinal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		broken := errors.New("disk on fire")
		creates := 0
		w := writer(t, func(s archive.Store) archive.Store {
			return &failing{s, func() error { creates++; return broken }}
		})
		n := 0
		src := &scripted{next: func(ctx context.Context) (*change.Message, error) {
			if n%4 == 3 {
				n++
				return tick(ctx, "")
			}
			m := []change.Message{begin(), data(10), commit(n + 1)}[n%4]
			n++
			return &m, nil
		}}
		err := Run(t.Context(), src, w, Options{})
		if !errors.Is(err, broken) || creates != 1 || len(src.acked) > 0 {
			t.Fatalf("%v after %d creates, acknowledged %v", err, creates, src.acked)
		}
	})
}

type failing struct {
	archive.Store
	create func() error
}

func (f *failing) Create(context.Context, string, io.ReaderAt, int64) error { return f.create() }

func TestProgress(t *testing.T) {
	t.Parallel()
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	for _, c := range []struct {
		durable, caughtUp, received, want int
	}{{3, 2, 1, 3}, {1, 3, 2, 3}, {1, 2, 3, 3}} {
		s := Snapshot{Durable: at(c.durable), CaughtUp: at(c.caughtUp), Received: at(c.received)}
		if got := s.Progress(); got != at(c.want) {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
