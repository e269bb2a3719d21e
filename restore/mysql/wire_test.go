package mysql

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
)

// most is the payload of a packet here.
const most = 100

// packets reads what a replica would: events out of packets, whose sequence numbers must follow each other.
func packets(t *testing.T, r io.Reader, seq uint8) (events [][]byte) {
	t.Helper()
	var event []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err == io.EOF && event == nil {
			return events
		} else if err != nil {
			t.Fatalf("%v behind %d events", err, len(events))
		}
		if head[3] != seq {
			t.Fatalf("sequence number %d, want %d", head[3], seq)
		}
		seq++
		n := int(binary.LittleEndian.Uint32(head[:]) & 0xffffff)
		at := len(event)
		event = slices.Grow(event, n)[:at+n]
		if _, err := io.ReadFull(r, event[at:]); err != nil {
			t.Fatal(err)
		}
		if n < most {
			if event[0] != 0 {
				t.Fatalf("an event that begins %x", event[0])
			}
			events = append(events, event[1:])
			event = nil
		}
	}
}

// bufferLink is a connection into a buffer.
type bufferLink struct {
	net.Conn
	bytes.Buffer
}

func (b *bufferLink) Write(p []byte) (int, error) { return b.Buffer.Write(p) }

func (b *bufferLink) Read(p []byte) (int, error) { return b.Buffer.Read(p) }

// TestWire sends events of sizes around those at which packets end, whole and in
// pieces of every kind.
func TestWire(t *testing.T) {
	t.Parallel()
	for _, size := range []int{19, most - 2, most - 1, most, 2*most - 2, 2*most - 1, 2 * most, 10*most + 5} {
		event := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, size/7+1)[:size]
		for _, piece := range []int{size, most - 1, 7} {
			link := &bufferLink{}
			w := newWire(link, 250)
			w.most = most
			w.begin(int64(size))
			for rest := event; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
				if err := w.write(rest[:min(piece, len(rest))]); err != nil {
					t.Fatal(err)
				}
			}
			small := []byte("another event follows it")
			if err := w.event(small); err != nil {
				t.Fatal(err)
			}
			if err := w.flush(); err != nil {
				t.Fatal(err)
			}
			got := packets(t, link, 250)
			if len(got) != 2 || !bytes.Equal(got[0], event) || !bytes.Equal(got[1], small) || w.sent != int64(size+len(small)) {
				t.Errorf("event of %d bytes in pieces of %d: %d events, %d bytes counted", size, piece, len(got), w.sent)
			}
		}
	}
	w := newWire(&bufferLink{}, 0)
	w.begin(10)
	if err := w.write(make([]byte, 11)); err == nil {
		t.Error("an event longer than it said")
	}
	w = newWire(&bufferLink{}, 0)
	w.begin(10)
	if err := w.event(make([]byte, 20)); err == nil {
		t.Error("an event inside another")
	}
}
