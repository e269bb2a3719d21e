package mysql

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"txreel/archive"
	"txreel/sources"
	"txreel/sources/mysql/mybase"
)

// BaseOptions say how a base is taken.
type BaseOptions struct {
	URL      string
	Reason   string
	Jobs     int // tables and parts of tables read at once; default 2
	SpillDir string
	// ChunkBytes is how much text becomes one object, and how much of a table is read as one
	// piece, as the server estimates. Default 32 MiB.
	ChunkBytes int64
	// AllowLock lets FLUSH TABLES WITH READ LOCK hold all commits back for the moment that a
	// snapshot takes, should none be had without.
	AllowLock bool
	// BlockDDL keeps MySQL's LOCK INSTANCE FOR BACKUP until the last row is read: statements
	// that change definitions then wait as long as the base takes. By default they wait for a
	// moment, and one that meets a table being read may make the base start over.
	BlockDDL bool
	// Wait bounds the attempts at a snapshot. Default 30 s.
	Wait time.Duration
	// LockTimeout bounds, in seconds, the wait for a table that somebody has locked. Default 10.
	LockTimeout int
	// Longest bounds how long the snapshot is kept, since the server keeps all old rows for
	// it; default 24 hours. MaxHistory bounds those (the history list length of InnoDB), where
	// it can be read; default 20 million.
	Longest    time.Duration
	MaxHistory int64
	// Waiting, if not nil, is called about once a second while the archive must catch up.
	Waiting func()
	// Progress, if not nil, is called from time to time, by several goroutines. Its unit is
	// bytes as the server estimates them.
	Progress func(sources.BaseProgress)

	// hook is told when the snapshot and the definitions are there; for tests that change
	// something at that moment.
	hook func(step string)
}

// The flavors, as the archive names them.
const (
	mySQL   = "mysql"
	mariaDB = "mariadb"
)

// baseTries is how often a base starts over because definitions changed, or others waited for it.
const baseTries = 3

// errChanged is matched by errors that say a definition changed under the base.
var errChanged = errors.New("a definition changed while the base was taken")

func (o *BaseOptions) defaults() {
	if o.Jobs < 1 {
		o.Jobs = 2
	}
	if o.ChunkBytes < 1 {
		o.ChunkBytes = 32 << 20
	}
	if o.Wait <= 0 {
		o.Wait = 30 * time.Second
	}
	if o.LockTimeout < 1 { // which the server would take for "at once" or refuse
		o.LockTimeout = 10
	}
	if o.Longest <= 0 {
		o.Longest = 24 * time.Hour
	}
	if o.MaxHistory <= 0 {
		o.MaxHistory = 20_000_000
	}
	if o.hook == nil {
		o.hook = func(string) {}
	}
}

// TakeBase reads every database of the server as it stood at one GTID set, and stores
// it below the base it returns. The base is not committed: its Seq can be told only once
// the archive has passed its position (see FinishBase). The source sees ordinary reads, by
// Jobs+2 sessions, Jobs of them with the same consistent view.
func TakeBase(ctx context.Context, a *archive.Archive, epoch uint64, o BaseOptions) (*archive.Base, error) {
	o.defaults()
	for try := 1; ; try++ {
		base, err := takeBase(ctx, a, epoch, o)
		if err == nil || !errors.Is(err, errChanged) && !errors.Is(err, errGaveWay) || try == baseTries || ctx.Err() != nil {
			return base, err
		}
		if errors.Is(err, errGaveWay) {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(giveWayRest):
			}
		}
	}
}

func takeBase(ctx context.Context, a *archive.Archive, epoch uint64, o BaseOptions) (*archive.Base, error) {
	base, err := archive.NewBase(epoch, o.Reason)
	if err != nil {
		return nil, err
	}
	b := &baseRun{BaseOptions: o, archive: a, base: base}
	defer b.close()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	if err := b.takeSnapshot(ctx); err != nil {
		return nil, err
	}
	o.hook("snapshot")
	ctx, cancel := context.WithTimeoutCause(ctx, o.Longest, fmt.Errorf("the base took longer than %s, for which the server had to keep every old row: "+
		"take it when there is less to do, or with more --base-jobs", o.Longest))
	defer cancel()
	if err := b.read(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // whatever it broke
		}
		return nil, err
	}
	return base, nil
}

// read reads all that the snapshot shows.
func (b *baseRun) read(ctx context.Context) error {
	if err := b.readDefinitions(ctx); err != nil {
		return err
	}
	b.hook("definitions")
	if err := b.givingWay(ctx, b.copyTables); err != nil {
		return err
	}
	return b.describe(ctx)
}

// baseRun is one attempt at a base.
type baseRun struct {
	BaseOptions
	archive *archive.Archive
	base    *archive.Base
	control *Conn   // definitions, locks, and looks at the server
	readers []*Conn // each in a transaction with the snapshot
	access  access

	engine   mybase.Engine
	schema   mybase.Schema
	accounts mybase.Accounts
	tables   []*baseTable
	coverage []archive.Coverage
	held     bool // LOCK INSTANCE FOR BACKUP

	mu       sync.Mutex
	progress sources.BaseProgress
}

// close ends the sessions, and with them every lock and the snapshot.
func (b *baseRun) close() {
	for _, c := range b.readers {
		c.Close()
	}
	if b.control != nil {
		b.control.Close()
	}
}

// open connects, and refuses a user who would see less than there is.
func (b *baseRun) open(ctx context.Context) (err error) {
	if b.control, err = b.connect(ctx); err != nil {
		return err
	}
	if err := b.control.logs(ctx); err != nil { // what has no GTID is in no record, and could not be told apart here
		return err
	}
	if b.access, err = readAccess(ctx, b.control); err != nil {
		return err
	}
	if err := b.access.checkBase(); err != nil {
		return err
	}
	if err := b.openReaders(ctx); err != nil {
		return err
	}
	return b.readServer(ctx)
}

// openReaders opens the sessions that read rows.
func (b *baseRun) openReaders(ctx context.Context) error {
	for range b.Jobs {
		c, err := b.connect(ctx)
		if err != nil {
			return err
		}
		b.readers = append(b.readers, c)
		if err := c.sameAs(ctx, b.control); err != nil {
			return err
		}
		// Characters come as the bytes they are stored as.
		if err := c.Exec(ctx, "SET SESSION character_set_results = NULL, tx_isolation = 'REPEATABLE-READ'"); isCode(err, 1193) {
			err = c.Exec(ctx, "SET SESSION character_set_results = NULL, transaction_isolation = 'REPEATABLE-READ'")
			if err != nil {
				return wrapSQL("prepare a session of the base", err)
			}
		} else if err != nil {
			return wrapSQL("prepare a session of the base", err)
		}
		if c.mariaDB() {
			// A session that might log gives no lock on a definition back before its transaction ends. Whoever may not
			// say that it will not has a base that gives way more often (watchWaiters).
			if err := c.Exec(ctx, "SET SESSION sql_log_bin = 0"); err != nil && !denied(err) {
				return wrapSQL("prepare a session of the base", err)
			}
		}
	}
	return nil
}

func (b *baseRun) connect(ctx context.Context) (*Conn, error) {
	c, err := Connect(ctx, b.URL)
	if err != nil {
		return nil, err
	}
	// A limit that the server sets for every session would leave rows out, without a word.
	sql := fmt.Sprintf("SET SESSION lock_wait_timeout = %d, innodb_lock_wait_timeout = %d", b.LockTimeout, b.LockTimeout)
	if !c.mariaDB() {
		sql += ", information_schema_stats_expiry = 0"
		if c.Number >= 80030 {
			sql += ", show_gipk_in_create_table_and_information_schema = ON"
		}
		if c.Number >= 80018 {
			sql += ", show_create_table_skip_secondary_engine = OFF"
		}
		if c.Number >= 80017 {
			sql += ", print_identified_with_as_hex = ON"
		}
	}
	if err := c.Exec(ctx, sql); err != nil {
		c.Close()
		return nil, wrapSQL("prepare a session of the base", err)
	}
	return c, nil
}

// readServer notes what a target must have in common with the source.
func (b *baseRun) readServer(ctx context.Context) error {
	c := b.control
	row, err := c.QueryRow(ctx, "SELECT @@lower_case_table_names, @@innodb_page_size, @@character_set_server, @@collation_server, @@log_bin")
	if err != nil {
		return wrapSQL("read the server's settings", err)
	}
	if row[4].String() != "1" {
		return errors.New("the server writes no binary log: a base cannot have a position; set log_bin and restart it")
	}
	e := &b.engine
	e.Flavor, e.Version, e.Number = mySQL, c.Version, c.Number
	if c.mariaDB() {
		e.Flavor = mariaDB
	}
	names, err1 := row[0].Int()
	page, err2 := row[1].Int()
	e.LowerCaseTableNames, e.PageSize, e.Charset, e.Collation = int(names), int(page), row[2].String(), row[3].String()
	return errors.Join(err1, err2)
}
