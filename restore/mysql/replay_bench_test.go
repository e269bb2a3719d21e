package mysql

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// BenchmarkReplay compares the replay of 50,000 small transactions with what a DBA
// has otherwise: the vendor's reader piped into its client, and a replica of the source
// itself with as many workers, all into the same server with the same settings. It reports the
// rate, and by how much the others take longer.
func BenchmarkReplay(b *testing.B) {
	for _, flavor := range dbtest.Flavors() {
		b.Run(flavor, func(b *testing.B) {
			ctx := context.Background()
			source, target := servers(b, flavor)
			r := record(b, source)
			r.perSeg = 5000
			const txns = 50000
			busy(b, source, txns)
			r.capture()
			out := b.TempDir()
			files, err := WriteBinlog(ctx, r.archive, 1, 1, r.writer.Tail().Seq, out, BinlogOptions{})
			r.check(err)
			for b.Loop() {
				report, err := r.restore(ctx, target, restore.Goal{}, restore.Options{Jobs: 2})
				r.check(err)
				var ours float64
				for _, ph := range report.Phases {
					if ph.Phase == restore.PhaseReplay {
						ours = ph.Seconds
					}
				}
				empty(b, target)
				pipe := piped(b, source, target, out, files)
				empty(b, target)
				replica := replicated(b, source, target)
				empty(b, target)
				b.ReportMetric(float64(report.Replayed)/ours, "txns/s")
				b.ReportMetric(pipe/ours, "x-mysqlbinlog")
				b.ReportMetric(replica/ours, "x-replica")
				b.Logf("replay %.2f s, mysqlbinlog %.2f s, replica %.2f s", ours, pipe, replica)
			}
		})
	}
}

// busy commits n small transactions from four sessions at a time.
func busy(t testing.TB, my *dbtest.MySQL, n int) {
	t.Helper()
	ctx := context.Background()
	my.MustExec(t, "", "CREATE DATABASE bench; USE bench; CREATE TABLE a (id INT PRIMARY KEY, n INT, pad CHAR(60)); "+
		"CREATE TABLE h (id INT AUTO_INCREMENT PRIMARY KEY, a INT, d INT, at DATETIME)")
	var rows strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&rows, "%s(%d, 0, 'some filler')", []string{",", ""}[b2i(i == 0)], i)
	}
	my.MustExec(t, "bench", "INSERT INTO a VALUES "+rows.String())
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		wg.Add(1)
		go func() { // joined below
			defer wg.Done()
			s, err := my.Session(ctx, "bench")
			if err != nil {
				errs[w] = err
				return
			}
			defer s.Close()
			var sql strings.Builder
			for i := range n / len(errs) {
				id := (i*7919 + w*2500) % 10000
				fmt.Fprintf(&sql, "BEGIN; UPDATE a SET n = n + 1 WHERE id = %d; INSERT INTO h (a, d, at) VALUES (%d, 1, NOW()); COMMIT;", id, id)
				if i%200 == 199 {
					if err := s.Exec(ctx, sql.String()); err != nil {
						errs[w] = err
						return
					}
					sql.Reset()
				}
			}
			errs[w] = s.Exec(ctx, sql.String()+"DO 0")
		}()
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// piped returns how many seconds the vendor's reader and client take.
func piped(t testing.TB, source, target *dbtest.MySQL, dir string, files []BinlogFile) float64 {
	t.Helper()
	reader := exec.Command(source.BinlogTool(), "--no-defaults")
	for _, f := range files {
		reader.Args = append(reader.Args, filepath.Join(dir, f.Name))
	}
	reader.Dir = t.TempDir()
	client := exec.Command(target.Program("mysql"), append(target.ToolArgs(), "--binary-mode")...)
	client.Env = target.ToolEnv()
	var err error
	if client.Stdin, err = reader.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := errors.Join(reader.Start(), client.Run(), reader.Wait()); err != nil {
		t.Fatal(err)
	}
	return time.Since(began).Seconds()
}

// replicated returns how many seconds a replica of the source itself takes.
func replicated(t testing.TB, source, target *dbtest.MySQL) float64 {
	t.Helper()
	ctx := context.Background()
	set := "SET GLOBAL replica_parallel_workers = 2"
	if target.Flavor == "mariadb" {
		set = "SET GLOBAL slave_parallel_threads = 2"
	}
	target.MustExec(t, "", set)
	began := time.Now()
	if err := errors.Join(target.Follow(ctx, source), target.CatchUp(ctx, source)); err != nil {
		t.Fatal(err)
	}
	return time.Since(began).Seconds()
}
