package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"txreel/internal/dbtest"
)

// postgresBench measures PostgreSQL.
type postgresBench struct {
	*bench
	source *dbtest.Postgres
	target *dbtest.Postgres
	url    string
}

func (b *postgresBench) run(ctx context.Context, steps []string) (err error) {
	for _, step := range []step{{"points", b.points}, {"history", b.history}, {"partial", b.partial}} { // on servers of their own
		if i := slices.Index(steps, step.name); i >= 0 {
			if err := step.take(ctx); err != nil {
				return err
			}
			steps = slices.Delete(slices.Clone(steps), i, i+1)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	defer func() { err = errors.Join(err, b.close()) }()
	settings := map[string]string{"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
	if b.source, err = dbtest.StartPostgres(ctx, dbtest.PostgresOptions{Settings: settings}); err != nil {
		return err
	}
	if b.target, err = dbtest.StartPostgres(ctx, dbtest.PostgresOptions{Settings: settings}); err != nil {
		return err
	}
	if _, err := b.source.CreateDB(ctx, db); err != nil {
		return err
	}
	b.url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", b.source.Port, db)
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, step := range []step{{"catchup", b.catchUp}, {"live", b.live}, {"replay", b.replay}, {"beside", b.beside}} {
		if !slices.Contains(steps, step.name) {
			continue
		}
		if err := step.take(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step is a measurement.
type step struct {
	name string
	take func(context.Context) error
}

func (b *postgresBench) close() error {
	var errs []error
	for _, p := range []*dbtest.Postgres{b.source, b.target} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// prepare fills the source, and makes an archive whose slot stands before the
// backlog.
func (b *postgresBench) prepare(ctx context.Context) error {
	if err := b.pgbench(ctx, "-i", "-s", "10", "-q"); err != nil {
		return err
	}
	if err := b.source.Exec(ctx, db, `create table big (id bigint primary key, a int, b text, c timestamptz, d numeric)`); err != nil {
		return err
	}
	if _, err := b.txreel(ctx, "setup", "--source", b.url, "--apply"); err != nil {
		return err
	}
	stop, err := b.capture(ctx, b.archive("origin"), "txreel")
	if err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	if err := b.source.Exec(ctx, db, `select pg_create_logical_replication_slot('recv', 'pgoutput')`); err != nil {
		return err
	}
	if err := b.source.Exec(ctx, db, fmt.Sprintf(`insert into big select g, g %% 1000, md5(g::text), now(), g * 1.5 from generate_series(1, %d) g`, b.rows)); err != nil {
		return err
	}
	return b.pgbench(ctx, "-n", "-c", "8", "-j", "2", "-t", strconv.Itoa(b.txns/8))
}

// catchUp reads the same backlog with pg_recvlogical, which throws it away, and with
// capture, which stores it durably, in turns.
func (b *postgresBench) catchUp(ctx context.Context) error {
	end, err := b.position(ctx)
	if err != nil {
		return err
	}
	if err := b.source.Exec(ctx, db, `select pg_logical_emit_message(true, 'bench', 'end')`); err != nil {
		return err
	}
	var peer, ours []time.Duration
	var l loads
	for i := range b.runs {
		if err := b.quiet(ctx, &l); err != nil {
			return err
		}
		p, err := b.receive(ctx, end)
		if err != nil {
			return err
		}
		o, err := b.catchUpOnce(ctx, i, end)
		if err != nil {
			return err
		}
		fmt.Printf("postgres catch-up %d: pg_recvlogical %s, txreel %s, load %.1f\n", i+1, seconds(p), seconds(o), l[i])
		peer, ours = append(peer, p), append(ours, o)
	}
	p, o := median(peer), median(ours)
	b.row(fmt.Sprintf("catch-up of %d inserted rows and %d pgbench transactions", b.rows, b.txns),
		seconds(o), "pg_recvlogical -f /dev/null "+seconds(p), times(p, o)+" its rate", l)
	return nil
}

func (b *postgresBench) receive(ctx context.Context, end string) (time.Duration, error) {
	if err := b.source.Exec(ctx, db, `select pg_copy_logical_replication_slot('recv', 'recv_run')`); err != nil {
		return 0, err
	}
	begun := time.Now()
	_, err := b.command(ctx, filepath.Join(b.source.BinDir, "pg_recvlogical"), "-h", "127.0.0.1", "-p", strconv.Itoa(b.source.Port), "-U", "postgres",
		"-d", db, "--slot", "recv_run", "--start", "--endpos", end, "-o", "proto_version=1", "-o", "publication_names=txreel", "-o", "messages=true", "-f", "/dev/null")
	took := time.Since(begun)
	return took, errors.Join(err, b.source.Exec(ctx, db, `select pg_drop_replication_slot('recv_run')`))
}

func (b *postgresBench) catchUpOnce(ctx context.Context, run int, end string) (time.Duration, error) {
	archive := b.archive("run" + strconv.Itoa(run))
	if _, err := b.command(ctx, "cp", "-r", b.archive("origin"), archive); err != nil {
		return 0, err
	}
	if err := b.source.Exec(ctx, db, `select pg_copy_logical_replication_slot('txreel', 'txreel_run')`); err != nil {
		return 0, err
	}
	begun := time.Now()
	stop, err := b.start(ctx, archive, "txreel_run", "--flush-age", "200ms")
	if err != nil {
		return 0, err
	}
	err = b.confirmed(ctx, "txreel_run", end)
	took := time.Since(begun)
	return took, errors.Join(err, stop(), b.source.Exec(ctx, db, `select pg_drop_replication_slot('txreel_run')`), os.RemoveAll(archive))
}

// live measures what a running capture costs and how far it is behind.
func (b *postgresBench) live(ctx context.Context) error {
	stop, err := b.capture(ctx, b.archive("origin"), "txreel")
	if err != nil {
		return err
	}
	end, err := b.position(ctx)
	if err == nil {
		err = b.confirmed(ctx, "txreel", end)
	}
	if err == nil {
		err = b.source.Exec(ctx, db, `checkpoint`)
	}
	if err != nil {
		return errors.Join(err, stop())
	}
	sizeBefore, err := b.segments(ctx)
	if err != nil {
		return errors.Join(err, stop())
	}
	var l loads
	if err := b.quiet(ctx, &l); err != nil {
		return errors.Join(err, stop())
	}
	loadDone := make(chan error, 1)
	go func() { loadDone <- b.pgbench(ctx, "-n", "-c", "8", "-j", "2", "-t", strconv.Itoa(b.txns/8)) }() // joined by lags
	lags, err := b.lags(ctx, loadDone)
	if err != nil {
		return errors.Join(err, stop())
	}
	after, err := b.position(ctx)
	if err == nil {
		err = b.source.Exec(ctx, db, `select pg_logical_emit_message(true, 'bench', 'end')`)
	}
	if err == nil {
		err = b.confirmed(ctx, "txreel", after)
	}
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	sizeAfter, err := b.segments(ctx)
	if err != nil {
		return err
	}
	rows, err := b.source.Query(ctx, db, fmt.Sprintf(`select pg_wal_lsn_diff('%s', '%s')::bigint`, after, end))
	if err != nil {
		return err
	}
	wal, err := strconv.ParseInt(rows[0][0], 10, 64)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("archive of %d pgbench transactions, a checkpoint before them", b.txns), fmt.Sprintf("%d bytes", sizeAfter-sizeBefore),
		fmt.Sprintf("WAL %d bytes", wal), fmt.Sprintf("%.3f × its size", float64(sizeAfter-sizeBefore)/float64(wal)), l)
	slices.Sort(lags)
	b.row(fmt.Sprintf("commit to durable and acknowledged under that load, %d samples", len(lags)),
		fmt.Sprintf("p50 %s, p99 %s", lags[len(lags)/2].Round(time.Millisecond), lags[len(lags)*99/100].Round(time.Millisecond)), "flush age 1 s", "", l)
	return nil
}

// lags commits a probe every 50 ms while the load runs and measures how long each
// takes to be acknowledged.
func (b *postgresBench) lags(ctx context.Context, loadDone chan error) ([]time.Duration, error) {
	conn, err := b.source.Conn(ctx, db)
	if err != nil {
		return nil, errors.Join(err, <-loadDone)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	type probe struct {
		at  time.Time
		lsn string
	}
	var pending []probe
	var lags []time.Duration
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for running := true; running || len(pending) > 0; {
		select {
		case err := <-loadDone:
			if err != nil {
				return nil, err
			}
			running, loadDone = false, nil
		case <-tick.C:
		}
		if running {
			var p probe
			if err := conn.QueryRow(ctx, `select pg_logical_emit_message(true, 'bench', 'probe')::text`).Scan(&p.lsn); err != nil {
				return nil, err
			}
			p.at = time.Now()
			pending = append(pending, p)
		}
		for len(pending) > 0 {
			var ok bool
			if err := conn.QueryRow(ctx, `select confirmed_flush_lsn > $1::text::pg_lsn from pg_replication_slots where slot_name = 'txreel'`, pending[0].lsn).Scan(&ok); err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			lags = append(lags, time.Since(pending[0].at))
			pending = pending[1:]
		}
	}
	return lags, nil
}

// replay restores the first base and all that followed, and then another base alone.
func (b *postgresBench) replay(ctx context.Context) error {
	for _, scenario := range []string{"first base and all changes", "last base"} {
		name := "r" + strconv.Itoa(len(b.table))
		if _, err := b.target.CreateDB(ctx, name); err != nil {
			return err
		}
		if scenario == "last base" {
			if err := b.anotherBase(ctx); err != nil {
				return err
			}
		}
		var l loads
		if err := b.quiet(ctx, &l); err != nil {
			return err
		}
		r, err := b.restore(ctx, []string{"PGPASSWORD=" + b.target.Password()}, b.archive("origin"),
			fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", b.target.Port, name))
		if err != nil {
			return err
		}
		all := fmt.Sprintf("restore %.1f s in all", r.Seconds)
		if rows := r.tableRows(); scenario == "last base" {
			b.row(fmt.Sprintf("base load of %d rows", rows), fmt.Sprintf("%.0f rows/s", float64(rows)/r.phase("base").Seconds()), "", all, l)
		} else {
			b.row(fmt.Sprintf("replay of %d row changes", r.Rows), fmt.Sprintf("%.0f changes/s", float64(r.Rows)/r.phase("replay").Seconds()), "", all, l)
		}
		want, err := dbtest.Dump(ctx, b.source.URL(db))
		if err != nil {
			return err
		}
		got, err := dbtest.Dump(ctx, b.target.URL(name))
		if err != nil {
			return err
		}
		if diff := dbtest.Diff(want, got); diff != "" {
			return fmt.Errorf("the restored database differs from the source:\n%s", diff)
		}
	}
	return nil
}

// anotherBase takes a base of everything there is now.
func (b *postgresBench) anotherBase(ctx context.Context) error {
	stop, err := b.capture(ctx, b.archive("origin"), "txreel", "--heartbeat", "2s")
	if err != nil {
		return err
	}
	_, err = b.txreel(ctx, "base", "--archive", b.archive("origin"), "--source", b.url)
	return errors.Join(err, stop())
}

func (b *postgresBench) archive(name string) string { return filepath.Join(b.dir, name) }

// capture starts a capture and waits until its epoch has a base.
func (b *postgresBench) capture(ctx context.Context, archive, slot string, flags ...string) (stop func() error, err error) {
	stop, err = b.start(ctx, archive, slot, flags...)
	if err != nil {
		return nil, err
	}
	if err := hasBase(ctx, archive); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

func (b *postgresBench) start(ctx context.Context, archive, slot string, flags ...string) (stop func() error, err error) {
	c, err := b.startCapture(ctx, []string{"PGPASSWORD=" + b.source.Password()}, nil,
		append([]string{"--source", b.url, "--archive", archive, "--slot", slot}, flags...)...)
	if err != nil {
		return nil, err
	}
	return c.stop, nil
}

func (b *postgresBench) segments(ctx context.Context) (total int64, err error) {
	found, err := filepath.Glob(filepath.Join(b.archive("origin"), "epochs/*/segments/*"))
	for _, f := range found {
		info, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, err
}

func (b *postgresBench) position(ctx context.Context) (string, error) {
	rows, err := b.source.Query(ctx, db, `select pg_current_wal_insert_lsn()`)
	if err != nil {
		return "", err
	}
	return rows[0][0], nil
}

// confirmed waits until the slot has been told that everything up to end is
// durable.
func (b *postgresBench) confirmed(ctx context.Context, slot, end string) error {
	return poll(ctx, func() (bool, error) {
		rows, err := b.source.Query(ctx, db, fmt.Sprintf(`select confirmed_flush_lsn >= '%s' from pg_replication_slots where slot_name = '%s'`, end, slot))
		return err == nil && len(rows) == 1 && rows[0][0] == "t", err
	})
}

func (b *postgresBench) pgbench(ctx context.Context, args ...string) error {
	_, err := b.command(ctx, filepath.Join(b.source.BinDir, "pgbench"), append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(b.source.Port), "-U", "postgres", db)...)
	return err
}

func (b *postgresBench) txreel(ctx context.Context, args ...string) ([]byte, error) {
	return b.command(ctx, b.program, args...)
}

func (b *postgresBench) command(ctx context.Context, program string, args ...string) ([]byte, error) {
	return execute(ctx, []string{"PGPASSWORD=" + b.source.Password()}, program, args...)
}
