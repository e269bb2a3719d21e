package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
)

// position is a position of the model's log; text order is log order.
func position(n int) change.Position { return change.Position(fmt.Sprintf("%08d", n)) }

// txn is a transaction of the model.
type txn struct {
	xid      string
	position change.Position
	messages []string
}

// server is what outlives a capture: a log, and what was acknowledged of it.
type server struct {
	log   []txn
	start change.Position // of the record
	end   change.Position // behind everything

	mu    sync.Mutex
	acked change.Position
}

func newServer(r *rand.Rand, txns int) *server {
	s := &server{start: position(0), acked: position(0)}
	at := 0
	for i := range txns {
		at += 1 + r.IntN(3)
		t := txn{xid: fmt.Sprint(700 + i), position: position(at)}
		for range 1 + r.IntN(4) {
			t.messages = append(t.messages, fmt.Sprintf("I%d %x", i, r.Uint64()))
		}
		if i == txns/2 { // one that is carried into a segment of its own
			for range 3 {
				t.messages = append(t.messages, "I"+strings.Repeat(fmt.Sprintf("%016x", r.Uint64()), carryBelow/40))
			}
		}
		s.log = append(s.log, t)
	}
	s.end = position(at + 5)
	return s
}

func (s *server) confirmed() change.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

// world is a server, a store, and what befalls the capture between them. A step is
// a request of the store, a call of Next or one of Ack.
type world struct {
	t      *testing.T
	server *server
	inner  archive.Store

	mu     sync.Mutex
	steps  int
	fault  fault
	at     int  // the step the fault happens at
	struck bool // it has happened
	dead   bool // killed: nothing has an effect any more
	broken string
	lost   bool // a segment did not arrive in this run
	cancel context.CancelFunc
}

type fault int

const (
	failBefore fault = iota // the step fails without an effect
	failAfter               // it takes effect and fails
	kill                    // nothing has an effect from there on
	stop                    // ctx ends
	faults
)

func (f fault) String() string {
	return [...]string{"fails before", "fails after", "kill", "stop"}[f]
}

var errInjected = errors.New("injected")

// step counts one, and says what befalls it.
func (w *world) step() (before, after error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errInjected, nil
	}
	w.steps++
	if w.struck || w.steps != w.at {
		return nil, nil
	}
	w.struck = true
	switch w.fault {
	case failBefore:
		return errInjected, nil
	case failAfter:
		return nil, errInjected
	case kill:
		w.dead = true
		return errInjected, nil
	}
	w.cancel()
	return nil, nil
}

// bad notes a broken promise; the first counts.
func (w *world) bad(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

// store is a Store with faults.
type store struct {
	*world
	archive.Store
}

func (s store) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	segments := strings.Contains(key, "/segments/")
	if s.mu.Lock(); segments && s.lost && !s.dead {
		s.mu.Unlock()
		s.bad("%s follows a segment that did not arrive", key)
	} else {
		s.mu.Unlock()
	}
	before, after := s.step()
	err := before
	if err == nil {
		err = errors.Join(s.Store.Create(ctx, key, body, size), after)
	}
	if err != nil && segments && !errors.Is(err, fs.ErrExist) {
		s.mu.Lock()
		s.lost = true
		s.mu.Unlock()
	}
	return err
}

func (s store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	before, after := s.step()
	if err := errors.Join(before, after); err != nil {
		return nil, 0, err
	}
	return s.Store.Open(ctx, key, off, n)
}

func (s store) List(ctx context.Context, prefix, after string, limit int) ([]archive.Object, error) {
	before, late := s.step()
	if err := errors.Join(before, late); err != nil {
		return nil, err
	}
	return s.Store.List(ctx, prefix, after, limit)
}

// source delivers the server's log from the tail on.
type source struct {
	*world
	archive *archive.Archive // without faults, to look into
	script  []change.Message
	acked   change.Position

	position change.Position
}

// open opens the stream where the archive ends. What the server sends again and the
// archive holds is dropped, by position only, as a source must.
func (w *world) open(a *archive.Archive, tail change.Position, r *rand.Rand) (*source, error) {
	confirmed := w.server.confirmed()
	if tail != "" && confirmed > tail {
		return nil, fmt.Errorf("%w: acknowledged up to %s, the archive ends at %s", ErrGap, confirmed, tail)
	}
	s := &source{world: w, archive: a, acked: tail, position: max(tail, w.server.start)}
	for _, t := range w.server.log {
		if t.position <= max(tail, w.server.start) {
			continue
		}
		if r.IntN(4) == 0 {
			s.script = append(s.script, change.Message{Kind: change.KindIdle})
		}
		s.script = append(s.script, change.Message{Kind: change.KindBegin, Raw: []byte("B")})
		for _, m := range t.messages {
			s.script = append(s.script, change.Message{Kind: change.KindData, Raw: []byte(m)})
		}
		s.script = append(s.script, change.Message{Kind: change.KindCommit, Raw: []byte("C"), XID: t.xid, Position: t.position, CommitTime: 1})
		for range r.IntN(3) {
			s.script = append(s.script, change.Message{Kind: change.KindIdle, Position: t.position, CommitTime: 2})
		}
	}
	return s, nil
}

func (s *source) Next(ctx context.Context) (*change.Message, error) {
	before, after := s.step()
	if err := errors.Join(before, after, ctx.Err()); err != nil {
		return nil, err
	}
	m := &change.Message{Kind: change.KindIdle, Position: s.server.end, CommitTime: 2}
	if len(s.script) > 0 {
		m, s.script = &s.script[0], s.script[1:]
	}
	if m.Position != "" {
		s.position = m.Position
	}
	if m.Kind == change.KindIdle {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return m, nil
}

func (s *source) Position() change.Position { return s.position }

func (s *source) Wake() {}

func (s *source) Ack(p change.Position) {
	before, after := s.step()
	if before != nil {
		return // it did not reach the server
	}
	_ = after
	if p < s.acked {
		s.bad("acknowledged %s after %s", p, s.acked)
	}
	s.acked = p
	// Invariant 1, checked where it would be broken.
	tail, err := s.archive.Tail(context.Background(), 1)
	if err != nil || tail.Position < p {
		s.bad("acknowledged %s, the archive holds %+v, %v", p, tail, err)
	}
	s.server.mu.Lock()
	s.server.acked = max(s.server.acked, p)
	done := s.server.acked >= s.server.end
	s.server.mu.Unlock()
	if done {
		s.cancel()
	}
}

// check compares what the archive holds with the server's log.
func (w *world) check(a *archive.Archive) error {
	tail, err := a.Tail(context.Background(), 1)
	if err != nil {
		return err
	}
	s := a.Stream(context.Background(), 1, 1, tail.Seq, "")
	defer s.Close()
	var got []txn
	var cur txn
	starts := 0
	last := change.Position("")
	for {
		rec, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch rec.Kind {
		case segment.Begin:
			cur = txn{}
		case segment.Message:
			if rec.Raw[0] == 'I' {
				cur.messages = append(cur.messages, string(rec.Raw))
			}
		case segment.Commit:
			if rec.Position < last {
				return fmt.Errorf("%s goes back from %s to %s", rec.Seq, last, rec.Position)
			}
			last = rec.Position
			switch cur.xid, cur.position = rec.XID, rec.Position; {
			case rec.XID != "":
				got = append(got, cur)
			case rec.CommitTime == startTime:
				if starts++; rec.Seq != 1 || rec.Position != w.server.start {
					return fmt.Errorf("the start is %+v", rec)
				}
			}
		}
	}
	if starts != 1 {
		return fmt.Errorf("%d starts", starts)
	}
	if !slices.EqualFunc(got, w.server.log, func(a, b txn) bool {
		return a.xid == b.xid && a.position == b.position && slices.Equal(a.messages, b.messages)
	}) {
		return fmt.Errorf("the archive holds %d transactions, not the server's %d:\n%v\n%v", len(got), len(w.server.log), got, w.server.log)
	}
	return nil
}

const startTime = 77
