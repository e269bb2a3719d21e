package archive

import (
	"context"
	"slices"
	"sync"
)

// Small segments of a pack are read many at a time: an answer of a store takes as long for one as for all of a block.
const (
	blockSize  = 1 << 20
	blockSmall = blockSize / 8 // bytes of a segment that is read so
	blocksKept = 8             // who reads several segments at a time reads of so few blocks
)

// blocks are the parts of packs that were read last. It may be used concurrently.
type blocks struct {
	mu   sync.Mutex
	kept []*block // the one asked for last is the last
}

type block struct {
	key   string
	index int64
	ready chan struct{} // closed when data or err is set
	data  []byte
	err   error
}

// get returns a block of a pack. Of several that ask for it at once one reads it.
func (c *blocks) get(ctx context.Context, a *Archive, p span, index int64) ([]byte, error) {
	size := min(blockSize, p.size-index*blockSize)
	c.mu.Lock()
	i := slices.IndexFunc(c.kept, func(x *block) bool { return x.key == p.key && x.index == index })
	if i >= 0 {
		x := c.kept[i]
		c.kept = append(slices.Delete(c.kept, i, i+1), x)
		c.mu.Unlock()
		select {
		case <-x.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if x.err != nil { // perhaps that nobody wanted it any more but us
			return a.packRange(ctx, p, index*blockSize, size)
		}
		return x.data, nil
	}
	x := &block{key: p.key, index: index, ready: make(chan struct{})}
	if len(c.kept) == blocksKept {
		c.kept = slices.Delete(c.kept, 0, 1)
	}
	c.kept = append(c.kept, x)
	c.mu.Unlock()
	x.data, x.err = a.packRange(ctx, p, index*blockSize, size)
	if x.err != nil { // the next one to ask shall try again
		c.mu.Lock()
		c.kept = slices.DeleteFunc(c.kept, func(y *block) bool { return y == x })
		c.mu.Unlock()
	}
	close(x.ready)
	return x.data, x.err
}

// read returns n bytes of a pack from off on, which it has (parseDirectory).
func (c *blocks) read(ctx context.Context, a *Archive, p span, off, n int64) ([]byte, error) {
	var all []byte
	for end := off + n; off < end; {
		data, err := c.get(ctx, a, p, off/blockSize)
		if err != nil {
			return nil, err
		}
		part := data[off%blockSize:]
		part = part[:min(int64(len(part)), end-off)]
		if int64(len(part)) == n {
			return part, nil
		}
		all = append(all, part...)
		off += int64(len(part))
	}
	return all, nil
}
