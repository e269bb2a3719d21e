package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
	"txreel/sources/mysql"
	"txreel/sources/postgres"
)

type setupCmd struct {
	sourceFlag
	slotFlags
	Role   string   `placeholder:"NAME" help:"PostgreSQL: also create, or equip, the role that captures will log in as."`
	NoDDL  bool     `name:"no-ddl" help:"PostgreSQL: do not make the event triggers that write down changes of the schema."`
	Tables []string `name:"table" placeholder:"SCHEMA.TABLE" help:"PostgreSQL: record only this table (repeatable; default: all tables, also future ones)."`

	User        string `placeholder:"NAME" help:"MySQL, MariaDB: also create, or equip, the account that captures will log in as. Its password comes from TXREEL_ACCOUNT_PASSWORD, or is made and shown once."`
	Host        string `placeholder:"HOST" help:"MySQL, MariaDB: where the account may log in from (default: anywhere)."`
	CaptureOnly bool   `help:"MySQL, MariaDB: give the account what the stream needs, and not what bases read with."`
	AllowLock   bool   `help:"MySQL, MariaDB: also give it what a base needs for --allow-lock."`
	NoTLS       bool   `name:"no-tls" help:"MySQL, MariaDB: let the account log in without TLS."`
	setupSyncFlags
	GTID bool `name:"gtid" help:"MySQL: with --apply, switch GTIDs on while the server runs, as far as it is safe to go in one run."`

	Apply  bool `xor:"do" help:"Run the statements."`
	Remove bool `xor:"do" help:"Undo everything txreel made on the source, slot or account included."`
	DryRun bool `help:"With --remove: print the statements and run nothing."`
	JSON   bool `help:"Print JSON."`
}

// setupSyncFlags ask for what zero-loss mode takes, too.
type setupSyncFlags struct {
	Sync        bool          `help:"Also what zero-loss mode takes (capture --sync)."`
	SyncTimeout time.Duration `default:"1s" help:"With --sync: the longest a COMMIT may wait, as for capture."`
}

// limit is zero without --sync.
func (f setupSyncFlags) limit() time.Duration {
	if !f.Sync {
		return 0
	}
	return f.SyncTimeout
}

// reporter is told each statement that was run, and how it went.
type reporter func(sources.Statement, error)

// preparer prepares a source of one engine.
type preparer struct {
	plan, planRemove func(ctx context.Context) ([]sources.Statement, error)
	// apply returns a password that it made, which is shown once.
	apply  func(ctx context.Context, report reporter) (password string, err error)
	remove func(ctx context.Context, report reporter) error
	close  func()
}

// preparer connects to the source.
func (c *setupCmd) preparer(ctx context.Context) (*preparer, error) {
	if isMySQL(c.Source) {
		return c.mysqlPreparer(ctx)
	}
	conn, err := postgres.Connect(ctx, c.Source)
	if err != nil {
		return nil, err
	}
	s := postgres.Setup{Publication: c.Publication, Slot: c.Slot, Role: c.Role, Sync: c.Sync, NoDefinitions: c.NoDDL, Tables: c.Tables}
	return &preparer{
		plan:       func(ctx context.Context) ([]sources.Statement, error) { return s.Plan(ctx, conn) },
		planRemove: func(ctx context.Context) ([]sources.Statement, error) { return s.PlanRemove(ctx, conn) },
		apply:      func(ctx context.Context, report reporter) (string, error) { return "", s.Apply(ctx, conn, report) },
		remove:     func(ctx context.Context, report reporter) error { return s.Remove(ctx, conn, report) },
		close:      func() { closePostgres(ctx, conn) },
	}, nil
}

func closePostgres(ctx context.Context, conn *pgx.Conn) { _ = conn.Close(context.WithoutCancel(ctx)) }

func (c *setupCmd) mysqlPreparer(ctx context.Context) (*preparer, error) {
	url, err := mysqlURL(c.Source)
	if err != nil {
		return nil, err
	}
	conn, err := mysql.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	s := mysql.Setup{User: c.User, Host: c.Host, CaptureOnly: c.CaptureOnly, AllowLock: c.AllowLock, NoTLS: c.NoTLS, GTID: c.GTID, Sync: c.limit(),
		Password: os.Getenv(passwordVariable)}
	return &preparer{
		plan:       func(ctx context.Context) ([]sources.Statement, error) { return s.Plan(ctx, conn) },
		planRemove: func(ctx context.Context) ([]sources.Statement, error) { return s.PlanRemove(ctx, conn) },
		apply:      func(ctx context.Context, report reporter) (string, error) { return s.Apply(ctx, conn, report) },
		remove:     func(ctx context.Context, report reporter) error { return s.Remove(ctx, conn, report) },
		close:      conn.Close,
	}, nil
}

// Run implements the command.
func (c *setupCmd) Run(a *app) error {
	p, err := c.preparer(a.ctx)
	if err != nil {
		return err
	}
	defer p.close()
	if !c.Apply && (!c.Remove || c.DryRun) {
		return c.print(a, p)
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
		err = p.remove(a.ctx, report)
	} else {
		var password string
		if password, err = p.apply(a.ctx, report); password != "" {
			// The only place a secret is ever shown: nobody else knows it.
			fmt.Fprintf(a.stderr, "The password of %s, shown this once: %s\n", c.User, password)
		}
	}
	if err == nil {
		err = failed
	}
	if err == nil && !c.JSON {
		text := "The source is ready as far as statements go: run `txreel doctor`, then `txreel capture`."
		if c.Remove {
			text = "Nothing of txreel is left on the source."
		}
		fmt.Fprintln(a.stderr, text)
	}
	return err
}

// print shows what would be done.
func (c *setupCmd) print(a *app, p *preparer) error {
	plan := p.plan
	if c.Remove {
		plan = p.planRemove
	}
	statements, err := plan(a.ctx)
	switch {
	case err != nil:
		return err
	case c.JSON:
		return writeJSON(a.stdout, statements)
	case len(statements) == 0:
		_, err = fmt.Fprintln(a.stdout, "-- Nothing to do.")
	default:
		_, err = fmt.Fprint(a.stdout, sources.Script(statements))
	}
	return err
}

type doctorCmd struct {
	sourceFlag
	slotFlags
	Tables      []string `name:"table" placeholder:"SCHEMA.TABLE" help:"PostgreSQL: the tables to be recorded, when no publication exists yet (default: all)."`
	PgDump      string   `placeholder:"PATH" help:"PostgreSQL: the pg_dump a base will use."`
	CaptureOnly bool     `help:"MySQL, MariaDB: the account only captures; another one takes bases."`
	setupSyncFlags
	AllowLock bool `help:"MySQL, MariaDB: bases may lock for a moment, as with --allow-lock."`
	JSON      bool `help:"Print JSON."`
}

func (c *doctorCmd) look(ctx context.Context) ([]sources.Finding, error) {
	if !isMySQL(c.Source) {
		return postgres.Doctor(ctx, c.Source, postgres.DoctorOptions{Publication: c.Publication, Slot: c.Slot, Tables: c.Tables, PgDump: c.PgDump, Sync: c.Sync})
	}
	url, err := mysqlURL(c.Source)
	if err != nil {
		return nil, err
	}
	return mysql.Doctor(ctx, url, mysql.DoctorOptions{CaptureOnly: c.CaptureOnly, AllowLock: c.AllowLock, Sync: c.limit()})
}

// Run implements the command.
func (c *doctorCmd) Run(a *app) error {
	findings, err := c.look(a.ctx)
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
