package mysql

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"txreel/archive"
	"txreel/capture"
	"txreel/internal/dbtest"
)

// TestBaseGoesOnWithoutASession kills a session of a base in the middle of a table, while every row is altered: what the
// session did not read comes from another one, from the same view. With the last session the base ends.
func TestBaseGoesOnWithoutASession(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		const readers = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT %FROM `lost`.%' ORDER BY ID LIMIT "
		my.MustExec(t, "", "DROP DATABASE IF EXISTS lost; CREATE DATABASE lost; USE lost; CREATE TABLE a (n CHAR(36) PRIMARY KEY, v INT, pad TEXT); "+ // not cut into parts
			"INSERT INTO a VALUES (UUID(), 0, REPEAT('x', 4000)); "+strings.Repeat("INSERT INTO a SELECT UUID(), v, pad FROM a; ", 12)+
			"CREATE TABLE b LIKE a; INSERT INTO b SELECT * FROM a; CREATE TABLE small LIKE a; INSERT INTO small VALUES (1, 0, ''), (2, 0, ''); ANALYZE TABLE a, b, small")
		for _, c := range []struct {
			name string
			kill string
		}{{"one", "1"}, {"all", "2"}} {
			a := baseArchive(t, my)
			s := &stalled{Store: a.Store, reached: make(chan struct{}, 1), release: make(chan struct{})}
			a.Store = s
			var b *archive.Base
			done := make(chan error, 1)
			go func() {
				var err error
				b, err = TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL(""), Jobs: 2, ChunkBytes: 1 << 20})
				done <- err
			}()
			<-s.reached
			var rows [][]string
			eventually(t, "two sessions to read", func() bool {
				rows = my.MustQuery(t, "", readers+"2")
				return len(rows) == 2
			})
			my.MustExec(t, "lost", "UPDATE a SET v = v + 1; UPDATE b SET v = v + 1")
			my.MustExec(t, "", "KILL "+rows[0][0])
			if c.kill == "2" {
				my.MustExec(t, "", "KILL "+rows[1][0])
			}
			close(s.release)
			err := <-done
			if c.kill == "2" {
				if !errors.Is(err, capture.ErrUnreachable) {
					t.Errorf("%s: %v", c.name, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			again := 0
			for _, table := range []string{"a", "b", "small"} {
				i := slices.IndexFunc(b.Tables, func(x archive.BaseTable) bool { return x.Schema == "lost" && x.Name == table })
				lines := strings.Split(strings.TrimSuffix(chunkText(t, a, b, &b.Tables[i]), "\n"), "\n")
				slices.Sort(lines)
				if n := len(lines); int64(n) != b.Tables[i].Rows || len(slices.Compact(lines)) != n || n != 4096 && table != "small" {
					t.Errorf("table %s: %d lines, %d rows", table, n, b.Tables[i].Rows)
				}
				for _, line := range lines {
					if strings.Split(line, "\t")[1] != "0" {
						t.Fatalf("table %s: a row as it was written behind the snapshot: %.40s", table, line)
					}
				}
				for _, o := range b.Tables[i].Chunks {
					if strings.HasSuffix(o.Name, "-1.tsv.zst") {
						again++
					}
				}
			}
			if again == 0 {
				t.Error("no object is of a second try: no session was lost in the middle of a table")
			}
		}
		my.MustExec(t, "", "DROP DATABASE lost")
	})
}
