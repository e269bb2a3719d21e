package faults

import (
	"net"
	"sync"
	"time"
)

// link is a connection that passes through a Proxy.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	server *net.TCPConn // nil until it is dialled; guarded by proxy.mu
	lost   bool         // something sent has vanished; guarded by proxy.mu
	dead   bool         // guarded by proxy.mu
	gone   chan struct{}
}

// reset ends both sides as a broken network does. The caller holds proxy.mu.
func (l *link) reset() {
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if c != nil && !l.dead {
			_ = c.SetLinger(0) // it may be closed already
		}
	}
	l.close()
}

// close ends both sides; what was written still arrives. The caller holds proxy.mu.
func (l *link) close() {
	if l.dead {
		return
	}
	l.dead = true
	close(l.gone)
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if c != nil {
			c.Close()
		}
	}
}

// end is reset by somebody who does not hold proxy.mu.
func (l *link) end() {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.reset()
}

// run passes both directions on until they have ended.
func (l *link) run() {
	defer func() {
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		l.close()
		delete(l.proxy.links, l)
	}()
	if !l.wait(Stall, Silent) {
		return
	}
	conn, err := net.Dial("tcp", l.proxy.target)
	if err != nil {
		l.end()
		return
	}
	l.proxy.mu.Lock()
	l.server = conn.(*net.TCPConn)
	dead := l.dead
	l.proxy.mu.Unlock()
	if dead {
		conn.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(l.server, l.client) }) // joined below
	both.Go(func() { l.pump(l.client, l.server) })
	both.Wait()
}

// wait waits until none of the faults is at work; it reports false when the link has ended.
func (l *link) wait(kinds ...Kind) bool {
	for {
		kind, changed := l.proxy.now()
		met := false
		for _, k := range kinds {
			met = met || k == kind
		}
		if !met {
			select {
			case <-l.gone:
				return false
			default:
				return true
			}
		}
		select {
		case <-changed:
		case <-l.gone:
			return false
		}
	}
}

// pump passes what src sends on to dst.
func (l *link) pump(dst, src *net.TCPConn) {
	buf := make([]byte, 16<<10)
	for l.wait(Stall) {
		n, err := src.Read(buf)
		if n > 0 && !l.pass(dst, buf[:n]) {
			l.end()
			return
		}
		if err == nil {
			continue
		}
		if !l.wait(Stall) {
			return
		}
		if kind, _ := l.proxy.now(); kind == Silent { // the end is not heard of either
			l.lose()
			l.wait(Silent)
			return
		}
		if dst.CloseWrite() != nil {
			l.end()
		}
		return
	}
}

// lose notes that something vanished.
func (l *link) lose() {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.lost = true
}

// pass writes b the way the fault at work has it; it reports false when the link has ended.
func (l *link) pass(dst *net.TCPConn, b []byte) bool {
	for len(b) > 0 {
		if !l.wait(Stall) {
			return false
		}
		part := b
		switch kind, _ := l.proxy.now(); kind {
		case Silent:
			l.lose()
			return true
		case Delay:
			if !l.sleep(l.proxy.Wait) {
				return false
			}
		case Trickle:
			if !l.sleep(trickleEvery) {
				return false
			}
			part = b[:1]
		}
		if _, err := dst.Write(part); err != nil {
			return false
		}
		b = b[len(part):]
	}
	return true
}

// sleep waits; it reports false when the link has ended meanwhile.
func (l *link) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-l.gone:
		return false
	}
}
