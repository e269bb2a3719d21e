package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// gatherBytes is how much a stream that flows lets gather in the kernel.
	gatherBytes = 256 << 10
	// gatherTime is the longest it waits for that.
	gatherTime = 5 * time.Millisecond
)

// gatherConn is a connection with a buffer that is read in large pieces. A walsender sends every
// message by itself: a reader that is as fast wakes up once a row, and on a small
// machine takes the processor that the walsender needs. While the stream flows the kernel
// is asked (SO_RCVLOWAT) to report data once much of it is there, or its buffer is
// full; while it is idle, at once.
type gatherConn struct {
	net.Conn
	raw     syscall.RawConn
	on      atomic.Bool  // set once nobody else sets read deadlines
	waiting atomic.Int64 // since when a Read waits, µs; zero while none does
	flows   bool         // SO_RCVLOWAT is raised
	buf     []byte
	next    int // buf[next:] has been read but not asked for
}

// gatherReads makes connections of cfg be read in large pieces once enabled. The
// gatherConn is there after the dial.
func gatherReads(cfg *pgconn.Config) func() *gatherConn {
	var last *gatherConn
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		last = &gatherConn{Conn: conn, buf: make([]byte, 0, gatherBytes)}
		if s, ok := conn.(syscall.Conn); ok {
			last.raw, err = s.SyscallConn()
		}
		return last, err
	}
	return func() *gatherConn { return last }
}

// Buffered returns how many bytes can be read without waiting.
func (c *gatherConn) Buffered() int { return len(c.buf) - c.next }

// Read implements net.Conn.
func (c *gatherConn) Read(p []byte) (int, error) {
	if c.next == len(c.buf) {
		n, err := c.fill(c.buf[:cap(c.buf)])
		if err != nil {
			return 0, err
		}
		c.buf, c.next = c.buf[:n], 0
	}
	n := copy(p, c.buf[c.next:])
	c.next += n
	return n, nil
}

func (c *gatherConn) fill(p []byte) (int, error) {
	// In the middle of a message counts as well: a connection may break there too.
	c.waiting.Store(time.Now().UnixMicro())
	defer c.waiting.Store(0)
	if c.raw == nil || !c.on.Load() {
		return c.Conn.Read(p)
	}
	if c.flows {
		if n, err := c.gather(p); n > 0 || err != nil {
			return n, err
		}
		c.lowWater(1) // nothing for a while: the next byte counts
	}
	n, err := c.Conn.Read(p)
	if err == nil {
		c.lowWater(gatherBytes)
	}
	return n, err
}

// gather reads what is there once the kernel reports much, or gatherTime has
// passed; nothing may be.
func (c *gatherConn) gather(p []byte) (n int, err error) {
	if err := c.SetReadDeadline(time.Now().Add(gatherTime)); err != nil {
		return 0, err
	}
	waited := false
	waitErr := c.raw.Read(func(fd uintptr) bool {
		if !waited {
			waited = true
			return false // wait first: there may be a little already
		}
		n, err = syscall.Read(int(fd), p)
		return !errors.Is(err, syscall.EAGAIN)
	})
	if err2 := c.SetReadDeadline(time.Time{}); err2 != nil {
		return 0, err2
	}
	if errors.Is(waitErr, os.ErrDeadlineExceeded) {
		waitErr = c.raw.Control(func(fd uintptr) { n, err = syscall.Read(int(fd), p) })
	}
	switch {
	case waitErr != nil:
		return 0, waitErr
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// lowWater sets how much must be there before the kernel reports data. Where that
// cannot be set, reads stay small.
func (c *gatherConn) lowWater(n int) {
	err := c.raw.Control(func(fd uintptr) {
		if e := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, n); e != nil {
			c.raw = nil
		}
	})
	c.flows = err == nil && c.raw != nil && n > 1
}
