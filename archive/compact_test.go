package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"txreel/change"
	"txreel/segment"
)

// packUp packs the segments of keys, which follow upon each other, as docs/format.md says. It returns the pack's key.
func packUp(t *testing.T, h *history, epoch uint64, keys []string) string {
	t.Helper()
	frames, err := segment.NewFrameReader()
	if err != nil {
		t.Fatal(err)
	}
	var body, dir []byte
	var first, last change.Seq
	for i, key := range keys {
		b := h.objects[key]
		tail, _, err := frames.Tail(b, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = tail.First()
		}
		last = tail.Last()
		body = append(body, b...)
		dir = binary.LittleEndian.AppendUint64(dir, uint64(tail.First()))
		dir = binary.LittleEndian.AppendUint64(dir, uint64(len(b)))
		dir = append(dir, tail.Hash[:]...)
	}
	sum := sha256.Sum256(dir)
	body = append(body, dir...)
	body = binary.LittleEndian.AppendUint64(body, uint64(len(keys)))
	body = append(body, sum[:]...)
	body = binary.LittleEndian.AppendUint64(body, packVersion)
	body = append(body, packMagic...)
	key := packKey(epoch, first, last)
	if err := h.Create(context.Background(), key, bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	return key
}

// segmentsOf returns the keys of the segments of an epoch that have objects of their own.
func (h *history) segmentsOf(epoch uint64) (keys []string) {
	for _, k := range h.keys {
		if strings.HasPrefix(k, segmentsKey(epoch)) {
			keys = append(keys, k)
		}
	}
	return keys
}

// reopen forgets what the archive has read of packs.
func (h *history) reopen(t *testing.T) {
	t.Helper()
	fan := h.fan
	a, err := Open(t.Context(), h.memStore)
	if err != nil {
		t.Fatal(err)
	}
	h.Archive, h.fan = a, fan
}

// same fails the test unless each reader gets all that was recorded.
func (h *history) same(t *testing.T, what string) {
	t.Helper()
	h.readersAgree(t, what)
	for i, all := range h.epochs {
		got, _, err := read(h.Archive, uint64(i+1), 1, change.Seq(len(all)))
		if err != nil || len(got) != len(all) {
			t.Fatalf("%s: stream of epoch %d: %d of %d transactions, %v", what, i+1, len(got), len(all), err)
		}
		for n := range all {
			if fmt.Sprint(got[n]) != fmt.Sprint(all[n]) {
				t.Fatalf("%s: transaction %d of epoch %d: %+v, want %+v", what, n+1, i+1, got[n], all[n])
			}
			x, ok, err := h.Lookup(t.Context(), uint64(i+1), change.Seq(n+1))
			if err != nil || !ok || x.XID != all[n].xid {
				t.Fatalf("%s: look up %d of epoch %d: %+v, %t, %v", what, n+1, i+1, x.Txn, ok, err)
			}
		}
	}
	r, err := h.Verify(t.Context(), VerifyOptions{Full: true})
	if err != nil {
		t.Fatalf("%s: %v\n%+v", what, err, r.Problems)
	}
}

// TestPacksRead packs runs of segments of random archives, removes the objects of some, of which a killed compaction may have left
// any, and expects of every reader what it gave before.
func TestPacksRead(t *testing.T) {
	r := rng(t)
	for range 30 {
		h := pruneHistory(t, r)
		for e := uint64(1); e <= uint64(len(h.epochs)); e++ {
			for keys := h.segmentsOf(e); len(keys) > 0; {
				n := 1 + r.IntN(min(6, len(keys)))
				if r.IntN(3) > 0 {
					h.packAway(t, r, e, keys[:n])
				}
				keys = keys[n:]
			}
		}
		h.reopen(t)
		h.same(t, "packed")
		if t.Failed() {
			return
		}
	}
}

// packAway packs segments, now and then twice with other bounds, and removes some of them.
func (h *history) packAway(t *testing.T, r *rand.Rand, epoch uint64, keys []string) {
	t.Helper()
	packUp(t, h, epoch, keys)
	if len(keys) > 1 && r.IntN(4) == 0 { // two that compacted at once
		packUp(t, h, epoch, keys[:len(keys)-1])
	}
	for _, k := range keys {
		if r.IntN(4) > 0 {
			h.remove(k)
		}
	}
}

// TestPackedMeanwhile packs segments and removes them behind the back of an archive that has looked for packs and found none.
func TestPackedMeanwhile(t *testing.T) {
	h := twoBases(t)
	h.same(t, "before")
	x := SegmentIndex{}
	for y, err := range h.Segments(t.Context(), 1, 1) {
		if err != nil {
			t.Fatal(err)
		}
		x = y
		break
	}
	want := bytes.Clone(h.objects[x.Key])
	packUp(t, h, 1, []string{x.Key})
	h.remove(x.Key)
	body, _, err := h.openSegment(t.Context(), x.Key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d: %v", len(got), len(want), err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	h.same(t, "packed since")
}

// TestPackDecides puts an object where a packed segment stood, as a writer might that slept since before: it is no part of the record.
func TestPackDecides(t *testing.T) {
	h := twoBases(t)
	keys := h.segmentsOf(1)
	packUp(t, h, 1, keys[:2])
	for _, k := range keys[:2] {
		h.remove(k)
	}
	h.set(keys[1], []byte("another history"))
	h.reopen(t)
	h.same(t, "with a fork beside the pack")
}

// TestPackDamaged changes each byte of a pack: nothing is read from it then but what was recorded.
func TestPackDamaged(t *testing.T) {
	h := twoBases(t)
	keys := h.segmentsOf(1)[:2]
	key := packUp(t, h, 1, keys)
	for _, k := range keys {
		h.remove(k)
	}
	whole := h.objects[key]
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		h.objects[key] = b
		h.reopen(t)
		_, err := h.Verify(t.Context(), VerifyOptions{Full: true})
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d of %d: %v", i, len(whole), err)
		}
	}
	for n := range whole {
		h.objects[key] = whole[:n]
		h.reopen(t)
		if _, err := h.Verify(t.Context(), VerifyOptions{Full: true}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d of %d: %v", n, len(whole), err)
		}
	}
}
