package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"txreel/archive"
	"txreel/internal/rowsum"
	"txreel/restore"
	"txreel/restore/postgres/fold"
	"txreel/sources/postgres/pgbase"
)

// RollForwardOptions say how RollForward works.
type RollForwardOptions struct {
	Jobs     int    // segments and chunks read at once; at least 1
	Memory   int64  // bytes that folding may take, about; zero means 1 GiB
	SpillDir string // for temporary files; "" is the system's temporary folder
	Reason   string // why, for the record
	// Progress, if not nil, is called with what has been done of the whole, by several goroutines.
	Progress func(done, total int64, unit string)
}

// ErrOnlyLive is wrapped when the archive alone does not tell what a base would hold: one has to be taken of the source.
var ErrOnlyLive = errors.New("the record alone does not make a base: take one of the source")

// RollForward makes the base that a plan begins with into one of the plan's cut, out of what the record folds to, and commits it.
// It reads the archive only. The source is not asked, so a base can be had of a moment that is gone.
//
// It returns nil if the plan's base stands at the cut. An error that wraps ErrOnlyLive says that definitions have changed in between, or a table's
// rows by what no log has. A process that dies leaves objects of a base that does not exist; the next one begins anew.
func RollForward(ctx context.Context, a *archive.Archive, p *restore.Plan, o RollForwardOptions) (*archive.Base, error) {
	o.Jobs = max(o.Jobs, 1)
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	switch {
	case p.Seq == p.Base.Seq:
		return nil, nil
	case len(p.Definitions) > 0:
		return nil, fmt.Errorf("%w: transaction %s changes definitions", ErrOnlyLive, p.Definitions[0])
	case len(p.Mends) > 0:
		return nil, fmt.Errorf("%w: behind transaction %s tables were read again", ErrOnlyLive, p.Mends[0].Seq)
	}
	var keys int64
	r := &roller{RollForwardOptions: o, archive: a, plan: p}
	if err := r.readManifest(); err != nil {
		return nil, err
	}
	for i := range r.tables {
		keys += foldedKeys(p, &r.tables[i])
	}
	for passes := fold.Passes(keys, o.Memory); ; passes *= 2 {
		b, err := r.make(ctx, passes)
		switch {
		case errors.Is(err, fold.ErrMemory) && passes < fold.MaxPasses:
			continue
		case errors.Is(err, fold.ErrNotFoldable), errors.Is(err, fold.ErrContradiction):
			return nil, fmt.Errorf("%w: %w", ErrOnlyLive, err)
		case err != nil:
			return nil, err
		}
		return b, nil
	}
}

// roller makes a base.
type roller struct {
	RollForwardOptions
	archive *archive.Archive
	plan    *restore.Plan
	engine  pgbase.Engine
	tables  []table // of the base, without our own

	base   *archive.Base // the new one
	rolled []rolledTable // for each of tables
}

// rolledTable is what a table has come to. Parts of a table may be made at the same time.
type rolledTable struct {
	mu      sync.Mutex
	touched bool // it is not what it was
	objects int  // names given out
	chunks  []archive.BaseObject
	rows    rowsum.Sum
	taken   int64 // rows of the base that the record changes, in this pass
}

func (r *roller) readManifest() (err error) {
	r.engine, r.tables, err = readManifest(r.plan.Base)
	return err
}

// make makes the base, going through the record so often.
func (r *roller) make(ctx context.Context, passes int) (*archive.Base, error) {
	from, p := r.plan.Base, r.plan
	var err error
	if r.base, err = archive.NewBase(p.Epoch, r.Reason); err != nil {
		return nil, err
	}
	r.base.Seq, r.base.Position, r.base.Server, r.base.Coverage = p.Seq, p.Cut.Position, from.Server, from.Coverage
	r.base.From = &archive.BaseOrigin{Base: from.ID, Seq: from.Seq}
	r.rolled = make([]rolledTable, len(r.tables))
	f := fold.New(r.archive, fold.Span{Epoch: p.Epoch, From: from.Seq, To: p.Seq, Skip: from.Skip()}, foldTables(p, r.tables), fold.Options{
		Jobs: r.Jobs, Memory: r.Memory, Passes: passes, SpillDir: r.SpillDir,
		Progress: func(done int64) { r.progress(done, int64(p.Seq-from.Seq), "transactions folded") },
	})
	for pass := range passes {
		if err := r.pass(ctx, f, pass); err != nil {
			return nil, err
		}
	}
	if err := r.describe(ctx, f); err != nil {
		return nil, err
	}
	return r.base, r.archive.CommitBase(ctx, r.base)
}

func (r *roller) progress(done, total int64, unit string) {
	if r.Progress != nil {
		r.Progress(done, total, unit)
	}
}

// pass makes what belongs to one part of the keys: the rows of the record, and what that leaves of the base.
func (r *roller) pass(ctx context.Context, f *fold.Fold, pass int) error {
	sink, err := newRollSink(r)
	if err != nil {
		return err
	}
	defer sink.close()
	if err := f.History(ctx, pass, sink); err != nil {
		return err
	}
	if err := sink.store(ctx); err != nil {
		return err
	}
	var parts []rollPart
	for i := range r.tables {
		res, t := f.Result(i), &r.rolled[i]
		t.touched, t.taken = res.Touched, 0
		if res.Touched && !res.Truncated {
			parts = append(parts, cutParts(i, r.tables[i].Chunks, res.Unordered)...)
		}
	}
	if err := r.each(ctx, len(parts), func(ctx context.Context, w *pgbase.Chunk, i int) error { return r.filter(ctx, f, w, &parts[i]) }); err != nil {
		return err
	}
	for i := range r.tables {
		if want, got := f.Result(i).Expected, r.rolled[i].taken; got != want {
			return fmt.Errorf("%w: it changes %d rows of table %s that must be in the base, which has %d of them", fold.ErrContradiction, want, r.tables[i].name(), got)
		}
	}
	return nil
}

// each calls do for each number below n, with a chunk to make for each of Jobs goroutines.
func (r *roller) each(ctx context.Context, n int, do func(ctx context.Context, w *pgbase.Chunk, i int) error) error {
	g, ctx := errgroup.WithContext(ctx) // joins every goroutine below
	next := make(chan int)
	g.Go(func() error {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(r.Jobs, n) {
		g.Go(func() error {
			w, err := pgbase.NewChunk(r.SpillDir)
			if err != nil {
				return err
			}
			defer w.Release()
			for i := range next {
				if err := do(ctx, w, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// rawChunk is how many bytes of lines become one object, about: what a table's share of the server's memory would
// hold of them too.
const rawChunk = 64 << 20

// rollPart is chunks of a table of the base that become chunks of the new one: as many as one, or fewer.
type rollPart struct {
	table  int
	chunks []archive.BaseObject
}

// cutParts puts chunks together that have become small, or all of them.
func cutParts(table int, chunks []archive.BaseObject, all bool) (parts []rollPart) {
	var raw int64
	for i, from := 0, 0; i < len(chunks); i++ {
		if raw += chunks[i].Raw; i == len(chunks)-1 || raw >= rawChunk && !all {
			parts = append(parts, rollPart{table, chunks[from : i+1]})
			from, raw = i+1, 0
		}
	}
	return parts
}

// filter makes what the record leaves of a part of the base.
func (r *roller) filter(ctx context.Context, f *fold.Fold, w *pgbase.Chunk, part *rollPart) error {
	w.Reset()
	var taken int64
	for _, c := range part.chunks {
		n, err := r.filterObject(ctx, f, w, part.table, c)
		if err != nil {
			return err
		}
		taken += n
	}
	t := &r.rolled[part.table]
	t.mu.Lock()
	t.taken += taken
	t.mu.Unlock()
	return r.storeChunk(ctx, part.table, w)
}

func (r *roller) filterObject(ctx context.Context, f *fold.Fold, w *pgbase.Chunk, table int, c archive.BaseObject) (taken int64, err error) {
	in, err := r.archive.OpenObject(ctx, r.plan.Base, c)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	filter := f.Filter(table, in)
	lines := make([]byte, 256<<10)
	for {
		n, err := filter.Read(lines)
		if n > 0 {
			if _, err := w.Write(lines[:n]); err != nil {
				return 0, err
			}
			if w.Raw >= rawChunk && lines[n-1] == '\n' { // a value's line feed is not written as one
				if err := r.storeChunk(ctx, table, w); err != nil {
					return 0, err
				}
				w.Reset()
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if filter.Seen() != c.Rows {
		return 0, fmt.Errorf("%w: %s holds %d rows, the manifest says %d", archive.ErrCorrupt, r.plan.Base.Key(c.Name), filter.Seen(), c.Rows)
	}
	return filter.Taken(), nil
}

// storeChunk stores what has been written of a table, unless that is nothing.
func (r *roller) storeChunk(ctx context.Context, table int, w *pgbase.Chunk) error {
	if w.Rows.Rows == 0 {
		return nil
	}
	if err := w.Close(); err != nil {
		return err
	}
	o, err := r.archive.CreateObject(ctx, r.base, r.name(table), w.Body, w.Body.Size())
	if err != nil {
		return err
	}
	o.Raw, o.Rows = w.Raw, w.Rows.Rows
	r.stored(table, o, w.Rows.Sum)
	return nil
}

// name returns the name of a table's next object.
func (r *roller) name(table int) string {
	t := &r.rolled[table]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.objects++
	return fmt.Sprintf("data/%d/%06d.copy.zst", r.tables[table].OID, t.objects-1)
}

func (r *roller) stored(table int, o archive.BaseObject, rows rowsum.Sum) {
	t := &r.rolled[table]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chunks = append(t.chunks, o)
	t.rows.Merge(rows)
}

// describe fills in the manifest.
func (r *roller) describe(ctx context.Context, f *fold.Fold) error {
	if err := r.describeTables(ctx, f); err != nil {
		return err
	}
	for _, o := range r.plan.Base.Objects {
		copied, err := r.copy(ctx, o)
		if err != nil {
			return err
		}
		r.base.Objects = append(r.base.Objects, copied)
	}
	if err := r.moveSequences(ctx); err != nil {
		return err
	}
	globals, err := GlobalsAt(ctx, r.archive, r.plan)
	if err != nil {
		return err
	}
	if globals != nil {
		r.engine.Globals = globals
	}
	r.engine.Snapshot, r.engine.Visible, r.engine.Slot = "", nil, "" // no snapshot saw what it holds
	r.base.Engine, err = json.Marshal(r.engine)
	return err
}

func (r *roller) describeTables(ctx context.Context, f *fold.Fold) error {
	number := make(map[string]int, len(r.tables))
	for i := range r.tables {
		number[r.tables[i].name()] = i
	}
	for i := range r.plan.Base.Tables {
		t := r.plan.Base.Tables[i]
		k, restored := number[t.Schema+"."+t.Name]
		if !restored || !r.rolled[k].touched { // our own are what they were: nobody restores them
			chunks := t.Chunks
			t.Chunks = nil
			for _, o := range chunks {
				copied, err := r.copy(ctx, o)
				if err != nil {
					return err
				}
				t.Chunks = append(t.Chunks, copied)
			}
			r.base.Tables = append(r.base.Tables, t)
			continue
		}
		done, res := &r.rolled[k], f.Result(k)
		want := res.Delta
		if !res.Truncated {
			want += t.Rows
		}
		if done.rows.Rows != want {
			return fmt.Errorf("%w: table %s comes to %d rows, and has %d", fold.ErrContradiction, r.tables[k].name(), want, done.rows.Rows)
		}
		t.Rows, t.Chunks = done.rows.Rows, done.chunks
		if len(r.tables[k].Columns) > 0 {
			t.Content = done.rows.Content()
		}
		r.base.Tables = append(r.base.Tables, t)
	}
	return nil
}

// copy stores an object of the base as one of the new base.
func (r *roller) copy(ctx context.Context, o archive.BaseObject) (archive.BaseObject, error) {
	key := r.plan.Base.Key(o.Name)
	fail := func(err error) (archive.BaseObject, error) { return o, fmt.Errorf("copy %s: %w", key, err) }
	in, _, err := r.archive.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	body := newSpill(r.SpillDir)
	defer body.Reset()
	if _, err := io.Copy(body, in); err != nil {
		return fail(err)
	}
	copied, err := r.archive.CreateObject(ctx, r.base, o.Name, body, body.Size())
	if err != nil {
		return fail(err)
	}
	if copied.SHA256 != o.SHA256 {
		return fail(fmt.Errorf("%w: it has SHA-256 %s, the manifest says %s", archive.ErrCorrupt, copied.SHA256, o.SHA256))
	}
	return o, nil
}

// moveSequences notes how far the sequences had come, as the first sample at or behind the cut tells or else the last one
// before. A restore goes by the samples too, where they prove more.
func (r *roller) moveSequences(ctx context.Context) error {
	known, _, err := readSamples(ctx, r.archive, r.plan) // what is damaged proves nothing
	if err != nil {
		return fmt.Errorf("read the samples of sequences: %w", err)
	}
	for i := range r.engine.Sequences {
		s := &r.engine.Sequences[i]
		for _, sample := range []sampled{known.first, known.last} {
			if v := sample.of(s.Name); v != nil {
				s.Last, s.Called = v.last, v.called
				break
			}
		}
	}
	return nil
}

// GlobalsAt returns the roles and settings that the record has for a plan's cut; nil where its base has the last that are known.
func GlobalsAt(ctx context.Context, a *archive.Archive, p *restore.Plan) (*pgbase.Globals, error) {
	last, _, err := a.FindGlobals(ctx, p.Epoch, func(g *archive.Globals) (bool, error) {
		c, err := compare(g.Position, p.Cut.Position)
		return c <= 0, err
	})
	if err != nil || last == nil {
		return nil, err
	}
	if c, err := compare(last.Position, p.Base.Position); err != nil || c <= 0 {
		return nil, err
	}
	g := &pgbase.Globals{}
	if err := json.Unmarshal(last.State, g); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, last.Key(), err)
	}
	return g, nil
}
