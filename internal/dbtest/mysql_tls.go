package dbtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// CAFile is the certificate authority of a server started with TLSOn.
func (m *MySQL) CAFile() string { return filepath.Join(m.Dir, "ca.pem") }

// configureTLS puts a mode into the settings.
func (m *MySQL) configureTLS(mode TLSMode) error {
	switch mode {
	case TLSByDefault:
		return nil
	case TLSOff:
		if m.Flavor == "mysql" {
			m.args = append([]string{"--tls-version="}, m.args...)
		} else {
			m.args = append([]string{"--skip-ssl"}, m.args...)
		}
		return nil
	case TLSOn:
		cert, key := filepath.Join(m.Dir, "cert.pem"), filepath.Join(m.Dir, "key.pem")
		if err := writeCertificates(m.CAFile(), cert, key); err != nil {
			return fmt.Errorf("make certificates: %w", err)
		}
		m.Configure(map[string]string{"ssl_ca": m.CAFile(), "ssl_cert": cert, "ssl_key": key})
		return nil
	}
	return fmt.Errorf("start server: unknown TLS mode %d", mode)
}

// writeCertificates makes an authority and a certificate for loopback by it; the authority's key is forgotten.
func writeCertificates(caFile, certFile, keyFile string) error {
	now := time.Now()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "txreel test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	server := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "txreel test server"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	caDER, err1 := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	certDER, err2 := x509.CreateCertificate(rand.Reader, server, authority, &key.PublicKey, caKey)
	keyDER, err3 := x509.MarshalPKCS8PrivateKey(key)
	return errors.Join(err1, err2, err3,
		writePEM(caFile, "CERTIFICATE", caDER), writePEM(certFile, "CERTIFICATE", certDER), writePEM(keyFile, "PRIVATE KEY", keyDER))
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
