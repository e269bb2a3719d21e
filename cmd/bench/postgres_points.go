package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"txreel/internal/dbtest"
)

// workload is what happens to a database between a base and the point that is restored.
type workload struct {
	name, what string
	prepare    func(b *pointsBench, ctx context.Context) error
	run        func(b *pointsBench, ctx context.Context) error
	defines    bool // changes definitions, which a native subscription does not follow
}

var workloads = []workload{
	{"hot", "2,000,000 updates of 50,000 rows", (*pointsBench).makeHot, func(b *pointsBench, ctx context.Context) error { return b.hot(ctx, 40) }, false},
	{"altered", "2,000,000 updates of 50,000 rows, with a column added after half of them", (*pointsBench).makeHot, func(b *pointsBench, ctx context.Context) error {
		return errors.Join(b.hot(ctx, 20), b.source.Exec(ctx, db, `alter table hot add column c int default 7`), b.hot(ctx, 20))
	}, true},
	{"tpcb", "300,000 transactions of pgbench, scale 20", func(b *pointsBench, ctx context.Context) error {
		return b.pgbench(ctx, "-i", "-s", "20", "-q")
	}, func(b *pointsBench, ctx context.Context) error {
		return b.pgbench(ctx, "-n", "-c", "8", "-j", "2", "-t", "37500")
	}, false},
	{"bulk", "2,000,000 inserted rows", func(b *pointsBench, ctx context.Context) error {
		return b.source.Exec(ctx, db, `create table bulk (id bigint primary key, a int, b text, c text, d numeric, at timestamptz)`)
	}, func(b *pointsBench, ctx context.Context) error {
		for i := range 20 {
			if err := b.source.Exec(ctx, db, fmt.Sprintf(`insert into bulk select g, g %% 1000, md5(g::text), repeat(md5((g * 3)::text), 4), g * 1.5, now() from generate_series(%d, %d) g`, i*100_000+1, (i+1)*100_000)); err != nil {
				return err
			}
		}
		return nil
	}, false},
}

func (b *pointsBench) makeHot(ctx context.Context) error {
	return b.source.Exec(ctx, db, `create table hot (id int primary key, n bigint not null, a text, b text, at timestamptz);
		insert into hot select i, 0, md5(i::text), md5((i * 7)::text), now() from generate_series(1, 50000) i`)
}

// hot updates all rows, in groups, some times over.
func (b *pointsBench) hot(ctx context.Context, times int) error {
	for range times {
		if err := b.source.Exec(ctx, db, `do $$begin for k in 0..49 loop
			update hot set n = n + 1, a = md5(n::text), at = clock_timestamp() where id % 50 = k; commit; end loop; end$$`); err != nil {
			return err
		}
	}
	return nil
}

// pointsBench measures restores of one workload.
type pointsBench struct {
	*postgresBench
	repo, conf string // of pgBackRest
}

// target settings of every restore: those that favour each of them most.
var pointSettings = map[string]string{"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "fsync": "off", "full_page_writes": "off", "maintenance_work_mem": "256MB"}

// points restores the state behind a workload from a base of before, with txreel and with peers, each into fresh servers with the same settings.
func (b *postgresBench) points(ctx context.Context) error {
	if _, err := exec.LookPath("pgbackrest"); err != nil {
		return errors.New("the step points compares with pgBackRest: install the package pgbackrest")
	}
	for _, w := range workloads {
		if b.workload != "" && b.workload != w.name {
			continue
		}
		if err := b.pointsOf(ctx, w); err != nil {
			return fmt.Errorf("workload %s: %w", w.name, err)
		}
	}
	return nil
}

func (b *postgresBench) pointsOf(ctx context.Context, w workload) (err error) {
	inner := *b
	p := &pointsBench{postgresBench: &inner}
	if p.repo, err = os.MkdirTemp("", "txbr-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.repo)) }()
	if err := os.Chmod(p.repo, 0o777); err != nil { // the server's user writes there
		return err
	}
	p.conf = filepath.Join(p.repo, "pgbackrest.conf")
	settings := map[string]string{"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "synchronous_commit": "off",
		"archive_mode": "on", "archive_command": "pgbackrest --config=" + p.conf + " --stanza=bench archive-push %p"}
	if p.source, err = dbtest.StartPostgres(ctx, dbtest.PostgresOptions{Settings: settings, OwnSystem: true}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.source.Close()) }()
	if _, err := p.source.CreateDB(ctx, db); err != nil {
		return err
	}
	p.url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", p.source.Port, db)
	if err := w.prepare(p, ctx); err != nil {
		return err
	}
	if err := p.record(ctx, w); err != nil {
		return err
	}
	var ours, backrest, dump, subscribed []time.Duration
	var l loads
	for i := range b.runs {
		if err := b.quiet(ctx, &l); err != nil {
			return err
		}
		r, err := p.restoreOurs(ctx, "points-"+w.name)
		if err != nil {
			return err
		}
		br, err := p.restoreBackrest(ctx)
		if err != nil {
			return err
		}
		d, err := p.copyFinal(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s %d: txreel %s, pgBackRest %s, pg_dump | pg_restore -j2 of the final state %s, load %.1f\n", w.name, i+1, seconds(r), seconds(br), seconds(d), l[i])
		ours, backrest, dump = append(ours, r), append(backrest, br), append(dump, d)
		if w.defines {
			continue
		}
		s, err := p.subscribe(ctx, i)
		if err != nil {
			return err
		}
		fmt.Printf("  native subscription %s\n", seconds(s))
		subscribed = append(subscribed, s)
	}
	peers := "pgBackRest " + seconds(median(backrest)) + ", copy of the final state " + seconds(median(dump))
	ratios := times(median(backrest), median(ours)) + ", " + times(median(dump), median(ours))
	if !w.defines {
		peers += ", native subscription " + seconds(median(subscribed))
		ratios += ", " + times(median(subscribed), median(ours))
	}
	b.row("restore of "+w.name+": "+w.what, seconds(median(ours)), peers, ratios, l)
	if w.defines {
		return nil
	}
	return p.unpublish(ctx)
}

// record takes a backup and a base, lets the workload run, and waits until both have all of it.
func (b *pointsBench) record(ctx context.Context, w workload) error {
	conf := fmt.Sprintf("[global]\nrepo1-path=%s/repo\nlog-path=%s\nspool-path=%s\nlock-path=%s\nlog-level-file=off\nlog-level-console=warn\nprocess-max=2\nstart-fast=y\n[bench]\npg1-path=%s\npg1-port=%d\npg1-socket-path=%s\npg1-user=postgres\n",
		b.repo, b.repo, b.repo, b.repo, b.source.DataDir(), b.source.Port, b.source.Dir)
	if err := os.WriteFile(b.conf, []byte(conf), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"stanza-create"}, {"backup", "--type=full"}} {
		if err := b.backrest(ctx, args...); err != nil {
			return err
		}
	}
	if !w.defines {
		if err := b.publish(ctx); err != nil {
			return err
		}
	}
	if _, err := b.txreel(ctx, "setup", "--source", b.url, "--apply"); err != nil {
		return err
	}
	stop, err := b.capture(ctx, b.archive("points-"+w.name), "txreel")
	if err != nil {
		return err
	}
	err = w.run(b, ctx)
	if err == nil {
		err = b.recorded(ctx)
	}
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	if err := b.source.Exec(ctx, "postgres", "select pg_switch_wal()"); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		rows, err := b.source.Query(ctx, "postgres", `select count(*) from pg_ls_archive_statusdir() where name like '%.ready'`)
		return err == nil && rows[0][0] == "0", err
	})
}

// recorded waits until the archive has all that happened.
func (b *pointsBench) recorded(ctx context.Context) error {
	end, err := b.position(ctx)
	if err == nil {
		err = b.source.Exec(ctx, db, `select pg_logical_emit_message(true, 'bench', 'end')`)
	}
	if err == nil {
		err = b.confirmed(ctx, "txreel", end)
	}
	return err
}

// backrest runs pgBackRest as the server's user.
func (b *pointsBench) backrest(ctx context.Context, args ...string) error {
	args = append([]string{"--config=" + b.conf, "--stanza=bench"}, args...)
	cmd := exec.CommandContext(ctx, "pgbackrest", args...)
	if os.Getuid() == 0 {
		cmd = exec.CommandContext(ctx, "runuser", append([]string{"-u", "postgres", "--", "pgbackrest"}, args...)...)
	}
	cmd.Dir = b.repo
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbackrest %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// fresh starts an empty server.
func (b *pointsBench) fresh(ctx context.Context) (*dbtest.Postgres, error) {
	return dbtest.StartPostgres(ctx, dbtest.PostgresOptions{Settings: pointSettings})
}

func (b *pointsBench) restoreOurs(ctx context.Context, archive string) (took time.Duration, err error) {
	target, err := b.fresh(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := target.CreateDB(ctx, db); err != nil {
		return 0, err
	}
	began := time.Now()
	r, err := b.restore(ctx, []string{"PGPASSWORD=" + target.Password()}, b.archive(archive), fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", target.Port, db), b.flags...)
	took = time.Since(began)
	if err == nil {
		fmt.Printf("  txreel: %v, program %s\n", r.Phases, seconds(r.used))
		err = b.same(ctx, target.URL(db))
	}
	return took, err
}

// restoreBackrest restores the backup and the log, until the server accepts writes.
func (b *pointsBench) restoreBackrest(ctx context.Context) (took time.Duration, err error) {
	target, err := b.fresh(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := target.Stop(ctx, "fast"); err != nil {
		return 0, err
	}
	entries, err := filepath.Glob(filepath.Join(target.DataDir(), "*"))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := os.RemoveAll(e); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := b.backrest(ctx, "--pg1-path="+target.DataDir(), "--archive-mode=off", "restore"); err != nil {
		return 0, err
	}
	settings := map[string]string{"archive_mode": "off", "unix_socket_directories": target.Dir}
	for k, v := range pointSettings {
		settings[k] = v
	}
	settings["port"] = strconv.Itoa(target.Port)
	if err := target.Configure(settings); err != nil {
		return 0, err
	}
	if err := target.Start(ctx); err != nil {
		return 0, err
	}
	for {
		rows, err := target.Query(ctx, "postgres", "select pg_is_in_recovery()")
		if err == nil && rows[0][0] == "f" {
			break
		}
		if ctx.Err() != nil {
			return 0, errors.Join(err, ctx.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
	took = time.Since(began)
	url := fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s", b.source.Password(), target.Port, db)
	return took, b.same(ctx, url)
}

// copyFinal dumps the final state and loads it: what any restore must do at least.
func (b *pointsBench) copyFinal(ctx context.Context) (took time.Duration, err error) {
	target, err := b.fresh(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := target.CreateDB(ctx, db); err != nil {
		return 0, err
	}
	file := b.archive("final.dump")
	if _, err := b.command(ctx, b.source.Client("pg_dump"), "-Fc", "-Z1", "-N", "txreel", "-f", file, b.source.URL(db)); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	began := time.Now()
	if _, err := b.command(ctx, b.source.Client("pg_restore"), "-j2", "-d", target.URL(db), file); err != nil && !strings.Contains(err.Error(), "errors ignored") {
		return 0, err
	}
	return time.Since(began), b.same(ctx, target.URL(db))
}

// same compares a restored database with the source.
func (b *pointsBench) same(ctx context.Context, url string) error {
	want, err := dbtest.Dump(ctx, b.source.URL(db), "txreel")
	if err != nil {
		return err
	}
	got, err := dbtest.Dump(ctx, url, "txreel")
	if err != nil {
		return err
	}
	if diff := dbtest.Diff(want, got); diff != "" {
		return fmt.Errorf("the restored database differs from the source:\n%s", diff)
	}
	return nil
}
