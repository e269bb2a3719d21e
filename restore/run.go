package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/failpoint"
)

// Options are how a restore runs. The zero value is quiet and uses every processor.
type Options struct {
	Log      zerolog.Logger
	Jobs     int      // parallel connections to the target; zero means one per processor
	Force    bool     // accept a target that is not empty
	SpillDir string   // for segments that do not fit into memory; "" is the system's temporary folder
	Progress Progress // nil means none
	Verify   Level    // how closely the result is looked at
	Who      string   // restores: a prune of the archive that waits for it says so
}

// Run carries a plan out. It returns a Report only when the target provably holds
// the plan's cut (Invariant 8). When it stops after it has begun to write, the error
// is a *PartialError, and the same call continues.
func Run(ctx context.Context, a *archive.Archive, p *Plan, t Target, o Options) (*Report, error) {
	r := runner{archive: a, plan: p, target: t, opts: o, report: newReport(p)}
	var mu sync.Mutex
	job := &Job{Archive: a, Plan: p, Workers: o.Jobs, Force: o.Force, Verify: o.Verify, Progress: func(ph Phase, done, total int64, unit string) {
		if o.Progress != nil {
			mu.Lock()
			defer mu.Unlock()
			o.Progress(ph, done, total, unit)
		}
	}}
	if job.Workers <= 0 {
		job.Workers = max(runtime.GOMAXPROCS(0), 1)
	}
	r.progress = job.Progress

	started := time.Now()
	err := r.phase(PhaseCheck, func() (err error) {
		r.report.Resumed, err = t.Check(ctx, job)
		return err
	})
	if err != nil {
		return nil, err // nothing was written
	}
	unpin, err := a.PinBase(ctx, p.Base, "a restore by "+o.Who) // whoever may only read goes without
	defer unpin()
	if errors.Is(err, archive.ErrPruned) {
		return nil, fmt.Errorf("%w: run the restore again, which will begin with another base", err)
	}
	steps := []struct {
		phase Phase
		do    func() error
	}{
		{PhaseBase, func() error { return t.Load(ctx) }},
		{PhaseKeys, func() (err error) { r.held, err = t.Prepare(ctx); return err }},
		{PhaseReplay, func() error { return r.replay(ctx) }},
		{PhaseFinish, func() error { return t.Finish(ctx) }},
		{PhaseVerify, func() error { return r.verify(ctx) }},
	}
	for _, s := range steps {
		if err := r.phase(s.phase, s.do); err != nil {
			partial := &PartialError{Phase: s.phase, Applied: t.Applied(), Err: err}
			var rec *RecordError
			if errors.As(err, &rec) {
				partial.Failed, partial.Err = rec.Seq, rec.Err
			}
			return nil, partial
		}
	}
	r.report.Seconds = time.Since(started).Seconds()
	return r.report, nil
}

type runner struct {
	archive  *archive.Archive
	plan     *Plan
	target   Target
	opts     Options
	progress Progress
	report   *Report
	held     change.Seq // what the target held when the replay began
}

func (r *runner) phase(name Phase, do func() error) error {
	failpoint.Step("restore-begin", string(name))
	started := time.Now()
	err := do()
	took := time.Since(started)
	if err == nil {
		r.report.Phases = append(r.report.Phases, PhaseTime{Phase: name, Seconds: took.Seconds()})
		r.opts.Log.Info().Str("phase", string(name)).Dur("took", took).Msg("restore phase done")
		failpoint.Step("restore-end", string(name))
	}
	return err
}

// replay lets the target apply the records from what it holds to the cut.
func (r *runner) replay(ctx context.Context) error {
	if r.held < r.plan.Base.Seq || r.held > r.plan.Seq {
		return fmt.Errorf("the target says it holds transaction %s, the plan goes from %s to %s", r.held, r.plan.Base.Seq, r.plan.Seq)
	}
	if r.held < r.plan.Seq || len(r.plan.Mends) > 0 {
		err := r.target.Replay(ctx, func(after change.Seq) *archive.Stream {
			return r.archive.Stream(ctx, r.plan.Epoch, after+1, r.plan.Seq, r.opts.SpillDir)
		})
		if err != nil {
			return err
		}
		total := int64(r.plan.Seq - r.plan.Base.Seq)
		r.progress(PhaseReplay, total, total, "transactions")
	}
	if got := r.target.Applied(); got != r.plan.Seq {
		return fmt.Errorf("the replay ended and the target holds transaction %s, not %s", got, r.plan.Seq)
	}
	return nil
}

func (r *runner) verify(ctx context.Context) error {
	v, err := r.target.Verify(ctx)
	if err != nil {
		return err
	}
	r.report.Tables, r.report.Sequences, r.report.Globals, r.report.Warnings = v.Tables, v.Sequences, v.Globals, v.Warnings
	r.report.Folded, r.report.Merged, r.report.Overwritten = v.Folded, v.Merged, v.Overwritten
	for _, w := range v.Warnings {
		r.opts.Log.Warn().Msg(w)
	}
	failpoint.Hit(failpoint.RestoreReleasing)
	return r.target.Release(ctx)
}
