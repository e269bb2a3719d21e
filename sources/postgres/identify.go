package postgres

import (
	"context"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"txreel/change"
	"txreel/sources/postgres/lsn"
)

// Incarnation says which server and database a source is. A promoted standby has
// another timeline, a restored copy made by initdb another system identifier.
type Incarnation struct {
	System   string // system identifier of the cluster
	Timeline int32
	Database string
}

// Identify asks the source who it is, on a replication connection: the question
// is allowed to every role that may capture.
func Identify(ctx context.Context, url string) (Incarnation, error) {
	cfg, err := connConfig(url, "txreel", true)
	if err != nil {
		return Incarnation{}, err
	}
	conn, err := dial(ctx, cfg)
	if err != nil {
		return Incarnation{}, err
	}
	defer closeConn(conn)
	id, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return Incarnation{}, wrapSQL("identify the source", err)
	}
	return Incarnation{System: id.SystemID, Timeline: id.Timeline, Database: id.DBName}, nil
}

// Clock returns the source's clock.
func Clock(ctx context.Context, conn *pgx.Conn) (change.Time, error) {
	var us int64
	err := conn.QueryRow(ctx, `select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint`).Scan(&us)
	return change.Time(us), wrapSQL("read the source's clock", err)
}

// markPrefix is the prefix of the logical messages that marks are.
const markPrefix = "txreel.mark"

// WriteMark commits a transaction that carries a mark, and returns its id and a
// position at or behind its end. The message goes through the log in order with all
// other transactions and leaves nothing in the database.
func WriteMark(ctx context.Context, conn *pgx.Conn, name string) (xid string, behind change.Position, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", "", wrapSQL("write the mark", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after Commit it does nothing
	var id uint64
	var ignored string
	if err := tx.QueryRow(ctx, `select pg_catalog.pg_current_xact_id()::text::bigint, pg_catalog.pg_logical_emit_message(true, $1, $2)::text`, markPrefix, name).Scan(&id, &ignored); err != nil {
		return "", "", wrapSQL("write the mark", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return "", "", wrapSQL("write the mark", err)
	}
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&ignored); err != nil {
		return "", "", wrapSQL("write the mark", err)
	}
	at, err := lsn.Parse(ignored)
	return strconv.FormatUint(id, 10), at.Position(), err
}

// Start returns where the stream begins, and the source's time when it was opened:
// what the first segment of an epoch has to say.
func (s *Source) Start() *change.Message {
	return &change.Message{Kind: change.KindIdle, Position: s.start.Position(), CommitTime: s.clock}
}
