package mysql

import (
	"context"
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// TestLosingSettings demands that Check refuses a target whose settings would lose or change what is
// replayed, says how to clear them, and has written nothing.
func TestLosingSettings(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d")
		r.capture()
		for _, c := range []struct{ only, set, undo, want string }{
			{"mysql", "CHANGE REPLICATION FILTER REPLICATE_DO_DB = (other)", "CHANGE REPLICATION FILTER REPLICATE_DO_DB = ()",
				"CHANGE REPLICATION FILTER REPLICATE_DO_DB = ()"},
			{"mysql", "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = ('d.%')", "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = ()",
				"REPLICATE_WILD_IGNORE_TABLE=d.%"},
			{"mysql", "CHANGE REPLICATION FILTER REPLICATE_REWRITE_DB = ((d, e))", "CHANGE REPLICATION FILTER REPLICATE_REWRITE_DB = ()",
				"CHANGE REPLICATION FILTER REPLICATE_REWRITE_DB = ()"},
			{"mariadb", "SET GLOBAL replicate_do_db = 'other'", "SET GLOBAL replicate_do_db = ''", "SET GLOBAL replicate_do_db = ''"},
			{"mariadb", "SET GLOBAL replicate_ignore_table = 'd.t'", "SET GLOBAL replicate_ignore_table = ''", "replicate_ignore_table=d.t"},
			{"mariadb", "SET GLOBAL replicate_wild_ignore_table = 'd.%'", "SET GLOBAL replicate_wild_ignore_table = ''", "replicate_wild_ignore_table=d.%"},
			{"mariadb", "SET GLOBAL replicate_events_marked_for_skip = FILTER_ON_SLAVE", "SET GLOBAL replicate_events_marked_for_skip = REPLICATE",
				"SET GLOBAL replicate_events_marked_for_skip = REPLICATE"},
			{"mariadb", "SET GLOBAL enforce_storage_engine = MyISAM", "SET GLOBAL enforce_storage_engine = NULL", "SET GLOBAL enforce_storage_engine = NULL"},
			{"", "SET GLOBAL default_storage_engine = MyISAM", "SET GLOBAL default_storage_engine = InnoDB", "SET GLOBAL default_storage_engine = InnoDB"},
		} {
			if c.only != "" && c.only != target.Flavor {
				continue
			}
			t.Run(c.set, func(t *testing.T) {
				empty(t, target)
				target.MustExec(t, "", c.set)
				defer target.MustExec(t, "", c.undo)
				refused(t, r, target, c.want)
			})
		}
		r.mustRestore(target, restore.Goal{})
	})
}

// TestLosingConfiguration is TestLosingSettings for what only a start of the server sets.
func TestLosingConfiguration(t *testing.T) {
	both(t, func(t *testing.T, source, _ *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d")
		r.capture()
		skip := map[string]string{"mysql": "replica_skip_errors", "mariadb": "slave_skip_errors"}[source.Flavor]
		my, err := dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: source.Flavor, Settings: map[string]string{skip: "1062", "replicate_do_db": "other"}})
		r.check(err)
		defer func() { r.check(my.Close()) }()
		refused(t, r, my, "replicate_do_db=other")
		my.Configure(map[string]string{"replicate_do_db": ""})
		r.check(my.Restart(ctx))
		refused(t, r, my, "start it without "+skip)
		if my.Flavor == "mariadb" {
			my.Configure(map[string]string{skip: "", "log_bin": ""})
			r.check(my.Restart(ctx))
			refused(t, r, my, "start it with log_bin")
		}
	})
}

// refused demands that a restore is refused before it writes anything.
func refused(t *testing.T, r *recorder, target *dbtest.MySQL, want string) {
	t.Helper()
	_, err := r.restore(context.Background(), target, restore.Goal{}, restore.Options{})
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
		t.Errorf("%v, want %q", err, want)
	}
	if n := target.MustQuery(t, "", "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE 'txreel%'")[0][0]; n != "0" {
		t.Error("it left a schema behind")
	}
}
