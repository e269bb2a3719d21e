package pgoutput

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
)

var record = flag.Bool("record", false, "write testdata/messages.txt anew, from a live server")

// recorded returns messages a PostgreSQL 15 server sent, in order.
func recorded(t testing.TB) [][]byte {
	t.Helper()
	f, err := os.Open("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list [][]byte
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		m, err := hex.DecodeString(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	if len(list) < 40 {
		t.Fatalf("only %d recorded messages", len(list))
	}
	return list
}

func TestRecord(t *testing.T) {
	if !*record {
		return // the file is there; -record writes it
	}
	s := newSource(t, dbtest.PG(t), "record")
	s.exec(strings.ReplaceAll(shapes, "9000", "3000") + "; SELECT pg_current_xact_id()")
	b := []byte("# pgoutput messages of the workload shapes, protocol 1, one a line, by go test -record\n")
	for _, m := range s.messages() {
		b = append(hex.AppendEncode(b, m), '\n')
	}
	if err := os.WriteFile("testdata/messages.txt", b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedMessages cuts every recorded message at every byte and lengthens it: each
// must be an error of a known kind, and leave the decoder able to go on.
func TestDamagedMessages(t *testing.T) {
	t.Parallel()
	var d Decoder
	var ev change.Event
	for _, m := range recorded(t) {
		if m[0] != TagBegin && m[0] != TagCommit { // Event looks at their tag only
			for n := range len(m) {
				if _, err := d.Event(bytes.Clone(m[:n:n]), &ev); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%q cut to %d bytes: %v", m, n, err)
				}
			}
			if _, err := d.Event(append(bytes.Clone(m), 0), &ev); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%q and a byte more: %v", m, err)
			}
		}
		if _, err := d.Event(m, &ev); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		in   string
		want error
	}{
		{"unknown tag", "?", ErrUnknown},
		{"two-phase prepare", "P", ErrUnknown},
		{"insert into an unknown relation", "I\x00\x00\x00\x01N\x00\x00", ErrMalformed},
		{"truncate of an unknown relation", "T\x00\x00\x00\x01\x00\x00\x00\x00\x01", ErrMalformed},
		{"truncate of more relations than bytes", "T\xff\xff\xff\xff\x00", ErrMalformed},
		{"message with a length of -1", "M\x00\x00\x00\x00\x00\x00\x00\x00\x00p\x00\xff\xff\xff\xff", ErrMalformed},
		{"relation with more columns than bytes", "R\x00\x00\x00\x01s\x00t\x00d\xff\xff", ErrMalformed},
	} {
		if _, err := d.Event([]byte(c.in), &ev); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// The relation t has one column.
	if _, err := d.Event([]byte("R\x00\x00\x00\x07s\x00t\x00d\x00\x01\x01c\x00\x00\x00\x00\x17\xff\xff\xff\xff"), &ev); err != nil {
		t.Fatal(err)
	}
	const row = "\x00\x01t\x00\x00\x00\x011"
	for _, c := range []string{
		"I\x00\x00\x00\x07K" + row, "I\x00\x00\x00\x07O" + row + "N" + row, "D\x00\x00\x00\x07N" + row, "D\x00\x00\x00\x07N",
		"U\x00\x00\x00\x07K" + row, "U\x00\x00\x00\x07X" + row, "I\x00\x00\x00\x07N\x00\x02nn", "I\x00\x00\x00\x07N\x00\x00", "I\x00\x00\x00\x07N\x00\x01x",
		"I\x00\x00\x00\x07N\x00\x01t\xff\xff\xff\xff", "D\x00\x00\x00\x07K" + row + "N" + row,
	} {
		if _, err := d.Event([]byte(c), &ev); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v, want %v", c, err, ErrMalformed)
		}
	}
	// PostgreSQL 18 sends it unasked.
	if is, err := d.Event([]byte("A\x00\x00\x02\xf6\x00\x00\x02\xf7"), &ev); is || err != nil {
		t.Errorf("stray stream abort: %v, %v", is, err)
	}
}

// rows returns recorded messages of rows, and a decoder that can decode them.
func rows(t testing.TB) (*Decoder, [][]byte) {
	var d Decoder
	var ev change.Event
	var list [][]byte
	for _, m := range recorded(t) {
		is, err := d.Event(m, &ev)
		if err != nil {
			t.Fatal(err)
		}
		if is && ev.Relation != nil {
			list = append(list, m)
		}
	}
	return &d, list
}

func TestDecodingTakesNoMemory(t *testing.T) {
	d, list := rows(t)
	var ev change.Event
	n := testing.AllocsPerRun(100, func() {
		for _, m := range list {
			if _, err := d.Event(m, &ev); err != nil {
				t.Fatal(err)
			}
			if err := d.Decode(m); err != nil || d.Size(m) != int64(len(m)) {
				t.Fatal(err)
			}
			for want := range 2 { // one event, then none
				if is, err := d.Next(&ev); err != nil || is != (want == 0) {
					t.Fatalf("next: %t, %v", is, err)
				}
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations to decode %d rows, want none", n, len(list))
	}
}

// TestNextAfterAnError demands that a message that was refused leaves no event behind.
func TestNextAfterAnError(t *testing.T) {
	t.Parallel()
	d, list := rows(t)
	var ev change.Event
	if err := d.Decode(list[0]); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(list[0][:len(list[0])-1]); !errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
	if is, err := d.Next(&ev); is || err != nil {
		t.Errorf("next: %t, %v", is, err)
	}
}

func BenchmarkEvent(b *testing.B) {
	d, list := rows(b)
	var ev change.Event
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := d.Event(list[i%len(list)], &ev); err != nil {
			b.Fatal(err)
		}
	}
}

// encode turns a row event back into its message. old is the kind of its old image.
func encode(ev *change.Event, old byte) []byte {
	tag := map[change.Op]byte{change.OpInsert: TagInsert, change.OpUpdate: TagUpdate, change.OpDelete: TagDelete}[ev.Op]
	b := binary.BigEndian.AppendUint32([]byte{tag}, ev.Relation.ID)
	image := func(kind byte, vs []change.Value) {
		b = binary.BigEndian.AppendUint16(append(b, kind), uint16(len(vs)))
		for _, v := range vs {
			switch v.State {
			case change.Null, change.NotLogged:
				b = append(b, 'n')
			case change.Unchanged:
				b = append(b, 'u')
			case change.Text:
				b = append(binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v.Bytes))), v.Bytes...)
			case change.Binary:
				b = append(binary.BigEndian.AppendUint32(append(b, 'b'), uint32(len(v.Bytes))), v.Bytes...)
			}
		}
	}
	if ev.Old != nil {
		image(old, ev.Old)
	}
	if ev.New != nil {
		image('N', ev.New)
	}
	return b
}

// FuzzEvent feeds arbitrary messages. Nothing may panic, and a row that decodes
// must hold all of its message and nothing else: encoded again it is the same.
func FuzzEvent(f *testing.F) {
	all := recorded(f)
	for _, m := range all {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		var d Decoder
		var ev change.Event
		for _, def := range all {
			if def[0] == TagRelation || def[0] == TagType {
				if _, err := d.Event(def, &ev); err != nil {
					t.Fatal(err)
				}
			}
		}
		is, err := d.Event(m, &ev)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknown) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			return
		}
		for _, v := range append(ev.Old, ev.New...) {
			if len(v.Bytes) != cap(v.Bytes) {
				t.Fatal("a value reaches into what stands behind it")
			}
		}
		if is && ev.Relation != nil && !bytes.Equal(encode(&ev, 'K'), m) && !bytes.Equal(encode(&ev, 'O'), m) {
			t.Fatalf("%q decodes to what is %q", m, encode(&ev, 'O'))
		}
		_, _ = ParseBegin(m)
		_, _ = ParseCommit(m)
		if r, err := ParseRelation(m); err == nil && r.Version() == 0 {
			t.Fatal("version zero")
		}
	})
}

func TestAnImageWithoutColumnsIsAnImage(t *testing.T) {
	t.Parallel()
	var d Decoder
	var ev change.Event
	for _, m := range []string{"R\x00\x00\x00\x07s\x00t\x00f\x00\x00", "U\x00\x00\x00\x07O\x00\x00N\x00\x00"} {
		if _, err := d.Event([]byte(m), &ev); err != nil {
			t.Fatal(err)
		}
	}
	if ev.Old == nil || ev.New == nil {
		t.Errorf("images %v and %v, want both", ev.Old, ev.New)
	}
}
