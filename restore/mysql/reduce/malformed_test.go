package reduce

import (
	"context"
	"errors"
	"io"
	"testing"

	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// TestMalformedBehindRows has a row event that cannot be read behind one that can, in a transaction. It must be an error, and the transaction not be handed on.
func TestMalformedBehindRows(t *testing.T) {
	a, z := tuple{id: 1, w: 1}, tuple{id: 1, w: 2}
	good := rowsEvent(binlog.TypeUpdateRows, 1, false, a, z)
	bad := rowsEvent(binlog.TypeUpdateRows, 1, true, z, a)
	bad = append(bad[:len(bad)-6], bad[len(bad)-4:]...) // the last row ends early
	binlog.Seal(bad, binlog.ChecksumCRC32)
	list := append([]segment.Record{{Kind: segment.Definition, Raw: definition()}},
		transaction(1, xidOf(1), gtidEvent(1), queryEvent("BEGIN"), mapEvent(1, "t"), good, bad, xidEvent(1))...)
	s := NewStream(&records{list: list, err: io.EOF}, &catalog{}, 1<<20)
	for {
		rec, err := s.Next(context.Background())
		if errors.Is(err, binlog.ErrMalformed) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind == segment.Commit {
			t.Error("the transaction is handed on whole")
		}
	}
}
