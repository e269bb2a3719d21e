package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/capture"
)

// connectError is one sentence. It keeps the server's error and the context's for callers that ask.
type connectError struct {
	sentence    string
	cause       error
	unreachable bool
}

func (e *connectError) Error() string { return e.sentence }

// Unwrap gives the cause, and capture.ErrUnreachable where it applies.
func (e *connectError) Unwrap() []error {
	var errs []error
	if e.unreachable {
		errs = append(errs, capture.ErrUnreachable)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// loginError turns an answer that go-mysql read into ours.
func loginError(err error) error {
	var refused *mysql.MyError
	if !errors.As(err, &refused) {
		return err
	}
	// Before the login it takes the SQLSTATE for a part of the message.
	message := refused.Message
	if len(message) > 6 && message[0] == '#' {
		message = message[6:]
	}
	return &ServerError{Code: refused.Code, State: refused.State, Message: strings.Clone(message)}
}

// explainConnect turns a failure to connect into one sentence.
func (c *Config) explainConnect(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &connectError{sentence: fmt.Sprintf("connect to %s: %v", c.Address, context.Cause(ctx)), cause: context.Cause(ctx)}
	}
	var server *ServerError
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	text := err.Error()
	switch {
	case errors.As(err, &server):
		return c.explainServer(server)
	case errors.Is(err, errPublicKey):
		return &connectError{sentence: fmt.Sprintf("user %q logs in to %s with a password that must be sent over TLS: give the source ssl-mode=verify-identity, "+
			"or get-server-public-key=true if nobody can alter the connection", c.User, c.Address)}
	case errors.Is(err, errClear):
		return &connectError{sentence: fmt.Sprintf("what answers at %s asks for the password in the clear: it is not sent without TLS; give the source ssl-mode=verify-identity", c.Address)}
	case strings.Contains(text, "does not support TLS"):
		return &connectError{sentence: fmt.Sprintf("the server at %s offers no TLS, which the source's ssl-mode asks for: configure ssl_cert and ssl_key there, or choose ssl-mode=disabled", c.Address)}
	case errors.As(err, &hostname):
		return &connectError{sentence: fmt.Sprintf("the certificate of the server at %s is not for %q (%v): use the name it is for, or ssl-mode=verify-ca", c.Address, c.Host, hostname)}
	case errors.As(err, &unknown), errors.As(err, &invalid):
		return &connectError{sentence: fmt.Sprintf("the certificate of the server at %s is not trusted (%s): name the authority that signed it with ssl-ca=FILE, "+
			"or choose ssl-mode=required to encrypt without looking at it", c.Address, innermost(err))}
	case errors.As(err, &cert), errors.As(err, &record), strings.Contains(text, "tls: "):
		return &connectError{sentence: fmt.Sprintf("TLS with the server at %s failed: %s: check ssl-mode, ssl-ca, ssl-cert and ssl-key", c.Address, innermost(err))}
	case strings.Contains(text, "auth plugin"):
		return &connectError{sentence: fmt.Sprintf("user %q logs in to %s by a plugin that txreel does not speak: ALTER USER … IDENTIFIED WITH caching_sha2_password (MySQL), or VIA ed25519 or "+
			"mysql_native_password (MariaDB)", c.User, c.Address)}
	case errors.As(err, &dns):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("cannot find host %q: check its name and your DNS", c.Host)}
	case timedOut(err):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("the server at %s did not answer within %v: check host, port and firewalls", c.Address, c.Timeout)}
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, mysql.ErrBadConn):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("cannot reach a MySQL or MariaDB server at %s (%s): check host and port, and that it runs and listens there", c.Address, c.redact(innermost(err)))}
	case errors.Is(err, capture.ErrUnreachable):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("the connection to %s broke during the login (%s)", c.Address, c.redact(innermost(err)))}
	}
	return &connectError{sentence: fmt.Sprintf("connect to the server at %s as user %q: %s", c.Address, c.User, c.redact(text))}
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout() || strings.Contains(err.Error(), "i/o timeout")
}

// redact removes the password from a text.
func (c *Config) redact(text string) string {
	if c.Password == "" {
		return text
	}
	return strings.ReplaceAll(text, c.Password, "…")
}

// explainServer explains an answer by its number.
func (c *Config) explainServer(e *ServerError) error {
	say := func(unreachable bool, format string, args ...any) error {
		return &connectError{sentence: fmt.Sprintf(format, args...), cause: e, unreachable: unreachable}
	}
	switch e.Code {
	case 1045, 1698, 3118: // access denied, without password, account locked
		return say(false, "the server at %s does not let user %q in (%s): check the source URL, MYSQL_PWD or the password file, "+
			"and for which hosts the user exists (SELECT user, host FROM mysql.user)", c.Address, c.User, e.Message)
	case 1044:
		return say(false, "user %q may not use database %q at %s: leave the database out of the source URL", c.User, c.Database, c.Address)
	case 1049:
		return say(false, "the server at %s has no database %q: leave it out of the source URL", c.Address, c.Database)
	case 1130:
		return say(false, "the server at %s lets no user in from this machine (%s): CREATE USER %s@'…' for its address (`txreel setup` prints it)",
			c.Address, e.Message, quoteLiteral(c.User))
	case 1129:
		return say(false, "the server at %s blocks this machine after failed connections: run TRUNCATE TABLE performance_schema.host_cache there (FLUSH HOSTS on MariaDB)", c.Address)
	case 1862, 1820:
		return say(false, "the password of user %q at %s has expired: ALTER USER %s IDENTIFIED BY …", c.User, c.Address, quoteLiteral(c.User))
	case 3159:
		return say(false, "the server at %s takes encrypted connections only (%s): choose ssl-mode=verify-identity or required", c.Address, e.Message)
	case 1251, 2059, 1524:
		return say(false, "user %q at %s logs in by a plugin that does not work (%s): ALTER USER %s IDENTIFIED WITH caching_sha2_password BY …", c.User, c.Address, e.Message, quoteLiteral(c.User))
	case 1040, 1203, 1226:
		return say(true, "the server at %s has no connection free (%s): close some, or raise max_connections or the user's limit", c.Address, e.Message)
	}
	if goesAway(e) {
		return say(true, "the server at %s takes no connections now (%s): try again when it is up", c.Address, e.Message)
	}
	return say(false, "the server at %s refused user %q: %s", c.Address, c.User, e)
}

// innermost is the text of the error at the end of the chain, without the addresses and prefixes around it.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
