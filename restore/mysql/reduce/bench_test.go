package reduce

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"txreel/change"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// BenchmarkStream looks for overwritten updates in 400,000 updates of 10,000 rows, and in the same number of updates of as many rows.
func BenchmarkStream(b *testing.B) {
	for name, rows := range map[string]int32{"hot": 10_000, "cold": 400_000} {
		b.Run(name, func(b *testing.B) {
			list := []segment.Record{{Kind: segment.Definition, Raw: definition()}}
			size := int64(0)
			for n := range int32(4000) {
				var both []tuple
				for i := range int32(100) {
					r := tuple{id: (n*100 + i) % rows, u: 1 + (n*100+i)%rows, v: strings.Repeat("v", 70), w: n}
					after := r
					after.w++
					both = append(both, r, after)
				}
				event := rowsEvent(binlog.TypeUpdateRows, 1, true, both...)
				size += int64(len(event))
				list = append(list, transaction(change.Seq(n+1), xidOf(uint64(n+1)), gtidEvent(uint64(n+1)), queryEvent("BEGIN"), mapEvent(1, "t"), event, xidEvent(1))...)
			}
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				s := NewStream(&records{list: list, err: io.EOF}, &catalog{}, DefaultWindow)
				var err error
				for err == nil {
					_, err = s.Next(context.Background())
				}
				if !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
		})
	}
}
