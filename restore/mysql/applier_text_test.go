package mysql

import (
	"context"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// TestFailedAccount demands that the error of a failed replay tells no password.
func TestFailedAccount(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d; CREATE USER u IDENTIFIED BY 'Secret-1'")
		hash := source.MustQuery(t, "", "SELECT authentication_string FROM mysql.user WHERE user = 'u'")[0][0]
		r.capture()
		target.MustExec(t, "", "SET sql_log_bin = 0; CREATE USER u IDENTIFIED BY 'other'")
		_, err := r.restore(context.Background(), target, restore.Goal{}, restore.Options{})
		if err == nil || !strings.Contains(err.Error(), "Operation CREATE USER failed") ||
			strings.Contains(err.Error(), "Secret-1") || strings.Contains(err.Error(), hash) {
			t.Errorf("%v", err)
		}
	})
}

// TestWithoutSecrets demands that an applier's message tells no password, also where the server has cut it off.
func TestWithoutSecrets(t *testing.T) {
	t.Parallel()
	const head = "Error 'Operation CREATE USER failed for 'u'@'%'' on query. Default database: ''. "
	for _, c := range []struct{ name, text, want string }{
		{"an account", head + "Query: 'create user u identified by 'Secret-1''", "create user u identified by"},
		{"with a GTID", head + "Query: 'create user u identified by 'Secret-1'', Gtid 0-1-5, Internal MariaDB error code: 1396", "Gtid 0-1-5, Internal MariaDB error code: 1396"},
		{"cut off in a password", head + "Query: 'create user u identified by 'Secret-1", "Operation CREATE USER failed"},
		{"cut off behind one", head + "Query: 'create user u identified by 'Secret-1'", "Operation CREATE USER failed"},
		{"a quote in it", head + "Query: 'create user u identified by 'x''Secret-1''", "Operation CREATE USER failed"},
		{"not understood", "Error 'You have an error in your SQL syntax near 'by 'Secret-1' what' at line 1' on query. Default database: ''. " +
			"Query: 'create user u identified by 'Secret-1' what'", "You have an error"},
		{"not understood, no statement", "You have an error in your SQL syntax near 'by 'Secret-1' what' at line 1", "You have an error"},
		{"plain", "Error 'Table 't' already exists' on query. Default database: 'd'. Query: 'create table t (i int comment 'c')'",
			"Query: 'create table t (i int comment 'c')'"},
		{"rows", "Could not execute Write_rows_v1 event on table d.t; Duplicate entry '1' for key 'PRIMARY'", "Duplicate entry '1' for key 'PRIMARY'"},
	} {
		got := withoutSecrets(c.text)
		if strings.Contains(got, "Secret") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
