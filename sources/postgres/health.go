package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"txreel/sources/postgres/lsn"
)

// ReadHealth asks the server how much log the slot holds back, and how much it
// may. It fails when the slot does not exist.
func ReadHealth(ctx context.Context, conn *pgx.Conn, slot string) (*Health, error) {
	h := &Health{At: time.Now()}
	err := conn.QueryRow(ctx, `
		select coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint,
		       coalesce(s.wal_status, ''),
		       (select case when setting = '-1' then -1 else setting::bigint * 1048576 end
		          from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size')
		  from pg_catalog.pg_replication_slots s where s.slot_name = $1`, slot).
		Scan(&h.RetainedBytes, &h.WALStatus, &h.LimitBytes)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("slot %q does not exist in the source", slot)
	}
	if err != nil {
		return nil, wrapSQL("look at slot "+slot, err)
	}
	return h, nil
}

// readFence reads the source's clock and then the end of its log: what commits by
// that time stands before that position.
func readFence(ctx context.Context, conn *pgx.Conn) (*fence, error) {
	f := &fence{}
	var err error
	if f.time, err = Clock(ctx, conn); err != nil {
		return nil, err
	}
	var text string
	var page lsn.LSN
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.current_setting('wal_block_size')::bigint`).Scan(&text, &page); err != nil {
		return nil, wrapSQL("look at the server's log", err)
	}
	f.at, err = lsn.Parse(text)
	// At the start of a page the next record comes behind the page's header, but the
	// last one ended before it.
	const longHeader = 40
	if f.at%page <= longHeader {
		f.at -= f.at % page
	}
	return f, err
}
