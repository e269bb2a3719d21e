package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/internal/faults"
)

// stack is a source, a store and a capture between them, all of which can be broken. It belongs to the test's
// goroutine, but for what mu guards.
type stack struct {
	t       *testing.T
	engine  engine
	direct  *place // around the proxies
	broken  place  // through them
	gateway *dbtest.Gateway
	proxy   *faults.Proxy
	http    *faults.HTTP

	capture *process
	started int    // captures
	mode    mode   // of the next capture
	spool   string // folder, on a small disk of its own
	bank    *bank
	bases   []*process // that were asked for
	metrics string     // where capture serves them
	heard   int64      // bytes of the capture's log that shipped has read
	begun   time.Time

	alone  int // transactions that were looked for in the archive alone
	mu     sync.Mutex
	there  map[change.Seq]arrival // segments by their first transaction, when they were first seen in the store
	counts faults.Counts
	mood   faults.Kind   // storeDown, storeMute, storeSkewed or none
	calm   chan struct{} // closed when the mood ends
}

// arrival says when a segment was in the store.
type arrival struct {
	ticket  int64 // of the bank
	spooled bool  // it may have been acknowledged long before
}

// victim is a server that is restored into, and may be killed.
type victim struct {
	url         string
	query       func(sql string) [][]string
	kill, start func(ctx context.Context) error
}

// engine is what a torture needs to know of a kind of database.
type engine interface {
	name() string
	// where is the place of the archive; its source listens at address.
	where() (p *place, address string)
	kill(ctx context.Context) error
	start(ctx context.Context) error
	restart(ctx context.Context) error
	// pause holds the source still until resume, or with part only the process that serves the capture, if there is one;
	// what says which it was.
	pause(ctx context.Context, part bool) (what faults.Kind, resume func() error, err error)
	// clock is the source's.
	clock() *faults.Clock
	// grain is the unit of its commit times.
	grain() time.Duration
	// patient sets for how long a COMMIT may wait, where the server decides that.
	patient(ctx context.Context, limit time.Duration) error
	connect(ctx context.Context, client int) (teller, error)
	// cut ends the sessions of the bank's clients and says how many.
	cut(ctx context.Context) (int, error)
	// definitions are statements that change tables, one after the other.
	definitions() []string
	exec(ctx context.Context, sql string) error
	query(sql string) [][]string
	// holds returns what reports whether the archive has come up to where the source is now.
	holds(a *archive.Archive) func() bool
	// ready does what is needed before the end of the record can be restored.
	ready()
	// reaches reports whether a point can be restored.
	reaches(point ...string) bool
	// target makes what can be restored into.
	target(n int) victim
}

func newStack(t *testing.T, e engine, gateway *dbtest.Gateway, b *bank) *stack {
	t.Helper()
	direct, address := e.where()
	proxy, err1 := faults.NewProxy(address)
	store, err2 := faults.NewHTTP(gateway.URL)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	t.Cleanup(proxy.Close)
	t.Cleanup(store.Close)
	s := &stack{t: t, engine: e, direct: direct, broken: *direct, gateway: gateway, proxy: proxy, http: store,
		bank: b, spool: filepath.Join(smallDisk(t), "spool"), there: make(map[change.Seq]arrival),
		counts: make(faults.Counts), calm: make(chan struct{}), begun: time.Now()}
	store.There = s.arrived
	s.broken.archive = strings.Replace(direct.archive, url.QueryEscape(gateway.URL), url.QueryEscape(store.URL()), 1)
	s.broken.source = nil
	for _, variable := range direct.source {
		s.broken.source = append(s.broken.source, strings.Replace(variable, address, proxy.Addr(), 1))
	}
	if s.broken.archive == direct.archive || strings.Join(s.broken.source, " ") == strings.Join(direct.source, " ") {
		t.Fatal("the way does not lead through the proxies")
	}
	return s
}

// smallDisk mounts a file system that is soon full.
func smallDisk(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=2m"); err != nil {
		t.Logf("SKIPPED: the spool's disk is not filled up: a small one cannot be mounted, which takes root: %v", err)
		return path
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// arrived notes when a segment is in the store, before whoever put or reads it hears of it.
func (s *stack) arrived(path string) {
	name, ok := strings.CutSuffix(filepath.Base(path), ".seg")
	seq, err := change.ParseSeq(name)
	if !ok || err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.there[seq]; !known {
		s.there[seq] = arrival{s.bank.ticket.Add(1), s.mode.spool}
	}
}

func (s *stack) count(k faults.Kind, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[k] += n
}

// total returns all faults so far by their kind.
func (s *stack) total() faults.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(faults.Counts)
	for prefix, counts := range map[string]faults.Counts{"": s.counts, "source ": s.proxy.Counts(), "store ": s.http.Counts(), "source's ": s.engine.clock().Counts()} {
		for k, n := range counts {
			all[faults.Kind(prefix)+k] += n
		}
	}
	return all
}

// tell notes what happens, for whoever has to find out why a test failed.
func (s *stack) tell(format string, args ...any) {
	s.t.Helper()
	s.t.Logf("%7.2f %s", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// startCapture starts a capture behind the proxies.
func (s *stack) startCapture(more ...string) {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.metrics = l.Addr().String()
	_ = l.Close() // nothing was accepted
	s.capture, s.heard = s.broken.start(s.command(append(more, "--metrics", s.metrics)...)...), 0
	s.started++
}

func (s *stack) command(more ...string) []string {
	args := []string{"capture", "--flush-age", "50ms", "--heartbeat", "500ms"}
	if s.mode.spool {
		args = append(args, "--spool", s.spool, "--spool-limit", "1MiB")
	}
	if s.mode.sync {
		args = append(args, "--sync", "--sync-timeout", s.mode.timeout().String())
	}
	return append(args, more...)
}

// mind does what a service manager does: a capture that ended with a code that may pass is started again.
func (s *stack) mind() {
	s.t.Helper()
	if s.capture.alive() {
		return
	}
	code := s.capture.wait(time.Minute)
	s.tell("capture ended with %d: %s", code, tail(s.capture.stderr(), 1))
	switch code {
	case 1, 5, 7:
		time.Sleep(100 * time.Millisecond)
		s.startCapture()
	default:
		s.t.Fatalf("the capture ended with %d:\n%s", code, tail(s.capture.stderr(), 20))
	}
}

// shipped reports whether the capture has shipped a segment since it was asked last.
func (s *stack) shipped() bool {
	f, err := os.Open(s.capture.path("stderr"))
	if err != nil {
		return false
	}
	defer f.Close()
	if _, err := f.Seek(s.heard, io.SeekStart); err != nil {
		return false
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return false
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	s.heard += int64(len(b))
	return bytes.Contains(b, []byte(`"message":"segment"`))
}

// settle waits until something is recorded, whatever the store's weather is.
func (s *stack) settle() {
	s.t.Helper()
	s.shipped()
	eventually(s.t, patience(), "something is recorded", func() bool {
		s.mind()
		return s.shipped()
	})
}

// healthy reports what capture says of itself.
func (s *stack) healthy() bool {
	resp, err := http.Get("http://" + s.metrics + "/healthz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// setMood sets what the store does to every request, none but the weather with "".
func (s *stack) setMood(k faults.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = k
	if k == "" {
		close(s.calm)
		s.calm = make(chan struct{})
	}
}

// fault is what happens to requests to the store: what the plan says of a while, else the weather.
func (s *stack) fault(seed uint64, chances []faults.Chance) faults.Fault {
	weather := s.http.ByPlan(seed, chances)
	return func(n int, w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		mood, calm := s.mood, s.calm
		s.mu.Unlock()
		switch mood {
		case storeDown:
			s.count(mood, 1)
			return faults.Answer(w, http.StatusServiceUnavailable, "SlowDown")
		case storeSkewed:
			s.count(mood, 1)
			return faults.Answer(w, http.StatusForbidden, "RequestTimeTooSkewed")
		case storeMute:
			s.count(mood, 1)
			s.http.Forward(r)
			select {
			case <-calm:
			case <-r.Context().Done():
			}
			return faults.Abort()
		}
		return weather(n, w, r)
	}
}

// calmDown ends all faults and waits until the archive holds all that the source has.
func (s *stack) calmDown(a *archive.Archive) {
	s.t.Helper()
	s.http.Set(nil)
	s.tell("calm")
	for _, base := range s.bases {
		base.kill()
	}
	holds := s.engine.holds(a)
	eventually(s.t, patience(), "the archive holds everything", func() bool {
		s.mind()
		return holds()
	})
	eventually(s.t, patience(), "the capture is healthy", s.healthy)
}
