package mysql

import (
	"strings"
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/mysql/binlog"
)

// TestSameServerID restores into a server with the source's own server_id, which is 1 wherever nobody
// has set one: a replica drops the events that carry its own.
func TestSameServerID(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		for _, my := range []*dbtest.MySQL{source, target} {
			old := my.MustQuery(t, "", "SELECT @@GLOBAL.server_id")[0][0]
			my.MustExec(t, "", "SET GLOBAL server_id = 1")
			defer my.MustExec(t, "", "SET GLOBAL server_id = "+old)
		}
		r := record(t, source)
		small(t, source, 20)
		r.capture()
		r.mustRestore(target, restore.Goal{})
		same(t, "the same server_id", content(t, source), content(t, target))
		if now := target.MustQuery(t, "", "SELECT @@GLOBAL.server_id")[0][0]; now != "1" {
			t.Errorf("server_id %s, was 1", now)
		}
	})
}

// TestOwnEvents demands that what the replica would drop is never sent to it.
func TestOwnEvents(t *testing.T) {
	t.Parallel()
	d := &sender{replica: 1 << 31}
	raw := binlog.AppendEvent(nil, binlog.Header{Type: binlog.TypeGTID, ServerID: d.replica}, make([]byte, 42), binlog.ChecksumCRC32)
	if err := d.message(t.Context(), raw); err == nil || !strings.Contains(err.Error(), "server id 2147483648, which is the target's own") {
		t.Errorf("%v", err)
	}
	for range 1000 {
		if drawServerID() < 1<<31 {
			t.Fatal("a low server id")
		}
	}
}
