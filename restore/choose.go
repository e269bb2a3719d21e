package restore

import (
	"context"
	"fmt"

	"txreel/archive"
)

// narrow limits the goal to the epoch that has the base it names.
func (r *resolver) narrow(ctx context.Context) error {
	for i := len(r.epochs) - 1; i >= 0; i-- {
		e := r.epochs[i].Number
		if r.goal.Epoch != 0 && r.goal.Epoch != e {
			continue
		}
		bases, err := r.archive.Bases(ctx, e)
		if err != nil {
			return err
		}
		for k := range bases {
			if bases[k].ID == r.goal.Base {
				r.goal.Epoch = e
				return nil
			}
		}
	}
	where := "the archive"
	if r.goal.Epoch != 0 {
		where = fmt.Sprintf("epoch %d", r.goal.Epoch)
	}
	return fmt.Errorf("%w: %s has no base %q; `txreel status` lists them", ErrNoBase, where, r.goal.Base)
}

// base returns the base with the id, or where none is named, the last one at or before the cut.
func (r *resolved) base(id string) (*archive.Base, error) {
	var last *archive.Base
	for i := range r.bases {
		b := &r.bases[i]
		switch {
		case id == "":
			if b.Upto() <= r.cut && (last == nil || b.Seq >= last.Seq) {
				last = b
			}
		case b.ID == id && b.Upto() > r.cut:
			return nil, fmt.Errorf("%w: base %s was taken after transaction %s, behind the point asked for, which is %s", ErrNoBase, id, b.Upto(), r.cut)
		case b.ID == id:
			return b, nil
		}
	}
	if last == nil { // resolve has checked it
		return nil, fmt.Errorf("epoch %d has no base snapshot at or before %s", r.epoch.Number, r.cut)
	}
	return last, nil
}
