package s3

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// errStalled is the end of a request that made no progress for Options.Stall.
var errStalled = errors.New("no progress")

// request runs call, one S3 request, until it succeeds, fails for good, or its
// time is over. Each try has its own watch, which gives up after limit.
func (s *Store) request(ctx context.Context, limit time.Duration, call func(context.Context, *watch) error) error {
	return s.retry(ctx, func() error {
		ctx, w := newWatch(ctx, limit)
		defer w.end()
		return w.verdict(call(ctx, w))
	})
}

// retry repeats op while its error is a passing one.
func (s *Store) retry(ctx context.Context, op func() error) error {
	if s.retryFor < 0 {
		return op()
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 5*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := op()
		if err != nil && !passing(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(s.retryFor))
	return err
}

// watch cancels a request that makes no progress.
type watch struct {
	limit   time.Duration
	timer   *time.Timer
	cancel  context.CancelFunc
	stalled atomic.Bool
}

// newWatch starts a watch and returns the context of the request it watches.
func newWatch(ctx context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{limit: limit, cancel: cancel}
	w.timer = time.AfterFunc(limit, func() {
		w.stalled.Store(true)
		cancel()
	})
	return ctx, w
}

// progress starts the limit anew.
func (w *watch) progress() { w.timer.Reset(w.limit) }

// rest holds the limit while the caller, not the service, is the one waited for.
func (w *watch) rest() { w.timer.Stop() }

// end releases the watch and its request's context.
func (w *watch) end() {
	w.timer.Stop()
	w.cancel()
}

// verdict tells a stall from a cancelled context.
func (w *watch) verdict(err error) error {
	if err != nil && w.stalled.Load() {
		return errStalled
	}
	return err
}

// upload is the body of a request: what it reads counts as progress, and its own
// failures are told from the network's.
type upload struct {
	*io.SectionReader
	watch *watch
	err   error
}

func (u *upload) Read(p []byte) (int, error) {
	u.watch.progress()
	n, err := u.SectionReader.Read(p)
	if err != nil && err != io.EOF {
		u.err = err
	}
	return n, err
}
