package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/minio/minio-go/v7"

	"txreel/archive"
)

// errUploadGone is the end of a multipart upload that the service no longer
// knows, or that lost a race at its completion: it starts over.
var errUploadGone = errors.New("the multipart upload is gone")

// bodyError is a failure of the body that the caller gave.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the body to upload: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// verdict returns the body's own failure, if that is what ended the request.
func (u *upload) verdict(err error) error {
	if err != nil && u.err != nil {
		return &bodyError{u.err}
	}
	return err
}

// codeOf returns the service's code for err, or "".
func codeOf(err error) string {
	var resp minio.ErrorResponse // minio.ToErrorResponse does not see wrapped ones
	if errors.As(err, &resp) {
		return resp.Code
	}
	return ""
}

// passing reports whether the request that failed with err may succeed when it
// is repeated.
func passing(err error) bool {
	var (
		resp   minio.ErrorResponse
		ours   *bodyError
		strict *protocolError
	)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errUploadGone), errors.As(err, &ours), errors.As(err, &strict):
		return false
	case errors.As(err, &resp):
		return passingCode(resp)
	}
	return !isTLS(err) // the network's
}

// isTLS reports whether the two sides do not agree on TLS.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	return errors.As(err, &record) || errors.As(err, &cert) || plainHTTP(err)
}

func passingCode(resp minio.ErrorResponse) bool {
	switch resp.Code {
	case "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestLimitExceeded", "Throttling",
		"ThrottlingException", "RequestThrottled", "OperationAborted", "ConditionalRequestConflict",
		"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody":
		return true
	case "NotImplemented":
		return false
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, 499:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return resp.StatusCode >= 500
}

// failure is an error with a sentence of its own.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return f.text }
func (f *failure) Unwrap() []error { return f.causes }

// explain turns the error of a request into a sentence that says what to do, and
// marks it as archive.Store promises. It returns nil for nil.
func (s *Store) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", doing, context.Canceled)
	}
	causes := []error{err}
	var why string
	var resp minio.ErrorResponse
	if errors.As(err, &resp) {
		why = s.adviseCode(resp)
		switch {
		case resp.StatusCode == http.StatusPreconditionFailed || resp.Code == minio.PreconditionFailed:
			return fmt.Errorf("%s: %w", doing, fs.ErrExist)
		case resp.Code == minio.NoSuchKey:
			return fmt.Errorf("%s: %w", doing, fs.ErrNotExist)
		}
	} else if passing(err) || isTLS(err) {
		why = s.adviseNetwork(err)
	} else {
		why = err.Error()
	}
	if passing(err) || errors.Is(err, errUploadGone) {
		causes = append(causes, archive.ErrUnreachable)
	}
	return &failure{doing + ": " + why, causes}
}

// adviseCode explains an answer of the service.
func (s *Store) adviseCode(resp minio.ErrorResponse) string {
	advice := ""
	switch resp.Code {
	case "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "XAdminUserNotFound": // the last is VersityGW's
		advice = "the service does not know this access key; check AWS_ACCESS_KEY_ID, or the profile in use"
	case "SignatureDoesNotMatch":
		advice = "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY, or the profile in use"
	case "ExpiredToken", "ExpiredTokenException":
		advice = "the session's credentials have expired; get new ones"
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		advice = fmt.Sprintf("access denied; the credentials need s3:ListBucket on bucket %s, and s3:GetObject, s3:PutObject "+
			"and s3:AbortMultipartUpload on its objects below %q", s.bucket, s.prefix)
	case minio.NoSuchBucket:
		advice = fmt.Sprintf("bucket %s does not exist at %s; create it, or correct the archive's URL", s.bucket, s.endpoint)
	case "RequestTimeTooSkewed", "RequestExpired":
		advice = "this machine's clock and the service's are too far apart; synchronise this one (timedatectl, chronyc)"
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "InvalidRegion", "IllegalLocationConstraintException", "TemporaryRedirect":
		advice = "the bucket is in another region; add region=… to the archive's URL"
		if resp.Region != "" {
			advice = fmt.Sprintf("the bucket is in region %s; add region=%s to the archive's URL", resp.Region, resp.Region)
		}
	case "InvalidObjectState":
		advice = "the object is in a storage class that must be restored before it can be read"
	case "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded":
		advice = "the service asks for fewer requests, and did so until the time for repeats was over"
	}
	detail := resp.Code
	if resp.Message != "" && resp.Message != resp.Code {
		detail = strings.TrimSpace(resp.Code + ": " + resp.Message)
	}
	if strings.Contains(resp.Message, "HTTP request to an HTTPS server") || strings.Contains(resp.Message, "HTTP request was sent to HTTPS port") {
		advice = fmt.Sprintf("%s expects TLS; write endpoint=https://…", s.endpoint)
	}
	if advice == "" {
		return fmt.Sprintf("%s answers %d %s", s.endpoint, resp.StatusCode, detail)
	}
	return fmt.Sprintf("%s (%s)", advice, detail)
}

// adviseNetwork explains an error of our side or of the way.
func (s *Store) adviseNetwork(err error) string {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, errStalled):
		return fmt.Sprintf("%s made no progress for %s; is it overloaded or hung?", s.endpoint, s.stall)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the certificate of %s is signed by an authority unknown here; name its certificate with ca-file=… (%v)", s.endpoint, unknown)
	case errors.As(err, &host):
		return fmt.Sprintf("the certificate of %s is for another host; correct endpoint=… (%v)", s.endpoint, host)
	case errors.As(err, &cert):
		return fmt.Sprintf("the certificate of %s is not valid: %v", s.endpoint, cert)
	case plainHTTP(err), errors.As(err, &record):
		return fmt.Sprintf("%s does not speak TLS; write endpoint=http://… if that is intended", s.endpoint)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("host %s is unknown; check endpoint=… and the bucket's name", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens at %s; check endpoint=…, and that the service runs", s.endpoint)
	}
	var request *url.Error // its own text repeats the URL
	if errors.As(err, &request) {
		err = request.Err
	}
	// minio-go puts its own words in the place of an end of file.
	if strings.Contains(err.Error(), "Connection closed by foreign host") {
		return fmt.Sprintf("%s closed the connection without an answer; is it a TLS port that needs endpoint=https://…?", s.endpoint)
	}
	return fmt.Sprintf("%s: %v", s.endpoint, err)
}

// plainHTTP reports whether a TLS handshake met a server without TLS. The
// standard library has no value for it.
func plainHTTP(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
