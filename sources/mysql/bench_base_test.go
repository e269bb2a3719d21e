package mysql

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sink/dir"
)

// BenchmarkBase takes bases of tables like sysbench's into a folder. What its processor time
// is spent on shows in a profile; a machine that is busy otherwise changes it less than the rate.
func BenchmarkBase(b *testing.B) {
	for _, flavor := range dbtest.Flavors() {
		b.Run(flavor, func(b *testing.B) {
			server := dbtest.MyWith(b, dbtest.MySQLOptions{Flavor: flavor, TLS: dbtest.TLSOff, Settings: map[string]string{"sync_binlog": "0", "innodb_buffer_pool_size": "512M"}})
			server.MustExec(b, "", "CREATE DATABASE bench")
			for i := range 4 {
				server.MustExec(b, "bench", fmt.Sprintf("CREATE TABLE sbtest%d (id int PRIMARY KEY, k int NOT NULL, c char(120) NOT NULL, pad char(60) NOT NULL, KEY (k))", i))
				server.MustExec(b, "bench", fmt.Sprintf("INSERT INTO sbtest%d WITH RECURSIVE d (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM d WHERE i < 9), "+
					"r (id, x, y) AS (SELECT a.i * 10000 + b.i * 1000 + c.i * 100 + d.i * 10 + e.i, FLOOR(1e10 + RAND() * 8e10), FLOOR(1e10 + RAND() * 8e10) FROM d a, d b, d c, d d, d e) "+
					"SELECT id, RAND() * 100000, CONCAT_WS('-', x, y, x * 7 MOD 99999999977, y * 7 MOD 99999999977, x * 31 MOD 99999999977, y * 31 MOD 99999999977, x * 57 MOD 99999999977, y * 57 MOD 99999999977, "+
					"x * 91 MOD 99999999977, y * 91 MOD 99999999977), CONCAT_WS('-', x * 101 MOD 99999999977, y * 101 MOD 99999999977, x * 103 MOD 99999999977, y * 103 MOD 99999999977, x * 107 MOD 99999999977) FROM r", i))
				server.MustExec(b, "bench", fmt.Sprintf("ANALYZE TABLE sbtest%d", i))
			}
			var raw, stored int64
			var worked time.Duration
			for b.Loop() {
				store, err := dir.Open(filepath.Join(b.TempDir(), "a"))
				if err != nil {
					b.Fatal(err)
				}
				a, err := archive.Init(b.Context(), store, archive.Identity{Engine: flavor, System: "bench"})
				if err != nil {
					b.Fatal(err)
				}
				before := processor(b)
				base, err := TakeBase(b.Context(), a, 1, BaseOptions{URL: server.URL(""), Reason: "benchmark"})
				if err != nil {
					b.Fatal(err)
				}
				worked += processor(b) - before
				for _, t := range base.Tables {
					for _, o := range t.Chunks {
						raw, stored = raw+o.Raw, stored+o.Size
					}
				}
			}
			b.ReportMetric(float64(raw)/1e6/b.Elapsed().Seconds(), "MB/s")
			b.ReportMetric(float64(raw)/1e6/worked.Seconds(), "MB/processor-s")
			b.ReportMetric(float64(stored)/float64(raw), "stored")
		})
	}
}

// processor is how long processors have worked for this process.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
