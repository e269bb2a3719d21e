package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/server"

	"txreel/archive"
	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// primary acts as the primary server of the target: it lets the target's own replica
// threads log in, answers the few questions they ask, and sends the recorded
// transactions that they lack. It sends nothing behind the cut.
type primary struct {
	flavor   gtid.Flavor
	version  string // what it calls itself: the target's own
	serverID uint32
	uuid     string
	cut      change.Seq
	open     func(after change.Seq) *archive.Stream
	ledger   *ledger
	// statement is shown the text of every statement before it is sent, for the states of EVENT objects.
	statement func(ctx context.Context, schema, text []byte) error
	link      func(net.Conn) net.Conn // around a replica's connection; nil for none
	catalog   *reducible              // of the tables whose updates may be left out
	window    int                     // bytes of the record among which they are looked for
	leftOut   *atomic.Int64           // how many were

	cred   *credentials
	listen net.Listener
	conf   *server.Server
	cancel context.CancelFunc
	ctx    context.Context // of the goroutines below, ended by close
	wg     sync.WaitGroup  // the accept loop and one goroutine for each connection, joined by close

	mu       sync.Mutex
	stream   context.CancelFunc // ends the stream that is being sent, if any
	idle     chan struct{}      // closed when that stream has ended
	streams  int                // begun so far
	served   bool               // one has begun since the replica threads were started
	complete bool               // all was sent, once
	failed   error              // why the restore cannot go on
	unknown  []string           // questions without an answer, and other failures of the conversation
}

// endText is what a replica is told when it has received all, and againText when it must be started again to go on.
const (
	endText   = "txreel: restore complete, nothing follows"
	againText = "txreel: start again behind what is executed"
)

// start listens on address and accepts replicas until close.
func (p *primary) start(ctx context.Context, address, host string) error {
	var err error
	if p.cred, err = newCredentials(host); err != nil {
		return err
	}
	if p.listen, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("listen for the target's replica threads on %s: %w", address, err)
	}
	method := mysql.AUTH_CACHING_SHA2_PASSWORD
	version := p.version
	if p.flavor == gtid.MariaDB {
		method, version = mysql.AUTH_NATIVE_PASSWORD, "5.5.5-"+version
	}
	p.conf = server.NewServer(version, mysql.DEFAULT_COLLATION_ID, method, nil,
		&tls.Config{Certificates: []tls.Certificate{p.cred.certificate}, MinVersion: tls.VersionTLS12})
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		p.accept(method)
	}()
	return nil
}

// close ends every connection and waits for all goroutines.
func (p *primary) close() {
	p.cancel()
	_ = p.listen.Close()
	p.wg.Wait()
}

func (p *primary) accept(method string) {
	users := server.NewInMemoryAuthenticationHandler(method)
	if err := users.AddUser(p.cred.user, p.cred.password); err != nil {
		p.fail(err)
		return
	}
	for {
		link, err := p.listen.Accept()
		if err != nil {
			if p.ctx.Err() == nil {
				p.fail(fmt.Errorf("accept the target's replica threads: %w", err))
			}
			return
		}
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.serve(link, users)
		}()
	}
}

// loginTimeout bounds a handshake, so that who cannot log in does not stay.
const loginTimeout = 30 * time.Second

// serve answers one connection until it ends.
func (p *primary) serve(link net.Conn, users server.AuthenticationHandler) {
	if p.link != nil {
		link = p.link(link)
	}
	defer func() { _ = link.Close() }()
	stop := context.AfterFunc(p.ctx, func() { _ = link.Close() })
	defer stop()
	_ = link.SetDeadline(time.Now().Add(loginTimeout))
	s := &session{primary: p}
	c, err := p.conf.NewCustomizedConn(link, onlyTLS{users}, s)
	if err != nil {
		p.note("a login failed: " + plain(err).Error())
		return
	}
	_ = link.SetDeadline(time.Time{})
	s.conn = c
	for !c.Closed() {
		if err := c.HandleCommand(); err != nil {
			return // the replica went away
		}
	}
}

// onlyTLS lets nobody in who would read the record in the clear.
type onlyTLS struct{ server.AuthenticationHandler }

// OnAuthSuccess implements server.AuthenticationHandler.
func (onlyTLS) OnAuthSuccess(c *server.Conn) error {
	if _, ok := c.Conn.Conn.(*tls.Conn); !ok {
		return mysql.NewError(mysql.ER_ACCESS_DENIED_ERROR, "txreel: replication is served over TLS only")
	}
	return nil
}

// fail ends the restore with err.
func (p *primary) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

// failure returns why the restore cannot go on; nil while it can.
func (p *primary) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// note keeps what went wrong in the conversation, for an error.
func (p *primary) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const most = 5
	if len(p.unknown) < most && !slices.Contains(p.unknown, text) {
		p.unknown = append(p.unknown, text)
	}
}

// explain returns what was noted, in brackets.
func (p *primary) explain() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unknown) == 0 {
		return ""
	}
	return " (" + strings.Join(p.unknown, "; ") + ")"
}

// sentAll reports whether everything up to the cut was sent, over one connection or
// several.
func (p *primary) sentAll() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.complete
}

// startsAgain reports whether a replica that connects must be started again, and notes that one is served. MariaDB's goes on within a transaction that it has a part of
// by counting the events of that part; another stream may have left others of them out.
func (p *primary) startsAgain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.served && p.flavor == gtid.MariaDB && !p.catalog.target.opts.Exact
	p.served = true
	return again
}

// started notes that the replica threads have been started, with nothing but what is executed.
func (p *primary) started() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.served = false
}

// takeOver ends the stream of an earlier connection, waits for that, and makes this one
// the stream. A replica that connects again has lost the connection before.
func (p *primary) takeOver() (ctx context.Context, done func(), err error) {
	for {
		p.mu.Lock()
		if p.stream == nil {
			break
		}
		stream, idle := p.stream, p.idle
		p.mu.Unlock()
		stream()
		select {
		case <-idle:
		case <-p.ctx.Done():
			return nil, nil, p.ctx.Err()
		}
	}
	defer p.mu.Unlock()
	ctx, cancel := context.WithCancel(p.ctx)
	idle := make(chan struct{})
	p.stream, p.idle = cancel, idle
	p.streams++
	p.ledger.restart()
	return ctx, func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stream = nil
		close(idle)
	}, nil
}

var errUnknown = errors.New("txreel: this is no database server; it serves one restore")
