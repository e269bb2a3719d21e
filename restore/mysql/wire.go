package mysql

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"time"
)

// maxPayload is the length of a packet that another one continues.
const maxPayload = 1<<24 - 1

// wire writes events to a replica, as a primary does: each in a packet of its own, or in
// several when it is large. It is not for concurrent use.
type wire struct {
	out  *bufio.Writer
	most int       // payload of a packet; maxPayload but in tests
	seq  uint8     // of the next packet
	room int       // left in the packet being written
	rest int64     // payload of the event behind that packet
	full bool      // that packet has the most a packet can have: another one follows, if an empty one
	left int64     // of the event being written that is still to come
	sent int64     // bytes of events so far
	last time.Time // when something was written last
	err  error     // sticky
}

func newWire(link net.Conn, seq uint8) *wire {
	return &wire{out: bufio.NewWriterSize(link, 256<<10), most: maxPayload, seq: seq, last: time.Now()}
}

var errPieces = errors.New("the pieces of an event do not make the size its header says")

// event writes an event that is whole.
func (w *wire) event(raw []byte) error {
	w.begin(int64(len(raw)))
	return w.write(raw)
}

// begin opens an event of size bytes; write delivers them.
func (w *wire) begin(size int64) {
	if w.left != 0 && w.err == nil {
		w.err = errPieces
	}
	w.left, w.rest = size, size+1
	w.packet()
	w.bytes([]byte{0}) // an event follows, and no error
	w.room--
}

// packet opens the next packet of the event.
func (w *wire) packet() {
	w.room = int(min(w.rest, int64(w.most)))
	w.rest -= int64(w.room)
	w.full = w.room == w.most
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(w.room))
	b[3] = w.seq
	w.seq++
	w.bytes(b[:])
}

// write delivers a piece of the open event.
func (w *wire) write(piece []byte) error {
	if int64(len(piece)) > w.left && w.err == nil {
		w.err = errPieces
	}
	w.left -= int64(len(piece))
	w.sent += int64(len(piece))
	for len(piece) > 0 && w.err == nil {
		if w.room == 0 {
			w.packet()
		}
		n := min(len(piece), w.room)
		w.bytes(piece[:n])
		piece, w.room = piece[n:], w.room-n
	}
	if w.left == 0 && w.room == 0 && w.full {
		w.packet()
	}
	return w.err
}

func (w *wire) bytes(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
		w.last = time.Now()
	}
}

// flush sends what waits.
func (w *wire) flush() error {
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.err
}
