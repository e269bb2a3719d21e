// Package mysql restores into a MySQL or MariaDB server: it loads a base, and then lets
// the server replicate the recorded transactions from txreel, which acts as its primary
// for as long as the restore lasts. What it has done is on record in the target, in schema
// txreel_restore and in the server's own account of the transactions it has executed, until the restore is over. It
// also writes the record as binlog files.
package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// Options are how a Target restores. The zero value serves a target on this machine.
type Options struct {
	// Serve is the address, host:port, at which a target on another machine reaches this one. A port of 0 is any.
	// Empty means loopback.
	Serve string
	// Password is the user's, where the URL has none.
	Password string
	// Exact replays every change of every row. Without it updates are left out that a later transaction overwrites.
	Exact bool
	// Memory is how many bytes finding those may take; zero means 1 GiB.
	Memory int64
}

// Target is a MySQL or MariaDB server being restored into. It is restore.Target, and
// not for concurrent use.
type Target struct {
	cfg     *config
	opts    Options
	control *conn // for everything that is not bulk; holds the lock
	version version

	job      *restore.Job
	engine   mybase.Engine
	phase    phase // on record in the target
	resumed  bool
	began    *gtid.Set // what the target had executed when the replay began, or was taken up again
	forget   *gtid.Set // what the target has executed by itself before the restore
	base     *gtid.Set // what the base holds
	goal     *gtid.Set // what the target will have executed
	applied  change.Seq
	replay   int64 // transactions between base and cut
	leftOut  atomic.Int64
	patience int64 // by how much more the replay must have gone on than it waits for definitions
	past     *past // what they did to tables
	warnings []string
	period   time.Duration           // of heartbeats; heartbeatPeriod but in tests
	link     func(net.Conn) net.Conn // around a replica's connection, in tests

	scratch    bool   // what is restored is read, and removed
	account    string // the restore's own
	accountWas string // what the server said of it before the replay
	sparesMu   sync.Mutex
	spares     []*conn
}

var _ restore.Target = (*Target)(nil)

// Open connects to the target. It writes nothing. The caller closes the Target.
func Open(ctx context.Context, url string, opts Options) (*Target, error) {
	cfg, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	if cfg.password == "" {
		cfg.password = opts.Password
	}
	t := &Target{cfg: cfg, opts: opts, period: heartbeatPeriod, patience: 10}
	if t.control, err = cfg.connect(ctx); err != nil {
		return nil, err
	}
	text, err := t.control.value(ctx, "SELECT VERSION()")
	if err == nil {
		t.version, err = parseVersion(text)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("look at target: %w", err)
	}
	return t, nil
}

// Close ends the sessions. What a restore has committed stays.
func (t *Target) Close() {
	t.closeSpares()
	t.control.close()
}

// Applied implements restore.Target.
func (t *Target) Applied() change.Seq { return t.applied }

func (t *Target) warn(format string, args ...any) {
	t.warnings = append(t.warnings, fmt.Sprintf(format, args...))
}

// Load implements restore.Target.
func (t *Target) Load(ctx context.Context) error {
	if t.phase == phaseFinish {
		return nil
	}
	if t.resumed {
		if err := t.stopReplica(ctx); err != nil {
			return err
		}
	} else if err := t.openBook(ctx); err != nil {
		return err
	}
	if err := t.relax(ctx); err != nil {
		return err
	}
	if t.phase != phaseBase {
		return nil
	}
	if err := t.loadBase(ctx); err != nil {
		return err
	}
	return t.enter(ctx, phaseLoaded)
}

// Prepare implements restore.Target.
func (t *Target) Prepare(ctx context.Context) (change.Seq, error) {
	if t.phase == phaseLoaded {
		if err := t.setExecuted(ctx); err != nil {
			return 0, err
		}
		if err := t.enter(ctx, phaseReplay); err != nil {
			return 0, err
		}
	}
	executed, err := t.executed(ctx)
	if err != nil {
		return 0, err
	}
	if t.applied, err = t.survey(ctx, executed); err != nil {
		return 0, err
	}
	return t.applied, t.openSpares(ctx)
}

// setExecuted makes the target believe that it has executed what the base holds.
func (t *Target) setExecuted(ctx context.Context) error {
	if err := t.emptyLog(ctx); err != nil {
		return fmt.Errorf("empty the target's account of executed transactions: %w", err)
	}
	failpoint.Hit(failpoint.RestoreForgotten)
	name := "gtid_purged"
	if t.version.mariadb() {
		name = "gtid_slave_pos"
	}
	if err := t.control.exec(ctx, "SET GLOBAL "+name+" = "+literal(t.base.String())); err != nil {
		return fmt.Errorf("tell the target which transactions the base holds: %w", err)
	}
	return nil
}

// emptyLog empties the binary log and the account of what was executed. MariaDB waits there until InnoDB's log is flushed, which a relaxed one is once a
// second. A restore that dies in between relaxes it again when it is taken up.
func (t *Target) emptyLog(ctx context.Context) error {
	if !t.version.mariadb() {
		return t.control.exec(ctx, t.version.forget())
	}
	note := "INSERT IGNORE INTO txreel_restore.settings SELECT " + literal(flushAtCommit) + ", @@GLOBAL." + flushAtCommit // which relax has not, where it was relaxed already
	if err := t.control.exec(ctx, note); err != nil {
		return err
	}
	return errors.Join(
		t.control.exec(ctx, setGlobal(flushAtCommit, "1")), // or what follows writes the log, and does not flush it
		t.control.exec(ctx, "FLUSH LOCAL ENGINE LOGS"),
		t.control.exec(ctx, t.version.forget()),
		t.control.exec(ctx, setGlobal(flushAtCommit, relaxedFlush)),
	)
}

// executed reads what the target has executed.
func (t *Target) executed(ctx context.Context) (*gtid.Set, error) {
	return t.executedBy(ctx, t.control)
}

// executedBy is executed in a session of its own.
func (t *Target) executedBy(ctx context.Context, c *conn) (*gtid.Set, error) {
	name := "gtid_executed"
	if t.version.mariadb() {
		name = "gtid_slave_pos"
	}
	text, err := c.value(ctx, "SELECT @@GLOBAL."+name)
	if err != nil {
		return nil, fmt.Errorf("read what the target has executed: %w", err)
	}
	set, err := gtid.Parse(t.version.flavor, text)
	if err != nil {
		return nil, fmt.Errorf("read what the target has executed: %w", err)
	}
	return set, nil
}
