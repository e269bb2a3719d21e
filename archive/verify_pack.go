package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"txreel/change"
)

// packsCheck is what is known of the packs of an epoch. Some may be put while it is checked.
type packsCheck struct {
	v     *verifier
	epoch uint64
	sound map[string]bool // by key
	all   *packList       // asked for last
	whole *packList       // the sound ones of these
}

// damagedPack is a pack whose directory cannot be relied on.
type damagedPack struct {
	key string
	err error
}

// list returns the sound packs that there are now, or were a little while ago, and those that are not and were not met before. In the span of such a one segments
// are missing unless they have objects of their own. Packs that hold nothing from the transaction from on need not be among them.
func (c *packsCheck) list(ctx context.Context, from change.Seq) (sound *packList, damaged []damagedPack, err error) {
	all, err := c.v.archive.packs.list(ctx, c.v.archive, c.epoch, from)
	if err != nil {
		return nil, nil, err
	}
	if all == c.all {
		return c.whole, nil, nil
	}
	var spans []span
	for _, p := range all.spans {
		ok, known := c.sound[p.key]
		if !known {
			_, err := c.v.archive.directory(ctx, p)
			if ok = err == nil; !ok && !errors.Is(err, fs.ErrNotExist) { // it may have been pruned
				damaged = append(damaged, damagedPack{p.key, err})
			}
			c.sound[p.key] = ok
		}
		if ok {
			spans = append(spans, p)
		}
	}
	c.all, c.whole = all, newPackList(spans)
	return c.whole, damaged, nil
}

// packs checks the packs of an epoch, but for the segments in them.
func (v *verifier) packs(ctx context.Context, epoch uint64) (*packsCheck, error) {
	c := &packsCheck{v: v, epoch: epoch, sound: make(map[string]bool)}
	sound, damaged, err := c.list(ctx, 1)
	if err != nil {
		return c, v.damage(packsKey(epoch), err)
	}
	for _, d := range damaged {
		if err := v.damage(d.key, d.err); err != nil {
			return nil, err
		}
	}
	v.report.Packs += int64(len(sound.spans))
	err = v.archive.unpacked(ctx, epoch, sound.spans, func(p span, objects []Object) error {
		v.note(objects[0].Key, "left over from compacting, as perhaps others are that %s holds: run `txreel compact` again", p.key)
		return nil
	})
	return c, v.damage(packsKey(epoch), err)
}

// inPacks returns an error about a pack that does not hold a segment which lies in its span, or says something else of it than what was read.
func (v *verifier) inPacks(ctx context.Context, epoch uint64, c *checked) (key string, _ error) {
	packs, err := v.archive.packs.list(ctx, v.archive, epoch, c.seq)
	if err != nil {
		return packsKey(epoch), err
	}
	for _, p := range packs.holding(c.seq) {
		dir, err := v.archive.packs.directory(ctx, v.archive, p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
			continue // pruned meanwhile, or said already
		}
		if err != nil {
			return p.key, err
		}
		i, ok := slices.BinarySearchFunc(dir, c.seq, packed.compare)
		switch {
		case !ok:
			return p.key, fmt.Errorf("%w: it does not hold segment %s, which lies in its span", ErrCorrupt, c.seq)
		case dir[i].hash != c.tail.Hash || dir[i].size != c.tail.Size:
			return p.key, fmt.Errorf("%w: its directory says that segment %s has %d bytes and the hash %x; it has %d and %x", ErrCorrupt, c.seq, dir[i].size, dir[i].hash, c.tail.Size, c.tail.Hash)
		}
	}
	return "", nil
}

// compare orders the entries of a directory by their first transactions.
func (x packed) compare(seq change.Seq) int {
	switch {
	case x.first < seq:
		return -1
	case x.first > seq:
		return 1
	}
	return 0
}
