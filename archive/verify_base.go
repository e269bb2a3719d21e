package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"txreel/change"
)

// bases checks the bases of an epoch and returns the committed ones, without their
// tables and objects.
// What begins before a pruned transaction is left over.
func (v *verifier) bases(ctx context.Context, epoch uint64, before change.Seq) ([]Base, error) {
	var all []Base
	after := ""
	for {
		objects, err := v.archive.Store.List(ctx, basesKey(epoch), after, 1)
		if err != nil {
			return nil, fmt.Errorf("list bases of epoch %d: %w", epoch, err)
		}
		if len(objects) == 0 {
			return all, nil
		}
		id, _, ok := strings.Cut(strings.TrimPrefix(objects[0].Key, basesKey(epoch)), "/")
		if !ok {
			v.problem(objects[0].Key, 0, "not a key of a base: readers stop at it")
			after = objects[0].Key
			continue
		}
		after = basesKey(epoch) + id + "0"
		b, key, err := v.archive.readManifest(ctx, epoch, id)
		if errors.Is(err, fs.ErrNotExist) {
			v.note(basesKey(epoch)+id+"/"+manifestName, "not there: the base %s was begun and never committed; nothing reads it", id)
			continue
		}
		if err == nil && b.first() <= before {
			v.note(key, "left over from pruning: run `txreel prune` again")
			continue
		}
		if err == nil {
			v.report.Bases++
			err = v.base(ctx, b)
			all = append(all, Base{ID: b.ID, Epoch: b.Epoch, Seq: b.Seq, Ahead: b.Ahead, Position: b.Position})
		}
		if err := v.damage(key, err); err != nil {
			return nil, err
		}
	}
}

// base compares the objects of a base with its manifest.
func (v *verifier) base(ctx context.Context, b *Base) error {
	var want []BaseObject
	for i := range b.Tables {
		want = append(want, b.Tables[i].Chunks...)
	}
	want = append(want, b.Objects...)
	slices.SortFunc(want, func(x, y BaseObject) int { return strings.Compare(x.Name, y.Name) })
	for i := range want {
		if i > 0 && want[i].Name == want[i-1].Name {
			return fmt.Errorf("%w: it names the object %s twice", ErrCorrupt, want[i].Name)
		}
	}
	i := 0
	var gone []string
	missing := func(before string) {
		for ; i < len(want) && want[i].Name < before; i++ {
			gone = append(gone, b.Key(want[i].Name))
		}
	}
	var there []BaseObject // what Full reads
	err := v.each(ctx, b.Key(""), "", func(o Object) error {
		name := strings.TrimPrefix(o.Key, b.Key(""))
		missing(name)
		switch {
		case i < len(want) && want[i].Name == name:
			if want[i].Size != o.Size {
				v.problem(o.Key, 0, "it has %d bytes, the manifest says %d", o.Size, want[i].Size)
			} else {
				there = append(there, want[i])
			}
			i++
		case o.Key != b.manifestKey():
			v.note(o.Key, "the manifest of its base does not name it")
		}
		return nil
	})
	if err != nil {
		return err
	}
	missing("~") // sorts after every key
	if len(gone) > 0 {
		// A base that is being pruned loses its manifest first.
		if there, err := v.archive.Store.List(ctx, b.manifestKey(), "", 1); err != nil || len(there) == 0 {
			return err
		}
	}
	for _, key := range gone {
		v.problem(key, 0, "missing: the manifest names it")
	}
	if !v.o.Full {
		return nil
	}
	return v.sums(ctx, b, there)
}

// sums reads objects of a base, several at a time, and compares their hashes.
func (v *verifier) sums(ctx context.Context, b *Base, objects []BaseObject) error {
	errs := make([]error, len(objects))
	var wg sync.WaitGroup // joined below
	for worker := range verifyParallel {
		wg.Go(func() {
			for i := worker; i < len(objects) && ctx.Err() == nil; i += verifyParallel {
				errs[i] = v.sum(ctx, b.Key(objects[i].Name), objects[i].SHA256)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err := v.damage(b.Key(objects[i].Name), err); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (v *verifier) sum(ctx context.Context, key, want string) error {
	body, _, err := v.archive.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%w: its SHA-256 is %s, the manifest says %s", ErrCorrupt, got, want)
	}
	return nil
}
