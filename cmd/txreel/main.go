// Command txreel records every committed transaction of a database in object
// storage and rebuilds the database as it stood after any of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"txreel/internal/failpoint"
)

// version is set by the build.
var version = "dev"

// cli is the command line. Every flag has an environment twin: --flush-age is
// TXREEL_FLUSH_AGE.
type cli struct {
	Setup   setupCmd   `cmd:"" help:"Print the SQL that prepares a source; --apply runs it, --remove undoes it."`
	Doctor  doctorCmd  `cmd:"" help:"Check a source and say what stands in the way, with the statement that mends it."`
	Capture captureCmd `cmd:"" help:"Record a database, until stopped."`
	Base    baseCmd    `cmd:"" help:"Take a base snapshot now; a capture must be running."`
	Status  statusCmd  `cmd:"" help:"Show what an archive holds, up to when, and how long the source keeps what it lacks."`
	Log     logCmd     `cmd:"" help:"List transactions."`
	Restore restoreCmd `cmd:"" help:"Rebuild the database as it stood at a point of the record."`
	Audit   auditCmd   `cmd:"" help:"Export the history of changes."`
	Binlog  binlogCmd  `cmd:"" help:"Write transactions of MySQL or MariaDB as binlog files, which the vendor's own tools read."`
	Verify  verifyCmd  `cmd:"" help:"Check that an archive is complete and unaltered."`
	Prune   pruneCmd   `cmd:"" help:"Plan what of an archive no kept point needs, and with --confirm remove it."`
	Compact compactCmd `cmd:"" help:"Plan which small and old segments of an archive go into few large objects, and with --confirm put them there."`
	Hold    holdCmd    `cmd:"" help:"Keep a span of time from prune, whatever its age."`
	Mark    markCmd    `cmd:"" help:"Put a named point into the record of a live database."`
	Demo    demoCmd    `cmd:"" help:"Show the whole path on throw-away servers."`

	Version kong.VersionFlag `help:"Print the version."`
}

// app is what commands share: where they write and what ends them.
type app struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	// stopped reports which signal ended ctx; nil while none has.
	stopped func() os.Signal
}

const description = `txreel records every committed transaction of a PostgreSQL, MySQL or MariaDB database
in object storage and rebuilds the database as it stood after any of them.

Every flag can be given as an environment variable: --flush-age is TXREEL_FLUSH_AGE.
Passwords come from PGPASSWORD or a password file (PGPASSFILE), or from MYSQL_PWD,
credentials of the store from the usual AWS_… variables or files.

Exit codes: 0 done, 1 failed, 2 usage, 3 gap in the record, 4 archive corrupt,
5 another writer, 6 point not in the archive, 7 source or store unreachable,
8 doctor found problems, 130 interrupted.`

func main() {
	if err := failpoint.Arm(os.Getenv); err != nil { // in builds for tests only
		fmt.Fprintln(os.Stderr, "txreel:", err)
		os.Exit(exitUsage)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments. The first SIGINT or SIGTERM ends
// the command in order; a second one ends the process at once.
func run(args []string, stdout, stderr io.Writer) int {
	var c cli
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("txreel"), kong.Description(description), kong.UsageOnError(),
		kong.DefaultEnvars("TXREEL"), kong.Vars{"version": version},
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(stderr, "txreel:", err)
		return exitFailed
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help and --version
		return exit
	}
	if err != nil {
		fmt.Fprintf(stderr, "txreel: %v\nTry 'txreel --help'.\n", err)
		return exitUsage
	}
	if err := checkEnvironment(parser.Model.Node, os.Environ()); err != nil {
		fmt.Fprintln(stderr, "txreel:", err)
		return exitUsage
	}
	a := &app{stdout: stdout, stderr: stderr}
	release := a.watchSignals()
	defer release()
	err = parsed.Run(a)
	if err != nil && !errors.Is(err, errQuiet) {
		fmt.Fprintln(stderr, "txreel:", sentence(err))
	}
	return a.exitCode(err)
}

// watchSignals makes a.ctx end with the first signal.
func (a *app) watchSignals() (release func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() { // ends with release
		defer close(done)
		if s, ok := <-signals; ok {
			signal.Stop(signals) // the next one has its usual effect
			cancel(&signalError{s})
		}
	}()
	a.ctx = ctx
	a.stopped = func() os.Signal {
		var s *signalError
		if errors.As(context.Cause(ctx), &s) {
			return s.signal
		}
		return nil
	}
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
		cancel(nil)
	}
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

// Error implements error.
func (e *signalError) Error() string { return "stopped by signal: " + e.signal.String() }

// memoryGoal is what the garbage collector keeps the memory of a capture or a restore
// below, as far as what is in use allows: a transaction may be of any size, and 256 MiB
// are promised.
const memoryGoal = 176 << 20

// boundMemory sets the goal, and what may be taken besides, unless the environment sets one.
func boundMemory(besides int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryGoal + besides)
	}
}
