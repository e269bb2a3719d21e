package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// The faults of a Proxy. All but Refuse are met by the connections there are and by new ones.
const (
	Pass    Kind = ""          // no fault
	Delay   Kind = "delay"     // what is sent arrives Proxy.Wait later
	Cut     Kind = "cut"       // connections are reset
	Silent  Kind = "half-open" // what is sent vanishes, also the end; connections that lost something are reset afterwards
	Stall   Kind = "stall"     // nothing is read: the sender's buffers fill, and nothing is lost
	Trickle Kind = "trickle"   // one byte at a time
	Refuse  Kind = "refuse"    // nothing listens; connections there are go on
)

// trickleEvery is how long a byte waits for the one before it.
const trickleEvery = time.Millisecond

// Proxy passes TCP connections on, or does not. It may be used concurrently.
type Proxy struct {
	counter
	// Wait is the time of Delay. It must not change while connections are open.
	Wait time.Duration

	target string
	addr   string
	joined sync.WaitGroup // accept loops and pumps

	mu       sync.Mutex
	kind     Kind
	changed  chan struct{} // closed, and made anew, when kind changes
	listener net.Listener  // nil while nothing listens
	links    map[*link]bool
	closed   bool
}

// NewProxy returns a Proxy that listens on loopback and connects to target, host:port. The
// caller closes it.
func NewProxy(target string) (*Proxy, error) {
	p := &Proxy{Wait: 50 * time.Millisecond, target: target, addr: "127.0.0.1:0", changed: make(chan struct{}), links: make(map[*link]bool)}
	if err := p.listen(); err != nil {
		return nil, err
	}
	return p, nil
}

// Addr is where the Proxy listens, host:port.
func (p *Proxy) Addr() string { return p.addr }

// listen begins to accept connections. The caller holds mu, or is the only one there is.
func (p *Proxy) listen() error {
	var l net.Listener
	var err error
	for range 50 { // another process may have the port for a moment
		if l, err = net.Listen("tcp", p.addr); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	p.listener, p.addr = l, l.Addr().String()
	p.joined.Go(func() { // ends with the listener; joined by Close
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.accept(conn.(*net.TCPConn))
		}
	})
	return nil
}

// Set begins a fault, or ends it with Pass.
func (p *Proxy) Set(k Kind) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || k == p.kind {
		return nil
	}
	before := p.kind
	p.kind = k
	close(p.changed)
	p.changed = make(chan struct{})
	for l := range p.links {
		if k == Cut || before == Silent && l.lost {
			l.reset()
		}
		if k != Pass && k != Refuse {
			p.add(k)
		}
	}
	switch {
	case k == Refuse:
		p.add(k)
		p.listener.Close() // what was accepted goes on
		p.listener = nil
	case p.listener == nil:
		return p.listen()
	}
	return nil
}

// For begins a fault, and ends it after d or with ctx.
func (p *Proxy) For(ctx context.Context, k Kind, d time.Duration) error {
	if err := p.Set(k); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return p.Set(Pass)
}

// Close resets all connections and waits until nothing of the Proxy runs any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close() // its loop ends
	}
	for l := range p.links {
		l.reset()
	}
	p.mu.Unlock()
	p.joined.Wait()
}

// now returns the fault at work, and what is closed when it ends.
func (p *Proxy) now() (Kind, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kind, p.changed
}

// accept begins to pass a connection on.
func (p *Proxy) accept(client *net.TCPConn) {
	l := &link{proxy: p, client: client, gone: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kind != Pass && p.kind != Refuse {
		p.add(p.kind)
	}
	if p.closed || p.kind == Cut {
		l.reset()
		return
	}
	// A server that is silent may not have heard of the connection at all.
	l.lost = p.kind == Silent
	p.links[l] = true
	p.joined.Go(l.run) // joined by Close
}
