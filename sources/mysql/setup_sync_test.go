package mysql

import (
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/sources"
)

// TestSetupSync sets a server up for commits that wait, by what setup prints, and back. What it prints is all a stream
// that commits wait for asks of the server, and the doctor says so, before and after.
func TestSetupSync(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		ctx := t.Context()
		s := Setup{Sync: 700 * time.Millisecond}
		opts := DoctorOptions{Sync: s.Sync}
		fix := "rpl_semi_sync_master_enabled = ON"
		if server.Flavor == "mysql" {
			fix = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'"
		}
		t.Cleanup(func() {
			if server.Flavor == "mariadb" {
				server.MustExec(t, "", "SET GLOBAL rpl_semi_sync_master_timeout = 10000")
			}
		})
		expect(t, examine(t, server.URL(""), opts), want{"zero-loss mode", problem, "", fix})
		plan, err := s.Plan(ctx, connect(t, server.URL("")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.Client(ctx, "", sources.Script(plan)); err != nil {
			t.Fatalf("the script does not run: %v\n%s", err, sources.Script(plan))
		}
		if !strings.HasSuffix(sqlOf(plan)[len(sqlOf(plan))-1], "enabled = ON") {
			t.Errorf("what switches it on is not the last statement:\n%s", sources.Script(plan))
		}
		if again, err := s.Plan(ctx, connect(t, server.URL(""))); err != nil || strings.Contains(sources.Script(again), "semi_sync") {
			t.Errorf("a second plan: %v\n%s", err, sources.Script(again))
		}
		expect(t, examine(t, server.URL(""), opts), want{"zero-loss mode", ok, "700 ms", ""})
		expect(t, examine(t, server.URL(""), DoctorOptions{Sync: 100 * time.Millisecond}), want{"zero-loss mode", problem, "longer than --sync-timeout", "timeout = 100"})
		src := open(t, SourceOptions{URL: server.URL(""), Tail: executed(t, server), Sync: s.Sync})
		expect(t, examine(t, server.URL(""), opts), want{"zero-loss mode", note, "connected: 1", ""})
		if err := s.Remove(ctx, connect(t, server.URL("")), nil); err == nil || !strings.Contains(err.Error(), "stop the capture") {
			t.Errorf("with a capture: %v", err)
		}
		src.Close()
		eventually(t, "the capture to be gone", func() bool { return s.Remove(ctx, connect(t, server.URL("")), nil) == nil })
		expect(t, examine(t, server.URL(""), opts), want{"zero-loss mode", problem, "", fix})
	})
}
