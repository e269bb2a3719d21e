package mysql

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"txreel/capture"
)

// copyPieces reads all pieces with the sessions there are. A session that is lost, killed or cut off, takes its view with
// it, and no other can be given that view; those that are left have the same, and read what it has not: a base
// goes on as long as one of them lives.
func (b *baseRun) copyPieces(ctx context.Context, pieces []piece) error {
	unread := make([]*piece, len(pieces))
	for i := range pieces {
		unread[i] = &pieces[i]
	}
	living := b.readers
	for len(unread) > 0 {
		left, lost, err := b.copyRound(ctx, living, unread)
		if err != nil {
			return err
		}
		var still []*Conn
		for _, c := range living {
			if c.broken == nil {
				still = append(still, c)
			}
		}
		if len(left) > 0 && len(still) == 0 {
			return lost
		}
		unread, living = left, still
	}
	return nil
}

// copyRound shares pieces out among sessions. It returns those that were not read because sessions were lost,
// and how one was.
func (b *baseRun) copyRound(ctx context.Context, readers []*Conn, unread []*piece) (left []*piece, lost, err error) {
	var mu sync.Mutex // left, lost
	var next atomic.Int64
	group, reading := errgroup.WithContext(ctx)
	for _, c := range readers {
		group.Go(func() error {
			w, err := newChunkWriter(b)
			if err != nil {
				return err
			}
			defer w.close()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(unread) {
					return w.wait()
				}
				err := b.copyPiece(reading, c, w, unread[i])
				if err == nil {
					continue
				}
				if c.broken == nil || !errors.Is(err, capture.ErrUnreachable) || reading.Err() != nil {
					return err
				}
				if err := w.wait(); err != nil { // also of the piece before
					return err
				}
				b.forget(unread[i])
				mu.Lock()
				left, lost = append(left, unread[i]), err
				mu.Unlock()
				return nil
			}
		})
	}
	err = group.Wait()
	if i := int(next.Load()); i < len(unread) { // every session was lost before
		left = append(left, unread[i:]...)
	}
	return left, lost, err
}

// forget drops what was stored of a piece that was not read to its end. The objects stay where they are, and no
// manifest names them.
func (b *baseRun) forget(p *piece) {
	for _, o := range p.objects {
		b.report(0, -o.Rows, -o.Raw)
	}
	p.objects = nil
	p.tries++
}
