package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// TLSMode says what is asked of TLS, in the words of MySQL's --ssl-mode.
type TLSMode uint8

// The modes, from the weakest.
const (
	// TLSDisabled never uses TLS.
	TLSDisabled TLSMode = iota + 1
	// TLSPreferred uses TLS where the server offers it, and looks at no certificate.
	TLSPreferred
	// TLSRequired insists on TLS, and looks at no certificate: it keeps out who listens, not who answers.
	TLSRequired
	// TLSVerifyCA wants a certificate signed by one of ssl-ca, or of the system.
	TLSVerifyCA
	// TLSVerifyIdentity wants it to be that of the host, too. It is the default unless the connection stays on the
	// machine, where TLSPreferred is.
	TLSVerifyIdentity
)

// parseTLSMode reads a mode as MySQL's programs spell it, and the tls parameter of Go's driver for MySQL.
func parseTLSMode(text string) (TLSMode, error) {
	switch strings.ReplaceAll(strings.ToLower(text), "_", "-") {
	case "disabled", "false":
		return TLSDisabled, nil
	case "preferred":
		return TLSPreferred, nil
	case "required", "skip-verify":
		return TLSRequired, nil
	case "verify-ca":
		return TLSVerifyCA, nil
	case "verify-identity", "true":
		return TLSVerifyIdentity, nil
	}
	return 0, errors.New("the source's ssl-mode is not one of disabled, preferred, required, verify-ca, verify-identity")
}

func (c *Config) defaultTLS() TLSMode {
	switch {
	case c.CA != "":
		return TLSVerifyIdentity
	case c.Network == "unix":
		return TLSDisabled
	case c.loopback():
		return TLSPreferred
	}
	return TLSVerifyIdentity
}

// tlsConfig returns what TLS needs; nil for TLSDisabled.
func (c *Config) tlsConfig() (*tls.Config, error) {
	if c.TLS == TLSDisabled {
		return nil, nil
	}
	cfg := &tls.Config{ServerName: c.Host, MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := readFile("ssl-ca", c.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("the source's ssl-ca holds no certificate in PEM")
		}
	}
	if c.Cert != "" {
		cert, err := readFile("ssl-cert", c.Cert)
		if err != nil {
			return nil, err
		}
		key, err := readFile("ssl-key", c.Key)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read the source's ssl-cert and ssl-key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	switch c.TLS {
	case TLSPreferred, TLSRequired:
		cfg.InsecureSkipVerify = true
	case TLSVerifyCA: // the chain, whatever the name
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("the server sent no certificate")
			}
			options := x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: x509.NewCertPool()}
			for _, between := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(between)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		}
	}
	return cfg, nil
}
