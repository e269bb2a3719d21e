package restore

import (
	"context"

	"txreel/archive"
	"txreel/change"
)

// Phase names a part of a restore.
type Phase string

// The phases, in order.
const (
	PhaseCheck  Phase = "check"
	PhaseBase   Phase = "base"
	PhaseKeys   Phase = "keys"
	PhaseReplay Phase = "replay"
	PhaseFinish Phase = "finish"
	PhaseVerify Phase = "verify"
)

// Job is one restore as a Target sees it.
type Job struct {
	Archive *archive.Archive
	Plan    *Plan
	Workers int  // parallel connections, at least 1
	Force   bool // the user accepts a target that is not empty
	Verify  Level
	// Progress reports how far the phase is; it may be called from several goroutines.
	Progress Progress
}

// Progress is told how far a phase is. total is zero where it is not known. Run never
// calls it from two goroutines at once.
type Progress func(phase Phase, done, total int64, unit string)

// Target is a database being restored into. Run calls the methods in the order they
// stand in, from one goroutine. Each of Load to Finish must be able to continue
// what an interrupted run of the same plan has begun: a process may die at any
// instruction, so what is done is on record in the target, in the same transaction.
type Target interface {
	// Check refuses a target the plan must not go to, and writes nothing. It reports whether
	// the target holds an interrupted restore of the same plan.
	Check(ctx context.Context, j *Job) (resumed bool, err error)
	// Load creates the schema and loads the base.
	Load(ctx context.Context) error
	// Prepare makes the target ready for the changes and returns the last transaction it holds.
	Prepare(ctx context.Context) (change.Seq, error)
	// Replay applies the transactions behind that one up to the plan's cut, and returns
	// once the target has committed them. open delivers the records behind a transaction,
	// with the definitions they need; it may be called again, for a target that has lost
	// what was on its way. The streams must be closed. An error about a transaction is a *RecordError.
	Replay(ctx context.Context, open func(after change.Seq) *archive.Stream) error
	// Applied returns the last transaction the target is known to have committed.
	Applied() change.Seq
	// Finish builds what the replay did without: indexes, constraints, triggers.
	Finish(ctx context.Context) error
	// Verify proves that the target holds the plan's cut, and nothing besides; an
	// error means that it does not (Invariant 8).
	Verify(ctx context.Context) (*Verification, error)
	// Release removes what the restore kept in the target for itself.
	Release(ctx context.Context) error
}

// Verification is what a Target found when it looked at itself.
type Verification struct {
	Tables   []TableRows `json:"tables"`
	Warnings []string    `json:"warnings,omitempty"`
	// Sequences says what the values of sequences rest on; nil where they are in the log like all else.
	Sequences *Sequences `json:"sequences,omitempty"`
	// Globals says what has become of roles and settings; nil unless they were asked for.
	Globals *Globals `json:"globals,omitempty"`
	// Folded is Report.Folded; zero when every transaction was replayed by itself.
	Folded change.Seq `json:"folded_to,omitempty"`
	// Merged is Report.Merged.
	Merged int64 `json:"merged,omitempty"`
	// Overwritten is Report.Overwritten.
	Overwritten int64 `json:"overwritten_rows,omitempty"`
}

// TableRows is the number of rows of a restored table.
type TableRows struct {
	Table    string   `json:"table"` // schema and name, unquoted
	Rows     int64    `json:"rows"`
	Verified Evidence `json:"verified"`
}
