package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"txreel/restore"
)

// TestDomains kills the server while one domain is far behind the other, and restores on:
// MariaDB's account of what it has executed knows no holes, so what is passed over then is lost for good.
func TestDomains(t *testing.T) {
	source, target := servers(t, "mariadb")
	ctx := context.Background()
	r := record(t, source)
	var sql strings.Builder
	// The first transaction of domain 3 never ends in a target with a certain setting, which the killed one has lost.
	sql.WriteString("CREATE DATABASE d; CREATE TABLE d.a (i INT PRIMARY KEY, v TEXT); SET gtid_domain_id = 3; CREATE DATABASE e; CREATE TABLE e.b (i INT PRIMARY KEY, v TEXT); " +
		"SET binlog_format = 'STATEMENT'; INSERT INTO e.b VALUES (-1, SLEEP(IF(@@GLOBAL.max_connect_errors = 12345, 50, 0))); SET binlog_format = 'ROW'; ")
	for i := range 300 {
		domain, table := 0, "d.a"
		if i%60 == 30 { // so few that there are workers left for the other domain
			domain, table = 3, "e.b"
		}
		fmt.Fprintf(&sql, "SET gtid_domain_id = %d; INSERT INTO %s VALUES (%d, REPEAT('x', 2000));", domain, table, i)
	}
	sql.WriteString("SET gtid_domain_id = 0; INSERT INTO d.a VALUES (1000, '')")
	source.MustExec(t, "", sql.String())
	r.capture()
	target.MustExec(t, "", "SET GLOBAL max_connect_errors = 12345")
	done := make(chan error, 1)
	go func() { // joined below
		_, err := r.restore(ctx, target, restore.Goal{}, restore.Options{Jobs: 16})
		done <- err
	}()
	waitExecuted(t, target, r, len(r.xids)-1) // domain 0
	r.check(target.Kill(ctx))
	var partial *restore.PartialError
	if err := <-done; !errors.As(err, &partial) {
		t.Errorf("killed: %v", err)
	}
	r.check(target.Start(ctx))
	r.mustRestore(target, restore.Goal{})
	same(t, "two domains", content(t, source), content(t, target))
}
