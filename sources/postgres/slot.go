package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/sources/postgres/lsn"
)

// slotState is a row of pg_replication_slots, and where the server's log stands.
type slotState struct {
	exists    bool
	plugin    string
	database  string
	here      string // the database we are connected to
	active    bool
	status    string // wal_status
	confirmed lsn.LSN
	current   lsn.LSN // the end of the server's log
}

func readSlotState(ctx context.Context, conn *pgx.Conn, name string) (slotState, error) {
	var st slotState
	var recovery bool
	if err := conn.QueryRow(ctx, `select pg_catalog.current_database(), pg_catalog.pg_is_in_recovery()`).Scan(&st.here, &recovery); err != nil {
		return st, wrapSQL("look at the server", err)
	}
	if recovery {
		return st, errors.New("the source is a standby: capture reads from the primary")
	}
	var current, confirmed string
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text`).Scan(&current); err != nil {
		return st, wrapSQL("look at the server's log", err)
	}
	err := conn.QueryRow(ctx, `select coalesce(plugin, ''), coalesce(database, ''), active, coalesce(wal_status, ''), coalesce(confirmed_flush_lsn::text, '')
		from pg_catalog.pg_replication_slots where slot_name = $1`, name).Scan(&st.plugin, &st.database, &st.active, &st.status, &confirmed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return st, wrapSQL("look at slot "+name, err)
	default:
		st.exists = true
		if confirmed != "" {
			if st.confirmed, err = lsn.Parse(confirmed); err != nil {
				return st, err
			}
		}
	}
	st.current, err = lsn.Parse(current)
	return st, err
}

// continues returns where the stream has to start so that the record goes on
// without a gap, or an error wrapping capture.ErrGap that says why it cannot. The server
// would hide every one of these cases: it moves a start that lies before the slot's
// position forward without a word.
func (st *slotState) continues(o SourceOptions) (lsn.LSN, error) {
	const next = "; what is missing cannot be had any more: run capture with --new-epoch to go on behind the gap"
	switch {
	case !st.exists:
		return 0, fmt.Errorf("%w: slot %q does not exist in the source: it was dropped, or lost in a failover%s", capture.ErrGap, o.Slot, next)
	case st.plugin != "pgoutput" || st.database != st.here:
		return 0, fmt.Errorf("slot %q belongs to plug-in %q and database %q, not to this capture: choose another name with --slot", o.Slot, st.plugin, st.database)
	case st.status == "lost":
		return 0, fmt.Errorf("%w: slot %q was invalidated: the server removed log it still needed (max_slot_wal_keep_size)%s", capture.ErrGap, o.Slot, next)
	case o.Tail == "":
		return st.confirmed, nil
	}
	tail, err := lsn.FromPosition(o.Tail)
	switch {
	case err != nil:
		return 0, err
	case st.confirmed > tail:
		return 0, fmt.Errorf("%w: slot %q stands at %s, the archive ends at %s: the slot was advanced or created anew by somebody else%s", capture.ErrGap, o.Slot, st.confirmed, tail, next)
	case tail > st.current:
		return 0, fmt.Errorf("%w: the archive ends at %s, the source's log at %s: the source was put back to an earlier state%s", capture.ErrGap, tail, st.current, next)
	}
	return tail, nil
}

// publicationOID returns the publication's OID, zero when there is none.
func publicationOID(ctx context.Context, conn *pgx.Conn, name string) (uint32, error) {
	var oid uint32
	err := conn.QueryRow(ctx, `select oid from pg_catalog.pg_publication where pubname = $1`, name).Scan(&oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return oid, wrapSQL("look at publication "+name, err)
}

// errIncomplete is wrapped when a publication leaves out changes.
var errIncomplete = errors.New("the publication does not publish everything")

// publishesAll returns an error wrapping errIncomplete when the publication leaves out
// changes: what it does not publish is missing from the stream without a trace.
func publishesAll(ctx context.Context, conn *pgx.Conn, name string) error {
	p, err := readPublication(ctx, conn, name)
	if err != nil {
		return wrapSQL("look at the publication", err)
	}
	if p == nil || p.complete() && p.filtered == 0 {
		return nil // whether it is there is checked elsewhere
	}
	return fmt.Errorf("%w: %q lacks something (%s); run `txreel setup --apply`", errIncomplete, name, p.describe())
}

// Slot says what is known of a slot before a capture starts.
type Slot struct {
	Exists    bool
	Lost      bool
	Active    bool
	Confirmed change.Position
}

// ReadSlot looks a slot up.
func ReadSlot(ctx context.Context, conn *pgx.Conn, name string) (Slot, error) {
	st, err := readSlotState(ctx, conn, name)
	return Slot{Exists: st.exists, Lost: st.status == "lost", Active: st.active, Confirmed: st.confirmed.Position()}, err
}

// CreateSlot creates the permanent slot, whose position is where the record begins.
// It waits for the write transactions that run now, at most lockTimeout
// milliseconds; an old prepared transaction would otherwise hold it for ever while the
// half-made slot already keeps log. The publication must exist: what is logged
// before it does could never be decoded.
func CreateSlot(ctx context.Context, url, name string, lockTimeout int) error {
	if lockTimeout <= 0 { // which the server would take for "no limit"
		lockTimeout = defaultLockTimeout
	}
	cfg, err := connConfig(url, "txreel", true)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", lockTimeout)).Close(); err != nil {
		return wrapSQL("set lock_timeout", err)
	}
	// EXPORT_SNAPSHOT is the default and needless. From 17 on standbys with sync_replication_slots keep a copy of the
	// slot, so that it outlives the primary.
	options := " NOEXPORT_SNAPSHOT"
	if majorVersion(conn) >= 17 {
		options = " (SNAPSHOT 'nothing', FAILOVER true)"
	}
	failpoint.Hit(failpoint.SlotCreating)
	if err := conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+quoteIdent(name)+" LOGICAL pgoutput"+options).Close(); err != nil {
		return explainSlot(name, err, readBlocker(ctx, url, err))
	}
	failpoint.Hit(failpoint.SlotCreated)
	return nil
}

// DropSlot drops a slot that nobody reads.
func DropSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, `select pg_catalog.pg_drop_replication_slot($1)`, name)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "55006" { // object_in_use
		return fmt.Errorf("%w: slot %q cannot be dropped while it is read (%s): stop the other capture", capture.ErrOtherCapture, name, pgErr.Message)
	}
	return wrapSQL("drop slot "+name, err)
}

// PublicationExists reports whether the source has the publication.
func PublicationExists(ctx context.Context, conn *pgx.Conn, name string) (bool, error) {
	oid, err := publicationOID(ctx, conn, name)
	return oid != 0, err
}

// SlotPredates reports whether the publication is younger than what the slot still
// has to decode. The server cannot decode with a publication that was not there yet: such a
// slot never gets on.
func SlotPredates(ctx context.Context, conn *pgx.Conn, slot, publication string) (bool, error) {
	var predates bool
	err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_replication_slots s, pg_catalog.pg_publication p
		where s.slot_name = $1 and p.pubname = $2 and pg_catalog.age(p.xmin) <= pg_catalog.age(s.catalog_xmin))`, slot, publication).Scan(&predates)
	return predates, wrapSQL("compare slot and publication", err)
}
