package archive

import (
	"context"
	"io"

	"txreel/internal/spill"
	"txreel/segment"
)

// FetchSegment puts the segment of an index, whole, into a buffer.
func (a *Archive) FetchSegment(ctx context.Context, x SegmentIndex, into *spill.Buffer) error {
	return notFoundIsCorrupt(a.fetch(ctx, Object{Key: x.Key, Size: x.Size}, into))
}

// ReadFetched returns a reader of a fetched segment, which stands where its index says it does. It reuses r unless that is nil. Whoever reads several
// checks that they continue one another: the header of each names the hash of the one before.
func (a *Archive) ReadFetched(epoch uint64, x SegmentIndex, body *spill.Buffer, r *segment.Reader) (_ *segment.Reader, err error) {
	in := io.NewSectionReader(body, 0, body.Size())
	if r == nil {
		r, err = segment.NewReader(in)
	} else {
		err = r.Reset(in)
	}
	if err != nil {
		return nil, InObject(x.Key, err)
	}
	return r, a.checkHeader(x.Key, epoch, x.First(), x.First(), nil, r.Header())
}
