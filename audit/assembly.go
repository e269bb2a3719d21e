package audit

import (
	"errors"
	"fmt"
)

// maxMessage bounds the messages that are put together from pieces to be decoded.
const maxMessage = 256 << 20

// keepMessage is the size up to which the memory of such a message is used again.
const keepMessage = 32 << 20

// assembly is a message of which not all pieces have been read.
type assembly struct {
	raw     []byte // the pieces so far
	size    int64  // of the whole message; zero: none is open
	missing int64  // bytes of it to come
	large   bool   // above maxMessage: its pieces are written as they come
}

var errUnfinished = errors.New("the transaction ends inside the message")

// message takes a stored message, which may be a piece of one of the source.
func (e *exporter) message(raw []byte) error {
	p := &e.parts
	if p.size == 0 {
		size := e.dec.Size(raw)
		if size <= int64(len(raw)) {
			return e.whole(raw)
		}
		p.size, p.missing, p.large = size, size, size > e.opts.maxMessage
	}
	if p.large {
		return e.largePiece(raw)
	}
	p.missing -= int64(len(raw))
	p.raw = append(p.raw, raw...) // as they come: the size itself is not trusted with memory
	switch {
	case p.missing > 0:
		return nil
	case p.missing < 0:
		return e.close(fmt.Errorf("its pieces hold %d bytes, of which it says it has %d", len(p.raw), p.size))
	}
	err := e.whole(p.raw)
	p.reset()
	return err
}

// largePiece writes a piece of a message that is too large to be decoded.
func (e *exporter) largePiece(raw []byte) error {
	p := &e.parts
	at := p.size - p.missing
	if p.missing -= int64(len(raw)); p.missing <= 0 {
		defer p.reset()
	}
	return e.refused(raw, fmt.Errorf("the message has %d bytes, the limit for decoding is %d: this piece begins at byte %d", p.size, e.opts.maxMessage, at))
}

// unfinished writes what there is of a message whose rest did not come.
func (e *exporter) unfinished() error {
	switch p := &e.parts; {
	case p.size == 0:
		return nil
	case p.large:
		p.reset() // its pieces have been written
		return nil
	}
	return e.close(errUnfinished)
}

func (e *exporter) close(cause error) error {
	err := e.refused(e.parts.raw, cause)
	e.parts.reset()
	return err
}

func (p *assembly) reset() {
	keep := p.raw[:0]
	if cap(keep) > keepMessage {
		keep = nil
	}
	*p = assembly{raw: keep}
}
