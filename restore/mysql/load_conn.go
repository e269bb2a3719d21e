package mysql

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
)

// connectLoader opens a session that may send the server what it asks for in LOAD DATA
// LOCAL, and that leaves unchecked, for the base only, what the source has checked.
func (c *config) connectLoader(ctx context.Context) (*conn, error) {
	session, err := c.dialLoader(ctx, c.tls)
	if err != nil && c.mode == "preferred" && strings.Contains(err.Error(), "does not support TLS") {
		session, err = c.dialLoader(ctx, nil)
	}
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	s := &conn{Conn: session}
	for _, set := range []string{
		"NAMES utf8mb4",
		"SESSION time_zone = '+00:00', sql_mode = '" + loadMode + "', wait_timeout = 2147483, net_read_timeout = 3600, net_write_timeout = 3600, autocommit = 1",
		"SESSION sql_log_bin = 0",
		"SESSION foreign_key_checks = 0, unique_checks = 0, innodb_lock_wait_timeout = 3600, max_error_count = 4096",
		"SESSION innodb_strict_mode = 0",
		// One vendor's or the other's, or of later versions.
		"SESSION sql_require_primary_key = 0",
		"SESSION sql_generate_invisible_primary_key = 0",
		"SESSION restrict_fk_on_non_standard_key = 0",
		"SESSION system_versioning_insert_history = 1",
		"SESSION check_constraint_checks = 0",
		"SESSION character_set_collations = ''",
	} {
		if err := s.exec(ctx, "SET "+set); err != nil && !isError(err, mysql.ER_UNKNOWN_SYSTEM_VARIABLE) {
			s.close()
			return nil, c.explain(ctx, err)
		}
	}
	return s, nil
}

// loadMode is the sql_mode in which every value that can be stored is taken as it is.
const loadMode = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"

// dialLoader is dial for connectLoader.
func (c *config) dialLoader(ctx context.Context, secure *tls.Config) (*client.Conn, error) {
	dialer := net.Dialer{Timeout: c.timeout}
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var stop func() bool
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		link, err := dialer.DialContext(ctx, network, address)
		if err == nil { // the login is bounded too
			stop = context.AfterFunc(limited, func() { _ = link.SetDeadline(time.Unix(1, 0)) })
		}
		return link, err
	}
	session, err := client.ConnectWithDialer(limited, c.network, c.address, c.user, c.password, "", dial, func(s *client.Conn) error {
		if secure != nil {
			s.SetTLSConfig(secure.Clone())
		}
		s.SetAttributes(map[string]string{"program_name": "txreel restore"})
		// Both change the shape of packets that load writes and reads by itself.
		s.UnsetCapability(mysql.CLIENT_QUERY_ATTRIBUTES)
		s.UnsetCapability(mysql.CLIENT_DEPRECATE_EOF)
		return s.SetCapability(mysql.CLIENT_LOCAL_FILES)
	})
	if stop != nil && !stop() && err == nil {
		_ = session.Close()
		err = limited.Err()
	}
	return session, err
}

// loadAnswer is what the server says of a LOAD DATA.
type loadAnswer struct {
	affected uint64
	warnings uint16
}

// packetData is how much of a file goes into one packet.
const packetData = 1 << 20

// ask sends a statement and returns the first packet of the answer.
func (c *conn) ask(sql string) ([]byte, error) {
	p := c.Conn.Conn // packets
	p.ResetSequence()
	if err := p.WritePacket(append([]byte{0, 0, 0, 0, mysql.COM_QUERY}, sql...)); err != nil {
		return nil, err
	}
	return p.ReadPacket()
}

// load runs a LOAD DATA LOCAL whose file is what r delivers. When r fails, so does the
// connection, before the server has seen the file's end: nothing of it is committed.
func (c *conn) load(ctx context.Context, sql string, r io.Reader) (answer loadAnswer, err error) {
	err = c.do(ctx, func() error {
		p := c.Conn.Conn // packets
		b, err := c.ask(sql)
		if err != nil {
			return err
		}
		if len(b) == 0 || b[0] != mysql.LocalInFile_HEADER {
			if err := parseAnswer(b, &answer); err != nil {
				return err
			}
			return errors.New("the server does not ask for the file")
		}
		buf := make([]byte, 4+packetData)
		for {
			n, rerr := io.ReadFull(r, buf[4:])
			if rerr != nil && rerr != io.EOF && !errors.Is(rerr, io.ErrUnexpectedEOF) {
				return rerr
			}
			if n > 0 {
				if err := p.WritePacket(buf[:4+n]); err != nil {
					return err
				}
			}
			if rerr != nil {
				break
			}
		}
		if err := p.WritePacket(buf[:4]); err != nil {
			return err
		}
		if b, err = p.ReadPacket(); err != nil {
			return err
		}
		return parseAnswer(b, &answer)
	})
	return answer, err
}

// parseAnswer reads an OK or an error packet.
func parseAnswer(b []byte, a *loadAnswer) error {
	switch {
	case len(b) > 3 && b[0] == mysql.ERR_HEADER:
		e := &mysql.MyError{Code: binary.LittleEndian.Uint16(b[1:])}
		if b = b[3:]; len(b) >= 6 && b[0] == '#' {
			e.State, b = string(b[1:6]), b[6:]
		}
		e.Message = string(b)
		return e
	case len(b) < 2 || b[0] != mysql.OK_HEADER:
		return fmt.Errorf("the server's answer is malformed: %d bytes", len(b))
	}
	b = b[1:]
	var ok bool
	if a.affected, b, ok = lengthEncoded(b); !ok {
		return errors.New("the server's answer is malformed: affected rows")
	}
	if _, b, ok = lengthEncoded(b); !ok || len(b) < 4 {
		return errors.New("the server's answer is malformed: warnings")
	}
	a.warnings = binary.LittleEndian.Uint16(b[2:])
	return nil
}

// lengthEncoded reads a whole number as the protocol writes it.
func lengthEncoded(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	size := map[byte]int{0xfc: 2, 0xfd: 3, 0xfe: 8}[b[0]]
	if size == 0 {
		return uint64(b[0]), b[1:], b[0] < 0xfb
	}
	if len(b) <= size {
		return 0, nil, false
	}
	for i := size; i > 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n, b[1+size:], true
}
