package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"txreel/change"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// moment is a place in the binlog and the GTID set that the log holds up to there.
type moment struct {
	place
	set *gtid.Set
}

// errMoved says that an attempt at a snapshot met a commit.
var errMoved = errors.New("transactions were committed meanwhile")

// takeSnapshot gives every reader the same view of the data, and learns the GTID set
// that it is. Nothing is locked: it tries until no commit falls between the views.
func (b *baseRun) takeSnapshot(ctx context.Context) error {
	attempt := b.aligned
	b.engine.Rule = mybase.RuleAligned
	if !b.control.mariaDB() {
		if err := b.lockInstance(ctx); err != nil {
			return err
		}
		attempt, b.engine.Rule = b.bracket, mybase.RuleLogStatus
		if _, err := b.logStatus(ctx); denied(err) {
			b.engine.Rule = mybase.RuleGTIDBracket
		} else if err != nil {
			return err
		}
	}
	at, err := b.until(ctx, b.Wait, attempt)
	if err != nil && b.AllowLock && ctx.Err() == nil {
		b.engine.Rule = mybase.RuleReadLock
		at, err = b.lockedAtLast(ctx)
	}
	if err != nil {
		return b.explainSnapshot(err)
	}
	b.base.Position = change.Position(at.set.String())
	b.engine.File, b.engine.Offset = at.file, at.pos
	return nil
}

// lockTries and lockRest bound what --allow-lock costs: beside a long statement FLUSH TABLES
// WITH READ LOCK does not get through, and holds up every write while it tries, a second each time.
const (
	lockTries = 3
	lockRest  = 10 * time.Second
)

// lockedAtLast tries a few times to take the views under a read lock, with long rests.
func (b *baseRun) lockedAtLast(ctx context.Context) (*moment, error) {
	for try := 1; ; try++ {
		at, err := b.locked(ctx)
		var undecided *undecidedError
		if err == nil || try == lockTries || !errors.Is(err, errMoved) && !errors.As(err, &undecided) {
			return at, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockRest):
		}
	}
}

// until repeats an attempt that met commits, or a prepared transaction, for some time.
func (b *baseRun) until(ctx context.Context, limit time.Duration, attempt func(context.Context) (*moment, error)) (*moment, error) {
	deadline := time.Now().Add(limit)
	for try := 0; ; try++ {
		at, err := attempt(ctx)
		var undecided *undecidedError
		if err == nil || !errors.Is(err, errMoved) && !errors.As(err, &undecided) || time.Now().After(deadline) {
			return at, err
		}
		pause := time.Duration(rand.Int64N(int64(min(time.Millisecond<<min(try/50, 6), 50*time.Millisecond)))) // out of step with the commits
		if undecided != nil {
			pause = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// explainSnapshot says what to do when no snapshot could be had.
func (b *baseRun) explainSnapshot(err error) error {
	switch {
	case !errors.Is(err, errMoved):
		return wrapSQL("take a snapshot", err)
	case b.AllowLock:
		return fmt.Errorf("no snapshot within %s, and FLUSH TABLES WITH READ LOCK did not get through: a long statement or a locked table is in its way; try again when it is gone", b.Wait)
	case errors.Is(err, errNewFileUnseen):
		return fmt.Errorf("no snapshot within %s: the server began a new file of its log, and whether all commits of the one before are done can be seen only with PROCESS: GRANT PROCESS ON *.* TO %s", b.Wait, b.access.user)
	case errors.Is(err, errNewFile):
		return fmt.Errorf("no snapshot within %s: the server began a new file of its log while commits of the one before were under way, and they are not done yet: see whether they wait for a semi-synchronous replica", b.Wait)
	case b.engine.Rule == mybase.RuleGTIDBracket:
		return fmt.Errorf("no snapshot within %s, since transactions commit all the time: GRANT BACKUP_ADMIN ON *.* TO %s; GRANT SELECT ON performance_schema.log_status TO %s; "+
			"or allow a short FLUSH TABLES WITH READ LOCK with --allow-lock", b.Wait, b.access.user, b.access.user)
	}
	return fmt.Errorf("no snapshot within %s, since transactions commit all the time: try again at a quieter time, or allow a short FLUSH TABLES WITH READ LOCK with --allow-lock", b.Wait)
}

// view begins a transaction with a view of the data in every reader, at the same time.
func (b *baseRun) view(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range b.readers {
		g.Go(func() error { return c.Exec(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY") })
	}
	return g.Wait()
}

// logStatus asks MySQL for its place in the log and for gtid_executed, in one moment in
// which no commit is half done.
func (b *baseRun) logStatus(ctx context.Context) (*moment, error) {
	row, err := b.control.QueryRow(ctx, "SELECT LOCAL FROM performance_schema.log_status")
	if err != nil {
		return nil, err
	}
	var status struct {
		Set    string `json:"gtid_executed"`
		File   string `json:"binary_log_file"`
		Offset uint64 `json:"binary_log_position"`
	}
	if err := json.Unmarshal(row[0], &status); err != nil {
		return nil, fmt.Errorf("performance_schema.log_status: %w", err)
	}
	set, err := gtid.Parse(gtid.MySQL, status.Set)
	return &moment{place{status.File, status.Offset}, set}, err
}

// binlogStatus asks MySQL for the same, the parts of which may be of different moments.
func (b *baseRun) binlogStatus(ctx context.Context) (*moment, error) {
	sql := "SHOW BINARY LOG STATUS"
	if b.control.Number < 80200 {
		sql = "SHOW MASTER STATUS"
	}
	r, err := b.control.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(r.Rows) != 1 {
		return nil, errors.New("the server writes no binary log")
	}
	offset, err := r.Value(0, "Position").Uint()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sql, err)
	}
	set, err := gtid.Parse(gtid.MySQL, r.Value(0, "Executed_Gtid_Set").String())
	return &moment{place{r.Value(0, "File").String(), offset}, set}, err
}

// bracket takes views between two looks at MySQL's log. If it has not moved, no
// transaction entered the log in between, and with log_status none was on its way from the
// log into the tables: every view is the set of the first look. Without log_status the
// archive must prove that the set was all the log held (proveSet).
func (b *baseRun) bracket(ctx context.Context) (*moment, error) {
	look := b.logStatus
	if b.engine.Rule == mybase.RuleGTIDBracket {
		look = b.binlogStatus
	}
	first, err := look(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.view(ctx); err != nil {
		return nil, err
	}
	// Such a transaction is in the log, but in no view: behind the base the log has only
	// its decision.
	if err := noneUndecided(ctx, b.control); err != nil {
		return nil, err
	}
	second, err := b.binlogStatus(ctx)
	if err != nil {
		return nil, err
	}
	if first.place != second.place {
		return nil, errMoved
	}
	if b.engine.Rule == mybase.RuleGTIDBracket {
		if !first.set.Equal(second.set) {
			return nil, errMoved
		}
		return first, b.proveSet(ctx, first)
	}
	return first, nil
}

// undecidedError says that transactions are prepared and neither committed nor rolled
// back.
type undecidedError struct{ names []string }

func (e *undecidedError) Error() string {
	return fmt.Sprintf("%d prepared XA transactions are undecided (%s), and a base that is taken now would lose them: XA COMMIT or XA ROLLBACK them; XA RECOVER lists them",
		len(e.names), strings.Join(e.names[:min(len(e.names), 3)], ", "))
}

func noneUndecided(ctx context.Context, c *Conn) error {
	r, err := c.Query(ctx, "XA RECOVER")
	if err != nil {
		return err
	}
	if len(r.Rows) == 0 {
		return nil
	}
	e := &undecidedError{}
	for i := range r.Rows {
		e.names = append(e.names, strconv.Quote(r.Value(i, "data").String()))
	}
	return e
}

// aligned takes views in MariaDB, which tells each session the place in the log of its
// own view. The status variable is the server's, though: sessions must be asked one after the
// other, and a second time, since somebody else may ask meanwhile.
func (b *baseRun) aligned(ctx context.Context) (*moment, error) {
	before, err := xaCounters(ctx, b.control)
	if err != nil {
		return nil, err
	}
	if err := noneUndecided(ctx, b.control); err != nil {
		return nil, err
	}
	begun, err := b.atNewFile(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.view(ctx); err != nil {
		return nil, err
	}
	var at *moment
	for range 2 {
		for _, c := range b.readers {
			p, err := snapshotPlace(ctx, c)
			if err != nil {
				return nil, err
			}
			if at == nil {
				at = p
			}
			if p.place != at.place {
				return nil, errMoved
			}
		}
	}
	if err := b.proves(ctx, begun, at.place); err != nil {
		return nil, err
	}
	// None was prepared before and decided after the views: those that are undecided now
	// would show, and those decided in between would have been counted.
	if err := noneUndecided(ctx, b.control); err != nil {
		return nil, err
	}
	after, err := xaCounters(ctx, b.control)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(before, after) {
		return nil, errMoved
	}
	at.set, err = binlogGTIDPos(ctx, b.control, at)
	return at, err
}

// snapshotPlace asks MariaDB where the session's view stands in the log.
func snapshotPlace(ctx context.Context, c *Conn) (*moment, error) {
	r, err := c.Query(ctx, "SHOW STATUS LIKE 'binlog_snapshot_%'")
	if err != nil {
		return nil, err
	}
	p := &moment{}
	for _, row := range r.Rows {
		switch strings.ToLower(row[0].String()) {
		case "binlog_snapshot_file":
			p.file = row[1].String()
		case "binlog_snapshot_position":
			if p.pos, err = row[1].Uint(); err != nil {
				return nil, fmt.Errorf("binlog_snapshot_position: %w", err)
			}
		}
	}
	if p.file == "" {
		return nil, errors.New("the server does not say where in its log a snapshot stands: it must write a binary log")
	}
	return p, nil
}

func binlogGTIDPos(ctx context.Context, c *Conn, at *moment) (*gtid.Set, error) {
	row, err := c.QueryRow(ctx, fmt.Sprintf("SELECT BINLOG_GTID_POS(%s, %d)", quoteLiteral(at.file), at.pos))
	if err != nil {
		return nil, err
	}
	if row[0].Null() {
		return nil, fmt.Errorf("the server cannot say which GTIDs it had written at %s: the file is gone", at.place)
	}
	return gtid.Parse(gtid.MariaDB, row[0].String())
}

// xaCounters reads how often transactions were prepared and decided.
func xaCounters(ctx context.Context, c *Conn) ([]string, error) {
	r, err := c.Query(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_xa_prepare', 'Com_xa_commit', 'Com_xa_rollback')")
	if err != nil {
		return nil, err
	}
	var counts []string
	for _, row := range r.Rows {
		counts = append(counts, row[1].String())
	}
	return counts, nil
}

// locked takes views while no transaction can commit. The lock must come within a
// second, and is given back as soon as the views are there; should this process or its
// connection fail meanwhile, the server gives it back with the session.
func (b *baseRun) locked(ctx context.Context) (_ *moment, err error) {
	c := b.control
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.Exec(ctx, "SET SESSION lock_wait_timeout = 1"); err != nil {
		return nil, err
	}
	err = c.Exec(ctx, "FLUSH TABLES WITH READ LOCK")
	switch {
	case isCode(err, 1205):
		return nil, errMoved
	case denied(err):
		return nil, fmt.Errorf("%w: GRANT RELOAD ON *.* TO %s", err, b.access.user)
	case err != nil:
		return nil, err
	}
	at := &moment{}
	err = b.view(ctx)
	if err == nil {
		err = noneUndecided(ctx, c)
	}
	if err == nil {
		at, err = b.currentPlace(ctx)
	}
	if uerr := c.Exec(ctx, "UNLOCK TABLES"); err == nil {
		err = uerr
	}
	if serr := c.Exec(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout = %d", b.LockTimeout)); err == nil {
		err = serr
	}
	return at, err
}

// currentPlace reads where the log stands; nobody can commit.
func (b *baseRun) currentPlace(ctx context.Context) (*moment, error) {
	if !b.control.mariaDB() {
		return b.binlogStatus(ctx)
	}
	r, err := b.control.Query(ctx, "SHOW MASTER STATUS")
	if err != nil {
		return nil, err
	}
	if len(r.Rows) != 1 {
		return nil, errors.New("the server writes no binary log")
	}
	at := &moment{place: place{file: r.Value(0, "File").String()}}
	if at.pos, err = r.Value(0, "Position").Uint(); err == nil {
		at.set, err = binlogGTIDPos(ctx, b.control, at)
	}
	return at, err
}

// lockInstance holds back statements that change definitions, where the server can and
// the user may.
func (b *baseRun) lockInstance(ctx context.Context) error {
	err := b.control.Exec(ctx, "LOCK INSTANCE FOR BACKUP")
	switch {
	case denied(err):
		return nil
	case isCode(err, 1205):
		return fmt.Errorf("a statement that changes a definition has been running for %d s: take the base once it is done", b.LockTimeout)
	case err != nil:
		return wrapSQL("hold back changes of definitions", err)
	}
	b.held = true
	return nil
}

// unlockInstance lets them go on.
func (b *baseRun) unlockInstance(ctx context.Context) error {
	if !b.held {
		return nil
	}
	b.held = false
	return wrapSQL("let changes of definitions go on", b.control.Exec(ctx, "UNLOCK INSTANCE"))
}
