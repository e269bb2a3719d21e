package mysql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
	source "txreel/sources/mysql"
	"txreel/sources/mysql/mybase"
)

// corpus fills a server with every kind of value and object.
func corpus(t testing.TB, my *dbtest.MySQL) {
	t.Helper()
	for _, name := range []string{"corpus.sql", "corpus-" + my.Flavor + ".sql"} {
		script, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := my.Client(context.Background(), "", string(script), "--default-character-set=utf8mb4"); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

// forgetPublic takes away what the corpus grants to everybody: PUBLIC, once named, is no role
// that could be dropped.
func forgetPublic(t testing.TB, servers ...*dbtest.MySQL) {
	t.Cleanup(func() {
		for _, my := range servers {
			if my.Flavor == "mariadb" {
				my.MustExec(t, "", "SET sql_log_bin = 0; DELETE FROM mysql.global_priv WHERE User = 'PUBLIC'; DELETE FROM mysql.tables_priv WHERE User = 'PUBLIC'; FLUSH PRIVILEGES")
			}
		}
	})
}

// takeBase takes a base of the recorder's source and commits it.
func (r *recorder) takeBase(o source.BaseOptions) *archive.Base {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	o.URL, o.Reason, o.SpillDir = r.my.URL(""), "test", r.dir
	b, err := source.TakeBase(ctx, r.archive, 1, o)
	r.check(err)
	r.check(source.FinishBase(ctx, r.archive, b, func() {
		r.capture()
		r.heartbeat()
	}))
	return b
}

// TestBaseEqual loads a base that holds every kind of value and object.
func TestBaseEqual(t *testing.T) {
	both(t, func(t *testing.T, from, to *dbtest.MySQL) {
		r := record(t, from)
		r.heartbeat()
		corpus(t, from)
		forgetPublic(t, from, to)
		b := r.takeBase(source.BaseOptions{})
		for _, c := range b.Coverage {
			t.Logf("%s: %s: %s", c.Class, c.What, c.Detail)
		}
		report := r.mustRestore(to, restore.Goal{})
		if report.Base.ID != b.ID {
			t.Errorf("restored from base %s, want %s", report.Base.ID, b.ID)
		}
		for _, w := range report.Warnings {
			t.Log(w)
		}
		for table, by := range evidence(report) {
			if by != restore.ByContent {
				t.Errorf("table %s was verified by %s", table, by)
			}
		}
		same(t, "corpus", content(t, from), content(t, to))
	})
}

// TestLoadGoesOn ends a load again and again, in the middle of chunks, of indexes and
// of everything else: the tool's process as if it were killed, and the target's
// server. What follows goes on and ends with the same content.
func TestLoadGoesOn(t *testing.T) {
	both(t, func(t *testing.T, from, to *dbtest.MySQL) {
		r := record(t, from)
		r.heartbeat()
		corpus(t, from)
		forgetPublic(t, from, to)
		b := r.takeBase(source.BaseOptions{ChunkBytes: 64 << 10})
		chunks := 0
		for i := range b.Tables {
			chunks += len(b.Tables[i].Chunks)
		}
		if chunks < 50 {
			t.Fatalf("%d chunks: this proves less than it should", chunks)
		}
		want := content(t, from)
		var first int64 // rows loaded when a run began
		killed := make(chan error, 1)
		for run := 0; ; run++ {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			var mu sync.Mutex
			calls := 0
			report, err := r.restore(ctx, to, restore.Goal{}, restore.Options{Jobs: 3, Progress: func(phase restore.Phase, done, _ int64, _ string) {
				if phase != restore.PhaseBase {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls == 1 {
					if done <= first && run > 0 {
						t.Errorf("run %d begins with %d rows, the one before with %d", run, done, first)
					}
					first = done
				}
				switch {
				case run < 5 && calls == 9:
					cancel()
				case run == 5 && calls == 9:
					go func() { killed <- to.Kill(context.Background()) }() // and what it was doing fails; joined below
				}
			}})
			cancel()
			if run == 5 {
				if err == nil {
					t.Fatal("the target was killed, and the restore has not noticed")
				}
				if err := <-killed; err != nil {
					t.Fatal(err)
				}
				if err := to.Start(context.Background()); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err == nil {
				if run < 5 || !report.Resumed {
					t.Errorf("run %d went through: resumed %v", run, report.Resumed)
				}
				break
			}
			var partial *restore.PartialError
			if !errors.As(err, &partial) || run > 8 {
				t.Fatalf("run %d: %v", run, err)
			}
		}
		same(t, "after interruptions", want, content(t, to))
	})
}

// TestLoadRefusesWhatIsNotTheBase changes stored bytes, and the manifest's counts.
func TestLoadRefusesWhatIsNotTheBase(t *testing.T) {
	both(t, func(t *testing.T, from, to *dbtest.MySQL) {
		r := record(t, from)
		r.heartbeat()
		from.MustExec(t, "", "CREATE DATABASE small; CREATE TABLE small.t (n INT PRIMARY KEY, v TEXT); INSERT INTO small.t VALUES (1, 'one'), (2, 'two')")
		b := r.takeBase(source.BaseOptions{})
		path := filepath.Join(r.dir, filepath.FromSlash(b.Key(b.Tables[0].Chunks[0].Name)))
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		body[len(body)/2] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = r.restore(t.Context(), to, restore.Goal{}, restore.Options{})
		if !errors.Is(err, archive.ErrCorrupt) || !strings.Contains(err.Error(), b.Tables[0].Chunks[0].Name) {
			t.Errorf("%v", err)
		}
		if rows := to.MustQuery(t, "", "SELECT COUNT(*) FROM small.t"); rows[0][0] != "0" {
			t.Errorf("%s rows of a damaged chunk were committed", rows[0][0])
		}
	})
}

// TestParseCreateTable takes statements apart and puts them together again.
func TestParseCreateTable(t *testing.T) {
	for _, c := range []struct {
		name, sql     string
		rows          int64
		foreign, keys int
		bad           bool
	}{
		{name: "plain", sql: "CREATE TABLE `t` (\n  `a` int DEFAULT '1,2(',\n  PRIMARY KEY (`a`),\n  KEY `k,(` (`a`)\n) ENGINE=InnoDB"},
		{name: "large", rows: manyRows, keys: 2, sql: "CREATE TABLE `t` (\n  `a` int NOT NULL AUTO_INCREMENT,\n  `b` enum('x)','y'',') DEFAULT NULL COMMENT 'it\\'s, (',\n  PRIMARY KEY (`a`),\n  UNIQUE KEY `u` (`b`),\n  KEY `k` ((`a` + 1))\n) ENGINE=InnoDB"},
		{name: "large without a primary key", rows: manyRows, sql: "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`)\n)"},
		{name: "large with a counter elsewhere", rows: manyRows, sql: "CREATE TABLE `t` (\n  `a` int,\n  `b` int AUTO_INCREMENT,\n  PRIMARY KEY (`a`),\n  KEY `k` (`b`)\n)"},
		{name: "large with full text", rows: manyRows, sql: "CREATE TABLE `t` (\n  `a` int,\n  `b` text,\n  PRIMARY KEY (`a`),\n  KEY `k` (`b`(3)),\n  FULLTEXT KEY `f` (`b`)\n)"},
		{name: "foreign keys", foreign: 2, sql: "CREATE TABLE `o``d(d` (\n  `a` int,\n  KEY `k` (`a`),\n  CONSTRAINT `f,``(` FOREIGN KEY (`a`) REFERENCES `p` (`a`) ON DELETE CASCADE,\n  CONSTRAINT `c FOREIGN KEY ` CHECK (`a` <> ')'),\n  FOREIGN KEY (`a`) REFERENCES `q` (`b`)\n)"},
		{name: "partitions", sql: "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB\n/*!50100 PARTITION BY HASH (`a`)\n(PARTITION p0, PARTITION p1) */"},
		{name: "not closed", sql: "CREATE TABLE `t` (`a` int DEFAULT ')'", bad: true},
		{name: "no columns", sql: "CREATE TABLE `t(`", bad: true},
		{name: "empty", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseCreateTable(c.sql)
			if (err != nil) != c.bad {
				t.Fatal(err)
			}
			if c.bad {
				return
			}
			got.settle(&loadTable{Table: mybase.Table{Engine: "InnoDB"}, BaseTable: &archive.BaseTable{Rows: c.rows}})
			if len(got.foreign) != c.foreign || len(got.indexes) != c.keys {
				t.Errorf("foreign keys %q, indexes %q", got.foreign, got.indexes)
			}
			squeeze := strings.NewReplacer("\n", "", " ", "")
			if c.foreign+c.keys == 0 && squeeze.Replace(got.statement()) != squeeze.Replace(c.sql) {
				t.Errorf("put together again: %s", got.statement())
			}
		})
	}
}

// TestNotesBehindKilled lets chunks wait for sessions of a killed restore that hold their notes, until these end: the server may find that who waits locks
// each other out.
func TestNotesBehindKilled(t *testing.T) {
	both(t, func(t *testing.T, _, server *dbtest.MySQL) {
		ctx := t.Context()
		server.MustExec(t, "", "DROP DATABASE IF EXISTS waiting; CREATE DATABASE waiting; CREATE TABLE waiting.chunks (name VARCHAR(512) PRIMARY KEY, row_count BIGINT NOT NULL) ENGINE=InnoDB")
		t.Cleanup(func() { server.MustExec(t, "", "DROP DATABASE waiting") })
		c, err := parseURL(server.URL(""))
		if err != nil {
			t.Fatal(err)
		}
		session := func() *conn {
			s, err := c.connect(ctx)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.close() })
			return s
		}
		const workers = 4
		var killed, waiting [workers]*conn
		for i := range workers {
			killed[i], waiting[i] = session(), session()
		}
		for round := range 10 {
			note := func(i int) string { return fmt.Sprintf("INSERT INTO waiting.chunks VALUES ('%02d/%d', 1)", round, i) }
			for i, s := range killed {
				for _, sql := range []string{"START TRANSACTION", note(i)} {
					if err := s.exec(ctx, sql); err != nil {
						t.Fatal(err)
					}
				}
			}
			done := make(chan error, workers)
			for i, s := range waiting {
				go func() { done <- errors.Join(noteFirst(ctx, s, note(i)), s.exec(ctx, "COMMIT")) }() // joined below
			}
			time.Sleep(50 * time.Millisecond) // until all of them wait, or most
			for _, s := range killed {
				if err := s.exec(ctx, "ROLLBACK"); err != nil {
					t.Error(err)
				}
			}
			for range workers {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		if n := server.MustQuery(t, "", "SELECT COUNT(*) FROM waiting.chunks")[0][0]; n != fmt.Sprint(10*workers) {
			t.Errorf("%s notes, want %d", n, 10*workers)
		}
	})
}
