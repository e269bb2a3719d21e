// Package s3 keeps an archive's objects in a bucket of an S3-compatible service.
//
// An object is created with If-None-Match: *, in one request or, above the part
// size, as a multipart upload whose completion carries the condition. Bodies are
// hashed before they are sent and the hash is signed: the service refuses bytes
// that changed on the way. A request that fails for a passing reason is repeated
// until Options.RetryFor is over. A repeated Create whose first try took effect
// returns fs.ErrExist, which only the caller can tell from another writer's
// object, by comparing content.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"txreel/archive"
)

const (
	minPartSize     = 5 << 20 // S3's own bound for all parts but the last
	defaultPartSize = 16 << 20
	defaultStall    = 30 * time.Second
	defaultRetryFor = 30 * time.Second
	awsEndpoint     = "https://s3.amazonaws.com"
	defaultRegion   = "us-east-1"
)

// Addressing is how a bucket is named in a request's URL.
type Addressing int

const (
	// AddressAuto names the bucket in the host at AWS, and in the path elsewhere.
	AddressAuto Addressing = iota
	// AddressPath names the bucket in the path: https://host/bucket/key.
	AddressPath
	// AddressVirtual names the bucket in the host: https://bucket.host/key.
	AddressVirtual
)

func (a Addressing) lookup() minio.BucketLookupType {
	switch a {
	case AddressPath:
		return minio.BucketLookupPath
	case AddressVirtual:
		return minio.BucketLookupDNS
	}
	return minio.BucketLookupAuto
}

// Options says where a bucket is and how to talk to it. Only Bucket is required.
type Options struct {
	Bucket     string
	Prefix     string // what all keys begin with, without slashes around it
	Endpoint   string // "http://127.0.0.1:7070"; "" is AWS
	Region     string // "" asks AWS, and is us-east-1 elsewhere
	Addressing Addressing

	CAFile             string // PEM certificates trusted besides the system's
	InsecureSkipVerify bool   // accept any certificate

	// AccessKey, SecretKey and SessionToken are used if set. Otherwise the AWS
	// chain provides credentials: environment, shared files with Profile or
	// AWS_PROFILE, then web identity, container or instance metadata.
	AccessKey, SecretKey, SessionToken string
	Profile                            string

	PartSize int64         // bytes per request of a large upload; 0 is 16 MiB, at least 5 MiB
	Stall    time.Duration // a request without progress for so long has failed; 0 is 30 s
	RetryFor time.Duration // no failed request is repeated after so long; 0 is 30 s, negative repeats none
}

// Store is an archive.Store in a bucket.
type Store struct {
	core      minio.Core
	transport *http.Transport
	bucket    string
	prefix    string // "" or ends in '/'
	endpoint  string
	name      string
	partSize  int64
	stall     time.Duration
	retryFor  time.Duration
}

var _ archive.Store = (*Store)(nil)

// Open connects to a bucket and lists one key of it, once and without repeats,
// so that a wrong address or wrong credentials are reported here. The caller
// closes the Store.
func Open(ctx context.Context, opts Options) (*Store, error) {
	s, err := newStore(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", nameOf(opts), err)
	}
	retryFor := s.retryFor
	s.retryFor = -1
	_, err = s.List(ctx, "", "", 1)
	s.retryFor = retryFor
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func newStore(ctx context.Context, opts Options) (*Store, error) {
	endpoint, err := checkOptions(&opts)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(opts)
	if err != nil {
		return nil, err
	}
	creds, err := newCredentials(ctx, opts)
	if err != nil {
		return nil, err
	}
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds:        creds,
		Secure:       endpoint.Scheme == "https",
		Transport:    expectContinue{transport},
		Region:       opts.Region,
		BucketLookup: opts.Addressing.lookup(),
		MaxRetries:   1, // retry is the only layer that repeats requests
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", opts.Endpoint, err)
	}
	s := &Store{core: *core, transport: transport, bucket: opts.Bucket, prefix: opts.Prefix, endpoint: opts.Endpoint,
		name: nameOf(opts), partSize: opts.PartSize, stall: opts.Stall, retryFor: opts.RetryFor}
	if s.prefix != "" {
		s.prefix += "/"
	}
	return s, nil
}

// checkOptions completes opts and returns its endpoint.
func checkOptions(opts *Options) (*url.URL, error) {
	if err := s3utils.CheckValidBucketNameStrict(opts.Bucket); err != nil {
		return nil, fmt.Errorf("bucket %q: %w", opts.Bucket, err)
	}
	opts.Prefix = strings.Trim(opts.Prefix, "/")
	if opts.Prefix != "" {
		if err := archive.CheckKey(opts.Prefix); err != nil {
			return nil, fmt.Errorf("prefix: %w", err)
		}
	}
	if len(opts.Prefix) > 255 {
		return nil, errors.New("the prefix is longer than 255 bytes")
	}
	if opts.Region == "" && opts.Endpoint != "" {
		opts.Region = defaultRegion
	}
	if opts.Endpoint == "" {
		opts.Endpoint = awsEndpoint
	}
	if opts.PartSize == 0 {
		opts.PartSize = defaultPartSize
	}
	if opts.PartSize < minPartSize {
		return nil, fmt.Errorf("a part size of %d bytes is below S3's bound of %d", opts.PartSize, minPartSize)
	}
	if opts.Stall <= 0 {
		opts.Stall = defaultStall
	}
	if opts.RetryFor == 0 {
		opts.RetryFor = defaultRetryFor
	}
	return parseEndpoint(opts.Endpoint)
}

// parseEndpoint checks that endpoint is a scheme and a host.
func parseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("endpoint %q: write it as http://host:port or https://host", redact(endpoint))
	case u.User != nil:
		return nil, errors.New("endpoint: credentials do not belong into a URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %q: only scheme, host and port belong there; the bucket comes after s3://", endpoint)
	}
	return u, nil
}

// nameOf returns "s3://bucket/prefix".
func nameOf(opts Options) string {
	return strings.TrimSuffix("s3://"+opts.Bucket+"/"+strings.Trim(opts.Prefix, "/"), "/")
}

// String returns "s3://bucket/prefix".
func (s *Store) String() string { return s.name }

// Close drops idle connections. Bodies that Open returned must be closed first.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

// newCredentials resolves credentials once, so that their absence has its own
// error instead of an anonymous request's AccessDenied.
func newCredentials(ctx context.Context, opts Options) (*credentials.Credentials, error) {
	if opts.AccessKey != "" || opts.SecretKey != "" {
		if opts.AccessKey == "" || opts.SecretKey == "" {
			return nil, errors.New("credentials: an access key and a secret key are needed, not one of them")
		}
		return credentials.NewStaticV4(opts.AccessKey, opts.SecretKey, opts.SessionToken), nil
	}
	// Off AWS there is no metadata service, and nobody waits long for it.
	metadata := &http.Client{Timeout: 5 * time.Second}
	creds := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{Profile: opts.Profile},
		&credentials.IAM{Client: metadata, Region: opts.Region},
	})
	value, err := creds.GetWithContext(&credentials.CredContext{Client: metadata, Context: ctx})
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if err != nil || value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return nil, errors.New("no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE " +
			"with a profile in ~/.aws/credentials, or run where a role is attached")
	}
	return creds, nil
}
