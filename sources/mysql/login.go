package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// login stands between go-mysql and the socket until the server has let us in.
//
// It reads the server's greeting first, to see whether TLS is offered: to find that out by trying
// would leave a failed login behind, of which servers take only so many.
//
// And without TLS it watches what is sent. The server chooses how a password is asked for, and one in the
// middle may choose for it: no password goes out in the clear, and a request for the server's
// public key only where the user allowed it.
type login struct {
	net.Conn
	greeting  []byte // what go-mysql has not read of it yet
	offersTLS bool

	password  string
	publicKey bool
	clear     bool // over TLS, or a socket of this machine
	refused   error
}

var (
	errPublicKey = errors.New("the password can only be sent over TLS, or with a public key that the server sends")
	errClear     = errors.New("the server asks for the password in the clear")
)

// greet reads the server's first packet.
func (l *login) greet() error {
	var header [packetHeader]byte
	if _, err := io.ReadFull(l.Conn, header[:]); err != nil {
		return err
	}
	body := make([]byte, min(packetLength(header[:]), 1<<16))
	if _, err := io.ReadFull(l.Conn, body); err != nil {
		return err
	}
	l.greeting = append(header[:], body...)
	// Version of the protocol, of the server, connection id, a part of the scramble and a zero; then what it is capable of.
	const tls = 0x0800
	if end := bytes.IndexByte(body, 0); end >= 0 && len(body) >= end+16 && body[0] == 10 {
		l.offersTLS = binary.LittleEndian.Uint16(body[end+14:])&tls != 0
	}
	return nil
}

// Read implements net.Conn.
func (l *login) Read(b []byte) (int, error) {
	if len(l.greeting) > 0 {
		n := copy(b, l.greeting)
		l.greeting = l.greeting[n:]
		return n, nil
	}
	return l.Conn.Read(b)
}

// Write implements net.Conn. The client writes one packet with one call.
func (l *login) Write(b []byte) (int, error) {
	if len(b) > packetHeader && b[3] > 0 && !l.clear { // the login; commands start with sequence number 0
		body := b[packetHeader:]
		switch {
		case packetLength(b) == 1 && (body[0] == 1 || body[0] == 2) && !l.publicKey: // sha256_password, caching_sha2_password
			l.refused = errPublicKey
		case l.password != "" && bytes.Contains(body, []byte(l.password+"\x00")):
			l.refused = errClear
		}
	}
	if l.refused != nil {
		return 0, l.refused
	}
	return l.Conn.Write(b)
}
