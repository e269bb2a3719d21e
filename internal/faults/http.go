package faults

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
)

// The faults that HTTP.ByPlan injects.
const (
	Error500      Kind = "500"        // an internal error, without effect
	Error500After Kind = "500 after"  // an internal error, although the request took effect
	Error503      Kind = "503"        // slow down
	Conflict409   Kind = "409"        // a create lost a race against another one that lost, too
	Exists412     Kind = "412 after"  // a create took effect, was repeated on the way, and met itself
	CutBefore     Kind = "cut"        // the connection breaks without effect
	CutAfter      Kind = "cut after"  // the connection breaks although the request took effect
	Half          Kind = "half"       // the answer breaks off in its middle
	Skewed        Kind = "403 skewed" // the client's clock and the service's are too far apart, without effect
)

// Fault handles the nth request (from 1) since it was set and reports whether it did; otherwise
// the request passes.
type Fault func(n int, w http.ResponseWriter, r *http.Request) bool

// HTTP stands before an S3 service and counts, changes or breaks what passes.
type HTTP struct {
	counter
	// There, if not nil, is called with the path of each object that the service was seen to hold, before anybody hears
	// of it. It must be set before the first request.
	There func(path string)

	server *httptest.Server
	next   http.Handler
	stop   chan struct{} // closed when requests that hang shall end

	mu    sync.Mutex
	seen  []string // method and query of each request
	fault Fault
}

// NewHTTP returns an HTTP before the service at target, a URL. The caller closes it.
func NewHTTP(target string) (*HTTP, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &HTTP{stop: make(chan struct{})}
	p.next = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}, ModifyResponse: p.seeing, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	p.server = httptest.NewServer(p)
	return p, nil
}

// seeing looks for objects in an answer of the service.
func (p *HTTP) seeing(resp *http.Response) error {
	r := resp.Request
	ok := resp.StatusCode/100 == 2
	switch {
	case p.There == nil:
	case r.Method == http.MethodPut && (ok || resp.StatusCode == http.StatusPreconditionFailed),
		(r.Method == http.MethodGet || r.Method == http.MethodHead) && ok:
		p.There(r.URL.Path)
	}
	return nil
}

// URL is where the service is to be asked.
func (p *HTTP) URL() string { return p.server.URL }

// Close ends what hangs and stops listening.
func (p *HTTP) Close() {
	close(p.stop)
	p.server.Close()
}

// Set installs f, or no fault, and forgets what was seen.
func (p *HTTP) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = f, nil
}

// Requests returns what came since the last Set: method and query of each.
func (p *HTTP) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

// ServeHTTP implements http.Handler.
func (p *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.URL.RawQuery)
	n, f := len(p.seen), p.fault
	p.mu.Unlock()
	if f == nil || !f(n, w, r) {
		p.next.ServeHTTP(w, r)
	}
}

// Forward lets the service act on r and returns its answer, which nobody has got yet.
func (p *HTTP) Forward(r *http.Request) *httptest.ResponseRecorder {
	got := httptest.NewRecorder()
	p.next.ServeHTTP(got, r)
	return got
}

// Hang answers nothing until the client has had enough, or Close.
func (p *HTTP) Hang(r *http.Request) bool {
	select {
	case <-p.stop:
	case <-r.Context().Done():
	}
	return true
}

// Swallow lets the service act on r and drops its answer with the connection.
func (p *HTTP) Swallow(r *http.Request) bool {
	p.Forward(r)
	return Abort()
}

// SendHalf lets the service act on r and sends the first half of its answer.
func (p *HTTP) SendHalf(w http.ResponseWriter, r *http.Request) {
	got := p.Forward(r)
	for name, values := range got.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(got.Body.Len()))
	w.WriteHeader(got.Code)
	_, _ = w.Write(got.Body.Bytes()[:got.Body.Len()/2]) // it is to break anyway
	_ = http.NewResponseController(w).Flush()
}

// Abort closes the connection without an answer, or in its middle.
func Abort() bool { panic(http.ErrAbortHandler) }

// Answer sends an S3 error.
func Answer(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<Error><Code>" + code + "</Code><Message>injected</Message></Error>"))
	return true
}

// ByPlan returns a Fault that draws from chances, in the order of the requests.
func (p *HTTP) ByPlan(seed uint64, chances []Chance) Fault {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		k := pick(chances, rng.IntN(1000))
		mu.Unlock()
		creates := r.Header.Get("If-None-Match") != ""
		if k == "" || (k == Conflict409 || k == Exists412) && !creates {
			return false
		}
		p.add(k)
		switch k {
		case Error500:
			return Answer(w, 500, "InternalError")
		case Error500After:
			p.Forward(r)
			return Answer(w, 500, "InternalError")
		case Error503:
			return Answer(w, 503, "SlowDown")
		case Conflict409:
			return Answer(w, 409, "ConditionalRequestConflict")
		case Exists412:
			p.Forward(r)
			return Answer(w, 412, "PreconditionFailed")
		case Skewed:
			return Answer(w, 403, "RequestTimeTooSkewed")
		case CutBefore:
			return Abort()
		case CutAfter:
			return p.Swallow(r)
		case Half:
			p.SendHalf(w, r)
			return Abort()
		}
		return false
	}
}
