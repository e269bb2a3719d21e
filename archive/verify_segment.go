package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"txreel/change"
	"txreel/segment"
)

// segmentCheck follows the segments of an epoch.
type segmentCheck struct {
	v       *verifier
	report  *VerifiedEpoch
	epoch   uint64
	packs   *packsCheck
	unsound []damagedPack // found by list, and not said yet
	known   bool          // tail is what the segment before ends with; false behind a damaged one
	tail    Tail
	before  change.Seq // up to here the epoch was pruned
	after   change.Seq // with which the segment looked at last begins
	marks   []Mark     // those not met yet
	rolls   []*rollupCheck
	fence   change.Fence // met last
	whole   bool         // nothing was missed since then
}

// run checks the segments, and with them the rollups and marks that speak of them.
func (s *segmentCheck) run(ctx context.Context) error {
	for level := 1; level <= levels; level++ {
		s.rolls = append(s.rolls, &rollupCheck{v: s.v, epoch: s.epoch, level: level, before: s.before})
	}
	defer func() {
		for _, r := range s.rolls {
			r.close()
		}
	}()
	for {
		before := s.after
		if err := s.walk(ctx); err != nil {
			return err
		}
		// A capture may be at work: rollups that speak of more are newer than the
		// listing of segments, unless there is nothing new.
		beyond := false
		for _, r := range s.rolls {
			ok, err := r.beyond(ctx, s.tail.Seq)
			if err != nil {
				return err
			}
			beyond = beyond || ok
		}
		if !beyond || s.after == before {
			break
		}
	}
	for _, r := range s.rolls {
		if err := r.finish(ctx, s.tail.Seq); err != nil {
			return err
		}
	}
	for _, m := range s.marks {
		if s.known {
			s.v.problem(markKey(s.epoch, m.Name), 0, "it marks transaction %s; the epoch ends with %s", m.Seq, s.tail.Seq)
		}
	}
	return nil
}

// checked is one segment read by walk.
type checked struct {
	Object
	seq    change.Seq
	header segment.Header
	tail   *segment.Tail
	err    error
	// packErr is about the pack that holds it.
	pack    string
	packErr error
}

// headerGuess is how much is read of a segment for its header: enough for one of any version.
const headerGuess = 4 << 10

// tools are what one reader of segments needs.
type tools struct {
	frames *segment.FrameReader
	reader *segment.Reader
}

// walk reads the segments behind s.after, several at a time, and visits them in
// order.
func (s *segmentCheck) walk(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan checked, verifyParallel)
	var (
		wg      sync.WaitGroup // joined below
		listErr error
	)
	wg.Go(func() {
		defer close(queue)
		listErr = s.each(ctx, func(o Object) error {
			result := make(chan checked, 1)
			select {
			case t := <-s.v.free:
				wg.Go(func() {
					result <- s.v.segment(ctx, t, s.epoch, o)
					s.v.free <- t
				})
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case queue <- result:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	var err error
	for result := range queue {
		if err == nil {
			if err = s.visit(ctx, <-result); err != nil {
				cancel()
			}
		}
	}
	wg.Wait()
	if err != nil {
		return err
	}
	for _, d := range s.unsound {
		if err := s.v.damage(d.key, d.err); err != nil {
			return err
		}
	}
	s.unsound = nil
	return listErr
}

// each calls f for each segment behind s.after, those in packs too.
func (s *segmentCheck) each(ctx context.Context, f func(Object) error) error {
	for next := s.after + 1; next != 0; {
		packs, damaged, err := s.packs.list(ctx, next)
		if err != nil {
			return err
		}
		s.unsound = append(s.unsound, damaged...)
		var some []Object
		if some, next, err = s.v.archive.nextSegments(ctx, s.epoch, packs, next, math.MaxUint64); err != nil {
			return err
		}
		for _, o := range some {
			if err := f(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// segment reads one segment. All that can be said of it alone is in the error.
func (v *verifier) segment(ctx context.Context, t *tools, epoch uint64, o Object) (c checked) {
	c.Object = o
	if c.seq, c.err = parseSegmentKey(epoch, o.Key); c.err != nil {
		return c
	}
	if t.frames == nil {
		if t.frames, c.err = segment.NewFrameReader(); c.err != nil {
			return c
		}
	}
	if c.tail, c.err = v.archive.segmentTail(ctx, t.frames, epoch, c.seq, o.Size); c.err != nil {
		return c
	}
	c.header, c.err = v.content(ctx, t, o, c.tail)
	c.tail.Packed = bytes.Clone(c.tail.Packed) // of a larger buffer
	if c.err == nil {
		c.pack, c.packErr = v.inPacks(ctx, epoch, &c)
	}
	return c
}

// content reads the header, and with Full, or when it costs no more, all the rest.
func (v *verifier) content(ctx context.Context, t *tools, o Object, tail *segment.Tail) (segment.Header, error) {
	n := int64(-1)
	if !v.o.Full && o.Size > segment.TailGuess {
		n = headerGuess
	}
	body, _, err := v.archive.openSegment(ctx, o.Key, 0, n)
	if err != nil {
		return segment.Header{}, fmt.Errorf("read %s: %w", o.Key, err)
	}
	defer body.Close()
	if t.reader == nil {
		t.reader, err = segment.NewReader(body)
	} else {
		err = t.reader.Reset(body)
	}
	if err != nil {
		return segment.Header{}, InObject(o.Key, err)
	}
	h := t.reader.Header()
	for n < 0 {
		_, err := t.reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return h, InObject(o.Key, err)
		}
	}
	if n < 0 && t.reader.Hash() != tail.Hash {
		return h, fmt.Errorf("%w: %s: its content changed while it was read", ErrCorrupt, o.Key)
	}
	return h, nil
}

// visit takes the segments in order.
func (s *segmentCheck) visit(ctx context.Context, c checked) error {
	s.after = max(s.after, c.seq)
	if c.err != nil {
		s.known, s.whole = false, false
		if err := s.v.damage(c.Key, c.err); err != nil {
			return err
		}
		if c.seq == 0 {
			return nil
		}
		return s.rollups(ctx, c.seq, nil)
	}
	next, prev := c.seq, (*segment.Hash)(nil)
	if s.known {
		h := segment.Hash(s.tail.Hash)
		next, prev = s.tail.Seq+1, &h
	}
	if err := s.v.damage(c.Key, s.v.archive.checkHeader(c.Key, s.epoch, c.seq, next, prev, c.header)); err != nil {
		return err
	}
	if s.known && next == c.seq && c.header.Latest != s.tail.Latest {
		s.v.problem(c.Key, 0, "its header names %s as the latest commit time before it; it is %s", c.header.Latest, s.tail.Latest)
	}
	if err := s.v.damage(c.pack, c.packErr); err != nil {
		return err
	}
	s.txns(c)
	t := c.tail
	s.known = true
	s.tail = Tail{Epoch: s.epoch, Segment: c.seq, Seq: t.Last(), Position: t.End, Latest: t.Latest, Hash: HexHash(t.Hash)}
	s.report.Segments++
	s.report.Bytes += t.Size
	s.v.report.Segments++
	if err := s.rollups(ctx, c.seq, t); err != nil {
		return err
	}
	if s.v.o.Progress != nil {
		s.v.total = max(s.v.total, s.v.done)
		s.v.o.Progress(s.v.done, s.v.total)
	}
	return nil
}

// txns counts the transactions of a segment and compares them with the marks.
func (s *segmentCheck) txns(c checked) {
	latest := c.header.Latest
	for i := range c.tail.Txns {
		x := &c.tail.Txns[i].Txn
		latest = max(latest, x.CommitTime)
		s.report.Rows += x.Rows()
		s.v.report.Rows += x.Rows()
		switch {
		case x.Position == "":
			s.v.problem(c.Key, 0, "transaction %s has no position", x.Seq)
		case x.Kind == change.TxnSource && x.XID == "" && len(x.Tables) > 0: // PostgreSQL has messages outside any transaction
			s.v.problem(c.Key, 0, "transaction %s has no id", x.Seq)
		}
		s.fenced(c.Key, x)
		for len(s.marks) > 0 && s.marks[0].Seq <= x.Seq {
			m := s.marks[0]
			s.marks = s.marks[1:]
			if m.Seq == 0 || m.Seq == x.Seq && (m.XID != x.XID || m.Position != x.Position || m.CommitTime != x.CommitTime) {
				s.v.problem(markKey(s.epoch, m.Name), 0, "it marks transaction %s as %q at %s of %s; that is %q at %s of %s",
					m.Seq, m.XID, m.Position, m.CommitTime, x.XID, x.Position, x.CommitTime)
			}
		}
	}
	if latest != c.tail.Latest {
		s.v.problem(c.Key, 0, "its index names %s as the latest commit time; it is %s", c.tail.Latest, latest)
	}
	if n := len(c.tail.Txns); n > 0 {
		if s.report.First == nil {
			s.report.First = verifiedTxn(&c.tail.Txns[0].Txn)
		}
		s.report.Last = verifiedTxn(&c.tail.Txns[n-1].Txn)
		s.report.Transactions += int64(n)
		s.v.report.Transactions += int64(n)
		s.v.done += int64(n)
	}
}

// fenced follows the fences of an epoch.
func (s *segmentCheck) fenced(key string, x *change.Txn) {
	f, ok := change.ParseFence(x.Note)
	if !ok {
		return
	}
	want := change.Fence{Chain: f.Chain, Number: 1}
	if f.Chain == s.fence.Chain {
		want.Number = s.fence.Number + 1
	}
	if f != want && s.whole {
		s.v.problem(key, 0, "transaction %s is %s, where %s is expected: transactions before it are missing from the record", x.Seq, f, want)
	}
	s.fence, s.whole = f, true
	s.report.Fences++
}

func verifiedTxn(x *change.Txn) *VerifiedTxn {
	return &VerifiedTxn{Seq: x.Seq, XID: x.XID, Position: x.Position, CommitTime: x.CommitTime, Time: x.CommitTime.String()}
}

func (s *segmentCheck) rollups(ctx context.Context, seq change.Seq, t *segment.Tail) error {
	for _, r := range s.rolls {
		if err := r.follow(ctx, seq, t); err != nil {
			return err
		}
	}
	return nil
}
