package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// readBlocker names the oldest write transaction of the server, which a new slot has waited for in vain when
// err says that it waited too long, and how to end it. It is empty when there is none any more, or the role may not see it:
// only pg_monitor sees those of other roles.
func readBlocker(ctx context.Context, url string, err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "55P03" { // lock_not_available
		return ""
	}
	conn, err := Connect(ctx, url)
	if err != nil {
		return ""
	}
	defer closeConn(conn.PgConn())
	var pid, seconds int64
	var application, role, database, state, gid string
	// A slot waits for the transactions of all databases.
	err = conn.QueryRow(ctx, `
		select pid, application_name, usename, datname, state, gid, seconds from (
			select pid::bigint, coalesce(application_name, '') as application_name, coalesce(usename, '') as usename, coalesce(datname, '') as datname,
			       coalesce(state, '') as state, '' as gid, extract(epoch from pg_catalog.clock_timestamp() - xact_start)::bigint as seconds
			  from pg_catalog.pg_stat_activity
			 where backend_xid is not null and xact_start is not null and pid <> pg_catalog.pg_backend_pid()
			union all
			select 0, '', owner, database, '', gid, extract(epoch from pg_catalog.clock_timestamp() - prepared)::bigint
			  from pg_catalog.pg_prepared_xacts) x
		order by seconds desc limit 1`).Scan(&pid, &application, &role, &database, &state, &gid, &seconds)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err != nil:
		return ""
	case gid != "":
		return fmt.Sprintf("%s of database %q was prepared %s ago by role %q: COMMIT PREPARED or ROLLBACK PREPARED %[1]s in that database",
			quoteLiteral(gid), database, age(seconds), role)
	}
	return fmt.Sprintf("pid %d (application %q, role %q, database %q) has had it open for %s and is %q: end it there, or with SELECT pg_terminate_backend(%[1]d)",
		pid, application, role, database, age(seconds), state)
}

func age(seconds int64) time.Duration { return time.Duration(max(seconds, 0)) * time.Second }
