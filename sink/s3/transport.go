package s3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// newTransport returns the connections of one Store. Time limits on a request's
// progress are watch's.
func newTransport(opts Options) (*http.Transport, error) {
	roots, err := rootCAs(opts.CAFile)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: min(opts.Stall, 10*time.Second), KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   min(opts.Stall, 10*time.Second),
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       time.Minute,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // objects are compressed
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            roots,
			InsecureSkipVerify: opts.InsecureSkipVerify, // only by the user's explicit word
		},
	}, nil
}

// rootCAs returns the system's certificates and those in file, or nil for the
// system's alone.
func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("certificates: " + file + " holds no PEM certificate")
	}
	return roots, nil
}

// expectContinue lets the service refuse a large body before it is sent. Without
// it, a service that answers "exists" and closes the connection while we still
// write looks like one that is down.
type expectContinue struct{ next http.RoundTripper }

func (e expectContinue) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.ContentLength > 1<<20 {
		req = req.Clone(req.Context())
		req.Header.Set("Expect", "100-continue")
	}
	return e.next.RoundTrip(req)
}
