package restore

import (
	"errors"
	"fmt"
	"strings"

	"txreel/change"
)

// Errors that callers tell apart.
var (
	// ErrNotInArchive is matched by errors that say the point asked for is not one
	// the archive can prove. The command line turns it into exit code 6.
	ErrNotInArchive = errors.New("point not in the archive")
	// ErrDefinitionChanged is matched by errors that say a table's definition
	// changed between the base and the point asked for.
	ErrDefinitionChanged = errors.New("a table's definition changes on the way")
	// ErrNotEmpty is matched when the target holds something that is not ours to overwrite.
	ErrNotEmpty = errors.New("target is not empty")
	// ErrNoBase is matched by errors that say the base asked for is not one that the restore can begin with.
	ErrNoBase = errors.New("no base to begin with")
	// ErrOtherRestore is matched when the target holds an interrupted restore with another plan.
	ErrOtherRestore = errors.New("target holds another restore")
)

// PointError says that a point is not in the archive, and which ones near it are.
type PointError struct {
	Goal    Goal
	Detail  string
	Nearest []string // points that exist, as options of the command line
}

// Error implements error.
func (e *PointError) Error() string {
	s := fmt.Sprintf("%s is not in the archive: %s", e.Goal, e.Detail)
	if len(e.Nearest) > 0 {
		s += "; what exists: " + strings.Join(e.Nearest, ", ")
	}
	return s
}

// Unwrap makes it an ErrNotInArchive.
func (e *PointError) Unwrap() error { return ErrNotInArchive }

// DefinitionError says that a point cannot be reached exactly, since a table has
// another definition there than in the base, and which points near it can.
type DefinitionError struct {
	Goal   Goal
	Epoch  uint64
	Table  string
	First  change.Txn // the first transaction that writes with the other definition
	Before change.Seq // the last point that is exact
	After  change.Seq // the first point behind it that is exact; zero when there is none
	Absent bool       // the base does not have the table at all
}

// Error implements error.
func (e *DefinitionError) Error() string {
	what := "has another definition than in the base snapshot"
	if e.Absent {
		what = "does not exist in the base snapshot"
	}
	s := fmt.Sprintf("%s cannot be reached exactly: table %s %s from transaction %s (id %s, %s) on; "+
		"the nearest exact points are --to-seq %s", e.Goal, e.Table, what, e.First.Seq, e.First.XID, e.First.CommitTime, e.Before)
	if e.After > 0 {
		return s + fmt.Sprintf(" before it and --to-seq %s, the next base snapshot, after it", e.After)
	}
	return s + " before it, and none after it until the next base snapshot: take one with `txreel base`"
}

// Unwrap makes it an ErrDefinitionChanged.
func (e *DefinitionError) Unwrap() error { return ErrDefinitionChanged }

// RecordError is returned by a Target for a transaction that could not be applied.
type RecordError struct {
	Seq change.Seq
	Err error
}

// Error implements error.
func (e *RecordError) Error() string { return fmt.Sprintf("transaction %s: %v", e.Seq, e.Err) }

// Unwrap gives the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// PartialError is returned when a restore stops after it has begun to write.
// The same restore, run again, continues.
type PartialError struct {
	Phase   Phase
	Applied change.Seq // the last transaction the target holds; zero before the base is whole
	Failed  change.Seq // the transaction that failed; zero outside the replay
	Err     error
}

// Error implements error.
func (e *PartialError) Error() string {
	switch {
	case e.Failed > 0:
		return fmt.Sprintf("restore stopped at transaction %s, the target holds those up to %s: %v", e.Failed, e.Applied, e.Err)
	case e.Applied > 0:
		return fmt.Sprintf("restore stopped in phase %q with the changes up to %s applied: %v", e.Phase, e.Applied, e.Err)
	}
	return fmt.Sprintf("restore stopped in phase %q: %v", e.Phase, e.Err)
}

// Unwrap gives the cause.
func (e *PartialError) Unwrap() error { return e.Err }

// ErrUnreachable is matched when the target cannot be reached now but may be
// later. The command line turns it into exit code 7.
var ErrUnreachable = errors.New("target unreachable")
