package mysql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"txreel/change"
	"txreel/internal/dbtest"
)

func TestHealth(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		server.MustExec(t, "", "SET GLOBAL binlog_expire_logs_seconds = 3600")
		conn := connect(t, server.URL(""))
		var held []change.Position // at the end of each file
		held = append(held, executed(t, server))
		for _, name := range []string{"a", "b", "c"} {
			server.MustExec(t, "", "FLUSH BINARY LOGS")
			server.MustExec(t, "", "CREATE DATABASE "+name)
			held = append(held, executed(t, server))
		}
		files, err := conn.logFiles(t.Context())
		if err != nil || len(files) != 4 {
			t.Fatalf("%v, %v", files, err)
		}
		for i, position := range held {
			h, err := ReadHealth(t.Context(), conn, position)
			if err != nil {
				t.Fatal(err)
			}
			needed := min(i+1, len(files)-1) // what ends with a file needs the next one
			var behind int64
			for _, f := range files[needed:] {
				behind += f.size
			}
			if i == len(held)-1 {
				behind = 0
			}
			if h.OldestFile != files[0].name || h.NeededFile != files[needed].name || h.BytesBehind != behind || h.ExpireAfter != time.Hour || h.AtOnce || h.SizeLimit != 0 {
				t.Errorf("behind %s: %+v, want file %s and %d bytes", position, h, files[needed].name, behind)
			}
			if last := needed == len(files)-1; last && h.TimeToPurge != time.Hour || !last && (h.TimeToPurge > time.Hour || h.TimeToPurge < 50*time.Minute) {
				t.Errorf("behind %s: purged in %s", position, h.TimeToPurge)
			}
		}
		server.MustExec(t, "", "SET GLOBAL binlog_expire_logs_seconds = 0")
		if h, err := ReadHealth(t.Context(), conn, held[0]); err != nil || h.ExpireAfter != 0 {
			t.Errorf("kept for ever: %+v, %v", h, err)
		}
		// As RDS keeps its setting.
		server.MustExec(t, "", "CREATE TABLE mysql.rds_configuration (name varchar(100), value varchar(100))")
		server.MustExec(t, "", "INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', NULL)")
		if h, err := ReadHealth(t.Context(), conn, held[0]); err != nil || !h.AtOnce || h.TimeToPurge != 0 {
			t.Errorf("purged at once: %+v, %v", h, err)
		}
		server.MustExec(t, "", "UPDATE mysql.rds_configuration SET value = '24'")
		if h, err := ReadHealth(t.Context(), conn, held[0]); err != nil || h.AtOnce || h.ExpireAfter != 24*time.Hour {
			t.Errorf("kept for a day: %+v, %v", h, err)
		}
		server.MustExec(t, "", "DROP TABLE mysql.rds_configuration")
		purge(t, server)
		if h, err := ReadHealth(t.Context(), conn, held[0]); err != nil || h.OldestFile != files[3].name || h.NeededFile != files[3].name {
			t.Errorf("behind a purge: %+v, %v", h, err)
		}
	})
}

// A server that knows of thousands of others is recorded like any; of which it knows too many, the doctor says so.
func TestLongSets(t *testing.T) {
	server := rough(t, "mysql")
	strangers := func(from, to int) string {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, ",%08x-4242-11f0-8000-0123456789ab:1-7", i)
		}
		return b.String()[1:]
	}
	server.MustExec(t, "", "SET GLOBAL gtid_purged = '"+strangers(0, 2500)+"'")
	tail := executed(t, server)
	if len(tail) < 100<<10 {
		t.Fatalf("a set of %d bytes", len(tail))
	}
	src := open(t, SourceOptions{URL: server.URL(""), Tail: tail, lookEvery: 50 * time.Millisecond})
	server.MustExec(t, "", "CREATE DATABASE long_set")
	if got := next(t, src); got.held != executed(t, server) || !strings.Contains(got.note, "long_set") {
		t.Fatalf("got %.200s", got.note)
	}
	eventually(t, "a look at the log", func() bool { return src.Health() != nil })
	src.Close()
	expect(t, examine(t, server.URL(""), DoctorOptions{}), want{"length of the GTID set", note, "every segment", "SET GTID_NEXT"})
	server.MustExec(t, "", "SET GLOBAL gtid_purged = '+"+strangers(2500, 27_000)+"'")
	expect(t, examine(t, server.URL(""), DoctorOptions{}), want{"length of the GTID set", problem, "capture stops", "SET GTID_NEXT"})
}
