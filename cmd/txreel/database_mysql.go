package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	mysqltarget "txreel/restore/mysql"
	"txreel/sources"
	"txreel/sources/mysql"
	"txreel/sources/mysql/gtid"
)

// mysqlFlags are the options of MySQL and MariaDB sources.
type mysqlFlags struct {
	ServerID  uint32 `placeholder:"N" help:"MySQL, MariaDB: the server id to register with, unlike that of any replica (default: derived from the archive's identity)."`
	AllowLock bool   `help:"MySQL, MariaDB: let a base take FLUSH TABLES WITH READ LOCK for a moment when nothing gentler works."`
}

// mysqlTargetFlags are the options of MySQL and MariaDB targets.
type mysqlTargetFlags struct {
	Serve string `placeholder:"ADDR" help:"MySQL, MariaDB: the address at which a target on another machine fetches the changes from this command (default: a free port of 127.0.0.1)."`
}

// mysqlDatabase is a MySQL or MariaDB server: all of its databases.
type mysqlDatabase struct {
	*databaseFlags
	torn string // see mysql.SourceOptions
	last *mysql.Last
	tail archive.Tail // that last was read for: it is the same as long as the position is
}

// mysqlURL completes a URL with the password that the environment holds.
func mysqlURL(url string) (string, error) { return mysql.WithPassword(url, os.Getenv("MYSQL_PWD")) }

// connected does something on a connection of its own.
func (d *mysqlDatabase) connected(ctx context.Context, do func(*mysql.Conn) error) error {
	url, err := mysqlURL(d.Source)
	if err != nil {
		return err
	}
	conn, err := mysql.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

func (d *mysqlDatabase) identify(ctx context.Context) (incarnation, error) {
	url, err := mysqlURL(d.Source)
	if err != nil {
		return incarnation{}, err
	}
	id, err := mysql.Identify(ctx, url)
	engine := engineMySQL
	if id.Flavor == gtid.MariaDB {
		engine = engineMariaDB
	}
	return incarnation{
		Identity: archive.Identity{Engine: engine, System: id.System},
		terms: map[string]string{"system": id.System, "version": id.Version, "server_id": fmt.Sprint(id.ServerID), "host": id.Host,
			"executed": string(id.Executed)},
	}, err
}

// belongs accepts any server of the vendor that has executed what is on record: after a
// failover it is another one.
func (d *mysqlDatabase) belongs(ctx context.Context, a *archive.Archive, id incarnation) error {
	if a.Identity.Engine != id.Engine {
		return otherDatabase(a, id)
	}
	epochs, err := a.Epochs(ctx)
	if err != nil || len(epochs) == 0 {
		return err
	}
	last := epochs[len(epochs)-1]
	if id.System == a.Identity.System || id.System == last.Source["system"] {
		return nil
	}
	tail, err := a.Tail(ctx, last.Number)
	if err != nil || tail.Seq == 0 {
		return err
	}
	held, err := gtid.Parse(flavor(id.Engine), string(tail.Position))
	if err != nil {
		return fmt.Errorf("%w: epoch %d ends at a position that is no GTID set: %w", archive.ErrCorrupt, last.Number, err)
	}
	executed, err := gtid.Parse(flavor(id.Engine), id.terms["executed"])
	if err != nil {
		return err
	}
	if !held.Overlaps(executed) {
		return otherDatabase(a, id)
	}
	return nil // that it holds all of it is the stream's to check
}

func flavor(engine string) gtid.Flavor {
	if engine == engineMariaDB {
		return gtid.MariaDB
	}
	return gtid.MySQL
}

// fresh opens a stream to see that one can be opened.
func (d *mysqlDatabase) fresh(ctx context.Context) error {
	s, err := d.stream(ctx, mysql.SourceOptions{}, rand.Text())
	if err == nil {
		s.Close()
	}
	return err
}

func (d *mysqlDatabase) open(ctx context.Context, a *archive.Archive, epoch archive.Epoch, tail archive.Tail, _ bool) (stream, error) {
	if d.last == nil || d.tail.Epoch != tail.Epoch || d.tail.Position != tail.Position {
		last, err := mysql.ReadLast(ctx, a, tail, d.SpillDir)
		if err != nil {
			return nil, err
		}
		d.last, d.tail = last, tail
	}
	s, err := d.stream(ctx, mysql.SourceOptions{Tail: tail.Position, Last: d.last, Latest: tail.Latest, Known: epoch.Source["system"], Torn: d.torn, Sync: d.SyncWait}, a.Identity.Archive)
	if err != nil {
		return nil, err
	}
	return &mysqlStream{Source: s, database: d}, nil
}

// stream opens a stream under the server id and uuid that name stands for: the server ends
// the connection of a capture that died when its successor comes.
func (d *mysqlDatabase) stream(ctx context.Context, opts mysql.SourceOptions, name string) (_ *mysql.Source, err error) {
	if opts.URL, err = mysqlURL(d.Source); err != nil {
		return nil, err
	}
	opts.ServerID, opts.ReplicaUUID = replicaIdentity(name)
	if d.ServerID != 0 {
		opts.ServerID = d.ServerID
	}
	return mysql.Open(ctx, opts)
}

// waiters returns none: the server itself stops to wait.
func (d *mysqlDatabase) waiters(context.Context) (waiters, error) { return nil, nil }

func (d *mysqlDatabase) taken(ctx context.Context, a *archive.Archive) (taken bool, err error) {
	_, uuid := replicaIdentity(a.Identity.Archive)
	err = d.connected(ctx, func(conn *mysql.Conn) error {
		taken, err = mysql.Captured(ctx, conn, uuid)
		return err
	})
	return taken, err
}

// replicaIdentity derives from a name a server id in the upper half of their range, where
// people rarely choose theirs, and a UUID.
func replicaIdentity(name string) (id uint32, uuid string) {
	h := sha256.Sum256([]byte("txreel " + name))
	id = binary.BigEndian.Uint32(h[:]) | 1<<31
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // version 8 of RFC 9562: made from something else
	return id, fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// continues accepts every epoch: GTIDs say what is missing, however it was recorded.
func (d *mysqlDatabase) continues(archive.Epoch) error { return nil }

func (d *mysqlDatabase) takeBase(ctx context.Context, a *archive.Archive, epoch uint64, r sources.BaseRequest, progress func(sources.BaseProgress)) (*archive.Base, error) {
	url, err := mysqlURL(d.Source)
	if err != nil {
		return nil, err
	}
	return mysql.TakeBase(ctx, a, epoch, mysql.BaseOptions{
		URL: url, Reason: r.Reason, Jobs: d.BaseJobs, SpillDir: d.SpillDir, AllowLock: d.AllowLock,
		LockTimeout: int(d.LockTimeout.Seconds()), Progress: progress,
	})
}

func (d *mysqlDatabase) finishBase(ctx context.Context, a *archive.Archive, b *archive.Base, hurry func()) error {
	return mysql.FinishBase(ctx, a, b, hurry)
}

// lacking never asks for a base: the log holds the statements that change definitions, and a
// restore runs them again.
func (d *mysqlDatabase) lacking(context.Context, *archive.Base, *archive.Base) (r sources.BaseRequest, err error) {
	return r, nil
}

func (d *mysqlDatabase) watched() string { return "" }

func (d *mysqlDatabase) stales(*archive.Base) (bool, error) { return false, nil }

// mark notes what the server has committed. Nothing is written: MySQL's log has no place
// for a message.
func (d *mysqlDatabase) mark(ctx context.Context, _ string) (marker, error) {
	var want *gtid.Set
	err := d.connected(ctx, func(conn *mysql.Conn) error {
		at, err := mysql.ReadPosition(ctx, conn)
		if err == nil {
			want, err = gtid.Parse(conn.Flavor, string(at))
		}
		return err
	})
	return func(ctx context.Context, a *archive.Archive, m *archive.Mark, _ *change.Seq) (bool, error) {
		return lastWithin(ctx, a, want, m)
	}, err
}

// lastWithin completes m with the last transaction that belongs to a set of GTIDs, once
// the epoch holds all of the set.
func lastWithin(ctx context.Context, a *archive.Archive, want *gtid.Set, m *archive.Mark) (bool, error) {
	tail, err := a.Tail(ctx, m.Epoch)
	if err != nil || tail.Seq == 0 {
		return false, err
	}
	held, err := gtid.Parse(want.Flavor(), string(tail.Position))
	if err != nil || !held.Contains(want) {
		return false, err
	}
	m.Seq = tail.Seq
	next, ok, err := a.FirstBehind(ctx, m.Epoch, func(t *change.Txn) (bool, error) {
		if t.Kind != change.TxnSource {
			at, err := gtid.Parse(want.Flavor(), string(t.Position))
			return err == nil && !want.Contains(at), err
		}
		id, err := gtid.ParseGTID(t.XID)
		return err == nil && !want.Has(id), err
	})
	if err != nil {
		return false, err
	}
	if ok {
		m.Seq = next.Seq - 1
	}
	e, ok, err := a.Lookup(ctx, m.Epoch, m.Seq)
	if err == nil && !ok {
		err = fmt.Errorf("what the server has committed, %s, lies before the record of epoch %d", want, m.Epoch)
	}
	m.XID, m.Position, m.CommitTime = e.XID, e.Position, e.CommitTime
	return err == nil, err
}

func (d *mysqlDatabase) retention(ctx context.Context, held change.Position) (r *sources.Retention, err error) {
	err = d.connected(ctx, func(conn *mysql.Conn) error {
		h, err := mysql.ReadHealth(ctx, conn, held)
		if err == nil {
			r = binlogRetention(h)
		}
		return err
	})
	return r, err
}

// binlogRetention puts into words how long the server keeps what is not on record.
func binlogRetention(h *mysql.Health) *sources.Retention {
	r := &sources.Retention{At: h.At, Kept: h.BytesBehind, Limit: -1, Purge: -1}
	if h.SizeLimit > 0 {
		r.Limit = h.SizeLimit
	}
	when := "and is never purged by age"
	switch {
	case h.AtOnce:
		r.Purge = 0
		when = "and may be purged at any moment: CALL mysql.rds_set_configuration('binlog retention hours', 72)"
	case h.ExpireAfter > 0:
		r.Purge = max(h.TimeToPurge, 0)
		when = fmt.Sprintf("and may be purged in %s", r.Purge.Round(time.Minute))
	}
	r.Text = fmt.Sprintf("binlog from %s on is needed, %s of %s, %s", h.NeededFile, humanize.IBytes(uint64(max(h.BytesBehind, 0))), humanize.IBytes(uint64(max(h.BytesKept, 0))), when)
	return r
}

// mysqlStream is a stream of a binlog.
type mysqlStream struct {
	*mysql.Source
	database *mysqlDatabase
}

// Next implements capture.Source. A group without an end is remembered for the next
// attempt.
func (s *mysqlStream) Next(ctx context.Context) (*change.Message, error) {
	m, err := s.Source.Next(ctx)
	var torn *mysql.TornError
	if errors.As(err, &torn) {
		s.database.torn = torn.GTID
	}
	return m, err
}

// Retention implements stream.
func (s *mysqlStream) Retention() *sources.Retention {
	h := s.Health()
	if h == nil {
		return nil
	}
	return binlogRetention(h)
}

func (c *restoreCmd) mysqlRestorer(engine string) (restore.Dialect, func(context.Context) (restoreTarget, error)) {
	return mysqltarget.Dialect{Flavor: flavor(engine)}, func(ctx context.Context) (restoreTarget, error) {
		url, err := mysqlURL(c.Target)
		if err != nil {
			return nil, err
		}
		return mysqltarget.Open(ctx, url, mysqltarget.Options{Serve: c.Serve, Exact: c.Exact, Memory: int64(c.Memory)})
	}
}
