package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// readHealth asks how much log the slot holds back, and how much it may.
func readHealth(ctx context.Context, conn *pgx.Conn, slot string) (*Health, error) {
	h := &Health{At: time.Now()}
	err := conn.QueryRow(ctx, `
		select coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint,
		       coalesce(s.wal_status, ''),
		       (select case when setting = '-1' then -1 else setting::bigint * 1048576 end
		          from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size')
		  from pg_catalog.pg_replication_slots s where s.slot_name = $1`, slot).
		Scan(&h.RetainedBytes, &h.WALStatus, &h.LimitBytes)
	if err != nil {
		return nil, wrapSQL("look at slot "+slot, err)
	}
	return h, nil
}

// ReadHealth asks the server how much log the slot holds back, and how much it
// may. It fails when the slot does not exist.
func ReadHealth(ctx context.Context, conn *pgx.Conn, slot string) (*Health, error) {
	return readHealth(ctx, conn, slot)
}
