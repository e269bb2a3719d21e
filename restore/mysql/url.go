package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// config is a target's URL, taken apart. It takes the parameters that the source's
// takes, with the same meaning.
type config struct {
	network, address string
	host             string // "" for a socket
	user, password   string
	mode             string // of TLS, as --ssl-mode has it
	tls              *tls.Config
	timeout          time.Duration
}

// connectTimeout bounds one attempt to connect, unless the URL says otherwise.
const connectTimeout = 15 * time.Second

// parseURL reads the target's address. The error repeats none of it: nobody can tell
// which part of a malformed URL is the password.
func parseURL(target string) (*config, error) {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "mysql" && u.Scheme != "mariadb" || u.Opaque != "" {
		return nil, errors.New("the target is not a URL such as mysql://user@host:3306/ or mariadb://user@host/: " +
			"percent-encode special characters of the password (@ is %40, / is %2F)")
	}
	c := &config{network: "tcp", host: u.Hostname(), user: u.User.Username(), timeout: connectTimeout}
	c.password, _ = u.User.Password()
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the target's parameters, behind the ?, cannot be read: write them as name=value&name=value")
	}
	var ca, cert, key, socket string
	var plain bool
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "ssl-mode":
			c.mode = strings.ReplaceAll(strings.ToLower(value), "_", "-")
		case "ssl-ca":
			ca = value
		case "ssl-cert":
			cert = value
		case "ssl-key":
			key = value
		case "socket":
			socket = value
		case "get-server-public-key":
			plain = value == "" || value == "1" || strings.EqualFold(value, "true") || strings.EqualFold(value, "on")
		case "connect-timeout":
			if c.timeout, err = time.ParseDuration(value); err != nil || c.timeout <= 0 {
				return nil, errors.New("the target's connect-timeout is not a duration such as 15s")
			}
		default:
			return nil, errors.New("the target has a parameter that is none of ssl-mode, ssl-ca, ssl-cert, ssl-key, get-server-public-key, socket and connect-timeout")
		}
	}
	switch {
	case socket != "" && c.host != "":
		return nil, errors.New("the target names a host and a socket: give one of them")
	case socket != "":
		c.network, c.address = "unix", socket
	case c.host == "":
		return nil, errors.New("the target names no host: write it as mysql://user@host:3306/, or name a socket with ?socket=…")
	default:
		port := u.Port()
		if port == "" {
			port = "3306"
		}
		c.address = net.JoinHostPort(c.host, port)
	}
	if c.user == "" {
		return nil, errors.New("the target names no user: write it as mysql://user@host:3306/")
	}
	return c, c.secure(ca, cert, key, plain)
}

// secure settles what is asked of TLS: by default the server must prove who it is,
// unless the connection stays on this machine.
func (c *config) secure(ca, cert, key string, plain bool) error {
	switch {
	case c.mode != "":
	case c.network == "unix":
		c.mode = "disabled"
	case c.local() && ca == "":
		c.mode = "preferred"
	default:
		c.mode = "verify-identity"
	}
	c.tls = &tls.Config{ServerName: c.host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("read the target's ssl-ca: %w", err)
		}
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("the target's ssl-ca holds no certificate in PEM")
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("read the target's ssl-cert and ssl-key: %w", err)
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	switch c.mode {
	case "disabled":
		c.tls = nil
		if !c.local() && !plain {
			return errors.New("the target is not on this machine and its ssl-mode is disabled: say get-server-public-key=true if the network in between is to be trusted")
		}
		return nil
	case "preferred":
		if !c.local() {
			return errors.New("the target is not on this machine: ssl-mode=preferred would give its password to whoever answers without TLS; say required, verify-ca or verify-identity")
		}
		c.tls.InsecureSkipVerify = true
	case "required":
		c.tls.InsecureSkipVerify = true
	case "verify-ca": // the chain, whatever the name
		c.tls.InsecureSkipVerify = true
		c.tls.VerifyConnection = verifyChain(c.tls.RootCAs)
	case "verify-identity":
	default:
		return errors.New("the target's ssl-mode is not one of disabled, preferred, required, verify-ca, verify-identity")
	}
	if ca != "" && (c.mode == "preferred" || c.mode == "required") {
		return errors.New("the target names an ssl-ca that its ssl-mode would not look at: say ssl-mode=verify-identity or verify-ca")
	}
	return nil
}

func verifyChain(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the server sent no certificate")
		}
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, between := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(between)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}

// local reports whether the connection stays on this machine.
func (c *config) local() bool {
	if c.network == "unix" || strings.EqualFold(c.host, "localhost") {
		return true
	}
	ip := net.ParseIP(c.host)
	return ip != nil && ip.IsLoopback()
}
