package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"txreel/archive"
	"txreel/change"
)

// epochView is an epoch with what decides which points of it can be restored.
type epochView struct {
	epoch  archive.Epoch
	bases  []archive.Base
	tail   archive.Tail
	pruned *archive.Pruned // what was removed of its beginning; nil where nothing was
	last   bool            // no epoch follows
}

// resolved is the place of a goal in the record.
type resolved struct {
	epochView
	cut change.Seq
}

type resolver struct {
	archive *archive.Archive
	dialect Dialect
	goal    Goal
	epochs  []archive.Epoch
}

// resolve finds the cut of a goal: in the epoch it names, or else in the last one,
// or for the goals that name a point of the source's own in the newest one that holds it.
func resolve(ctx context.Context, a *archive.Archive, d Dialect, g Goal) (resolved, error) {
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return resolved{}, err
	}
	r := resolver{archive: a, dialect: d, goal: g, epochs: epochs}
	if len(epochs) == 0 {
		return resolved{}, r.missing("the archive records nothing yet: start `txreel capture`")
	}
	if g.Base != "" {
		if err := r.narrow(ctx); err != nil {
			return resolved{}, err
		}
		g = r.goal
	}
	var candidates []archive.Epoch
	for i := len(epochs) - 1; i >= 0; i-- {
		if g.Epoch == 0 || epochs[i].Number == g.Epoch {
			candidates = append(candidates, epochs[i])
		}
	}
	if len(candidates) == 0 {
		return resolved{}, r.missing(fmt.Sprintf("there is no epoch %d", g.Epoch), fmt.Sprintf("epochs %d to %d", epochs[0].Number, epochs[len(epochs)-1].Number))
	}
	if g.Kind == Latest || g.Kind == AtSeq {
		candidates = candidates[:1]
	}
	var first error
	pruned := false // first says so
	for _, e := range candidates {
		v, err := r.view(ctx, e)
		if err != nil {
			return resolved{}, err
		}
		cut, err := r.cut(ctx, v)
		if err == nil {
			return resolved{epochView: v, cut: cut}, nil
		}
		if !errors.Is(err, ErrNotInArchive) {
			return resolved{}, err
		}
		if first == nil || !pruned && v.pruned != nil && (g.Kind != AtTime || g.Time <= v.pruned.Tail.Latest) {
			first, pruned = err, v.pruned != nil
		}
	}
	return resolved{}, first
}

func (r *resolver) missing(detail string, nearest ...string) error {
	return &PointError{Goal: r.goal, Detail: detail, Nearest: nearest}
}

func (r *resolver) view(ctx context.Context, e archive.Epoch) (epochView, error) {
	v := epochView{epoch: e, last: e.Number == r.epochs[len(r.epochs)-1].Number}
	var err error
	if v.bases, err = r.archive.Bases(ctx, e.Number); err != nil {
		return v, err
	}
	if v.pruned, err = r.archive.Pruned(ctx, e.Number); err != nil {
		return v, err
	}
	v.tail, err = r.archive.Tail(ctx, e.Number)
	return v, err
}

// oldest returns the base with which the earliest point can be restored.
func (v *epochView) oldest() *archive.Base {
	var b *archive.Base
	for i := range v.bases {
		if b == nil || v.bases[i].Upto() < b.Upto() {
			b = &v.bases[i]
		}
	}
	return b
}

// ends says where the record of the epoch ends, for messages.
func (v *epochView) ends() string {
	if v.last {
		return "the record's last"
	}
	return fmt.Sprintf("the last before the gap behind epoch %d", v.epoch.Number)
}

// option prints an option of the command line that names a point of the epoch.
func (v *epochView) option(flag, value string) string {
	s := "--to-" + flag
	if flag == "latest" {
		s = "--to latest"
	}
	if value != "" {
		s += " " + value
	}
	if !v.last {
		s += fmt.Sprintf(" --epoch %d", v.epoch.Number)
	}
	return s
}

func (v *epochView) firstPoint() string {
	return v.option("seq", v.oldest().Upto().String()) + ", the oldest base snapshot"
}

func (v *epochView) lastPoint() string { return v.option("latest", "") }

// cut finds the last transaction that belongs to the goal in one epoch.
func (r *resolver) cut(ctx context.Context, v epochView) (change.Seq, error) {
	oldest := v.oldest()
	if oldest == nil && v.pruned != nil {
		return 0, r.missing(v.pruned.String())
	}
	if oldest == nil {
		return 0, r.missing(fmt.Sprintf("epoch %d has no base snapshot yet: let `txreel base` finish one", v.epoch.Number))
	}
	var cut change.Seq
	var err error
	switch r.goal.Kind {
	case Latest:
		cut = v.tail.Seq
		if r.goal.Before {
			cut-- // below: before the first point when there is none
		}
	case AtSeq:
		cut, err = r.seq(v, r.goal.Seq)
	case AtMark:
		cut, err = r.mark(ctx, v)
	case AtXID:
		cut, err = r.xid(ctx, v)
	case AtPosition:
		cut, err = r.position(ctx, v)
	case AtTime:
		cut, err = r.time(ctx, v)
	default:
		err = fmt.Errorf("restore to %s: unknown goal", r.goal)
	}
	var gone *archive.PrunedError
	if errors.As(err, &gone) {
		return 0, r.missing(gone.Pruned.String(), v.firstPoint())
	}
	if err != nil {
		return 0, err
	}
	if v.tail.Seq == 0 && r.goal.Kind == Latest && !r.goal.Before {
		cut = 0
	}
	if cut < oldest.Upto() && v.pruned != nil {
		return 0, r.missing(v.pruned.String(), v.firstPoint())
	}
	if cut < oldest.Upto() || cut > v.tail.Seq {
		return 0, r.missing(fmt.Sprintf("the oldest base snapshot of epoch %d was taken later, after transaction %s", v.epoch.Number, oldest.Upto()), v.firstPoint())
	}
	return cut, nil
}

// before turns the transaction a goal names into the cut.
func (r *resolver) before(s change.Seq) change.Seq {
	if r.goal.Before {
		return s - 1
	}
	return s
}

func (r *resolver) seq(v epochView, s change.Seq) (change.Seq, error) {
	if s > v.tail.Seq {
		return 0, r.missing(fmt.Sprintf("transaction %s is %s", v.tail.Seq, v.ends()), v.lastPoint())
	}
	if s == 0 && r.goal.Before {
		return 0, r.missing("nothing comes before Seq 0", v.firstPoint())
	}
	return r.before(s), nil
}

func (r *resolver) mark(ctx context.Context, v epochView) (change.Seq, error) {
	m, err := r.archive.Mark(ctx, v.epoch.Number, r.goal.Text)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, r.missing("there is no mark of that name; `txreel status` lists them")
	}
	if err != nil {
		return 0, err
	}
	if m.Seq == 0 || m.Seq > v.tail.Seq {
		return 0, r.missing(fmt.Sprintf("its transaction %s is behind %s, %s: capture has not delivered it yet", m.Seq, v.tail.Seq, v.ends()), v.lastPoint())
	}
	return r.before(m.Seq), nil
}

// xid walks the indexes of the epoch. A shortened id must fit one transaction only.
func (r *resolver) xid(ctx context.Context, v epochView) (change.Seq, error) {
	match, err := r.dialect.XID(r.goal.Text)
	if err != nil {
		return 0, err
	}
	var short []change.Txn
	for x, err := range r.archive.Segments(ctx, v.epoch.Number, v.oldest().Seq) {
		if err != nil {
			return 0, err
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Kind != change.TxnSource {
				continue
			}
			switch match(t.XID) {
			case ExactMatch:
				return r.before(t.Seq), nil
			case ShortMatch:
				short = append(short, *t)
			}
		}
	}
	switch len(short) {
	case 1:
		return r.before(short[0].Seq), nil
	case 0:
		outside := "lies outside the record"
		if v.pruned != nil {
			outside += " (" + v.pruned.String() + ")"
		}
		return 0, r.missing("no transaction with this id was recorded. It was rolled back, or only read, or was part of another transaction, "+
			"or changed nothing that is recorded, or "+outside, v.firstPoint(), v.lastPoint())
	}
	var ids []string
	for i := range short {
		ids = append(ids, fmt.Sprintf("%s (%s)", v.option("txn", short[i].XID), short[i].CommitTime))
	}
	return 0, r.missing("several transactions have this id; give the whole one", ids...)
}

// position lets the dialect look through the transactions behind the newest base that is
// not behind the position.
func (r *resolver) position(ctx context.Context, v epochView) (change.Seq, error) {
	f, err := r.dialect.Position(r.goal.Text, r.goal.Before)
	if err != nil {
		return 0, err
	}
	end := v.tail.Position
	if v.tail.Seq == 0 {
		end = v.oldest().Position // there is nothing but the base
	}
	if ok, err := f.Covered(end); err != nil {
		return 0, err
	} else if !ok {
		return 0, r.missing(fmt.Sprintf("the record is known to be complete up to %s only, %s", end, v.ends()), v.lastPoint())
	}
	var from *archive.Base
	for i := range v.bases {
		b := &v.bases[i]
		ok, err := f.From(b.Position)
		if err != nil {
			return 0, err
		}
		if ok && (from == nil || b.Seq > from.Seq) {
			from = b
		}
	}
	if from == nil {
		return 0, r.missing(fmt.Sprintf("the oldest base snapshot of epoch %d stands at %s", v.epoch.Number, v.oldest().Position), v.firstPoint())
	}
	more, first := true, from.Seq+1
	for x, err := range r.archive.Segments(ctx, v.epoch.Number, max(from.Seq, 1)) {
		if err != nil {
			return 0, err
		}
		first = min(first, x.First())
		for i := range x.Txns {
			if more, err = f.Look(&x.Txns[i].Txn); err != nil || !more {
				break
			}
		}
		if err != nil {
			return 0, err
		}
		if !more {
			break
		}
	}
	cut, ok, err := f.Cut()
	switch {
	case err != nil:
		return 0, r.missing(err.Error(), v.firstPoint(), v.lastPoint())
	case !ok:
		return first - 1, nil // not even the first one looked at
	}
	return cut, nil
}

// time takes the transactions before the first one, in commit order, that committed
// later than the moment, or with before not earlier than it.
func (r *resolver) time(ctx context.Context, v epochView) (change.Seq, error) {
	t := r.goal.Time
	if v.tail.Seq == 0 || t > v.tail.Latest {
		known := "nothing"
		if v.tail.Seq > 0 {
			known = "what happened up to " + v.tail.Latest.String()
		}
		return 0, r.missing(fmt.Sprintf("epoch %d records %s, nothing proves what happened after that", v.epoch.Number, known), v.lastPoint())
	}
	if r.goal.Before {
		t--
	}
	cut := v.tail.Seq
	found, ok, err := r.archive.FirstAfter(ctx, v.epoch.Number, t)
	if err != nil {
		return 0, err
	}
	if ok {
		cut = found.Seq - 1
	}
	if cut == 0 {
		// Nothing but the base is asked for: it must not be younger than the moment.
		b := v.oldest()
		taken, err := time.Parse(time.RFC3339, b.Finished)
		if err != nil {
			return 0, fmt.Errorf("%w: base %s finished at %q", archive.ErrCorrupt, b.ID, b.Finished)
		}
		if change.Time(taken.UnixMicro()) > r.goal.Time {
			return 0, r.missing(fmt.Sprintf("the oldest base snapshot of epoch %d was finished at %s", v.epoch.Number, b.Finished), v.firstPoint())
		}
	}
	return cut, nil
}
