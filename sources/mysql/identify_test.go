package mysql

import (
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

func TestIdentify(t *testing.T) {
	onBoth(t, func(t *testing.T, server *dbtest.MySQL) {
		server.MustExec(t, "", "CREATE DATABASE IF NOT EXISTS identify")
		id, err := Identify(t.Context(), server.URL(""))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Identify(t.Context(), server.URL(""))
		if err != nil || again.System != id.System || len(id.System) < 20 || id.ServerID == 0 {
			t.Fatalf("%+v, then %+v, %v", id, again, err)
		}
		set, err := gtid.Parse(id.Flavor, string(id.Executed))
		if err != nil || set.IsEmpty() {
			t.Fatalf("executed %q: %v", id.Executed, err)
		}
		t.Logf("%+v", id)
		conn := connect(t, server.URL(""))
		clock, err := Clock(t.Context(), conn)
		if off := time.Since(time.UnixMicro(int64(clock))); err != nil || off > time.Minute || off < -time.Minute {
			t.Fatalf("clock %s is off by %s, %v", clock, off, err)
		}
	})
}
