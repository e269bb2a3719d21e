package reduce

import (
	"context"
	"encoding/binary"
	"io"
	"testing"

	"txreel/change"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
)

// FuzzStream hands on hostile events, each with a right size and checksum where the fuzzer does not say otherwise.
func FuzzStream(f *testing.F) {
	seed := func(list ...[]byte) {
		var b []byte
		for _, m := range list {
			b = binary.LittleEndian.AppendUint16(b, uint16(len(m)))
			b = append(append(b, 0), m...)
		}
		f.Add(b)
	}
	a, z := tuple{id: 1, u: 1, v: "v", w: 1}, tuple{id: 1, u: 1, v: "v", w: 2}
	seed(gtidEvent(1), queryEvent("BEGIN"), mapEvent(1, "t"), rowsEvent(binlog.TypeUpdateRows, 1, true, a, z), rowsEvent(binlog.TypeUpdateRows, 1, true, z, a), xidEvent(1))
	seed(gtidEvent(1), queryEvent("BEGIN"), mapEvent(1, "t"), mapEvent(2, "o"), rowsEvent(binlog.TypeUpdateRows, 1, false, a, z), rowsEvent(binlog.TypeWriteRows, 2, true, z), xidEvent(1))
	seed(gtidEvent(1), queryEvent("BEGIN"), mapEvent(1, "t"), rowsEvent(binlog.TypeDeleteRows, 1, true, a), mapEvent(9, "t"), rowsEvent(binlog.TypeUpdateRows, 9, true, z, a), xidEvent(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		list := []segment.Record{{Kind: segment.Definition, Raw: definition()}}
		var messages [][]byte
		seq := change.Seq(1)
		for len(b) >= 3 {
			n, how := int(binary.LittleEndian.Uint16(b)), b[2]
			b = b[3:]
			n = min(n, len(b))
			m := append([]byte(nil), b[:n]...)
			b = b[n:]
			if how&1 == 0 && len(m) >= binlog.HeaderSize+4 {
				binlog.Seal(m, binlog.ChecksumCRC32)
			}
			messages = append(messages, m)
			if how&2 != 0 {
				list = append(list, transaction(seq, xidOf(uint64(seq)), messages...)...)
				messages, seq = nil, seq+1
			}
			if how&4 != 0 {
				list = append(list, segment.Record{Kind: segment.Definition, Raw: definition()})
			}
		}
		list = append(list, transaction(seq, xidOf(uint64(seq)), messages...)...)
		for _, window := range []int{1, 300, 1 << 20} {
			s := NewStream(&records{list: list, err: io.EOF}, &catalog{}, window)
			var err error
			for err == nil {
				_, err = s.Next(context.Background())
			}
		}
	})
}
