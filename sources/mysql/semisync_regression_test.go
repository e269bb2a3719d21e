package mysql

import (
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestSemiSyncIsNotLeftOff asks for commits that wait, of servers on which they do not, or not as they must: by the names that
// each server has for it. It is refused before the stream begins, and noticed when it ends later.
func TestSemiSyncIsNotLeftOff(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		set := "SET GLOBAL rpl_semi_sync_master_"
		opts := SourceOptions{URL: server.URL(""), Sync: time.Second, lookEvery: 50 * time.Millisecond}
		refuse := func(says ...string) {
			t.Helper()
			err := refused(t, opts)
			for _, text := range says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v, want %q", err, text)
				}
			}
		}
		if server.Flavor == "mysql" {
			refuse("no semi-synchronous replication", "INSTALL PLUGIN rpl_semi_sync_source")
			set = "SET GLOBAL rpl_semi_sync_source_"
			server.MustExec(t, "", "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
			t.Cleanup(func() { server.MustExec(t, "", "UNINSTALL PLUGIN rpl_semi_sync_source") })
		}
		name := strings.TrimPrefix(set, "SET GLOBAL ")
		refuse("waits for nobody", name+"enabled = ON")
		server.MustExec(t, "", set+"enabled = ON; "+set+"timeout = 60000")
		t.Cleanup(func() { server.MustExec(t, "", set+"enabled = OFF; "+set+"timeout = 10000") })
		refuse("60000 ms", name+"timeout = 1000")
		server.MustExec(t, "", set+"timeout = 1000; "+set+"wait_point = AFTER_COMMIT")
		refuse("before it is safe", name+"wait_point = AFTER_SYNC")
		server.MustExec(t, "", set+"wait_point = AFTER_SYNC")
		opts.Tail = executed(t, server)
		src := open(t, opts)
		eventually(t, "commits to wait", func() bool {
			reason, _, err := src.waits.conn.waiting(t.Context())
			return err == nil && reason == ""
		})
		server.MustExec(t, "", set+"enabled = OFF")
		if reason, err := src.Exposed(t.Context()); err != nil || !strings.Contains(reason, "asynchronous") {
			t.Errorf("left off under the stream: %q, %v", reason, err)
		}
	})
}
