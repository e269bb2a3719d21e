package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/sources"
)

// database is a live source, as the commands see it: what differs between the engines.
type database interface {
	// identify asks the source who it is.
	identify(ctx context.Context) (incarnation, error)
	// belongs refuses an archive that records another database.
	belongs(ctx context.Context, a *archive.Archive, id incarnation) error
	// fresh refuses to begin an archive for a source that is not ready for it.
	fresh(ctx context.Context) error
	// open streams what is behind the tail of an epoch. again says that a stream of this
	// process was open before, which the source may not know to have ended.
	open(ctx context.Context, a *archive.Archive, epoch archive.Epoch, tail archive.Tail, again bool) (stream, error)
	// waiters opens what sees the source's COMMITs wait; nil if the source itself bounds that.
	waiters(ctx context.Context) (waiters, error)
	// taken reports whether a capture of the archive is at work on the source.
	taken(ctx context.Context, a *archive.Archive) (bool, error)
	// continues refuses an epoch that was recorded by other means, of which the source
	// cannot say whether it has a gap.
	continues(epoch archive.Epoch) error

	// takeBase reads a base snapshot into the archive; finishBase commits it once the
	// archive has come past it. hurry, if not nil, asks the capture to get there.
	takeBase(ctx context.Context, a *archive.Archive, epoch uint64, r sources.BaseRequest, progress func(sources.BaseProgress)) (*archive.Base, error)
	finishBase(ctx context.Context, a *archive.Archive, b *archive.Base, hurry func()) error
	// lacking says which base points behind the last whole one, b, need, such as for a table that is not what it says. mend
	// is the last partial one behind b, or nil.
	lacking(ctx context.Context, b, mend *archive.Base) (sources.BaseRequest, error)
	// watched is the table, schema.name, whose rows say that something may be lacking; "" when there is none.
	watched() string
	// stales reports whether b becomes stale by a change of a table's definition. One does not if the log holds the
	// statements that change them: a restore carries them out.
	stales(b *archive.Base) (bool, error)

	// mark notes a point of the source's log under a name, and returns what looks for it
	// in the archive.
	mark(ctx context.Context, name string) (marker, error)
	// retention says how long the source keeps what is behind held.
	retention(ctx context.Context, held change.Position) (*sources.Retention, error)
}

// stream is an open capture.Source.
type stream interface {
	capture.Source
	protectable
	// Start returns where the stream begins, and the source's time when it was opened.
	Start() *change.Message
	// Retention returns what is known of the source's log; nil before the first look.
	Retention() *sources.Retention
	// Warning says what could not be made sure of when the stream was opened, "" if there is nothing.
	Warning() string
	Close()
}

// marker looks for a mark in the transactions from from on, which it moves past those
// that need not be looked at again, and completes m. It reports false while the archive does
// not hold it.
type marker func(ctx context.Context, a *archive.Archive, m *archive.Mark, from *change.Seq) (bool, error)

// incarnation says which database a source is, for the archive, and in its engine's own
// terms for the epoch.
type incarnation struct {
	archive.Identity
	terms map[string]string
}

// sourceFlag is shared by all commands that talk to the source.
type sourceFlag struct {
	Source string `required:"" placeholder:"URL" help:"The database: postgres://role@host/db (or libpq's key=value list), mysql://user@host or mariadb://user@host. PG… and MYSQL_PWD variables complete it."`
}

// databaseFlags are the options of sources, for commands that talk to one.
type databaseFlags struct {
	sourceFlag
	databaseOptions
}

// databaseOptions are those besides its URL.
type databaseOptions struct {
	slotFlags
	baseFlags
	mysqlFlags
	SyncWait      time.Duration `kong:"-"` // how long COMMIT may wait for the archive; zero if it does not
	SequenceEvery time.Duration `kong:"-"` // how often sequences are sampled at most; zero if they are not
	AcceptSystem  string        `kong:"-"` // of a cluster that may take the recorded one's place
	SpillDir      string        `placeholder:"DIR" help:"Where what is too large for memory waits to be stored (default: the system's temporary folder)."`
}

// database returns the source that the flags name.
func (f *databaseFlags) database() database {
	if isMySQL(f.Source) {
		return &mysqlDatabase{databaseFlags: f}
	}
	return &postgresDatabase{databaseFlags: f}
}

// isMySQL tells a MySQL or MariaDB source by its URL.
func isMySQL(source string) bool {
	return strings.HasPrefix(source, "mysql://") || strings.HasPrefix(source, "mariadb://")
}

// engines of archives.
const (
	enginePostgres = "postgres"
	engineMySQL    = "mysql"
	engineMariaDB  = "mariadb"
)

// otherDatabase is the refusal of belongs.
func otherDatabase(a *archive.Archive, id incarnation) error {
	return fmt.Errorf("%w: %s holds %s system %s database %q, the source is %s system %s database %q", archive.ErrOtherDatabase,
		a.Store, a.Identity.Engine, a.Identity.System, a.Identity.Database, id.Engine, id.System, id.Database)
}
