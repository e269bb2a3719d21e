package mysql

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/sources/mysql/gtid"
)

// keepAlive notices a server whose machine is gone, on connections that wait for a long statement.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 4}
}

// Conn is a session with pinned settings: time zone UTC, utf8mb4, an empty sql_mode, messages in English. It is for
// one goroutine at a time. Its errors match capture.ErrUnreachable when the connection was lost, and are a *ServerError
// when the server refused the statement.
type Conn struct {
	Flavor  gtid.Flavor // what answered, whatever the URL calls it
	Version string      // as the server prints it
	Number  int         // of the version: 80045 for 8.0.45, 101119 for 10.11.19
	ID      uint64      // CONNECTION_ID()
	TLS     bool        // whether the connection is encrypted

	cfg    *Config
	wire   wire
	broken error // why the connection is closed
}

// Connect opens a session to the source. Its errors are sentences for a person: they name server and user, never the
// password or the URL, and match capture.ErrUnreachable when waiting may help. The caller closes the connection.
func Connect(ctx context.Context, url string) (*Conn, error) {
	cfg, err := ParseURL(url)
	if err != nil {
		return nil, err
	}
	return cfg.Connect(ctx)
}

// Connect opens a session as the function Connect does.
func (c *Config) Connect(ctx context.Context) (*Conn, error) {
	security, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	conn, err := c.open(limited, security)
	if err != nil {
		return nil, c.explainConnect(ctx, err)
	}
	return conn, nil
}

// open dials, logs in, and settles the session. The login is go-mysql's; once it is over the server says nothing that
// it is not asked, and the socket is taken over.
func (c *Config) open(ctx context.Context, security *tls.Config) (_ *Conn, err error) {
	defer func() {
		if p := recover(); p != nil { // go-mysql trusts what a server says before the login
			err = fmt.Errorf("the server's greeting is malformed: %v", p)
		}
	}()
	dialer := net.Dialer{KeepAliveConfig: keepAlive()}
	socket, err := dialer.DialContext(ctx, c.Network, c.Address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = socket.Close()
		}
	}()
	if deadline, ok := ctx.Deadline(); ok {
		if err := socket.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	door := &login{Conn: socket, password: c.Password, publicKey: c.PublicKey}
	if err := door.greet(); err != nil {
		return nil, err
	}
	if c.TLS == TLSPreferred && !door.offersTLS {
		security = nil
	}
	door.clear = c.Network == "unix" || security != nil
	connected := func(context.Context, string, string) (net.Conn, error) { return door, nil }
	in, err := client.ConnectWithDialer(ctx, c.Network, c.Address, c.User, c.Password, c.Database, connected, func(conn *client.Conn) error {
		// Neither is needed, and both change the shape of packets.
		conn.UnsetCapability(mysql.CLIENT_QUERY_ATTRIBUTES)
		conn.UnsetCapability(mysql.CLIENT_DEPRECATE_EOF)
		conn.SetAttributes(map[string]string{"program_name": "txreel"})
		conn.SetTLSConfig(security)
		return nil
	})
	if door.refused != nil {
		return nil, door.refused
	}
	if err != nil {
		return nil, loginError(err)
	}
	conn := &Conn{cfg: c, TLS: security != nil}
	conn.wire = wire{conn: in.Conn.Conn, in: bufio.NewReaderSize(in.Conn.Conn, 64<<10)}
	if security == nil {
		conn.wire.conn = socket // nothing to watch any more
		conn.wire.in.Reset(socket)
	}
	if err := conn.settle(ctx); err != nil {
		return nil, err
	}
	return conn, conn.wire.conn.SetDeadline(time.Time{})
}

// settle pins what the session must not take from the server's configuration, and learns who answers.
func (c *Conn) settle(ctx context.Context) error {
	if err := c.Exec(ctx, "SET NAMES utf8mb4"); err != nil {
		return err
	}
	if err := c.Exec(ctx, "SET SESSION time_zone='+00:00', sql_mode='', lc_messages='en_US', autocommit=1, "+
		"sql_quote_show_create=1, sql_select_limit=18446744073709551615, sql_big_selects=1, sql_auto_is_null=0, wait_timeout=28800, "+
		"net_read_timeout=600, net_write_timeout=600"); err != nil {
		return err
	}
	row, err := c.QueryRow(ctx, "SELECT VERSION(), CONNECTION_ID(), @@version_comment")
	if err != nil {
		return err
	}
	c.Version = row[0].String()
	c.Number = versionNumber(c.Version)
	if c.ID, err = row[1].Uint(); err != nil {
		return fmt.Errorf("the server's connection id %q: %w", row[1], err)
	}
	c.Flavor = gtid.MySQL
	limit := "max_execution_time=0"
	if strings.Contains(strings.ToLower(c.Version+" "+row[2].String()), "mariadb") {
		c.Flavor, limit = gtid.MariaDB, "max_statement_time=0"
		if c.Number >= 100300 { // a session of a base may have nothing to do for a while
			limit += ", idle_transaction_timeout=0, idle_readonly_transaction_timeout=0, idle_write_transaction_timeout=0"
		}
	}
	if c.Number > 0 && c.Number < 50700 {
		return fmt.Errorf("it is %s %s, which is older than anything txreel records: MySQL 8.0 and MariaDB 10.11 are the oldest", c.Flavor, c.Version)
	}
	return c.Exec(ctx, "SET SESSION "+limit)
}

// versionNumber reads the numbers at the front of a version: 80045 for "8.0.45-log", 0 when there are none.
func versionNumber(version string) int {
	version = strings.TrimPrefix(version, "5.5.5-") // what old clients are told of MariaDB
	number := 0
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 3 {
		return 0
	}
	for _, part := range parts {
		if i := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			part = part[:i]
		}
		n, err := strconv.Atoi(part)
		if err != nil || n > 99 {
			return 0
		}
		number = number*100 + n
	}
	return number
}

// Close ends the session.
func (c *Conn) Close() {
	if c.broken == nil {
		_ = c.wire.conn.SetDeadline(time.Now().Add(time.Second))
		_ = c.wire.command(comQuit, nil) // what counts is that the socket is closed
	}
	c.end(errors.New("the session is closed"))
}

// end closes the socket and remembers why.
func (c *Conn) end(err error) {
	if c.broken == nil {
		c.broken = err
		_ = c.wire.conn.Close()
	}
}

// Closed reports whether the connection is gone.
func (c *Conn) Closed() bool { return c.broken != nil }

// id is the connection's for KILL.
func (c *Conn) id() string { return strconv.FormatUint(c.ID, 10) }
