package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/internal/spill"
	"txreel/segment"
)

// PackSettle is how long no segment's object is removed after a pack of it was put, and no pack and no segment after it was put on record as pruned: docs/format.md lets readers
// rely for ten minutes on what they listed of packs, and a writer on what it created.
const PackSettle = 15 * time.Minute

// CompactStep is what Compact is at.
type CompactStep string

// The steps of Compact, in order. What done and total count is told of each.
const (
	CompactPack   CompactStep = "pack"   // bytes of segments
	CompactSettle CompactStep = "settle" // seconds
	CompactRemove CompactStep = "remove" // objects
)

// CompactRun says how a plan is carried out.
type CompactRun struct {
	SpillDir string        // where packs beyond 16 MiB wait to be put; "" means the system's temporary folder
	Settle   time.Duration // PackSettle, less in tests
	// Progress, when set, is told how far a step is. It is never called concurrently.
	Progress func(step CompactStep, done, total int64)
}

// ErrChanged is returned by Compact when somebody else removed what it was to pack.
var ErrChanged = errors.New("the archive changed meanwhile")

// Compact carries out a plan. It reads the segments of each pack, every byte, puts the pack, waits until nobody relies any more on what was before, reads each pack
// again, and removes the objects of the segments that it has proven to hold (Invariant 2: what is recorded can be read at any moment). Keys, bytes, hashes and the chain of
// segments stay what they are, so it takes nothing from what a hold keeps, a restore reads or an export proves.
//
// What an earlier one has packed and not removed goes first, behind a wait of its own: a store that refuses that, as its objects are locked, shall not be given more and more.
//
// Killed at any step it leaves segments that have an object, a place in a pack, or both: readers get the same, and the next plan goes on.
func (a *Archive) Compact(ctx context.Context, d Deleter, p *CompactPlan, o CompactRun) error {
	c := compaction{archive: a, store: d, plan: p, run: o}
	if p.Left > 0 {
		if err := c.clear(ctx); err != nil {
			return err
		}
	}
	if p.Packs > 0 {
		if err := c.mayRemove(ctx); err != nil {
			return err
		}
		for i := range p.Epochs {
			for _, x := range p.Epochs[i].Packs {
				if err := c.put(ctx, p.Epochs[i].Epoch, x); err != nil {
					return err
				}
			}
		}
		if err := c.clear(ctx); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.CompactEnding)
	return nil
}

type compaction struct {
	archive *Archive
	store   Deleter
	plan    *CompactPlan
	run     CompactRun
	reader  *segment.Reader
	packed  int64 // bytes
	removed int64 // objects
}

func (c *compaction) progress(step CompactStep, done, total int64) {
	if c.run.Progress != nil {
		c.run.Progress(step, done, max(done, total))
	}
}

// mayRemove fails where the store lets nobody remove segments. What it locks, it tells only when that is to go.
func (c *compaction) mayRemove(ctx context.Context) error {
	key := SegmentKey(c.plan.Epochs[0].Epoch, 0) // there is never anything: the first transaction is 1
	if err := c.store.Delete(ctx, key); err != nil {
		return fmt.Errorf("compact: nothing was put, as nothing could be removed: %w", err)
	}
	return nil
}

// put puts a pack. One that is there already is checked before anything of it goes, like any other.
func (c *compaction) put(ctx context.Context, epoch uint64, x PlanPack) error {
	buf := spill.New(c.run.SpillDir, c.archive.spill)
	defer buf.Reset()
	if err := c.fill(ctx, epoch, x, buf); err != nil {
		return err
	}
	key := packKey(epoch, x.First, x.Last)
	failpoint.Hit(failpoint.CompactCreating)
	if err := c.store.Create(ctx, key, buf, buf.Size()); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	failpoint.Hit(failpoint.CompactCreated)
	return nil
}

// fill writes a pack into buf: segments that are whole, and chained to each other and to the one before.
func (c *compaction) fill(ctx context.Context, epoch uint64, x PlanPack, buf *spill.Buffer) error {
	objects, err := c.archive.segmentsWithin(ctx, epoch, x.First, x.Last)
	if err != nil {
		return err
	}
	changed := func() error {
		return fmt.Errorf("%w: there are no longer %d segments from %s to %s: somebody else compacts or prunes; run this again when that has ended", ErrChanged, x.Segments, x.First, x.Last)
	}
	if len(objects) != x.Segments || objects[0].Key != SegmentKey(epoch, x.First) {
		return changed()
	}
	check := packCheck{archive: c.archive, epoch: epoch, next: x.First, prev: x.prev, reader: c.reader}
	var dir []byte
	for _, o := range objects {
		first, err := parseSegmentKey(epoch, o.Key)
		if err != nil {
			return err
		}
		if err := c.copy(ctx, o, first, &check, buf); err != nil {
			return err
		}
		dir = binary.LittleEndian.AppendUint64(dir, uint64(first))
		dir = binary.LittleEndian.AppendUint64(dir, uint64(o.Size))
		dir = append(dir, check.prev[:]...)
		c.packed += o.Size
		c.progress(CompactPack, c.packed, c.plan.Bytes)
	}
	c.reader = check.reader
	if check.next != x.Last+1 {
		return changed()
	}
	sum := sha256.Sum256(dir)
	end := binary.LittleEndian.AppendUint64(dir, uint64(len(objects)))
	end = append(end, sum[:]...)
	end = binary.LittleEndian.AppendUint64(end, packVersion)
	_, err = buf.Write(append(end, packMagic...))
	return err
}

// copy appends a segment to buf as it is read and checked.
func (c *compaction) copy(ctx context.Context, o Object, first change.Seq, check *packCheck, buf *spill.Buffer) error {
	body, size, err := c.store.Open(ctx, o.Key, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is gone: run this again", ErrChanged, o.Key)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", o.Key, err)
	}
	defer body.Close()
	before := buf.Size()
	if err := check.segment(o.Key, first, io.TeeReader(bufio.NewReaderSize(body, readAhead), buf)); err != nil {
		return fmt.Errorf("%w: nothing is compacted before `txreel verify` passes", err)
	}
	if n := buf.Size() - before; n != size || n != o.Size {
		return fmt.Errorf("%w: %s has %d bytes, the listing says %d", ErrCorrupt, o.Key, n, o.Size)
	}
	return nil
}

// clear removes, behind a wait, the objects of segments that packs hold.
func (c *compaction) clear(ctx context.Context) error {
	// Only what was there before the wait has settled behind it: another compaction may be at work.
	there := make(map[uint64][]span)
	for i := range c.plan.Epochs {
		if e := &c.plan.Epochs[i]; len(e.Packs) > 0 || e.Left > 0 {
			packs, err := c.archive.packs.renew(ctx, c.archive, e.Epoch)
			if err != nil {
				return err
			}
			there[e.Epoch] = packs.spans
		}
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	for i := range c.plan.Epochs {
		e := c.plan.Epochs[i].Epoch
		if err := c.remove(ctx, e, there[e]); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until nobody relies on what he knew before the last pack was put.
func (c *compaction) settle(ctx context.Context) error {
	total := int64(c.run.Settle / time.Second)
	return settle(ctx, c.run.Settle, func(waited time.Duration) { c.progress(CompactSettle, int64(waited/time.Second), total) })
}

// settle waits for a while, and tells every second of it how long it has waited, unless tell is nil.
func settle(ctx context.Context, span time.Duration, tell func(waited time.Duration)) error {
	begun := time.Now()
	tick := time.NewTicker(max(min(time.Second, span/10), time.Millisecond))
	defer tick.Stop()
	for {
		waited := min(time.Since(begun), span)
		if tell != nil {
			tell(waited)
		}
		if waited == span {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// remove removes the objects of segments that packs hold, of each pack when it has proven whole as it is in the store now.
func (c *compaction) remove(ctx context.Context, epoch uint64, packs []span) error {
	sound := ""
	return c.archive.unpacked(ctx, epoch, packs, func(p span, objects []Object) error {
		if p.key != sound {
			err := c.check(ctx, epoch, p)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w: %s is gone, which a prune does: run this again when that has ended", ErrChanged, p.key)
			}
			if err != nil {
				return fmt.Errorf("%w: what it holds stays where it was, too", err)
			}
			sound = p.key
		}
		err := removeAll(ctx, c.store, objects, func() {
			failpoint.Hit(failpoint.CompactObjectGone)
			c.removed++
			c.progress(CompactRemove, c.removed, c.plan.Segments+c.plan.Left)
		})
		if err != nil {
			return fmt.Errorf("compact: %w; all that is recorded can be read, from the pack: run compact again to go on, which puts no more before this is gone", err)
		}
		return nil
	})
}

// check reads a pack, every byte, and compares it with its directory and the segment before it.
func (c *compaction) check(ctx context.Context, epoch uint64, p span) error {
	dir, err := c.archive.directory(ctx, p)
	if err != nil {
		return err
	}
	check := packCheck{archive: c.archive, epoch: epoch, next: p.first, reader: c.reader}
	if p.first > 1 {
		if check.prev, err = c.archive.hashBefore(ctx, epoch, p.first); err != nil {
			return err
		}
	}
	end := dir[len(dir)-1].off + dir[len(dir)-1].size
	body, _, err := c.store.Open(ctx, p.key, 0, end)
	if err != nil {
		return fmt.Errorf("read %s: %w", p.key, err)
	}
	defer body.Close()
	in := bufio.NewReaderSize(body, readAhead)
	for _, x := range dir {
		if err := check.segment(p.key, x.first, io.LimitReader(in, x.size)); err != nil {
			return err
		}
		if !bytes.Equal(check.prev[:], x.hash[:]) {
			return fmt.Errorf("%w: %s: the hash of segment %s is %x, its directory says %x", ErrCorrupt, p.key, x.first, check.prev[:], x.hash[:])
		}
	}
	c.reader = check.reader
	if check.next != p.last+1 {
		return fmt.Errorf("%w: %s ends with transaction %s", ErrCorrupt, p.key, check.next-1)
	}
	return nil
}

// hashBefore returns the hash of the segment that ends before the transaction seq; nil where nothing is kept of it.
func (a *Archive) hashBefore(ctx context.Context, epoch uint64, seq change.Seq) (*segment.Hash, error) {
	pruned, err := a.Pruned(ctx, epoch)
	if err != nil {
		return nil, err
	}
	if seq < pruned.From() {
		return nil, nil
	}
	tail := Tail{}
	if seq == pruned.From() {
		tail = pruned.Tail
	} else {
		first, size, err := a.lastSegment(ctx, epoch, seq-1)
		if err != nil {
			return nil, err
		}
		if tail, err = a.tailOf(ctx, epoch, first, size); err != nil {
			return nil, err
		}
	}
	h := segment.Hash(tail.Hash)
	return &h, nil
}

// readAhead is how much of an object is read at a time: the answer of a store costs more than its bytes.
const readAhead = 1 << 20

// packCheck follows segments that are to follow upon each other.
type packCheck struct {
	archive *Archive
	epoch   uint64
	next    change.Seq    // which the next one must begin with
	prev    *segment.Hash // of the one before; nil where that is not known
	reader  *segment.Reader
}

// segment reads a segment to its end, of the object key.
func (c *packCheck) segment(key string, first change.Seq, in io.Reader) (err error) {
	if c.reader == nil {
		c.reader, err = segment.NewReader(in)
	} else {
		err = c.reader.Reset(in)
	}
	if err != nil {
		return InObject(key, err)
	}
	if err := c.archive.checkHeader(key, c.epoch, first, c.next, c.prev, c.reader.Header()); err != nil {
		return err
	}
	for {
		_, err := c.reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return InObject(key, err)
		}
	}
	h := c.reader.Hash()
	c.next, c.prev = c.reader.Index().Last()+1, &h
	return nil
}

// segmentsWithin lists the segments that begin in a span of transactions and have objects of their own.
func (a *Archive) segmentsWithin(ctx context.Context, epoch uint64, first, last change.Seq) (all []Object, err error) {
	for first != 0 {
		some, next, err := a.unpackedFrom(ctx, epoch, first, last+1)
		if err != nil {
			return nil, err
		}
		all, first = append(all, some...), next
	}
	return all, nil
}
