package s3

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want Options
		says string // of the error wanted
	}{
		{in: "s3://bucket", want: Options{Bucket: "bucket"}},
		{in: "s3://bucket/", want: Options{Bucket: "bucket"}},
		{in: "s3://bucket/a/b/", want: Options{Bucket: "bucket", Prefix: "a/b"}},
		{in: "s3://bucket/a?endpoint=http://127.0.0.1:7070&region=eu-west-1&path-style=true",
			want: Options{Bucket: "bucket", Prefix: "a", Endpoint: "http://127.0.0.1:7070", Region: "eu-west-1", Addressing: AddressPath}},
		{in: "s3://bucket?endpoint=https%3A%2F%2Fhost&path-style=false&ca-file=/ca.pem&insecure-skip-verify=true&profile=p",
			want: Options{Bucket: "bucket", Endpoint: "https://host", Addressing: AddressVirtual, CAFile: "/ca.pem", InsecureSkipVerify: true, Profile: "p"}},
		{in: "s3:///prefix", says: "s3://bucket/prefix"},
		{in: "http://bucket", says: "s3://bucket/prefix"},
		{in: "s3://b", says: "bucket \"b\""},
		{in: "s3://UPPER", says: "bucket"},
		{in: "s3://bucket/a//b", says: "prefix"},
		{in: "s3://bucket/a b", says: "prefix"},
		{in: "s3://bucket/../b", says: "prefix"},
		{in: "s3://bucket?endpont=http://x", says: "unknown parameter endpont; there are endpoint, region"},
		{in: "s3://bucket?region=", says: "region has no value"},
		{in: "s3://bucket?region=a&region=b", says: "twice"},
		{in: "s3://bucket?path-style=maybe", says: "true or false"},
		{in: "s3://bucket?insecure-skip-verify=maybe", says: "true or false"},
		{in: "s3://bucket?endpoint=127.0.0.1:7070", says: "http://host:port"},
		{in: "s3://bucket?endpoint=http://host/bucket", says: "after s3://"},
		{in: "s3://bucket?endpoint=http://key:HUSH@host", says: "AWS_ACCESS_KEY_ID"},
		{in: "s3://bucket?endpoint=//key:HUSH@host", says: "http://host:port"},
		{in: "s3://key:HUSH@bucket", says: "AWS_ACCESS_KEY_ID"},
		{in: "s3://key:HUSH%zz@bucket", says: "s3://bucket/prefix"},
	} {
		got, err := ParseURL(tt.in)
		if tt.says == "" && (err != nil || got != tt.want) {
			t.Errorf("ParseURL(%s) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
		if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "HUSH")) {
			t.Errorf("ParseURL(%s): %v; want an error that says %q and no secret", tt.in, err, tt.says)
		}
	}
}

// TestWrongSettings checks what a real service answers to each mistake.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	g := dbtest.S3(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + silent.Addr().String()
	if err := silent.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, says  string
		change      func(*Options)
		unreachable bool
	}{
		{"access key", "does not know this access key", func(o *Options) { o.AccessKey = "nobody" }, false},
		{"secret key", "secret key does not belong", func(o *Options) { o.SecretKey = "HUSH" }, false},
		{"one key", "not one of them", func(o *Options) { o.SecretKey = "" }, false},
		{"bucket", "bucket nowhere does not exist at http://", func(o *Options) { o.Bucket = "nowhere" }, false},
		{"region", "add region=", func(o *Options) { o.Region = "eu-north-1" }, false},
		{"TLS", "does not speak TLS; write endpoint=http://", func(o *Options) { o.Endpoint = strings.Replace(o.Endpoint, "http:", "https:", 1) }, false},
		{"port", "nothing listens at http://", func(o *Options) { o.Endpoint = nobody }, true},
		{"part size", "below S3's bound", func(o *Options) { o.PartSize = 100 }, false},
		{"no endpoint", "http://host:port", func(o *Options) { o.Endpoint = "host" }, false},
		{"no CA file", "nothing.pem", func(o *Options) { o.CAFile = "/nothing.pem" }, false},
	} {
		opts := optionsFor(g, "p")
		tt.change(&opts)
		_, err := Open(t.Context(), opts)
		if err == nil || !strings.Contains(err.Error(), tt.says) || errors.Is(err, archive.ErrUnreachable) != tt.unreachable ||
			strings.Contains(err.Error(), "HUSH") || strings.Contains(err.Error(), "\n") {
			t.Errorf("wrong %s: %v; want one sentence that says %q, unreachable: %v", tt.name, err, tt.says, tt.unreachable)
		}
	}
}

// TestCredentialChain finds keys in the environment, then in a profile, and says
// so when there are none.
func TestCredentialChain(t *testing.T) {
	g := dbtest.S3(t)
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[backup]\naws_access_key_id=" + g.AccessKey + "\naws_secret_access_key=" + g.SecretKey + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_CONFIG_FILE", file)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/none") // no metadata service
	opts := optionsFor(g, "chain")
	opts.AccessKey, opts.SecretKey = "", ""
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "no credentials found: set AWS_ACCESS_KEY_ID") {
		t.Errorf("without credentials: %v", err)
	}
	profile := opts
	profile.Profile = "backup"
	open(t, profile)
	t.Setenv("AWS_ACCESS_KEY_ID", g.AccessKey)
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "no credentials found") {
		t.Errorf("with half of a key: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", g.SecretKey)
	open(t, opts)
}

// TestTLS talks to a gateway with a certificate nobody knows.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := selfSigned(t)
	g := dbtest.S3(t, "--cert", cert, "--key", key)
	opts := optionsFor(g, "tls")
	_, err := Open(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "ca-file=") || errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("unknown authority: %v", err)
	}
	plain := opts
	plain.Endpoint = strings.Replace(g.URL, "https:", "http:", 1)
	if _, err := Open(t.Context(), plain); err == nil || !strings.Contains(err.Error(), "endpoint=https://") {
		t.Errorf("plain HTTP to a TLS port: %v", err)
	}
	other := opts
	other.CAFile = cert
	other.Endpoint = strings.Replace(g.URL, "127.0.0.1", "localhost", 1)
	if _, err := Open(t.Context(), other); err == nil || !strings.Contains(err.Error(), "for another host") {
		t.Errorf("wrong host: %v", err)
	}
	trusted := opts
	trusted.CAFile = cert
	s := open(t, trusted)
	if err := create(t.Context(), s, "key", 2*minPartSize); err != nil {
		t.Error(err)
	}
	if err := create(t.Context(), s, "key", 10); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create: %v, want fs.ErrExist", err)
	}
	careless := opts
	careless.InsecureSkipVerify = true
	if got := sizeOf(t, open(t, careless), "key"); got != 2*minPartSize {
		t.Errorf("the object has %d bytes", got)
	}
}

// TestVirtualHost names the bucket in the host.
func TestVirtualHost(t *testing.T) {
	t.Parallel()
	g := dbtest.S3(t, "--virtual-domain", "s3.test")
	opts := optionsFor(g, "virtual")
	opts.Endpoint, opts.Addressing = "http://s3.test", AddressVirtual
	s, err := newStore(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != g.Bucket+".s3.test:80" {
			t.Errorf("dialled %s", addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(g.URL, "http://"))
	}
	if err := create(t.Context(), s, "key", 100); err != nil {
		t.Fatal(err)
	}
	if got := sizeOf(t, s, "key"); got != 100 {
		t.Errorf("the object has %d bytes", got)
	}
}

// TestGatewayAway stops, starts and suspends a real gateway.
func TestGatewayAway(t *testing.T) {
	t.Parallel()
	g := dbtest.S3(t)
	opts := optionsFor(g, "away")
	opts.Stall, opts.RetryFor = 300*time.Millisecond, -1
	s := open(t, opts)
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := create(t.Context(), s, "key", 10); !errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("stopped: %v, want archive.ErrUnreachable", err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := create(t.Context(), s, "key", 10); !errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("paused: %v, want archive.ErrUnreachable", err)
	}
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	s.stall, s.retryFor = defaultStall, defaultRetryFor
	// The paused gateway may have taken the first request after all.
	if err := create(t.Context(), s, "key", 10); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Errorf("resumed: %v", err)
	}
	if got := sizeOf(t, s, "key"); got != 10 {
		t.Errorf("the object has %d bytes", got)
	}
}

// selfSigned returns the files of a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "txreel test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
