package mysql

import (
	"errors"
	"testing"

	"txreel/capture"
	"txreel/internal/dbtest"
)

// TestAnonymousBetween lets a server commit without GTIDs for a while, when nobody looked, and with them again. The
// server itself would pass over what was committed in between.
func TestAnonymousBetween(t *testing.T) {
	server := dbtest.My(t, "mysql")
	for _, sql := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (n int)", "INSERT INTO d.t VALUES (1)"} {
		server.MustExec(t, "", sql)
	}
	tail := executed(t, server)
	id, err := Identify(t.Context(), server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	last := id.System + ":" + server.MustQuery(t, "", "SELECT REGEXP_SUBSTR(@@global.gtid_executed, '[0-9]+$')")[0][0]
	for _, sql := range []string{"SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = OFF_PERMISSIVE", "INSERT INTO d.t VALUES (2)",
		"SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = ON", "INSERT INTO d.t VALUES (3)"} {
		server.MustExec(t, "", sql)
	}
	src, err := Open(t.Context(), ours(SourceOptions{URL: server.URL(""), Tail: tail, Last: last}))
	if err == nil {
		err = failure(t, src)
		src.Close()
	}
	if !errors.Is(err, capture.ErrGap) {
		t.Errorf("transactions without GTIDs behind the record: %v", err)
	}
}
