package mysql

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
	source "txreel/sources/mysql"
)

// BenchmarkBase reads and loads sysbench's tables, in turn with the vendor's dump program
// and client, and reports how many times as fast each is: go test -bench Base -benchtime 3x.
func BenchmarkBase(b *testing.B) {
	for _, flavor := range dbtest.Flavors() {
		b.Run(flavor, func(b *testing.B) {
			from, to := servers(b, flavor)
			ctx := context.Background()
			from.MustExec(b, "", "CREATE DATABASE sb")
			r := record(b, from)
			r.heartbeat()
			if out, err := dbtest.Sysbench(ctx, from, "sb", "oltp_read_write", "--tables=4", "--table-size=250000", "prepare"); err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			from.MustExec(b, "sb", "ANALYZE TABLE sbtest1, sbtest2, sbtest3, sbtest4")
			r.capture()
			var took [4]time.Duration // the shortest: others use the machine too
			keep := func(i int, d time.Duration) {
				if took[i] == 0 || d < took[i] {
					took[i] = d
				}
			}
			clock := func(i int, do func() error) {
				started := time.Now()
				if err := do(); err != nil {
					b.Fatal(err)
				}
				keep(i, time.Since(started))
			}
			script := filepath.Join(b.TempDir(), "dump.sql")
			client := func(server *dbtest.MySQL, program, in, out string, args ...string) error {
				cmd := exec.Command(program, append(server.ToolArgs(), args...)...)
				cmd.Env, cmd.Stderr = server.ToolEnv(), os.Stderr
				for name, into := range map[string]func(*os.File){in: func(f *os.File) { cmd.Stdin = f }, out: func(f *os.File) { cmd.Stdout = f }} {
					if name == "" {
						continue
					}
					f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
					if err != nil {
						return err
					}
					defer f.Close()
					into(f)
				}
				return cmd.Run()
			}
			b.ResetTimer()
			for range b.N {
				clock(0, func() error {
					return client(from, from.DumpTool(), "", script, "--single-transaction", "--databases", "sb")
				})
				empty(b, to)
				to.MustExec(b, "", "SET GLOBAL sync_binlog = 0; SET GLOBAL innodb_flush_log_at_trx_commit = 2")
				clock(1, func() error {
					return client(to, to.Program("mysql"), script, "", "--init-command=SET SESSION sql_log_bin=0")
				})
				var base *archive.Base
				clock(2, func() (err error) { // without TLS, as the dump program through its socket
					base, err = source.TakeBase(ctx, r.archive, 1, source.BaseOptions{URL: from.URL("") + "?ssl-mode=disabled", SpillDir: r.dir})
					return err
				})
				r.check(source.FinishBase(ctx, r.archive, base, func() { r.capture(); r.heartbeat() }))
				empty(b, to)
				report := r.mustRestore(to, restore.Goal{})
				for _, p := range report.Phases {
					if p.Phase == restore.PhaseBase {
						keep(3, time.Duration(p.Seconds*float64(time.Second)))
					}
				}
			}
			b.ReportMetric(took[0].Seconds()/took[2].Seconds(), "x-dump")
			b.ReportMetric(took[1].Seconds()/took[3].Seconds(), "x-load")
			b.Logf("dump program %s, base %s; client %s, load %s", took[0], took[2], took[1], took[3])
		})
	}
}
