package postgres

import (
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// pageSize is the unit in which a spool takes and gives back space.
	pageSize = 64 << 10
	// spoolPages is how many pages of all open streamed transactions together stay in memory.
	spoolPages = 256
)

// spool keeps the byte runs of any number of tapes: in memory up to a limit that they share, and in
// one temporary file beyond it. A tape on its own would need a write buffer and a file of its own, and many open
// transactions many of them. It is not safe for concurrent use.
type spool struct {
	dir   string // of the temporary file; "" means the system's temporary folder
	limit int    // pages in memory; one more is filled
	held  int
	spare []*[pageSize]byte
	file  *os.File // unlinked: its space is freed however the process ends
	slots uint32   // places of pages in the file
	free  []uint32 // those that are free
}

// tape is a run of bytes in a spool. The zero value is empty.
type tape struct {
	pages []page // all but the last are full
	size  int64
}

// page is pageSize bytes in memory, at a slot of the file, or both.
type page struct {
	mem  *[pageSize]byte
	slot uint32 // number of the slot plus one; zero for none
}

// write appends p to t.
func (s *spool) write(t *tape, p []byte) error {
	for len(p) > 0 {
		off := int(t.size % pageSize)
		if off == 0 {
			if err := s.rest(t); err != nil {
				return err
			}
			t.pages = append(t.pages, page{mem: s.take()})
		}
		last := &t.pages[len(t.pages)-1]
		if last.mem == nil {
			last.mem = s.take()
			if err := s.load(last, last.mem); err != nil {
				return err
			}
		}
		n := copy(last.mem[off:], p)
		t.size += int64(n)
		p = p[n:]
	}
	return nil
}

// rest moves the last page of t to the file when memory holds too many.
func (s *spool) rest(t *tape) error {
	if s.held <= s.limit || len(t.pages) == 0 {
		return nil
	}
	last := &t.pages[len(t.pages)-1]
	if last.mem == nil {
		return nil
	}
	if err := s.open(); err != nil {
		return fmt.Errorf("keep a transaction that has not ended yet in a temporary file: %w", err)
	}
	if last.slot == 0 {
		last.slot = s.slot() + 1
	}
	if _, err := s.file.WriteAt(last.mem[:], int64(last.slot-1)*pageSize); err != nil {
		return fmt.Errorf("keep a transaction that has not ended yet in a temporary file: %w", err)
	}
	s.give(last.mem)
	last.mem = nil
	return nil
}

func (s *spool) open() error {
	if s.file != nil {
		return nil
	}
	f, err := os.CreateTemp(s.dir, "txreel-*")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	return nil
}

// slot returns the number of a free slot.
func (s *spool) slot() uint32 {
	if n := len(s.free); n > 0 {
		at := s.free[n-1]
		s.free = s.free[:n-1]
		return at
	}
	s.slots++
	return s.slots - 1
}

// load reads a page from its slot.
func (s *spool) load(p *page, into *[pageSize]byte) error {
	if _, err := s.file.ReadAt(into[:], int64(p.slot-1)*pageSize); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read a transaction back from a temporary file: %w", err)
	}
	return nil
}

func (s *spool) take() *[pageSize]byte {
	s.held++
	if n := len(s.spare); n > 0 {
		mem := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return mem
	}
	return new([pageSize]byte)
}

func (s *spool) give(mem *[pageSize]byte) {
	s.held--
	if s.held+len(s.spare) < s.limit {
		s.spare = append(s.spare, mem)
	}
}

// drop gives back what a page takes.
func (s *spool) drop(p *page) {
	if p.mem != nil {
		s.give(p.mem)
	}
	if p.slot > 0 {
		if s.free = append(s.free, p.slot-1); len(s.free) == int(s.slots) {
			// Nothing is in the file: its space goes back too. One that cannot be cut is written over.
			_ = s.file.Truncate(0)
			s.free, s.slots = s.free[:0], 0
		}
	}
	*p = page{}
}

// truncate cuts t back to its first size bytes.
func (s *spool) truncate(t *tape, size int64) {
	keep := int((size + pageSize - 1) / pageSize)
	for i := keep; i < len(t.pages); i++ {
		s.drop(&t.pages[i])
	}
	t.pages, t.size = t.pages[:keep], size
}

// close gives everything back. The spool and its tapes are of no use afterwards.
func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close() // unlinked already; nothing of it is wanted
	}
	*s = spool{}
}

// tapeReader reads a tape once, from its beginning, and gives its pages back behind itself.
type tapeReader struct {
	*spool
	tape tape
	at   int64
	page *[pageSize]byte // the page at at, when it is not in memory
	has  int             // number of the page that page holds, plus one
	join []byte          // for what lies on several pages
}

// reset begins another tape, which now belongs to the reader.
func (r *tapeReader) reset(t tape) { r.tape, r.at, r.has = t, 0, 0 }

// next returns the next n bytes, valid until the next call.
func (r *tapeReader) next(n int) ([]byte, error) {
	if n < 0 || int64(n) > r.tape.size-r.at {
		return nil, fmt.Errorf("a transaction in a temporary file ends at byte %d, want %d more at %d", r.tape.size, n, r.at)
	}
	if n == 0 {
		return nil, nil
	}
	if cap(r.join) > keepBatch {
		r.join = nil // what one huge message needed
	}
	r.join = r.join[:0]
	for {
		mem, err := r.here()
		if err != nil {
			return nil, err
		}
		off := int(r.at % pageSize)
		part := mem[off:min(off+n-len(r.join), pageSize)]
		r.at += int64(len(part))
		if len(part) == n {
			return part, nil
		}
		if r.join = append(r.join, part...); len(r.join) == n {
			return r.join, nil
		}
	}
}

// here returns the page that is read, and gives back those before it.
func (r *tapeReader) here() (*[pageSize]byte, error) {
	i := int(r.at / pageSize)
	if i > 0 {
		if p := &r.tape.pages[i-1]; p.mem != nil || p.slot > 0 {
			r.drop(p)
		}
	}
	p := &r.tape.pages[i]
	if p.mem != nil {
		return p.mem, nil
	}
	if r.has != i+1 {
		if r.page == nil {
			r.page = new([pageSize]byte)
		}
		if err := r.load(p, r.page); err != nil {
			return nil, err
		}
		r.has = i + 1
	}
	return r.page, nil
}

// done gives back what is left of the tape.
func (r *tapeReader) done() {
	r.truncate(&r.tape, 0)
	r.tape = tape{}
}
