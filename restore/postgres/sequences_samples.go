package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/segment"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgbase"
	"txreel/sources/postgres/pgoutput"
)

// FencesRead is how many fences in front of a base a restore may read.
const FencesRead = fewFences

// fewFences is how many fences on either side of the cut are looked at for a sample.
const fewFences = 100

// samples are those next to the cut.
type samples struct {
	last, previous sampled // before it
	first          sampled // at or behind it
}

// sampled is a whole sample, by sequence; nil when there is none.
type sampled map[pgbase.Name]state

func (s sampled) of(name pgbase.Name) *state {
	if v, ok := s[name]; ok {
		return &v
	}
	return nil
}

// without returns the states of sequences that are not among some.
func (s sampled) without(some []sequence) (states []state) {
	for name, v := range s {
		if !slices.ContainsFunc(some, func(q sequence) bool { return q.name == name }) {
			states = append(states, v)
		}
	}
	return states
}

// sampleReader reads samples out of the record.
type sampleReader struct {
	ctx     context.Context
	archive *archive.Archive
	epoch   uint64
	found   samples
	end     lsn.LSN // of the last transaction of the source up to the cut
	waiting []early // samples met before end was known
}

type early struct {
	sample sampled
	upto   lsn.LSN
}

// readSamples finds the samples next to the cut. What counts as the cut is the end of the last transaction of the source:
// fences and heartbeats behind it draw nothing. What cannot be read behind the cut is damage, and not an error.
func readSamples(ctx context.Context, a *archive.Archive, p *restore.Plan) (found *samples, damage, err error) {
	r := &sampleReader{ctx: ctx, archive: a, epoch: p.Epoch}
	from := p.Base.Seq
	if p.Base.From != nil { // its sequences are of no snapshot
		from = p.Base.From.Seq
	}
	if err := r.before(p.Seq, from); err != nil {
		return nil, nil, err
	}
	if r.end == 0 {
		if err := r.ends(p.Base.Position); err != nil {
			return nil, nil, err
		}
	}
	if r.found.first != nil {
		return &r.found, nil, nil
	}
	err = r.behind(p.Seq + 1)
	if errors.Is(err, archive.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
		damage, err = err, nil
	}
	return &r.found, damage, err
}

// ends takes note of where the last transaction ends.
func (r *sampleReader) ends(at change.Position) (err error) {
	r.end, err = lsn.FromPosition(at)
	for _, w := range r.waiting {
		r.place(w.sample, w.upto)
	}
	return err
}

// place puts a sample where it belongs; they come from the newest to the oldest.
func (r *sampleReader) place(s sampled, upto lsn.LSN) {
	switch {
	case s == nil:
	case r.end == 0:
		r.waiting = append(r.waiting, early{s, upto})
	case upto >= r.end:
		r.found.first = s
	case r.found.last == nil:
		r.found.last = s
	case r.found.previous == nil:
		r.found.previous = s
	}
}

// before looks at what stands up to the cut, and not in front of the base longer than for the cut's last transaction: a sample
// that covers that proves, two that do not tell a rate.
func (r *sampleReader) before(cut, base change.Seq) error {
	fences := 0
	for x, err := range r.archive.Backward(r.ctx, r.epoch, cut) {
		if err != nil {
			return err
		}
		for i := len(x.Txns) - 1; i >= 0; i-- {
			e := &x.Txns[i]
			fence, ok := fenceAt(&e.Txn)
			switch {
			case e.Seq > cut:
			case r.end > 0 && (e.Seq <= base || r.found.previous != nil || fences >= fewFences):
				return nil
			case !ok && e.Kind == change.TxnSource && r.end == 0:
				if err := r.ends(e.Position); err != nil {
					return err
				}
			case ok:
				s, upto, err := r.sample(e, fence)
				if err != nil {
					return err
				}
				fences++
				r.place(s, upto)
			}
		}
	}
	return nil
}

// behind looks for the first sample behind the cut that covers it.
func (r *sampleReader) behind(from change.Seq) error {
	fences := 0
	for x, err := range r.archive.Segments(r.ctx, r.epoch, from) {
		if err != nil {
			return err
		}
		for i := range x.Txns {
			e := &x.Txns[i]
			fence, ok := fenceAt(&e.Txn)
			if !ok || e.Seq < from {
				continue
			}
			s, upto, err := r.sample(e, fence)
			if err != nil {
				return err
			}
			if s != nil && upto >= r.end {
				r.found.first = s
				return nil
			}
			if fences++; fences == fewFences {
				return nil
			}
		}
	}
	return nil
}

func fenceAt(t *change.Txn) (change.Fence, bool) {
	f, ok := change.ParseFence(t.Note)
	return f, ok && t.XID == ""
}

// sample returns the sample that a fence carries, made whole, and up to where it covers the log; nil when there is none.
func (r *sampleReader) sample(e *segment.Entry, fence change.Fence) (sampled, lsn.LSN, error) {
	own, err := r.content(e.Seq, fence)
	if err != nil || own == nil {
		return nil, 0, err
	}
	upto, err := lsn.Parse(own.Upto)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %s of epoch %d: %w", archive.ErrCorrupt, fence, r.epoch, err)
	}
	all := make(sampled)
	if own.Since > 0 {
		whole, err := r.whole(e.Seq, change.Fence{Chain: fence.Chain, Number: own.Since})
		if err != nil || whole == nil {
			return nil, 0, err
		}
		all.add(whole)
	}
	all.add(own)
	return all, upto, nil
}

func (s sampled) add(from *pgbase.Sample) {
	for _, v := range from.Values {
		s[v.Name] = state{v.Last, v.Called}
	}
}

// whole returns the sample of an earlier fence.
func (r *sampleReader) whole(before change.Seq, want change.Fence) (*pgbase.Sample, error) {
	for x, err := range r.archive.Backward(r.ctx, r.epoch, before) {
		if err != nil {
			return nil, err
		}
		for i := len(x.Txns) - 1; i >= 0; i-- {
			e := &x.Txns[i]
			if f, ok := fenceAt(&e.Txn); !ok || f.Chain != want.Chain {
				continue
			} else if f == want {
				return r.content(e.Seq, f)
			} else if f.Number < want.Number {
				return nil, nil
			}
		}
	}
	return nil, nil
}

// content reads the message of a fence.
func (r *sampleReader) content(seq change.Seq, fence change.Fence) (*pgbase.Sample, error) {
	stream := r.archive.Stream(r.ctx, r.epoch, seq, seq, "")
	defer stream.Close()
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if rec.Kind != segment.Message {
			continue
		}
		m, err := pgoutput.ParseLogicalMessage(rec.Raw)
		if err == nil {
			line, sample, perr := pgbase.ParseFence(m.Content)
			if err = perr; err == nil && line == fence.String() {
				return sample, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: transaction %s of epoch %d: %w", archive.ErrCorrupt, seq, r.epoch, err)
		}
	}
}
