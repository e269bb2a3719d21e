package s3

import (
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/internal/faults"
)

// newProxy returns a proxy before a new gateway and a Store that goes through it, impatient
// enough for tests.
func newProxy(t *testing.T) (*faults.HTTP, *Store) {
	t.Helper()
	g := dbtest.S3(t)
	p, err := faults.NewHTTP(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	opts := optionsFor(g, "faults")
	opts.Endpoint, opts.Stall, opts.RetryFor = p.URL(), 10*time.Second, 10*time.Second
	return p, open(t, opts)
}
