package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"txreel/archive"
	"txreel/internal/faults"
)

func create(ctx context.Context, s *Store, key string, size int) error {
	return s.Create(ctx, key, bytes.NewReader(make([]byte, size)), int64(size))
}

func sizeOf(t *testing.T, s *Store, key string) int64 {
	t.Helper()
	body, size, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, body); err != nil || n != size {
		t.Fatalf("read %d of %d bytes: %v", n, size, err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	return size
}

// TestRequests counts what each call costs.
func TestRequests(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	for _, tt := range []struct {
		name string
		call func() error
		want int
	}{
		{"create", func() error { return create(t.Context(), s, "a", 100) }, 1},
		{"create near the part size", func() error { return create(t.Context(), s, "b", minPartSize) }, 1},
		{"create three parts", func() error { return create(t.Context(), s, "c", 2*minPartSize+1) }, 5},
		{"open", func() error { sizeOf(t, s, "a"); return nil }, 1},
		{"open a range", func() error { _, _, err := s.Open(t.Context(), "a", -10, 0); return err }, 1},
		{"list", func() error { _, err := s.List(t.Context(), "", "", 1000); return err }, 1},
		{"list one of more", func() error { _, err := s.List(t.Context(), "", "", 1); return err }, 1},
		{"list a full page", func() error { _, err := s.List(t.Context(), "", "", 3); return err }, 1},
	} {
		p.Set(nil)
		if err := tt.call(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		got := p.Requests()
		if len(got) != tt.want {
			t.Errorf("%s: %d requests %q, want %d", tt.name, len(got), got, tt.want)
		}
		if tt.name == "list one of more" && !strings.Contains(got[0], "max-keys=1&") {
			t.Errorf("%s asks for more: %s", tt.name, got[0])
		}
	}
}

// TestRefusedBeforeTheBody checks that a key that is taken is not mistaken for a
// service that breaks connections: the answer comes before the body is sent.
func TestRefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	p.Set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Expect") == "" {
			t.Error("a large body came uninvited")
		}
		w.Header().Set("Connection", "close")
		return faults.Answer(w, 412, "PreconditionFailed")
	})
	if err := create(t.Context(), s, "key", minPartSize); !errors.Is(err, fs.ErrExist) || len(p.Requests()) != 1 {
		t.Errorf("Create: %v after %d requests, want fs.ErrExist at once", err, len(p.Requests()))
	}
}

func TestPassingFaults(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	first := func(times int, f func(http.ResponseWriter, *http.Request) bool) faults.Fault {
		return func(n int, w http.ResponseWriter, r *http.Request) bool { return n <= times && f(w, r) }
	}
	for i, tt := range []struct {
		name  string
		fault faults.Fault
	}{
		{"503", first(2, func(w http.ResponseWriter, _ *http.Request) bool { return faults.Answer(w, 503, "SlowDown") })},
		{"500", first(2, func(w http.ResponseWriter, _ *http.Request) bool { return faults.Answer(w, 500, "InternalError") })},
		{"502 of a balancer", first(1, func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			_, err := w.Write([]byte("<html>bad gateway</html>"))
			return err == nil
		})},
		{"connection cut", first(2, func(w http.ResponseWriter, _ *http.Request) bool { return faults.Abort() })},
		{"conflict", first(2, func(w http.ResponseWriter, _ *http.Request) bool {
			return faults.Answer(w, 409, "ConditionalRequestConflict")
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := fmt.Sprintf("key%d", i)
			p.Set(tt.fault)
			if err := create(t.Context(), s, key, 2<<20); err != nil {
				t.Fatal(err)
			}
			if len(p.Requests()) < 2 {
				t.Fatal("the fault was not met")
			}
			if got := sizeOf(t, s, key); got != 2<<20 {
				t.Fatalf("the object has %d bytes", got)
			}
			p.Set(tt.fault)
			if got, err := s.List(t.Context(), key, "", 5); err != nil || len(got) != 1 {
				t.Errorf("List = %v, %v", got, err)
			}
			p.Set(tt.fault)
			if body, _, err := s.Open(t.Context(), key, 0, 5); err != nil {
				t.Errorf("Open: %v", err)
			} else if err := body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLastingFaults checks that a fault that stays ends as archive.ErrUnreachable.
func TestLastingFaults(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	if err := create(t.Context(), s, "there", 10); err != nil {
		t.Fatal(err)
	}
	s.stall, s.retryFor = time.Second, 500*time.Millisecond
	for _, tt := range []struct {
		name, says string
		fault      faults.Fault
	}{
		{"503", "SlowDown", func(_ int, w http.ResponseWriter, _ *http.Request) bool { return faults.Answer(w, 503, "SlowDown") }},
		{"connection cut", "", func(_ int, w http.ResponseWriter, _ *http.Request) bool { return faults.Abort() }},
		{"hung", "no progress for 1s", func(_ int, _ http.ResponseWriter, r *http.Request) bool { return p.Hang(r) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.Set(tt.fault)
			_, listErr := s.List(t.Context(), "", "", 5)
			_, _, openErr := s.Open(t.Context(), "there", 0, -1)
			for _, err := range []error{listErr, openErr, create(t.Context(), s, "new", 100), create(t.Context(), s, "new", 2*minPartSize)} {
				if !errors.Is(err, archive.ErrUnreachable) || !strings.Contains(err.Error(), tt.says) || errors.Is(err, context.Canceled) {
					t.Errorf("%v: want archive.ErrUnreachable that says %q", err, tt.says)
				}
			}
		})
	}
}

// TestFinalFaults checks that what will not pass is asked once.
func TestFinalFaults(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	for _, tt := range []struct {
		status     int
		code, says string
	}{
		{403, "AccessDenied", "s3:PutObject"},
		{403, "RequestTimeTooSkewed", "clock"},
		{403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"},
		{404, "NoSuchBucket", "create it"},
		{301, "PermanentRedirect", "region="},
		{400, "ExpiredToken", "expired"},
		{501, "NotImplemented", "501 NotImplemented"},
	} {
		p.Set(func(_ int, w http.ResponseWriter, _ *http.Request) bool { return faults.Answer(w, tt.status, tt.code) })
		err := create(t.Context(), s, "key", 10)
		if err == nil || errors.Is(err, archive.ErrUnreachable) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want a final error that says %q", tt.code, err, tt.says)
		}
		if got := p.Requests(); len(got) != 1 {
			t.Errorf("%s: asked %d times", tt.code, len(got))
		}
	}
}

// TestLostAnswer loses the answer of the request that takes effect: the object is
// there, whole, and the caller hears that it exists, or, from a service that
// remembers the upload it completed, that all is well.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	for _, tt := range []struct {
		name string
		size int
		hit  func(*http.Request) bool
	}{
		{"single", 1000, func(r *http.Request) bool { return r.Method == http.MethodPut }},
		{"multipart", minPartSize + 1, func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lost := false
			p.Set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if lost || !tt.hit(r) {
					return false
				}
				lost = true
				return p.Swallow(r)
			})
			if err := create(t.Context(), s, tt.name, tt.size); !lost {
				t.Error("the fault was not met")
			} else if !errors.Is(err, fs.ErrExist) && (err != nil || tt.size <= minPartSize) {
				t.Errorf("Create: %v, want fs.ErrExist", err)
			}
			p.Set(nil)
			if got := sizeOf(t, s, tt.name); got != int64(tt.size) {
				t.Errorf("the object has %d bytes, want %d", got, tt.size)
			}
		})
	}
}

// TestMultipartStartsOver checks the faults that cost the whole upload, and that
// no parts stay behind when it ends.
func TestMultipartStartsOver(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	completing := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }
	for _, tt := range []struct {
		name   string
		times  int
		status int
		code   string
		want   error
	}{
		{"conflict", 1, 409, "ConditionalRequestConflict", nil},
		{"upload gone", 2, 404, "NoSuchUpload", nil},
		{"error in a 200", 1, 200, "InternalError", nil},
		{"always a conflict", 1000, 409, "ConditionalRequestConflict", archive.ErrUnreachable},
		{"exists", 1, 412, "PreconditionFailed", fs.ErrExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left := tt.times
			p.Set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if !completing(r) || left == 0 {
					return false
				}
				left--
				return faults.Answer(w, tt.status, tt.code)
			})
			key := strings.ReplaceAll(tt.name, " ", "-")
			if err := create(t.Context(), s, key, minPartSize+1); !errors.Is(err, tt.want) {
				t.Errorf("Create: %v, want %v", err, tt.want)
			}
			uploads, err := s.core.ListMultipartUploads(t.Context(), s.bucket, s.prefix+key, "", "", "", 10)
			if err != nil || len(uploads.Uploads) != 0 {
				t.Errorf("uploads stayed behind: %v, %v", uploads.Uploads, err)
			}
		})
	}
}

// TestBrokenBodies breaks answers in the middle: the rest is asked for, of the same object, as long as a request is repeated.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i ^ i>>8 ^ i>>16)
	}
	if err := s.Create(t.Context(), "key", bytes.NewReader(want), int64(len(want))); err != nil {
		t.Fatal(err)
	}
	cut := func(_ int, w http.ResponseWriter, r *http.Request) bool { p.SendHalf(w, r); return faults.Abort() }
	stall := func(_ int, w http.ResponseWriter, r *http.Request) bool { p.SendHalf(w, r); return p.Hang(r) }
	// then answers the first request by first, and those behind it by next.
	then := func(first, next faults.Fault) faults.Fault {
		var asked atomic.Int32
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if asked.Add(1) == 1 {
				return first(n, w, r)
			}
			return next != nil && next(n, w, r)
		}
	}
	busy := func(_ int, w http.ResponseWriter, _ *http.Request) bool { return faults.Answer(w, 503, "SlowDown") }
	for _, tt := range []struct {
		name            string
		fault           faults.Fault
		stall, retryFor time.Duration
		err             error // nil: all of it arrives
	}{
		{"cut", then(cut, nil), time.Minute, time.Minute, nil},
		{"stalled", then(stall, nil), time.Second, time.Minute, nil},
		{"cut again and again", func(n int, w http.ResponseWriter, r *http.Request) bool { // always half of the rest, but for the last byte
			return r.Header.Get("Range") != "bytes=1048575-1048575" && cut(n, w, r)
		}, time.Minute, time.Minute, nil},
		{"cut, not repeated", cut, time.Minute, -1, io.ErrUnexpectedEOF},
		{"stalled, not repeated", stall, time.Second, -1, errStalled},
		{"cut, then away", then(cut, busy), time.Minute, time.Second, archive.ErrUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.Set(tt.fault)
			s.stall, s.retryFor = tt.stall, tt.retryFor
			body, size, err := s.Open(t.Context(), "key", 0, -1)
			if err != nil || size != 1<<20 {
				t.Fatal(size, err)
			}
			got, err := io.ReadAll(body)
			if tt.err == nil && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
			}
			if tt.err != nil && (int64(len(got)) != size/2 || !errors.Is(err, tt.err) || !errors.Is(err, archive.ErrUnreachable)) {
				t.Errorf("read %d bytes, %v; want %d and %v", len(got), err, size/2, tt.err)
			}
			if err := body.Close(); err != nil && tt.err == nil {
				t.Error(err)
			}
		})
	}
	t.Run("replaced", func(t *testing.T) { // as nobody should
		p.Set(then(cut, nil))
		s.stall, s.retryFor = time.Minute, time.Minute
		body, _, err := s.Open(t.Context(), "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		p.Set(nil)
		half := make([]byte, 1<<19)
		if _, err := io.ReadFull(body, half); err != nil {
			t.Fatal(err)
		}
		if _, err := s.core.PutObject(t.Context(), s.bucket, s.prefix+"key", bytes.NewReader(make([]byte, 1<<20)), 1<<20, "", "", minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(body); len(rest) > 0 || err == nil || !strings.Contains(err.Error(), "not the object any more") || errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("read %d more bytes, %v", len(rest), err)
		}
	})
}

// TestCancelEndsWaiting cancels calls that wait for a hung service.
func TestCancelEndsWaiting(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	s.stall = time.Hour
	for name, call := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { return create(ctx, s, "key", 100) },
		"large":  func(ctx context.Context) error { return create(ctx, s, "key", 2*minPartSize) },
		"open":   func(ctx context.Context) error { _, _, err := s.Open(ctx, "key", 0, -1); return err },
		"list":   func(ctx context.Context) error { _, err := s.List(ctx, "", "", 1); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p.Set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
				cancel()
				return p.Hang(r)
			})
			if err := call(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, archive.ErrUnreachable) {
				t.Errorf("%v, want context.Canceled", err)
			}
		})
	}
}

// TestBrokenRules checks that a service that breaks S3's rules is not believed.
func TestBrokenRules(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	for _, key := range []string{"a", "b", "c"} {
		if err := create(t.Context(), s, key, 1000); err != nil {
			t.Fatal(err)
		}
	}
	p.Set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	})
	for _, r := range [][2]int64{{5, 5}, {0, 5}, {-5, 0}, {5, -1}} {
		if _, _, err := s.Open(t.Context(), "a", r[0], r[1]); err == nil || errors.Is(err, archive.ErrUnreachable) {
			t.Errorf("Open(%d, %d) from a service that ignores Range: %v", r[0], r[1], err)
		}
	}
	p.Set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		got := p.Forward(r)
		swapped := strings.NewReplacer("faults/a", "faults/b", "faults/b", "faults/a").Replace(got.Body.String())
		_, err := w.Write([]byte(swapped))
		return err == nil
	})
	if got, err := s.List(t.Context(), "", "", 5); err == nil || errors.Is(err, archive.ErrUnreachable) {
		t.Errorf("List from a service that does not sort = %v, %v", got, err)
	}
	var keys []string
	p.Set(nil)
	got, err := s.List(t.Context(), "", "", 5)
	for _, o := range got {
		keys = append(keys, o.Key)
	}
	if !slices.Equal(keys, []string{"a", "b", "c"}) {
		t.Errorf("List = %v, %v", keys, err)
	}
}

// TestByPlan creates and reads while the service fails in every way it knows: what Create says
// it made is there, whole, and nothing else is.
func TestByPlan(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	p.Set(p.ByPlan(1, []faults.Chance{{Kind: faults.Error500, Times: 60}, {Kind: faults.Error500After, Times: 60}, {Kind: faults.Error503, Times: 60},
		{Kind: faults.Conflict409, Times: 60}, {Kind: faults.Exists412, Times: 60}, {Kind: faults.CutBefore, Times: 60}, {Kind: faults.CutAfter, Times: 60}, {Kind: faults.Half, Times: 60}}))
	var want []archive.Object
	for i := range 100 {
		key, size := fmt.Sprintf("plan/%03d", i), 1+i*37
		if err := create(t.Context(), s, key, size); err != nil && !errors.Is(err, fs.ErrExist) { // it is ours: nobody else writes
			t.Fatal(err)
		}
		want = append(want, archive.Object{Key: key, Size: int64(size)})
		for {
			body, n, err := s.Open(t.Context(), key, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.Copy(io.Discard, body)
			if cerr := body.Close(); err == nil {
				err = cerr
			}
			if err == nil && got == n && n == int64(size) {
				break
			}
			if !errors.Is(err, archive.ErrUnreachable) {
				t.Fatalf("read %d of %d bytes, want %d: %v", got, n, size, err)
			}
		}
	}
	got, err := s.List(t.Context(), "plan/", "", 1000)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("List = %v, %v", got, err)
	}
	t.Logf("injected: %s", p.Counts())
	if c := p.Counts(); len(c) != 8 {
		t.Errorf("injected only %s", c)
	}
}

// TestDeleteRefused tells a store that keeps an object, for whatever reason, from one that cannot be reached, and repeats what may
// succeed later.
func TestDeleteRefused(t *testing.T) {
	t.Parallel()
	p, s := newProxy(t)
	if err := create(t.Context(), s, "a", 10); err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"AccessDenied", "ObjectLocked"} {
		p.Set(func(_ int, w http.ResponseWriter, _ *http.Request) bool { return faults.Answer(w, 403, code) })
		err := s.Delete(t.Context(), "a")
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, archive.ErrUnreachable) || !strings.Contains(err.Error(), "s3:DeleteObject") {
			t.Errorf("%s: %v", code, err)
		}
	}
	p.Set(func(n int, w http.ResponseWriter, _ *http.Request) bool {
		return n < 3 && faults.Answer(w, 503, "SlowDown")
	})
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("after two answers of 503: %v", err)
	}
	p.Set(nil)
	if _, _, err := s.Open(t.Context(), "a", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was deleted: %v", err)
	}
}
