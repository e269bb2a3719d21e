package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"txreel/change"
	"txreel/restore"
	"txreel/sources/postgres/ddl"
)

// bookSchema holds what a restore notes in the target for itself.
const bookSchema = "txreel_restore"

// bookSQL creates it. progress has one row: which restore this is and how far
// it got. chunks and entries name the chunks of data and the objects of the schema that
// are done; taken is how many of a chunk's rows the record had something to say about. fold has one row: up to which transaction the record is
// folded into the load, in how many passes, of which some have put the record's rows in, and some the base's too. identities are columns that must become GENERATED ALWAYS again, helpers
// indexes that must go, triggers those that must be switched on again. inexact names tables that changes of definitions have
// filled with values of which the record holds none, mends the partial bases whose tables have been put in place. aside are tables without rows, of which a partial restore's others are made. merged has the stretches of the record that were
// merged, and into which tables, by their numbers in the source, which hold them ahead of the others. relations has which table of the target is which of the source. The functions describe objects as the source's log of definitions does.
var bookSQL = `
CREATE SCHEMA txreel_restore;
CREATE TABLE txreel_restore.progress (archive text, epoch text, base text, cut text, chosen text, seq text, rows text);
CREATE TABLE txreel_restore.chunks (name text PRIMARY KEY, rows int8, taken int8 NOT NULL DEFAULT 0);
CREATE TABLE txreel_restore.fold (upto text, passes int4, filled int4, filling bool, done int4);
CREATE TABLE txreel_restore.entries (id int4 PRIMARY KEY);
CREATE TABLE txreel_restore.identities (tab text, col text);
CREATE TABLE txreel_restore.helpers (tab text PRIMARY KEY, name text);
CREATE TABLE txreel_restore.triggers (tab text, what text, mode text);
CREATE TABLE txreel_restore.inexact (relation oid, seq text, why text);
CREATE TABLE txreel_restore.mends (base text PRIMARY KEY);
CREATE TABLE txreel_restore.aside (relation oid);
CREATE TABLE txreel_restore.merged (since text, upto text, relations int8[]);
CREATE TABLE txreel_restore.relations (source int8 PRIMARY KEY, target oid);
` + ddl.Describe(bookSchema)

// plan identifies a restore: two runs with the same values do the same.
func (t *Target) plan() [5]string {
	p := t.job.Plan
	chosen := "everything"
	if p.Partial != nil {
		chosen = p.Partial.Asked
	}
	return [5]string{p.Archive, fmt.Sprint(p.Epoch), p.Base.ID, p.Seq.String(), chosen}
}

// checkProgress looks for an interrupted restore in the target. One with another
// plan is an error.
func (t *Target) checkProgress(ctx context.Context) (bool, error) {
	var exists bool
	err := t.control.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", bookSchema).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for an interrupted restore: %w", err)
	}
	if !exists {
		return false, nil
	}
	var have [5]string
	err = t.control.QueryRow(ctx, "SELECT archive, epoch, base, cut, chosen FROM txreel_restore.progress").Scan(&have[0], &have[1], &have[2], &have[3], &have[4])
	if err != nil {
		return false, fmt.Errorf("read the progress of an interrupted restore (schema %s of the target): %w", bookSchema, err)
	}
	if want := t.plan(); have != want {
		return false, fmt.Errorf("%w: an interrupted one of archive %s, %s to --to-seq %s --epoch %s from base %s; this one is of archive %s, %s to --to-seq %s --epoch %s from base %s: "+
			"name the same point and the same tables to continue it, or restore into a fresh database", restore.ErrOtherRestore,
			have[0], have[4], have[3], have[1], have[2], want[0], want[4], want[3], want[1], want[2])
	}
	return true, nil
}

// state reads how far the target is, and how many rows its tables must have.
func (t *Target) state(ctx context.Context) (change.Seq, map[string]int64, error) {
	var seq, rows string
	if err := t.control.QueryRow(ctx, "SELECT seq, rows FROM txreel_restore.progress").Scan(&seq, &rows); err != nil {
		return 0, nil, fmt.Errorf("read the restore's progress: %w", err)
	}
	s, err := change.ParseSeq(seq)
	if err != nil {
		return 0, nil, fmt.Errorf("read the restore's progress: %w", err)
	}
	counts := make(map[string]int64)
	if err := json.Unmarshal([]byte(rows), &counts); err != nil {
		return 0, nil, fmt.Errorf("read the restore's progress: %w", err)
	}
	return s, counts, nil
}

// doneNames returns a column of one of the book's tables as a set.
func (t *Target) doneNames(ctx context.Context, sql string) (map[string]bool, error) {
	rows, err := t.control.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("read the restore's progress: %w", err)
	}
	defer rows.Close()
	done := make(map[string]bool)
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read the restore's progress: %w", err)
		}
		done[name] = true
	}
	return done, rows.Err()
}

// Release implements restore.Target.
func (t *Target) Release(ctx context.Context) (err error) {
	defer t.lost(&err)
	// The control session waits for the disk: when this commit is durable, so is every
	// one before it.
	if err := run(ctx, t.control, "DROP SCHEMA txreel_restore CASCADE"); err != nil {
		return fmt.Errorf("remove schema %s from the target: %w", bookSchema, err)
	}
	return nil
}
