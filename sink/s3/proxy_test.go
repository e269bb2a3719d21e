package s3

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// proxy stands before a gateway and counts, changes or breaks what passes.
type proxy struct {
	server *httptest.Server
	next   http.Handler
	stop   chan struct{} // closed when requests that hang shall end

	mu    sync.Mutex
	seen  []string // method and query of each request
	fault fault
}

// fault handles the nth request (from 1) since it was set and reports whether it
// did; otherwise the request passes to the gateway.
type fault func(n int, w http.ResponseWriter, r *http.Request) bool

// newProxy returns a proxy before a new gateway and a Store that goes through it,
// impatient enough for tests.
func newProxy(t *testing.T) (*proxy, *Store) {
	t.Helper()
	g := dbtest.S3(t)
	target, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{stop: make(chan struct{})}
	p.next = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	p.server = httptest.NewServer(p)
	t.Cleanup(func() {
		close(p.stop)
		p.server.Close()
	})
	opts := optionsFor(g, "faults")
	opts.Endpoint, opts.Stall, opts.RetryFor = p.server.URL, 10*time.Second, 10*time.Second
	return p, open(t, opts)
}

// set installs f, or no fault, and forgets what was seen.
func (p *proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = f, nil
}

// requests returns what came since the last set.
func (p *proxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.URL.RawQuery)
	n, f := len(p.seen), p.fault
	p.mu.Unlock()
	if f == nil || !f(n, w, r) {
		p.next.ServeHTTP(w, r)
	}
}

// hang answers nothing until the client or the test has had enough.
func (p *proxy) hang(_ int, _ http.ResponseWriter, r *http.Request) bool {
	select {
	case <-p.stop:
	case <-r.Context().Done():
	}
	return true
}

// swallow lets the gateway act on r and drops its answer with the connection.
func (p *proxy) swallow(w http.ResponseWriter, r *http.Request) bool {
	p.next.ServeHTTP(httptest.NewRecorder(), r)
	return cut(w)
}

// cut closes the connection without an answer.
func cut(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }

// answer sends an S3 error.
func answer(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<Error><Code>" + code + "</Code><Message>injected</Message></Error>"))
	return true
}
