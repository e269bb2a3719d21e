package mysql

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"txreel/capture"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

func TestQueryReturnsTheServersText(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		conn := connect(t, server.URL(""))
		want := map[string]gtid.Flavor{"mysql": gtid.MySQL, "mariadb": gtid.MariaDB}[server.Flavor]
		if conn.Flavor != want || conn.Number < 100000 && conn.Number < 90700 || conn.ID == 0 {
			t.Fatalf("connected to %v %d as %d", conn.Flavor, conn.Number, conn.ID)
		}
		r, err := conn.Query(t.Context(), `SELECT NULL AS n, '' AS e, 18446744073709551615 AS u, 1.10 AS d, 'é😀' AS Text, 1e300 AS f, @@session.sql_mode, @@session.time_zone
			UNION ALL SELECT 1, 'x', 2, 3.00, REPEAT('y', 300), 0, '', ''`)
		if err != nil {
			t.Fatal(err)
		}
		row := r.Rows[0]
		if !row[0].Null() || row[1].Null() || row[1].String() != "" || row[2].String() != "18446744073709551615" || row[3].String() != "1.10" ||
			r.Value(0, "text").String() != "é😀" || row[6].String() != "" || row[7].String() != "+00:00" || len(r.Rows) != 2 || len(r.Rows[1][4]) != 300 {
			t.Fatalf("row %q", r.Rows)
		}
		if _, err := conn.QueryRow(t.Context(), "SELECT 1 FROM mysql.user WHERE 1=0"); !errors.Is(err, ErrNoRows) {
			t.Fatalf("no row: %v", err)
		}
		// A refused statement leaves the session as it was.
		var refused *ServerError
		if err := conn.Exec(t.Context(), "SELECT nonsense"); !errors.As(err, &refused) || refused.Code != 1054 || errors.Is(err, capture.ErrUnreachable) {
			t.Fatalf("nonsense: %v", err)
		}
		// Answers of more than one packet.
		row, err = conn.QueryRow(t.Context(), "SELECT REPEAT('y', 15000000), REPEAT('z', 15000000)")
		if err != nil || len(row[0]) != 15000000 || len(row[1]) != 15000000 || row[1][14999999] != 'z' {
			t.Fatalf("a long row: %v", err)
		}
		if err := conn.Exec(t.Context(), "SET @q = "+quoteLiteral("a'b\\c\x00\n")); err != nil {
			t.Fatal(err)
		}
		if row, err := conn.QueryRow(t.Context(), "SELECT @q AS "+quoteIdent("we`ird")); err != nil || row[0].String() != "a'b\\c\x00\n" {
			t.Fatalf("%q, %v", row, err)
		}
	})
}

func TestQueryEndsWithItsContext(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		conn := connect(t, server.URL(""))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := conn.Exec(ctx, "SELECT SLEEP(60)"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("slept: %v", err)
		}
		if !conn.Closed() || conn.Exec(t.Context(), "SELECT 1") == nil {
			t.Fatal("the connection is still in use")
		}
		// A killed session is one that may be opened again.
		conn, other := connect(t, server.URL("")), connect(t, server.URL(""))
		if err := other.Exec(t.Context(), "KILL "+conn.id()); err != nil {
			t.Fatal(err)
		}
		if err := conn.Exec(t.Context(), "SELECT SLEEP(60)"); !errors.Is(err, capture.ErrUnreachable) {
			t.Fatalf("killed: %v", err)
		}
		boom := errors.New("boom")
		if err := other.Stream(t.Context(), "SELECT 1 UNION SELECT 2", func([]Value) error { return boom }); !errors.Is(err, boom) || errors.Is(err, capture.ErrUnreachable) || !other.Closed() {
			t.Fatalf("stopped by us: %v", err)
		}
	})
}

func TestVersionNumbers(t *testing.T) {
	for text, want := range map[string]int{
		"8.0.45": 80045, "9.7.4": 90704, "10.11.19-MariaDB-log": 101119, "5.5.5-10.11.19-MariaDB": 101119,
		"8.0.mysql_aurora.3.04.0": 0, "8.0.36-28": 80036, "": 0, "12.3": 0,
	} {
		if got := versionNumber(text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
	if !strings.Contains(quoteIdent("a", "b"), "`a`.`b`") {
		t.Error(quoteIdent("a", "b"))
	}
}
