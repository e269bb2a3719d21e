package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"txreel/sources"
	"txreel/sources/postgres"
)

type setupCmd struct {
	sourceFlag
	slotFlags
	Role   string   `placeholder:"NAME" help:"Also create, or equip, the role that captures will log in as."`
	Tables []string `name:"table" placeholder:"SCHEMA.TABLE" help:"Record only this table (repeatable; default: all tables, also future ones)."`
	Apply  bool     `xor:"do" help:"Run the statements."`
	Remove bool     `xor:"do" help:"Undo everything txreel made on the source, slot included."`
	DryRun bool     `help:"With --remove: print the statements and run nothing."`
	JSON   bool     `help:"Print JSON."`
}

// Run implements the command.
func (c *setupCmd) Run(a *app) error {
	conn, err := postgres.Connect(a.ctx, c.Source)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(a.ctx))
	s := postgres.Setup{Publication: c.Publication, Slot: c.Slot, Role: c.Role, Tables: c.Tables}
	plan := s.Plan
	if c.Remove {
		plan = s.PlanRemove
	}
	if !c.Apply && (!c.Remove || c.DryRun) {
		statements, err := plan(a.ctx, conn)
		if err != nil {
			return err
		}
		if c.JSON {
			return writeJSON(a.stdout, statements)
		}
		if len(statements) == 0 {
			_, err = fmt.Fprintln(a.stdout, "-- Nothing to do.")
			return err
		}
		_, err = fmt.Fprint(a.stdout, sources.Script(statements))
		return err
	}
	failed := error(nil)
	report := func(st sources.Statement, err error) {
		switch {
		case err != nil:
			failed = err
		case c.JSON:
			failed = writeJSON(a.stdout, st)
		default:
			_, failed = fmt.Fprint(a.stdout, sources.Script([]sources.Statement{st}))
		}
	}
	if c.Remove {
		err = s.Remove(a.ctx, conn, report)
	} else {
		err = s.Apply(a.ctx, conn, report)
	}
	if err == nil {
		err = failed
	}
	if err == nil && !c.JSON {
		text := "The source is ready: run `txreel doctor`, then `txreel capture`."
		if c.Remove {
			text = "Nothing of txreel is left on the source."
		}
		fmt.Fprintln(a.stderr, text)
	}
	return err
}

type doctorCmd struct {
	sourceFlag
	slotFlags
	Tables []string `name:"table" placeholder:"SCHEMA.TABLE" help:"The tables to be recorded, when no publication exists yet (default: all)."`
	PgDump string   `placeholder:"PATH" help:"The pg_dump a base will use."`
	JSON   bool     `help:"Print JSON."`
}

// Run implements the command.
func (c *doctorCmd) Run(a *app) error {
	findings, err := postgres.Doctor(a.ctx, c.Source, postgres.DoctorOptions{Publication: c.Publication, Slot: c.Slot, Tables: c.Tables, PgDump: c.PgDump})
	if err != nil {
		return err
	}
	counts := map[sources.Severity]int{}
	for _, f := range findings {
		counts[f.Severity]++
	}
	if c.JSON {
		err = writeJSON(a.stdout, findings)
	} else {
		for _, f := range findings {
			fmt.Fprintf(a.stdout, "%-8s %-28s %s\n", f.Severity, f.Check, f.Detail)
			if f.Fix != "" {
				fmt.Fprintf(a.stdout, "%-8s %-28s → %s\n", "", "", f.Fix)
			}
		}
		_, err = fmt.Fprintf(a.stdout, "\n%d checks in order, %d notes, %d warnings, %d problems\n",
			counts[sources.SeverityOK], counts[sources.SeverityNote], counts[sources.SeverityWarning], counts[sources.SeverityProblem])
	}
	if err == nil && counts[sources.SeverityProblem] > 0 {
		err = fmt.Errorf("%w: mend them before you capture", errProblems)
	}
	return err
}

// writeJSON prints v as one indented document.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
