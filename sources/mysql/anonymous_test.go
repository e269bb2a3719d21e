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
	opts, _ := recorded(t, server, "CREATE DATABASE d", "CREATE TABLE d.t (n int)", "INSERT INTO d.t VALUES (1)")
	for _, sql := range []string{"SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = OFF_PERMISSIVE", "INSERT INTO d.t VALUES (2)",
		"SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = ON", "INSERT INTO d.t VALUES (3)"} {
		server.MustExec(t, "", sql)
	}
	src, err := Open(t.Context(), ours(opts))
	if err == nil {
		err = failure(t, src)
		src.Close()
	}
	if !errors.Is(err, capture.ErrGap) || errors.Is(err, capture.ErrDiverged) {
		t.Errorf("transactions without GTIDs behind the record: %v", err)
	}
}
