package restore

import (
	"strings"
	"testing"

	"txreel/archive"
	"txreel/change"
)

// TestProtection says of a point, and of what may be missing behind the record, no more than the spans do.
func TestProtection(t *testing.T) {
	t.Parallel()
	spans := []archive.Span{{From: 5, To: 9, Protected: true}, {From: 10, To: 19, Reason: "the store hung"}, {From: 20, Protected: true}}
	for _, c := range []struct {
		name  string
		spans []archive.Span
		seq   change.Seq
		next  *change.Txn
		want  string // its end
	}{
		{"never", nil, 7, nil, ""},
		{"before", spans, 4, &change.Txn{}, "did not wait for the archive"},
		{"protected", spans, 9, &change.Txn{}, "the chosen transaction waited for the archive"},
		{"exposed", spans, 10, &change.Txn{}, "did not wait for the archive"},
		{"latest", spans, 30, nil, "every transaction that was acknowledged since is recorded"},
		{"latest, exposed", spans[:2], 12, nil, "(the store hung): some that are not recorded may have been lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &Plan{Protection: c.spans, Seq: c.seq, Next: c.next}
			if got := p.protection(); !strings.HasSuffix(got, c.want) || (c.want == "") != (got == "") {
				t.Errorf("says %q, want %q at its end", got, c.want)
			}
		})
	}
}
