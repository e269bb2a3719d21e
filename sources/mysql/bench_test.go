package mysql

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sink/dir"
	"txreel/sources/mysql/gtid"
)

// backlogs are what a server has to send, each about as large as the others.
var backlogs = []struct{ name, sql string }{
	{"small", "WHILE i < 240000 DO INSERT INTO t VALUES (i, RAND() * 1000000, CONCAT('row ', i)); SET i = i + 1; END WHILE"},
	{"ten-rows", "WHILE i < 48000 DO UPDATE u SET k = k + 1 WHERE id BETWEEN 1 + i MOD 100 AND 10 + i MOD 100; SET i = i + 1; END WHILE"},
	{"bulk", "WHILE i < 48 DO INSERT INTO b SELECT x.id * 1000 + y.id, RAND() * 1000000, LEFT(SHA2(x.id * y.id, 256), 32), REPEAT(LEFT(SHA2(i, 256), 32), 3) FROM u x, u y LIMIT 20000; SET i = i + 1; END WHILE"},
}

// BenchmarkCatchUp compares a stream that catches up, alone and into an archive, with
// the vendor's program that does nothing but receive.
func BenchmarkCatchUp(b *testing.B) {
	for _, flavor := range dbtest.Flavors() {
		server := dbtest.MyWith(b, dbtest.MySQLOptions{Flavor: flavor, Settings: map[string]string{"max_binlog_size": "33554432", "sync_binlog": "0", "innodb_buffer_pool_size": "256M"}})
		ctx := context.Background()
		conn, err := Connect(ctx, server.URL(""))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		server.MustExec(b, "", "CREATE DATABASE bench")
		for _, sql := range []string{"CREATE TABLE t (id int PRIMARY KEY, k int, v varchar(40))", "CREATE TABLE u (id int PRIMARY KEY, k int, v varchar(200))",
			"CREATE TABLE b (id int, k int, v varchar(40), w varchar(200))",
			"INSERT INTO u WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i, i, REPEAT('u', 100) FROM n"} {
			server.MustExec(b, "bench", sql)
		}
		for _, backlog := range backlogs {
			b.Run(flavor+"/"+backlog.name, func(b *testing.B) {
				must := func(err error) {
					b.Helper()
					if err != nil {
						b.Fatal(err)
					}
				}
				must(conn.Exec(ctx, "FLUSH BINARY LOGS"))
				from, err := ReadPosition(ctx, conn)
				must(err)
				start, err := conn.logEnd(ctx)
				must(err)
				must(conn.Exec(ctx, "USE bench"))
				must(conn.Exec(ctx, "DROP PROCEDURE IF EXISTS p"))
				must(conn.Exec(ctx, "CREATE PROCEDURE p() BEGIN DECLARE i int DEFAULT 0; "+backlog.sql+"; END"))
				must(conn.Exec(ctx, "CALL p()"))
				must(conn.Exec(ctx, "FLUSH BINARY LOGS"))
				goal, err := ReadPosition(ctx, conn)
				must(err)
				for b.Loop() {
					begun := time.Now()
					cmd := exec.Command(server.BinlogTool(), append(server.ToolArgs(), "--read-from-remote-server", "--raw", "--to-last-log", "--result-file="+b.TempDir()+"/", start.file)...)
					cmd.Env = server.ToolEnv()
					if out, err := cmd.CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
					peer := time.Since(begun)
					begun = time.Now()
					txns, size := receive(b, server, from, goal)
					alone := time.Since(begun)
					begun = time.Now()
					record(b, server, from, goal)
					archived := time.Since(begun)
					mb := float64(size) / 1e6
					b.ReportMetric(mb, "MB")
					b.ReportMetric(float64(txns), "txns")
					b.ReportMetric(mb/peer.Seconds(), "peer-MB/s")
					b.ReportMetric(mb/alone.Seconds(), "next-MB/s")
					b.ReportMetric(mb/archived.Seconds(), "archived-MB/s")
					b.ReportMetric(peer.Seconds()/alone.Seconds(), "x-next")
					b.ReportMetric(peer.Seconds()/archived.Seconds(), "x-archived")
				}
			})
		}
	}
}

func benchOptions(server *dbtest.MySQL, from change.Position) SourceOptions {
	return SourceOptions{URL: server.URL(""), Tail: from, ServerID: 77, ReplicaUUID: "0f5cf5a4-4242-11f0-8000-000000000077"}
}

// receive reads a backlog and drops it.
func receive(b *testing.B, server *dbtest.MySQL, from, goal change.Position) (txns, size int) {
	src, err := Open(b.Context(), benchOptions(server, from))
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	set, err := gtid.Parse(src.control.Flavor, string(goal))
	if err != nil {
		b.Fatal(err)
	}
	for {
		m, err := src.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		size += len(m.Raw)
		if m.Kind == change.KindCommit {
			if txns++; src.parser.held.Contains(set) {
				return txns, size
			}
		}
	}
}

// record captures a backlog into an archive in a folder.
func record(b *testing.B, server *dbtest.MySQL, from, goal change.Position) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	store, err := dir.Open(filepath.Join(b.TempDir(), "a"))
	if err != nil {
		b.Fatal(err)
	}
	a, err := archive.Init(ctx, store, archive.Identity{Engine: server.Flavor, System: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	epoch, err := a.StartEpoch(ctx, nil, archive.CauseFirst, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	w, err := a.NewWriter(ctx, epoch.Number, "")
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	src, err := Open(ctx, benchOptions(server, from))
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	set, err := gtid.Parse(src.control.Flavor, string(goal))
	if err != nil {
		b.Fatal(err)
	}
	var bytes int64
	err = capture.Run(ctx, &upTo{Source: src, goal: set, reached: cancel}, w, capture.Options{Start: src.Start(), Shipped: func(s *archive.Sealed) { bytes += s.Size }})
	if !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
	b.ReportMetric(float64(bytes)/1e6, "archive-MB")
}

// upTo is a source that says when it has delivered all of a set.
type upTo struct {
	*Source
	goal    *gtid.Set
	reached func()
}

func (u *upTo) Next(ctx context.Context) (*change.Message, error) {
	m, err := u.Source.Next(ctx)
	if m != nil && m.Kind == change.KindCommit && u.parser.held.Contains(u.goal) {
		u.reached()
	}
	return m, err
}
