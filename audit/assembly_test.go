package audit_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"txreel/audit"
	"txreel/change"
)

// TestExportPutsPiecesTogether exports messages that the archive holds in pieces.
func TestExportPutsPiecesTogether(t *testing.T) {
	t.Parallel()
	def := &change.Definition{Messages: [][]byte{[]byte("frame")}}
	pieces := func(raws ...string) []change.Message {
		list := data(raws...)
		list[len(list)-1].Defs = []*change.Definition{def} // stands before the last one
		return list
	}
	const three = "24:insert;update;message"
	undecoded := func(err, raw string) string { return fmt.Sprintf("undecoded %q %q", err, raw) }
	for _, c := range []struct {
		name  string
		txns  [][]change.Message
		limit int64
		want  []string
	}{
		{"one piece", [][]change.Message{pieces(three)}, 0, []string{"insert", "update", "message"}},
		{"three", [][]change.Message{pieces(three[:9], three[9:20], three[20:])}, 0, []string{"insert", "update", "message"}},
		{"a byte each", [][]change.Message{pieces(append([]string{three[:3]}, append(strings.Split(three[3:], ""), "delete")...)...)}, 0, []string{"insert", "update", "message", "delete"}},
		{"at the limit", [][]change.Message{pieces(three[:9], three[9:])}, 24, []string{"insert", "update", "message"}},
		{"two of them", [][]change.Message{pieces(three[:9], three[9:], three[:4], three[4:])}, 0, []string{"insert", "update", "message", "insert", "update", "message"}},
		{"refused by Decode", [][]change.Message{pieces("11:non", "sense", "delete")}, 0, []string{undecoded(`no "such" message`, "11:nonsense"), "delete"}},
		{"refused by Next", [][]change.Message{pieces("15:insert;", "sense", "delete")}, 0, []string{"insert", undecoded(`no "such" row`, "15:insert;sense"), "delete"}},
		{"too many bytes", [][]change.Message{pieces("12:insert;", "delete", "delete")}, 0,
			[]string{undecoded("its pieces hold 16 bytes, of which it says it has 12", "12:insert;delete"), "delete"}},
		{"too large", [][]change.Message{pieces(three[:9], three[9:20], three[20:], "delete")}, 23, []string{
			undecoded("the message has 24 bytes, the limit for decoding is 23: this piece begins at byte 0", three[:9]),
			undecoded("the message has 24 bytes, the limit for decoding is 23: this piece begins at byte 9", three[9:20]),
			undecoded("the message has 24 bytes, the limit for decoding is 23: this piece begins at byte 20", three[20:]), "delete"}},
		{"too large by the usual limit, and unfinished", [][]change.Message{pieces("268435457:insert;"), pieces("delete")}, 0, []string{
			undecoded("the message has 268435457 bytes, the limit for decoding is 268435456: this piece begins at byte 0", "268435457:insert;"), "delete"}},
		{"unfinished", [][]change.Message{pieces(three[:9], three[9:20]), pieces("delete")}, 0,
			[]string{undecoded("the transaction ends inside the message", three[:20]), "delete"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRecorder(t, newMemory(), "mysql")
			for _, messages := range c.txns {
				r.add(testTxn{xid: "a:1", position: "a:1", at: moment(1), messages: messages})
			}
			r.ship()
			var opts audit.ExportOptions
			audit.LimitMessage(&opts, c.limit)
			_, list, sum := export(t, r.a, opts)
			var got []string
			ordinal, seq := uint64(0), ""
			for _, l := range list {
				var v struct {
					Record, Seq, Op, Error, Raw string
					Ordinal                     uint64
				}
				r.check(json.Unmarshal([]byte(l), &v))
				if v.Seq != seq {
					ordinal, seq = 0, v.Seq
				}
				if ordinal++; v.Ordinal != ordinal {
					t.Errorf("ordinal %d where %d must be: %s", v.Ordinal, ordinal, l)
				}
				if v.Record == "undecoded" {
					raw, err := base64.StdEncoding.DecodeString(v.Raw)
					r.check(err)
					v.Op = undecoded(v.Error, string(raw))
				}
				got = append(got, v.Op)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if sum.Changes+sum.Undecoded != uint64(len(c.want)) {
				t.Errorf("trailer %+v", sum)
			}
		})
	}
}
