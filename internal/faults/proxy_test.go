package faults

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// echo serves what it is sent, and ends when the client does.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func newProxy(t *testing.T) *Proxy {
	t.Helper()
	p, err := NewProxy(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	p.Wait = 20 * time.Millisecond
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// say sends text and waits for its echo.
func say(conn net.Conn, text string, patience time.Duration) error {
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("heard " + string(got))
	}
	return nil
}

const (
	long  = 30 * time.Second
	short = 50 * time.Millisecond
)

// silent reports whether nothing was heard for a while.
func silent(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func set(t *testing.T, p *Proxy, k Kind) {
	t.Helper()
	if err := p.Set(k); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, what string, ok bool, err error) {
	t.Helper()
	if !ok {
		t.Fatalf("%s: %v", what, err)
	}
}

// connected is how many connections the proxy has not done with.
func (p *Proxy) connected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func TestProxy(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	conn := dial(t, p)
	err := say(conn, "hello", long)
	must(t, "without a fault", err == nil, err)

	for _, k := range []Kind{Delay, Trickle} {
		set(t, p, k)
		begun := time.Now()
		err := say(conn, "slowly", long)
		must(t, string(k), err == nil && time.Since(begun) >= 2*trickleEvery, err) // a lower bound of what was waited
		set(t, p, Pass)
	}

	set(t, p, Stall)
	err = say(conn, "held", short)
	must(t, "stalled", silent(err), err)
	set(t, p, Pass)
	got := make([]byte, 4)
	must(t, "nothing is lost by a stall", conn.SetReadDeadline(time.Now().Add(long)) == nil, nil)
	_, err = io.ReadFull(conn, got)
	must(t, "nothing is lost by a stall", err == nil && string(got) == "held", err)

	idle := dial(t, p)
	err = say(idle, "here", long)
	must(t, "another connection", err == nil, err)
	set(t, p, Silent)
	err = say(conn, "lost", short)
	must(t, "half-open", silent(err), err)
	fresh := dial(t, p) // it is accepted, and that is all
	err = say(fresh, "lost", short)
	must(t, "half-open from the start", silent(err), err)
	set(t, p, Pass)
	err = say(conn, "x", long)
	must(t, "a connection that lost something is reset", broken(err), err)
	err = say(fresh, "x", long)
	must(t, "one that was never heard of is reset", broken(err), err)
	err = say(idle, "still here", long)
	must(t, "one that lost nothing goes on", err == nil, err)

	set(t, p, Refuse)
	_, err = net.Dial("tcp", p.Addr())
	must(t, "refused", errors.Is(err, syscall.ECONNREFUSED), err)
	err = say(idle, "still here", long)
	must(t, "what is connected stays", err == nil, err)

	for p.connected() > 1 { // or one that was reset, and that the proxy has not done with yet, is cut as well
		time.Sleep(time.Millisecond)
	}
	set(t, p, Cut)
	err = say(idle, "x", long)
	must(t, "cut", broken(err), err)
	cut, err := net.Dial("tcp", p.Addr())
	if err == nil { // it may be reset before it is of any use
		t.Cleanup(func() { cut.Close() })
		err = say(cut, "x", long)
	}
	must(t, "cut at once", broken(err), err)
	if err := p.For(t.Context(), Trickle, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	err = say(dial(t, p), "hello", long)
	must(t, "when all is over", err == nil, err)

	if c := p.Counts(); c[Delay] != 1 || c[Trickle] < 1 || c[Stall] != 1 || c[Silent] != 3 || c[Refuse] != 1 || c[Cut] != 2 {
		t.Errorf("counted %s", c)
	}
}

// TestProxyLosesNothing passes much through, both ends closing in order.
func TestProxyLosesNothing(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	conn := dial(t, p)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { // ends with the connection
		_, _ = conn.Write(sent)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("heard %d of %d bytes: %v", len(got), len(sent), err)
	}
}
