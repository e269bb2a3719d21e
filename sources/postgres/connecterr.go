package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"txreel/capture"
)

// connectError is one sentence. It keeps the server's error and the context's for callers that ask, but not pgx's
// own, which carries the configuration with the password.
type connectError struct {
	sentence    string
	cause       error // *pgconn.PgError, a context error, or nil
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

// explainParse says what is wrong with a source that cannot be parsed, without repeating any of it: in a malformed
// URL nobody can tell which part is the password.
func explainParse(err error) error {
	var path *fs.PathError
	text := err.Error()
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("read a file the source names (sslrootcert, sslcert, sslkey or a service file): %w", path.Err)
	case strings.Contains(text, "sslmode is invalid"):
		return errors.New("the source's sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full")
	case strings.Contains(text, "service"):
		return errors.New("the source names a service that the service file does not have: check PGSERVICE and PGSERVICEFILE")
	}
	return errors.New("the source is neither a URL such as postgres://role@host:5432/database nor a list such as " +
		"\"host=… port=… dbname=… user=…\": in a URL, percent-encode special characters of the password (@ is %40, / is %2F)")
}

// explainConnect turns a failure to connect into one sentence. With several hosts, or TLS tried before plain text,
// an answer that needs a person beats one that may pass, and the refusal of TLS comes last.
func explainConnect(ctx context.Context, err error, cfg *pgconn.Config) error {
	if ctx.Err() != nil {
		return &connectError{sentence: fmt.Sprintf("connect to %s: %v", address(cfg), context.Cause(ctx)), cause: context.Cause(ctx)}
	}
	var final, passing *connectError
	var refused bool
	for _, attempt := range attempts(err) {
		if strings.Contains(attempt.Error(), "server refused TLS") {
			refused = true
			continue
		}
		e := explainAttempt(attempt, cfg)
		switch {
		case e.unreachable && passing == nil:
			passing = e
		case !e.unreachable && final == nil:
			final = e
		}
	}
	switch {
	case final != nil:
		return final
	case passing != nil:
		return passing
	case refused:
		return &connectError{sentence: fmt.Sprintf("the server at %s offers no TLS, which the source's sslmode asks for: "+
			"set ssl = on there, or choose another sslmode", address(cfg))}
	}
	return explainAttempt(err, cfg)
}

// attempts splits pgx's error into one per address tried.
func attempts(err error) []error {
	for err != nil {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			return joined.Unwrap()
		}
		var ce *pgconn.ConnectError
		if !errors.As(err, &ce) {
			break
		}
		err = ce.Unwrap()
	}
	return []error{err}
}

func explainAttempt(err error, cfg *pgconn.Config) *connectError {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return explainServer(pgErr, cfg)
	}
	at := address(cfg)
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	switch {
	case errors.As(err, &cert), errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &record):
		return &connectError{sentence: fmt.Sprintf("TLS with the server at %s failed: %s: check sslmode and sslrootcert",
			at, innermost(err))}
	case errors.As(err, &dns):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("cannot find host %q: check its name and your DNS", cfg.Host)}
	case pgconn.Timeout(err):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("the server at %s did not answer within %v: "+
			"check host, port and firewalls", at, cfg.ConnectTimeout)}
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &connectError{unreachable: true, sentence: fmt.Sprintf("cannot reach a PostgreSQL server at %s (%s): "+
			"check host and port, and that it runs and listens there", at, innermost(err))}
	}
	text := innermost(err)
	if cfg.Password != "" {
		text = strings.ReplaceAll(text, cfg.Password, "…")
	}
	return &connectError{sentence: fmt.Sprintf("connect to the server at %s as role %q: %s", at, cfg.User, text)}
}

// explainServer explains an answer of the server by its SQLSTATE; messages are translated on some servers.
func explainServer(e *pgconn.PgError, cfg *pgconn.Config) *connectError {
	at, role, db := address(cfg), cfg.User, cfg.Database
	say := func(unreachable bool, format string, args ...any) *connectError {
		return &connectError{sentence: fmt.Sprintf(format, args...), cause: e, unreachable: unreachable}
	}
	switch {
	case e.Code == "28P01":
		return say(false, "the server at %s does not accept this password for role %q: check the source URL, PGPASSWORD or the password file", at, role)
	case e.Code == "28000" && strings.Contains(e.Message, "pg_hba.conf"):
		return say(false, "the server at %s does not let role %q in (%s): add a line such as \"hostssl %s %s CLIENT-ADDRESS/32 scram-sha-256\" "+
			"to its pg_hba.conf and run SELECT pg_reload_conf()", at, role, e.Message, quoteIdent(db), quoteIdent(role))
	case e.Code == "28000":
		return say(false, "the server at %s does not let role %q in: %s", at, role, e.Message)
	case e.Code == "3D000":
		return say(false, "the server at %s has no database %q: check the end of the source URL", at, db)
	case e.Code == "42501" && cfg.RuntimeParams["replication"] != "":
		return say(false, "role %q may not replicate from the server at %s: run ALTER ROLE %s REPLICATION there, or grant "+
			"rds_replication on RDS", role, at, quoteIdent(role))
	case e.Code == "42501":
		return say(false, "role %q may not connect to database %q at %s: run GRANT CONNECT ON DATABASE %s TO %s there",
			role, db, at, quoteIdent(db), quoteIdent(role))
	case e.Code == "57P03", e.Code == "57P01", e.Code == "57P02":
		return say(true, "the server at %s takes no connections now (%s): try again when it is up", at, e.Message)
	case e.Code == "53300":
		return say(true, "the server at %s has no connection free (%s): close some, or raise max_connections, max_wal_senders "+
			"or the role's limit", at, e.Message)
	case e.Code == "08P01":
		return say(false, "what answers at %s is no PostgreSQL server but perhaps a connection pooler (%s): give the address of the "+
			"server itself", at, e.Message)
	case e.Code == "42704" && strings.Contains(e.Message, "idle_session_timeout"):
		return say(false, "the server at %s is older than PostgreSQL 14, the oldest that txreel records", at)
	case e.Code == "42704":
		return say(false, "the server at %s refuses a parameter of the source: %s", at, e.Message)
	case strings.HasPrefix(e.Code, "53"), strings.HasPrefix(e.Code, "57P"), strings.HasPrefix(e.Code, "58"):
		return say(true, "the server at %s cannot serve role %q now: %s", at, role, e.Message)
	}
	return say(false, "the server at %s refused role %q and database %q: %s (SQLSTATE %s)", at, role, db, e.Message, e.Code)
}

// address names the server as the user wrote it, the first where there are several.
func address(cfg *pgconn.Config) string {
	if strings.HasPrefix(cfg.Host, "/") {
		return cfg.Host + "/.s.PGSQL." + strconv.Itoa(int(cfg.Port))
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
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
