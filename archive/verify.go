package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"txreel/change"
	"txreel/segment"
)

// VerifyOptions says what Verify looks at. The zero value checks all epochs and
// reads of large objects only what tells their place.
type VerifyOptions struct {
	Full  bool   // read every byte of every object
	Epoch uint64 // check this epoch only; zero means all
	// Progress, when set, is told after each segment how many of the transactions
	// are checked. It is never called concurrently.
	Progress func(done, total int64)
}

// Problem is something about an object that is not as it must be, or, among the
// notes of a report, worth knowing.
type Problem struct {
	Key    string `json:"key"`
	Offset int64  `json:"offset,omitempty"` // the byte at which the damage shows, where that is known
	Detail string `json:"detail"`
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Archive      string          `json:"archive"` // its id
	Store        string          `json:"store"`
	Full         bool            `json:"full"`
	Epochs       []VerifiedEpoch `json:"epochs"`
	Segments     int64           `json:"segments"`
	Transactions int64           `json:"transactions"` // heartbeats included
	Rows         uint64          `json:"rows"`
	Packs        int64           `json:"packs"` // sound ones
	Rollups      int64           `json:"rollups"`
	Bases        int64           `json:"bases"` // committed ones
	Marks        int64           `json:"marks"`
	BytesRead    int64           `json:"bytes_read"`
	Problems     []Problem       `json:"problems"`
	MoreProblems int64           `json:"more_problems,omitempty"` // beyond those listed
	Notes        []Problem       `json:"notes"`
	MoreNotes    int64           `json:"more_notes,omitempty"`
}

// VerifiedEpoch is what Verify found in one epoch.
type VerifiedEpoch struct {
	Epoch        uint64       `json:"epoch"`
	Cause        string       `json:"cause"`
	Started      string       `json:"started"`
	Segments     int64        `json:"segments"`
	Transactions int64        `json:"transactions"`
	Rows         uint64       `json:"rows"`
	Bytes        int64        `json:"bytes"` // of all segments
	First        *VerifiedTxn `json:"first,omitempty"`
	Last         *VerifiedTxn `json:"last,omitempty"`
	Bases        int          `json:"bases"`
	Marks        int          `json:"marks"`
	Fences       int64        `json:"fences"`        // numbered messages of the capture, none of them missing
	Gap          *Gap         `json:"gap,omitempty"` // the epoch ends in it
	// Pruned says what was removed from its beginning: it is complete from the transaction behind that on.
	Pruned *Pruned `json:"pruned,omitempty"`
}

// VerifiedTxn is where an epoch begins or ends.
type VerifiedTxn struct {
	Seq        change.Seq      `json:"seq"`
	XID        string          `json:"xid"`
	Position   change.Position `json:"position"`
	CommitTime change.Time     `json:"commit_time"` // µs
	Time       string          `json:"time"`        // the same, RFC 3339
}

// maxProblems bounds the lists of a report, and with them its memory.
const maxProblems = 1000

// verifyParallel is how many objects Verify reads at a time: the answer time of the
// store, not the machine, is what it waits for.
const verifyParallel = 4

// Verify checks the whole archive: every object against its place, its checksum and
// the objects that speak of it. Without Full it reads of segments beyond 64 KiB the
// header and the index, and of a base the manifest. It needs the same memory for an
// archive of any length. Damage does not end it: the report names every damaged,
// missing or misplaced object, and the error then wraps ErrCorrupt. A report comes
// with every error.
//
// What nothing refers to can vanish unseen: the last segments of the last epoch,
// marks, and whole bases. A beginning that was pruned says so, and what follows is anchored in what is on record of it.
func (a *Archive) Verify(ctx context.Context, o VerifyOptions) (*VerifyReport, error) {
	v := &verifier{o: o, report: &VerifyReport{
		Archive: a.Identity.Archive, Store: a.Store.String(), Full: o.Full,
		Epochs: []VerifiedEpoch{}, Problems: []Problem{}, Notes: []Problem{},
	}}
	v.free = make(chan *tools, verifyParallel)
	for range verifyParallel {
		v.free <- &tools{}
	}
	counted := *a
	counted.Store, counted.packs = &countedStore{Store: a.Store, read: &v.read}, new(packs) // nothing that was read before counts
	v.archive = &counted
	err := v.run(ctx)
	r := v.report
	r.BytesRead = v.read.Load()
	if n := int64(len(r.Problems)) + r.MoreProblems; err == nil && n > 0 {
		err = fmt.Errorf("%w: %s: problems found: %d; the first: %s: %s", ErrCorrupt, a.Store, n, r.Problems[0].Key, r.Problems[0].Detail)
	}
	return r, err
}

type verifier struct {
	archive     *Archive
	o           VerifyOptions
	report      *VerifyReport
	read        atomic.Int64
	free        chan *tools // as many as segments may be read at a time
	done, total int64
}

// countedStore counts the bytes read from a Store.
type countedStore struct {
	Store
	read *atomic.Int64
}

// Open implements Store.
func (s *countedStore) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, int64, error) {
	body, size, err := s.Store.Open(ctx, key, off, n)
	if err != nil {
		return nil, 0, err
	}
	return &countedBody{ReadCloser: body, read: s.read}, size, nil
}

type countedBody struct {
	io.ReadCloser
	read *atomic.Int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	return n, err
}

func (v *verifier) problem(key string, offset int64, format string, args ...any) {
	p := Problem{Key: key, Offset: offset, Detail: fmt.Sprintf(format, args...)}
	for _, have := range v.report.Problems {
		if have.Key == p.Key && strings.HasPrefix(have.Detail, "missing") && strings.HasPrefix(p.Detail, "missing") {
			return // once is enough, however many objects speak of it
		}
	}
	if len(v.report.Problems) == maxProblems {
		v.report.MoreProblems++
		return
	}
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verifier) note(key, format string, args ...any) {
	if len(v.report.Notes) == maxProblems {
		v.report.MoreNotes++
		return
	}
	v.report.Notes = append(v.report.Notes, Problem{Key: key, Detail: fmt.Sprintf(format, args...)})
}

// damage makes a problem of an error that speaks of what is stored, and returns
// every other error.
func (v *verifier) damage(key string, err error) error {
	var (
		c    *segment.CorruptError
		hole *HoleError
	)
	switch {
	case errors.As(err, &hole):
		v.problem(SegmentKey(hole.Epoch, hole.After+1), 0, "missing: it holds the transactions %s to %s", hole.After+1, hole.Next-1)
	case errors.As(err, &c):
		v.problem(key, c.Offset, "%v", c.Err)
	case errors.Is(err, fs.ErrNotExist):
		v.problem(key, 0, "missing")
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion), errors.Is(err, segment.ErrVersion):
		text := strings.TrimPrefix(err.Error(), ErrCorrupt.Error()+": ")
		v.problem(key, 0, "%s", strings.TrimLeft(strings.TrimPrefix(text, key), ": "))
	default:
		return err
	}
	return nil
}

func (v *verifier) run(ctx context.Context) error {
	var id Identity
	err := readJSON(ctx, v.archive.Store, identityKey, &id)
	if err == nil && id != v.archive.Identity {
		err = fmt.Errorf("%w: it is not what it was when the archive was opened", ErrCorrupt)
	}
	if err := v.damage(identityKey, err); err != nil {
		return err
	}
	if err := v.strays(ctx, "", []string{identityKey}, []string{"epochs/", holdsKey, pinsKey}); err != nil {
		return err
	}
	if err := v.claims(ctx); err != nil {
		return err
	}
	epochs, err := v.epochs(ctx)
	if err != nil {
		return err
	}
	for i := range epochs {
		if epochs[i].pruned, err = v.pruned(ctx, epochs[i].number); err != nil {
			return err
		}
	}
	for _, e := range epochs {
		if v.o.Epoch != 0 && v.o.Epoch != e.number {
			continue
		}
		tail, err := v.archive.Tail(ctx, e.number)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, segment.ErrVersion) {
			return err
		}
		v.total += int64(tail.Seq - min(tail.Seq, e.before().Seq))
	}
	var before *Tail
	for i := range epochs {
		e := &epochs[i]
		if v.o.Epoch != 0 && v.o.Epoch != e.number {
			continue
		}
		if before == nil && e.number > 1 && v.o.Epoch != 0 {
			tail, err := v.archive.Tail(ctx, e.number-1)
			if err == nil {
				before = &tail
			} else if !errors.Is(err, ErrCorrupt) {
				return err
			}
		}
		v.links(e, before)
		if before, err = v.epoch(ctx, e); err != nil {
			return err
		}
		if i+1 < len(epochs) {
			v.ends(&epochs[i+1], e.number, before)
		}
	}
	if v.o.Epoch != 0 && len(v.report.Epochs) == 0 {
		return fmt.Errorf("epoch %d: %w", v.o.Epoch, fs.ErrNotExist)
	}
	return v.undisturbed(ctx, epochs)
}

// foundEpoch is an epoch of which there are objects.
type foundEpoch struct {
	number uint64
	json   *Epoch  // nil when it is missing or damaged
	pruned *Pruned // the last record of pruning; nil when there is none
}

// epochs finds the epochs and reads their epoch.json.
func (v *verifier) epochs(ctx context.Context) ([]foundEpoch, error) {
	var all []foundEpoch
	after := ""
	for {
		objects, err := v.archive.Store.List(ctx, "epochs/", after, 1)
		if err != nil {
			return nil, fmt.Errorf("list epochs: %w", err)
		}
		if len(objects) == 0 {
			return all, nil
		}
		name, _, ok := strings.Cut(strings.TrimPrefix(objects[0].Key, "epochs/"), "/")
		n, err := strconv.ParseUint(name, 10, 64)
		if !ok || err != nil || n == 0 || epochKey(n) != "epochs/"+name {
			v.problem(objects[0].Key, 0, "not a key of an epoch: readers stop at it")
			after = objects[0].Key
			continue
		}
		after = epochKey(n) + "0"
		last := uint64(0)
		if len(all) > 0 {
			last = all[len(all)-1].number
		}
		if n != last+1 {
			v.problem(epochJSON(last+1), 0, "missing: nothing is there of the epochs %d to %d", last+1, n-1)
		}
		f := foundEpoch{number: n}
		var e Epoch
		err = readJSON(ctx, v.archive.Store, epochJSON(n), &e)
		if err == nil && e.Number != n {
			err = fmt.Errorf("%w: it speaks of epoch %d", ErrCorrupt, e.Number)
		}
		if err == nil {
			f.json = &e
		} else if err := v.damage(epochJSON(n), err); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
}

// links compares what epoch.json says of the epoch before with before, the tail that
// was found there; nil when it is not known.
func (v *verifier) links(e *foundEpoch, before *Tail) {
	if e.json == nil {
		return
	}
	key, said := epochJSON(e.number), e.json.Previous
	switch {
	case e.number == 1 && said != nil:
		v.problem(key, 0, "it is the first epoch, but names epoch %d before it", said.Epoch)
	case e.number > 1 && said == nil:
		v.problem(key, 0, "it does not say where epoch %d ends", e.number-1)
	case e.number > 1 && said.Epoch != e.number-1:
		v.problem(key, 0, "it follows epoch %d, but names epoch %d before it", e.number-1, said.Epoch)
	case said != nil && before != nil && said.Epoch == before.Epoch && *said != *before:
		v.endsElsewhere(key, *said, *before)
	}
}

// endsElsewhere reports that an epoch does not end where the object at key says.
func (v *verifier) endsElsewhere(key string, said, found Tail) {
	if found.Segment < said.Segment {
		v.problem(SegmentKey(said.Epoch, said.Segment), 0, "missing: %s says that it is the last of epoch %d", key, said.Epoch)
		return
	}
	v.problem(key, 0, "it says that epoch %d ends with transaction %s at %s in segment %s of hash %x; it ends with %s at %s in segment %s of hash %x",
		said.Epoch, said.Seq, said.Position, said.Segment, said.Hash, found.Seq, found.Position, found.Segment, found.Hash)
}

// ends checks that the epoch number, which has been checked and ends with tail, says
// why another one follows it.
func (v *verifier) ends(next *foundEpoch, number uint64, tail *Tail) {
	if next.number != number+1 || next.json == nil {
		return
	}
	if v.o.Epoch == number && tail != nil {
		v.links(next, tail)
	}
	if e := v.report.Epochs[len(v.report.Epochs)-1]; isGap(next.json.Cause) && e.Gap == nil {
		v.problem(gapJSON(number), 0, "missing: epoch %d began because of a gap", next.number)
	}
}

// epoch checks all objects of an epoch and returns its tail; nil when damage hides it.
func (v *verifier) epoch(ctx context.Context, e *foundEpoch) (*Tail, error) {
	n := e.number
	v.report.Epochs = append(v.report.Epochs, VerifiedEpoch{Epoch: n})
	r := &v.report.Epochs[len(v.report.Epochs)-1]
	if e.json != nil {
		r.Cause, r.Started = e.json.Cause, e.json.Started
	}
	err := v.strays(ctx, epochKey(n)+"/", []string{"epoch.json", "gap.json"}, []string{"bases/", "choices/", "globals/", "marks/", "packs/", "protection/", "pruned/", "rollups/1/", "rollups/2/", "segments/"})
	if err != nil {
		return nil, err
	}
	gap, err := v.archive.Gap(ctx, n)
	if err := v.damage(gapJSON(n), err); err != nil {
		return nil, err
	}
	r.Gap = gap
	_, err = v.archive.Protections(ctx, n)
	if err := v.damage(protectionsKey(n), err); err != nil {
		return nil, err
	}
	marks, err := v.marks(ctx, n)
	if err != nil {
		return nil, err
	}
	marked := len(marks)
	before := e.before()
	if before.Seq > 0 {
		r.Pruned = e.pruned
		if err := v.leftOver(ctx, n, before.Seq); err != nil {
			return nil, err
		}
		marks = slices.DeleteFunc(marks, func(m Mark) bool { return m.Seq <= before.Seq && m.Seq > 0 })
	}
	bases, err := v.bases(ctx, n, before.Seq)
	if err != nil {
		return nil, err
	}
	r.Marks, r.Bases = marked, len(bases)
	if err := v.choices(ctx, n); err != nil {
		return nil, err
	}
	if err := v.globals(ctx, n); err != nil {
		return nil, err
	}
	packs, err := v.packs(ctx, n)
	if err != nil {
		return nil, err
	}
	s := segmentCheck{v: v, report: r, epoch: n, packs: packs, known: true, whole: before.Seq == 0, tail: before, before: before.Seq, after: before.Seq, marks: marks}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	for _, b := range bases {
		if s.known && b.Upto() > s.tail.Seq {
			v.problem(b.manifestKey(), 0, "it is the base after transaction %s; the epoch ends with %s", b.Upto(), s.tail.Seq)
		}
	}
	if !s.known {
		return nil, nil
	}
	if gap != nil && gap.Tail != s.tail {
		v.endsElsewhere(gapJSON(n), gap.Tail, s.tail)
	}
	return &s.tail, nil
}

// choices checks the choices of an epoch.
func (v *verifier) choices(ctx context.Context, epoch uint64) error {
	number := uint64(0)
	return v.each(ctx, choicesKey(epoch), "", func(o Object) error {
		number++
		if key := choiceKey(epoch, number); key != o.Key {
			v.problem(key, 0, "missing: %s follows", o.Key)
		}
		return v.damage(o.Key, v.archive.readChoice(ctx, epoch, o.Key, &Choice{}))
	})
}

// marks reads the marks of an epoch and returns them in order of Seq.
func (v *verifier) marks(ctx context.Context, epoch uint64) ([]Mark, error) {
	var all []Mark
	err := v.each(ctx, marksKey(epoch), "", func(o Object) error {
		var m Mark
		err := v.archive.readMark(ctx, epoch, o.Key, &m)
		if err == nil {
			all = append(all, m)
			v.report.Marks++
		}
		return v.damage(o.Key, err)
	})
	slices.SortStableFunc(all, func(a, b Mark) int { return cmp.Compare(a.Seq, b.Seq) })
	return all, err
}

// each calls f for each object below prefix and behind after.
func (v *verifier) each(ctx context.Context, prefix, after string, f func(Object) error) error {
	for {
		objects, err := v.archive.Store.List(ctx, prefix, after, page)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range objects {
			if err := f(o); err != nil {
				return err
			}
			after = o.Key
		}
		if len(objects) < page {
			return nil
		}
	}
}

// strays notes the objects below prefix that are none of files and in none of dirs.
func (v *verifier) strays(ctx context.Context, prefix string, files, dirs []string) error {
	after := ""
	for {
		objects, err := v.archive.Store.List(ctx, prefix, after, 10)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		jumped := false
		for _, o := range objects {
			name := strings.TrimPrefix(o.Key, prefix)
			i := slices.IndexFunc(dirs, func(d string) bool { return strings.HasPrefix(name, d) })
			if i >= 0 {
				after, jumped = prefix+strings.TrimSuffix(dirs[i], "/")+"0", true // behind all below it
				break
			}
			if !slices.Contains(files, name) {
				v.note(o.Key, "not an object of an archive")
			}
			after = o.Key
		}
		if !jumped && len(objects) < 10 {
			return nil
		}
	}
}
