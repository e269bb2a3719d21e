package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
)

// loginGuard watches what is sent during a login without TLS. The server chooses how
// a password is asked for, and one in the middle may choose for it: the guard lets
// no password out in the clear, and a request for the server's public key only where the
// user allowed it.
type loginGuard struct {
	net.Conn
	password  string
	publicKey bool
	clear     bool // a socket of this machine
	refused   error
}

var (
	errPublicKey = errors.New("the password can only be sent over TLS, or with a public key that the server sends")
	errClear     = errors.New("the server asks for the password in the clear")
)

// Write implements net.Conn. The client writes one packet with one call.
func (g *loginGuard) Write(b []byte) (int, error) {
	const header = 4
	if len(b) > header && b[3] > 0 && !g.clear { // the login; commands start with sequence number 0
		length := int(binary.LittleEndian.Uint32(b) & 0xffffff)
		body := b[header:]
		switch {
		case length == 1 && (body[0] == 1 || body[0] == 2) && !g.publicKey: // sha256_password, caching_sha2_password
			g.refused = errPublicKey
		case g.password != "" && bytes.Contains(body, []byte(g.password+"\x00")):
			g.refused = errClear
		}
	}
	if g.refused != nil {
		return 0, g.refused
	}
	return g.Conn.Write(b)
}
