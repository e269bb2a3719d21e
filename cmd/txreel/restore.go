package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
	"txreel/restore"
	pgtarget "txreel/restore/postgres"
)

type restoreCmd struct {
	archiveFlag
	Target     string   `placeholder:"URL" help:"The empty database, or with MySQL and MariaDB the fresh server, to restore into. Not needed with --dry-run."`
	To         string   `xor:"point" placeholder:"latest" help:"latest: everything the archive holds (the default)."`
	ToTxn      string   `xor:"point" placeholder:"ID" help:"The transaction with the source's own id: a transaction id, or a GTID."`
	ToPosition string   `xor:"point" placeholder:"POSITION" help:"The last transaction that ends at or before the position: an LSN, or a GTID set or binlog file:offset."`
	ToTime     string   `xor:"point" placeholder:"TIME" help:"The moment, such as 2026-01-31T17:04:05Z or \"5 minutes ago\"."`
	ToSeq      string   `xor:"point" placeholder:"SEQ" help:"The transaction with this Seq, as 'txreel log' prints it."`
	ToMark     string   `xor:"point" placeholder:"NAME" help:"The mark."`
	Before     bool     `help:"Exclude the point itself: stop just before it."`
	Epoch      uint64   `placeholder:"N" help:"The epoch (default: the last one, or the newest that holds the point)."`
	Base       string   `placeholder:"ID" help:"The base snapshot to begin with, as 'txreel status' names it (default: the last one before the point)."`
	Table      []string `placeholder:"PATTERN" help:"PostgreSQL: only this table, with what it is made of: schema.table or table, * stands for anything (repeatable)."`
	Schema     []string `placeholder:"NAME" help:"PostgreSQL: only what is in this schema (repeatable)."`
	IntoSchema string   `placeholder:"NAME" help:"PostgreSQL: put the tables, which must be of one schema, into this new or empty one of a database in use, and touch nothing else there."`
	Verify     string   `enum:"content,rows" default:"content" help:"content: when all is restored, compare the content of every table for which the record has it, and of the others the number of rows. rows: only the number of rows."`
	DryRun     bool     `help:"Print the plan and write nothing."`
	Force      bool     `help:"Restore into a database that is not empty."`
	NoOwner    bool     `help:"PostgreSQL: leave out owners and grants."`
	Globals    bool     `help:"PostgreSQL: make roles, memberships and settings too, as they were; never their passwords, and no tablespaces."`
	Exact      bool     `help:"Replay every change of every transaction, where otherwise only what they have come to together is written (MySQL and MariaDB: where updates are left out that later transactions overwrite)."`
	MergeFrom  uint64   `hidden:"" placeholder:"N" help:"PostgreSQL: reduce so many changes of rows or more between two changes of definitions to what they have come to."`
	Memory     byteSize `default:"1GiB" help:"What working that out may take; with less, PostgreSQL's record is read several times, and of MySQL's and MariaDB's fewer updates are left out."`
	Jobs       int      `placeholder:"N" help:"Parallel connections to the target (default: one for each processor)."`
	PgRestore  string   `placeholder:"PATH" help:"PostgreSQL: the pg_restore to use (default: the one on PATH if it is new enough, else the newest installed)."`
	mysqlTargetFlags
	SpillDir  string `placeholder:"DIR" help:"Where huge segments wait to be read (default: the system's temporary folder)."`
	JSON      bool   `help:"Print JSON."`
	LogFormat string `enum:"auto,json,text" default:"auto" help:"auto, json or text: auto is text on a terminal."`
}

// goal turns the flags into what restore understands.
func (c *restoreCmd) goal() (restore.Goal, error) {
	g := restore.Goal{Before: c.Before, Epoch: c.Epoch, Base: c.Base}
	var err error
	switch {
	case c.ToTxn != "":
		g.Kind, g.Text = restore.AtXID, c.ToTxn
	case c.ToPosition != "":
		g.Kind, g.Text = restore.AtPosition, c.ToPosition
	case c.ToMark != "":
		g.Kind, g.Text = restore.AtMark, c.ToMark
	case c.ToTime != "":
		g.Kind = restore.AtTime
		g.Time, err = parseTime(c.ToTime, time.Now())
	case c.ToSeq != "":
		g.Kind = restore.AtSeq
		g.Seq, err = change.ParseSeq(c.ToSeq)
	case c.To != "" && c.To != "latest":
		err = fmt.Errorf("--to takes latest; for %q use --to-txn, --to-position, --to-time, --to-seq or --to-mark", c.To)
	}
	if err != nil {
		err = &usageError{err.Error()}
	}
	return g, err
}

// level is how closely the result is looked at.
func (c *restoreCmd) level() restore.Level {
	if c.Verify == "rows" {
		return restore.VerifyRows
	}
	return restore.VerifyContent
}

// checkNotation refuses a goal that is not in the source's own notation.
func checkNotation(d restore.Dialect, g restore.Goal) (err error) {
	switch g.Kind {
	case restore.AtXID:
		_, err = d.XID(g.Text)
	case restore.AtPosition:
		_, err = d.Position(g.Text, g.Before)
	}
	if err != nil {
		err = &usageError{err.Error()}
	}
	return err
}

// restoreTarget is an open restore.Target.
type restoreTarget interface {
	restore.Target
	Close()
}

// restorer says how an archive of the engine is restored.
func (c *restoreCmd) restorer(engine string) (restore.Dialect, func(ctx context.Context, p *restore.Plan) (restoreTarget, error), error) {
	switch engine {
	case enginePostgres:
		return pgtarget.Dialect{Exact: c.Exact}, func(ctx context.Context, p *restore.Plan) (restoreTarget, error) {
			o := pgtarget.Options{PgRestore: c.PgRestore, NoOwner: c.NoOwner, Globals: c.Globals, TempDir: c.SpillDir, Exact: c.Exact, Memory: int64(c.Memory), MergeFrom: c.MergeFrom}
			if c.IntoSchema != "" {
				return pgtarget.OpenInto(ctx, c.Target, c.IntoSchema, p, o)
			}
			return pgtarget.Open(ctx, c.Target, o)
		}, nil
	case engineMySQL, engineMariaDB:
		dialect, open := c.mysqlRestorer(engine)
		return dialect, func(ctx context.Context, _ *restore.Plan) (restoreTarget, error) { return open(ctx) }, nil
	}
	return nil, nil, fmt.Errorf("the archive records %s, which this build cannot restore", engine)
}

// folding is how many bytes the restore may take to fold the record.
func (c *restoreCmd) folding(engine string) int64 {
	if engine != enginePostgres || c.Exact {
		return 0
	}
	return int64(c.Memory)
}

// selection is what of the database is asked for.
func (c *restoreCmd) selection() (s restore.Selection, err error) {
	for _, text := range c.Table {
		match, err := audit.TablePattern(text)
		if err != nil {
			return s, &usageError{err.Error()}
		}
		s.Tables = append(s.Tables, restore.Pattern{Text: text, Match: match})
	}
	for _, name := range c.Schema {
		if name == "" {
			return s, &usageError{"--schema takes the name of a schema"}
		}
	}
	s.Schemas = c.Schema
	return s, nil
}

// chooser finds out what of a base is asked for; nil for all of it.
func (c *restoreCmd) chooser(ar *archive.Archive) (restore.Chooser, error) {
	s, err := c.selection()
	switch {
	case err == nil && s.Empty() && c.IntoSchema != "":
		return nil, &usageError{"--into-schema goes with --table or --schema, which name the tables"}
	case err != nil || s.Empty():
		return nil, err
	case ar.Identity.Engine != enginePostgres:
		return nil, &usageError{"--table and --schema go with a record of PostgreSQL so far; this one is of " + ar.Identity.Engine + ": restore all of it, and take what you need from there"}
	case c.Globals:
		return nil, &usageError{"--globals makes what belongs to the whole server, and --table and --schema restore a part of the database: give one of them"}
	}
	return pgtarget.Chooser(ar, s, pgtarget.Options{PgRestore: c.PgRestore, TempDir: c.SpillDir}), nil
}

// checkInto refuses tables of several schemas where they are to go into one.
func (c *restoreCmd) checkInto(p *restore.Plan) error {
	if c.IntoSchema == "" {
		return nil
	}
	if n := p.Partial.Schemas; len(n) != 1 {
		return &usageError{"--into-schema takes tables of one schema, and these and what they are made of are of " + strings.Join(n, ", ") + ": choose those of one, or restore into a database of their own"}
	}
	p.Partial.Into = c.IntoSchema
	return nil
}

// checkGlobals refuses --globals where it means nothing.
func (c *restoreCmd) checkGlobals(engine string) error {
	switch {
	case c.Globals && engine != enginePostgres:
		return &usageError{"--globals goes with a record of PostgreSQL; this one is of " + engine}
	case c.Globals && c.NoOwner:
		return &usageError{"--globals makes owners and grantees, which --no-owner leaves out: give one of them"}
	}
	return nil
}

// planGlobals says what a restore would make of roles and settings; with a target, what of it that lacks.
func (c *restoreCmd) planGlobals(ctx context.Context, ar *archive.Archive, plan *restore.Plan) (err error) {
	switch {
	case !c.Globals:
		return nil
	case c.Target == "":
		plan.Globals, err = pgtarget.PlanGlobals(ctx, ar, plan)
		return err
	}
	t, err := pgtarget.Open(ctx, c.Target, pgtarget.Options{})
	if err != nil {
		return err
	}
	defer t.Close()
	plan.Globals, err = t.PlanGlobals(ctx, ar, plan)
	return err
}

// Run implements the command.
func (c *restoreCmd) Run(a *app) error {
	goal, err := c.goal()
	if err != nil {
		return err
	}
	if c.Target == "" && !c.DryRun {
		return &usageError{"name the database to restore into with --target, or ask for the plan with --dry-run"}
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	boundMemory(c.folding(ar.Identity.Engine))
	dialect, open, err := c.restorer(ar.Identity.Engine)
	if err != nil {
		return err
	}
	if err := c.checkGlobals(ar.Identity.Engine); err != nil {
		return err
	}
	if err := checkNotation(dialect, goal); err != nil {
		return err
	}
	choose, err := c.chooser(ar)
	if err != nil {
		return err
	}
	plan, err := restore.MakePartialPlan(a.ctx, ar, dialect, goal, choose)
	var unmatched *restore.UnmatchedError
	if errors.Is(err, restore.ErrNoBase) || errors.As(err, &unmatched) {
		return &usageError{err.Error()}
	}
	if err != nil {
		return err
	}
	if err := c.checkInto(plan); err != nil {
		return err
	}
	if ar.Identity.Engine == enginePostgres && !c.Globals && !c.NoOwner {
		if plan.Roles, err = pgtarget.NamedRoles(plan); err != nil {
			return err
		}
		if plan.Partial != nil {
			plan.Roles = plan.Partial.Roles
		}
	}
	if c.DryRun {
		if err := c.planGlobals(a.ctx, ar, plan); err != nil {
			return err
		}
		if c.JSON {
			return writeJSON(a.stdout, plan)
		}
		_, err := fmt.Fprint(a.stdout, plan)
		return err
	}
	target, err := open(a.ctx, plan)
	if err != nil {
		return err
	}
	defer target.Close()
	if !c.JSON {
		fmt.Fprint(a.stderr, plan)
	}
	bars := newBars(a.stderr, c.JSON)
	report, err := restore.Run(a.ctx, ar, plan, target, restore.Options{
		Log: newLogger(bars, c.LogFormat, isTerminal(a.stderr)), Jobs: c.Jobs, Force: c.Force, SpillDir: c.SpillDir, Verify: c.level(), Who: whoami(),
		Progress: func(phase restore.Phase, done, total int64, unit string) {
			bars.set(string(phase), done, total, fmt.Sprintf("%s of %s %s", humanize.Comma(done), humanize.Comma(total), unit))
		},
	})
	bars.close()
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.stdout, report)
	}
	_, err = fmt.Fprint(a.stdout, report)
	return err
}
