package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"txreel/change"
	"txreel/internal/spill"
	"txreel/segment"
)

// Stream delivers the records of a run of transactions in commit order. It
// fetches one segment ahead of the one being read. It is not safe for concurrent
// use and must be closed.
type Stream struct {
	archive *Archive
	epoch   uint64
	from    change.Seq
	to      change.Seq

	cancel  context.CancelFunc
	fetched chan fetched
	free    chan *spill.Buffer
	bodies  []*spill.Buffer // in whatever hands
	done    chan struct{}
	failed  error                         // why fetched was closed before its time; set before that
	pruned  func(change.Seq, error) error // orPruned

	reader *segment.Reader
	cur    fetched
	open   bool          // cur is being read
	prev   *segment.Hash // of the segment before cur, when it has been read
	end    change.Seq    // its last transaction
	next   change.Seq
	inside bool // the current transaction is one of those asked for
	err    error
}

// fetched is a whole segment on this side of the network.
type fetched struct {
	key   string
	first change.Seq
	body  *spill.Buffer
}

// Stream opens a Stream of the transactions from from to to, both included, with
// the definitions a decoder needs for them. spillDir is where segments beyond
// 16 MiB wait to be read; "" means the system's temporary folder. A start in what was
// pruned is a *PrunedError of Next.
func (a *Archive) Stream(ctx context.Context, epoch uint64, from, to change.Seq, spillDir string) *Stream {
	ctx, cancel := context.WithCancel(ctx)
	from = max(from, 1)
	s := &Stream{
		archive: a, epoch: epoch, from: from, to: to, next: from,
		cancel: cancel, fetched: make(chan fetched), free: make(chan *spill.Buffer, 2), done: make(chan struct{}),
	}
	s.pruned = func(seq change.Seq, err error) error { return a.orPruned(ctx, epoch, seq, err) }
	for range cap(s.free) {
		body := spill.New(spillDir, a.spill)
		s.bodies = append(s.bodies, body)
		s.free <- body
	}
	go func() { // joined by Close
		defer close(s.done)
		defer close(s.fetched)
		s.failed = s.fetch(ctx)
	}()
	return s
}

// Close stops the fetching, waits for it and gives temporary files back.
func (s *Stream) Close() {
	s.cancel()
	for range s.fetched { // what is on its way is not wanted any more
	}
	<-s.done
	for _, body := range s.bodies {
		body.Reset()
	}
	if s.err == nil {
		s.err = errClosed
	}
}

var errClosed = errors.New("the stream is closed")

func (s *Stream) fetch(ctx context.Context) error {
	if s.to < s.from {
		return nil
	}
	if err := s.archive.checkKept(ctx, s.epoch, s.from); err != nil {
		return err
	}
	first, _, err := s.archive.lastSegment(ctx, s.epoch, s.from)
	if err != nil {
		return err
	}
	end := max(s.to, s.to+1)
	for next := max(first, 1); next != 0; {
		var objects []Object
		if objects, next, err = s.archive.NextSegments(ctx, s.epoch, next, end); err != nil {
			return err
		}
		for _, o := range objects {
			seq, err := parseSegmentKey(s.epoch, o.Key)
			if err != nil {
				return err
			}
			var body *spill.Buffer
			select {
			case body = <-s.free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := s.archive.fetch(ctx, o, body); err != nil {
				return s.archive.orPruned(ctx, s.epoch, seq, notFoundIsCorrupt(err))
			}
			select {
			case s.fetched <- fetched{key: o.Key, first: seq, body: body}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (a *Archive) fetch(ctx context.Context, o Object, into *spill.Buffer) error {
	into.Reset()
	body, size, err := a.openSegment(ctx, o.Key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", o.Key, err)
	}
	defer body.Close()
	if size != o.Size {
		return fmt.Errorf("%w: %s has %d bytes, the listing says %d", ErrCorrupt, o.Key, size, o.Size)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{into}, body, make([]byte, 256<<10)); err != nil {
		return fmt.Errorf("read %s: %w", o.Key, err)
	}
	return nil
}

// Next returns the next record; its Raw is valid until the next call. Definition
// records may come from before the first transaction asked for. io.EOF means that
// all transactions asked for have been delivered; when the archive ends before that it
// is an error wrapping fs.ErrNotExist.
func (s *Stream) Next() (segment.Record, error) {
	for {
		if s.err != nil {
			return segment.Record{}, s.err
		}
		if s.next > s.to {
			s.err = io.EOF
			continue
		}
		if !s.open {
			if s.err = s.nextSegment(); s.err != nil { // what is missing may have been pruned since the last listing
				s.err = s.pruned(s.next, s.err)
			}
			continue
		}
		rec, err := s.reader.Next()
		if errors.Is(err, io.EOF) {
			h := s.reader.Hash()
			s.prev, s.end, s.open = &h, s.reader.Index().Last(), false
			s.free <- s.cur.body
			s.cur.body = nil
			continue
		}
		if err != nil {
			s.err = InObject(s.cur.key, err)
			continue
		}
		switch rec.Kind {
		case segment.Definition:
			return rec, nil
		case segment.Begin:
			s.inside = rec.Seq >= s.from
		case segment.Commit:
			if s.inside {
				s.next = rec.Seq + 1
			}
		}
		if s.inside {
			return rec, nil
		}
	}
}

func (s *Stream) nextSegment() error {
	f, ok := <-s.fetched
	if !ok && s.failed != nil {
		return s.failed
	}
	if !ok {
		return fmt.Errorf("transaction %s of epoch %d: %w", s.next, s.epoch, fs.ErrNotExist)
	}
	s.cur, s.open = f, true
	in := io.NewSectionReader(f.body, 0, f.body.Size())
	var err error
	if s.reader == nil {
		s.reader, err = segment.NewReader(in)
	} else {
		err = s.reader.Reset(in)
	}
	if err != nil {
		return InObject(f.key, err)
	}
	next := s.next
	if s.prev != nil {
		next = s.end + 1
	}
	return s.archive.checkHeader(f.key, s.epoch, f.first, next, s.prev, s.reader.Header())
}

// checkHeader checks that a segment is the one that must stand here: of this
// archive and epoch, at its key, without a hole before it, chained to the segment
// before. next is the transaction it must begin with, or hold while prev, the hash of
// the segment before, is not known.
func (a *Archive) checkHeader(key string, epoch uint64, first, next change.Seq, prev *segment.Hash, h segment.Header) error {
	switch {
	case h.Archive != a.id:
		return fmt.Errorf("%w: %s belongs to another archive (%x)", ErrCorrupt, key, h.Archive)
	case h.Epoch != epoch || h.First != first:
		return fmt.Errorf("%w: %s says it is segment %s of epoch %d", ErrCorrupt, key, h.First, h.Epoch)
	case h.Engine != a.Identity.Engine:
		return fmt.Errorf("%w: %s holds %q messages, the archive %q", ErrCorrupt, key, h.Engine, a.Identity.Engine)
	case first > next:
		return &HoleError{Epoch: epoch, After: next - 1, Next: first}
	case prev != nil && first < next:
		return fmt.Errorf("%w: %s begins before the segment before it ends, with %s", ErrCorrupt, key, next-1)
	case first == 1 && h.Prev != segment.Hash{}:
		return fmt.Errorf("%w: %s is the epoch's first segment, but names one before it: %x", ErrCorrupt, key, h.Prev)
	case prev != nil && h.Prev != *prev:
		return fmt.Errorf("%w: %s does not continue the segment before it: the hash it names is %x, the segment's is %x", ErrCorrupt, key, h.Prev, *prev)
	}
	return nil
}
