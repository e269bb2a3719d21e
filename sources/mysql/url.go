package mysql

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// connectTimeout bounds one attempt to connect, up to the first answer to a statement, unless the URL says otherwise.
const connectTimeout = 15 * time.Second

// Config is a source's URL, taken apart. The scheme, mysql or mariadb, decides nothing: what answers does, and Conn
// says which it is.
type Config struct {
	Scheme   string
	Network  string // tcp or unix
	Address  string // host:port, or the path of a socket
	Host     string // "" for a socket
	User     string
	Password string
	Database string // the default database of sessions; usually none
	TLS      TLSMode
	CA       string // files in PEM
	Cert     string
	Key      string
	// PublicKey allows a password to be encrypted, without TLS, with a key that the server sends: who can alter the
	// connection can read the password.
	PublicKey bool
	Timeout   time.Duration
}

// parameters are those that a URL may have.
const parameters = "ssl-mode, ssl-ca, ssl-cert, ssl-key, get-server-public-key, socket and connect-timeout"

// ParseURL reads mysql://user:password@host:port/database?ssl-mode=…, or the same with mariadb://. Its errors repeat
// nothing of the URL: in a malformed one nobody can tell which part is the password.
func ParseURL(source string) (*Config, error) {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "mysql" && u.Scheme != "mariadb" || u.Opaque != "" {
		return nil, errors.New("the source is not a URL such as mysql://user@host:3306/ or mariadb://user@host/: " +
			"percent-encode special characters of the password (@ is %40, / is %2F)")
	}
	c := &Config{Scheme: u.Scheme, Network: "tcp", Host: u.Hostname(), Database: strings.TrimPrefix(u.Path, "/"), Timeout: connectTimeout}
	if u.User != nil {
		c.User = u.User.Username()
		c.Password, _ = u.User.Password()
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the source's parameters, behind the ?, cannot be read: write them as name=value&name=value")
	}
	socket := ""
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "ssl-mode", "tls":
			c.TLS, err = parseTLSMode(value)
		case "ssl-ca":
			c.CA = value
		case "ssl-cert":
			c.Cert = value
		case "ssl-key":
			c.Key = value
		case "get-server-public-key":
			c.PublicKey, err = parseBool(value)
		case "socket":
			socket = value
		case "connect-timeout":
			if c.Timeout, err = time.ParseDuration(value); err != nil || c.Timeout <= 0 {
				err = errors.New("the source's connect-timeout is not a duration such as 15s")
			}
		default:
			err = fmt.Errorf("the source has a parameter that is none of %s", parameters)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case socket != "" && c.Host != "":
		return nil, errors.New("the source names a host and a socket: give one of them")
	case socket != "":
		c.Network, c.Address, c.PublicKey = "unix", socket, true
	case c.Host == "":
		return nil, errors.New("the source names no host: write it as mysql://user@host:3306/, or name a socket with ?socket=…")
	default:
		port := u.Port()
		if port == "" {
			port = "3306"
		}
		c.Address = net.JoinHostPort(c.Host, port)
		c.PublicKey = c.PublicKey || c.loopback()
	}
	if c.User == "" {
		return nil, errors.New("the source names no user: write it as mysql://user@host:3306/")
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("the source has one of ssl-cert and ssl-key: give both")
	}
	if c.TLS == 0 {
		c.TLS = c.defaultTLS()
	}
	if c.CA != "" && c.TLS < TLSVerifyCA {
		return nil, errors.New("the source names an ssl-ca that its ssl-mode would not look at: say ssl-mode=verify-identity or verify-ca")
	}
	return c, nil
}

// WithPassword returns the source's URL with a password, unless it has one already.
func WithPassword(source, password string) (string, error) {
	if _, err := ParseURL(source); err != nil {
		return "", err
	}
	u, err := url.Parse(source)
	if err != nil { // ParseURL has read it
		return "", errors.New("the source is not a URL")
	}
	if _, has := u.User.Password(); has || password == "" {
		return source, nil
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String(), nil
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "", "1", "true", "on":
		return true, nil
	case "0", "false", "off":
		return false, nil
	}
	return false, errors.New("the source's get-server-public-key is neither true nor false")
}

// loopback reports whether the connection stays on this machine.
func (c *Config) loopback() bool {
	if c.Network == "unix" || strings.EqualFold(c.Host, "localhost") {
		return true
	}
	ip := net.ParseIP(c.Host)
	return ip != nil && ip.IsLoopback()
}

// readFile reads a file that the URL names, for an error without the URL.
func readFile(parameter, name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the source's %s: %w", parameter, err)
	}
	return b, nil
}
