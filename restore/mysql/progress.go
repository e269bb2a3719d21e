package mysql

import (
	"context"
	"fmt"
	"slices"

	"txreel/internal/failpoint"
	"txreel/restore"
)

// bookSchema holds what a restore notes in the target for itself.
const bookSchema = "txreel_restore"

// bookSQL creates it. progress has one row: which restore this is and how far it got;
// it is written last, so that a book without it is none. settings holds the server's variables as they were
// before the restore changed them, chunks the pieces of the base that are loaded, events the states that EVENT
// objects were given by the statements that were replayed, warnings the tables whose rows the target has numbered by itself.
var bookSQL = []string{
	"DROP DATABASE IF EXISTS txreel_restore",
	"CREATE DATABASE txreel_restore CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	"CREATE TABLE txreel_restore.settings (name VARCHAR(64) PRIMARY KEY, value TEXT NOT NULL) ENGINE=InnoDB",
	"CREATE TABLE txreel_restore.chunks (name VARCHAR(512) PRIMARY KEY, row_count BIGINT NOT NULL) ENGINE=InnoDB",
	"CREATE TABLE txreel_restore.events (db VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, state VARCHAR(32) NOT NULL, PRIMARY KEY (db, name)) ENGINE=InnoDB",
	"CREATE TABLE txreel_restore.warnings (id VARCHAR(200) PRIMARY KEY) ENGINE=InnoDB",
	"CREATE TABLE txreel_restore.progress (id INT PRIMARY KEY, archive VARCHAR(64) NOT NULL, epoch VARCHAR(20) NOT NULL, " +
		"base VARCHAR(64) NOT NULL, cut VARCHAR(16) NOT NULL, phase VARCHAR(16) NOT NULL) ENGINE=InnoDB",
}

// phase says how far a restore has come in the target.
type phase string

// The phases, in order.
const (
	phaseNone   phase = ""       // there is no book
	phaseBase   phase = "base"   // schema and base are being loaded
	phaseLoaded phase = "loaded" // the base is whole; what is executed is not set yet
	phaseReplay phase = "replay"
	phaseFinish phase = "finish" // everything up to the cut is executed
)

// plan identifies a restore: two runs with the same values do the same.
func (t *Target) plan() [4]string {
	p := t.job.Plan
	return [4]string{p.Archive, fmt.Sprint(p.Epoch), p.Base.ID, p.Seq.String()}
}

// checkProgress looks for an interrupted restore in the target. One with another
// plan is an error.
func (t *Target) checkProgress(ctx context.Context) (phase, error) {
	if there, err := t.hasBookTable(ctx, "progress"); err != nil || !there {
		return phaseNone, err
	}
	rows, err := t.control.query(ctx, "SELECT archive, epoch, base, cut, phase FROM txreel_restore.progress")
	if err != nil {
		return phaseNone, fmt.Errorf("read the progress of an interrupted restore (schema %s of the target): %w", bookSchema, err)
	}
	if len(rows) == 0 {
		return phaseNone, nil
	}
	if err := t.checkKind(ctx); err != nil {
		return phaseNone, err
	}
	have := [4]string{rows[0].text(0), rows[0].text(1), rows[0].text(2), rows[0].text(3)}
	if want := t.plan(); have != want {
		return phaseNone, fmt.Errorf("%w: an interrupted one of archive %s to --to-seq %s --epoch %s from base %s; this one is of archive %s to --to-seq %s --epoch %s from base %s: "+
			"name the same point to continue it, or restore into a fresh server", restore.ErrOtherRestore,
			have[0], have[3], have[1], have[2], want[0], want[3], want[1], want[2])
	}
	return phase(rows[0].text(4)), nil
}

// openBook makes the book of a restore that begins.
func (t *Target) openBook(ctx context.Context) error {
	statements := bookSQL
	if t.scratch {
		statements = append(slices.Clone(statements), scratchSQL)
	}
	for _, sql := range statements {
		if err := t.control.exec(ctx, sql); err != nil {
			return fmt.Errorf("make schema %s in the target: %w", bookSchema, err)
		}
	}
	p := t.plan()
	err := t.control.exec(ctx, fmt.Sprintf("INSERT INTO txreel_restore.progress VALUES (1, %s, %s, %s, %s, %s)",
		literal(p[0]), literal(p[1]), literal(p[2]), literal(p[3]), literal(string(phaseBase))))
	if err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	t.phase = phaseBase
	failpoint.Hit(failpoint.RestoreBookOpened)
	return nil
}

// enter notes that a phase begins.
func (t *Target) enter(ctx context.Context, p phase) error {
	if err := t.control.exec(ctx, "UPDATE txreel_restore.progress SET phase = "+literal(string(p))); err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	t.phase = p
	failpoint.Hit(failpoint.RestorePhaseNoted)
	return nil
}

// Release implements restore.Target.
func (t *Target) Release(ctx context.Context) error {
	if err := t.control.exec(ctx, "DROP DATABASE "+bookSchema); err != nil {
		return fmt.Errorf("remove schema %s from the target: %w", bookSchema, err)
	}
	return nil
}
