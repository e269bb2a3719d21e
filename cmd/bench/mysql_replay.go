package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// mysqlWorkload is what happens to a server between a base and the point that is restored.
type mysqlWorkload struct {
	name, what string
	prepare    func(b *mysqlBench, ctx context.Context) error
	run        func(b *mysqlBench, ctx context.Context) error
}

// accounts is the workload of the step replay.
func (b *mysqlBench) accounts() mysqlWorkload {
	return mysqlWorkload{"replay", fmt.Sprintf("%d transactions", b.txns/4*4), func(b *mysqlBench, ctx context.Context) error {
		return b.source.Exec(ctx, db, `CREATE TABLE account (id int PRIMARY KEY, n int, pad char(60));
			CREATE TABLE history (id int AUTO_INCREMENT PRIMARY KEY, account int, d int, at datetime);
			INSERT INTO account WITH RECURSIVE d (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM d WHERE i < 99) SELECT a.i * 100 + b.i, 0, 'some filler' FROM d a, d b`)
	}, (*mysqlBench).busy}
}

// mysqlWorkloads are those of the step points.
var mysqlWorkloads = []mysqlWorkload{
	{"hot", "2,000,000 updates of 50,000 rows", func(b *mysqlBench, ctx context.Context) error {
		return b.source.Exec(ctx, db, `CREATE TABLE hot (id int PRIMARY KEY, n bigint NOT NULL, a varchar(32), b varchar(32), at datetime(6));
			INSERT INTO hot WITH RECURSIVE d (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM d WHERE i < 249)
				SELECT a.i * 250 + b.i + 1, 0, left(sha2(a.i * 250 + b.i, 256), 32), left(sha2(a.i * 7 + b.i, 256), 32), now(6) FROM d a, d b WHERE a.i < 200`)
	}, (*mysqlBench).hot},
	{"sysbench", "50,000 transactions of sysbench's oltp_write_only over 4 tables of 50,000 rows", func(b *mysqlBench, ctx context.Context) error {
		return b.sysbench(ctx, "prepare")
	}, func(b *mysqlBench, ctx context.Context) error {
		return b.sysbench(ctx, "--threads=4", "--events=50000", "--time=0", "run")
	}},
}

func (b *mysqlBench) sysbench(ctx context.Context, args ...string) error {
	_, err := dbtest.Sysbench(ctx, b.source, db, "oltp_write_only", append([]string{"--tables=4", "--table-size=50000"}, args...)...)
	return err
}

// hot updates all rows forty times over, in groups.
func (b *mysqlBench) hot(ctx context.Context) error {
	s, err := b.source.Session(ctx, db)
	if err != nil {
		return err
	}
	for i := range 40 * 50 {
		if err := s.Exec(ctx, fmt.Sprintf("UPDATE hot SET n = n + 1, a = left(sha2(n, 256), 32), at = now(6) WHERE id %% 50 = %d", i%50)); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return s.Close()
}

// points replays each workload.
func (b *mysqlBench) points(ctx context.Context) error {
	for _, w := range mysqlWorkloads {
		if b.workload != "" && b.workload != w.name {
			continue
		}
		if err := b.replayOf(ctx, w); err != nil {
			return fmt.Errorf("workload %s: %w", w.name, err)
		}
		b.want = nil
	}
	return nil
}

func (b *mysqlBench) replay(ctx context.Context) error { return b.replayOf(ctx, b.accounts()) }

// replayOf replays a workload in three ways, in turns, each into a fresh server that holds the same base.
func (b *mysqlBench) replayOf(ctx context.Context, w mysqlWorkload) error {
	if err := w.prepare(b, ctx); err != nil {
		return err
	}
	dir := b.archive(w.name)
	if err := b.begin(ctx, dir); err != nil {
		return err
	}
	names, err := b.logged(ctx, func() error { return w.run(b, ctx) })
	if err != nil {
		return err
	}
	files, size, err := b.logFiles(names)
	if err != nil {
		return err
	}
	goal, err := b.executed(ctx)
	if err != nil {
		return err
	}
	if _, err := b.record(ctx, dir, goal); err != nil {
		return err
	}
	base, err := lastBase(dir)
	if err != nil {
		return err
	}
	atBase := []string{"--to-seq", base.Seq.String()}
	ways := []struct {
		name string
		run  func(*dbtest.MySQL) (effort, error)
	}{
		{"txreel", func(target *dbtest.MySQL) (effort, error) {
			r, err := b.restore(ctx, nil, dir, target.URL(""), "--jobs", workers)
			if err != nil {
				return effort{}, err
			}
			return effort{took: r.phase("replay"), program: r.used}, nil
		}},
		{filepath.Base(b.source.BinlogTool()) + " \\| " + filepath.Base(b.source.Program("mysql")), func(target *dbtest.MySQL) (effort, error) {
			if _, err := b.restore(ctx, nil, dir, target.URL(""), atBase...); err != nil {
				return effort{}, err
			}
			return b.pipe(ctx, files, target)
		}},
		{"native replica", func(target *dbtest.MySQL) (effort, error) {
			if _, err := b.restore(ctx, nil, dir, target.URL(""), atBase...); err != nil {
				return effort{}, err
			}
			return b.replicate(ctx, target, goal)
		}},
	}
	all := make([][]effort, len(ways))
	var l loads
	for i := range b.runs {
		for k := range ways {
			if i%2 == 1 {
				k = len(ways) - 1 - k // who comes first has no advantage
			}
			way := ways[k]
			d, err := b.replayOnce(ctx, &l, way.name, way.run)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			fmt.Printf("%s %s %d: %s %s, load %.1f\n", b.flavor, w.name, i+1, way.name, d, l[len(l)-1])
			all[k] = append(all[k], d)
		}
	}
	ours := median(took(all[0]))
	for k := 1; k < len(ways); k++ {
		b.row(fmt.Sprintf("%s: replay of %s (%.0f MB of binlog), %s workers", b.flavor, w.what, float64(size)/1e6, workers),
			seconds(ours), ways[k].name+" "+seconds(median(took(all[k]))), times(median(took(all[k])), ours)+" its rate", l)
	}
	return os.RemoveAll(dir)
}

// replayOnce measures one way on a fresh server, and compares what that holds afterwards.
func (b *mysqlBench) replayOnce(ctx context.Context, l *loads, name string, run func(*dbtest.MySQL) (effort, error)) (e effort, err error) {
	target, err := b.server(ctx)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := errors.Join(b.relax(ctx, target), b.quiet(ctx, l)); err != nil {
		return e, err
	}
	before := usedBy(target.PID())
	if e, err = run(target); err != nil {
		return e, err
	}
	e.server = usedBy(target.PID()) - before
	return e, b.equal(ctx, name, target)
}

// busy commits small transactions from four sessions, each of which changes a row and adds
// one.
func (b *mysqlBench) busy(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for w := range 4 {
		g.Go(func() error {
			s, err := b.source.Session(ctx, db)
			if err != nil {
				return err
			}
			var sql strings.Builder
			for i := range b.txns / 4 {
				id := (i*7919 + w*2500) % 10000
				fmt.Fprintf(&sql, "BEGIN; UPDATE account SET n = n + 1 WHERE id = %d; INSERT INTO history (account, d, at) VALUES (%d, 1, NOW()); COMMIT;", id, id)
				if i%200 == 199 {
					if err := s.Exec(ctx, sql.String()); err != nil {
						return errors.Join(err, s.Close())
					}
					sql.Reset()
				}
			}
			return errors.Join(s.Exec(ctx, sql.String()+"DO 0"), s.Close())
		})
	}
	return g.Wait()
}

// pipe times the vendor's reader of binlog files and its client.
func (b *mysqlBench) pipe(ctx context.Context, files []string, target *dbtest.MySQL) (effort, error) {
	reader := exec.CommandContext(ctx, b.source.BinlogTool(), append([]string{"--no-defaults"}, files...)...)
	reader.Dir, reader.Stderr = b.dir, os.Stderr
	client := exec.CommandContext(ctx, target.Program("mysql"), append(target.ToolArgs(), "--binary-mode")...)
	client.Env, client.Stderr = target.ToolEnv(), os.Stderr
	var err error
	if client.Stdin, err = reader.StdoutPipe(); err != nil {
		return effort{}, err
	}
	began := time.Now()
	err = errors.Join(reader.Start(), client.Run(), reader.Wait())
	return effort{took: time.Since(began), program: used(reader) + used(client)}, err
}

// replicate times the target as a replica of the source itself.
func (b *mysqlBench) replicate(ctx context.Context, target *dbtest.MySQL, goal *gtid.Set) (effort, error) {
	wait := "SELECT WAIT_FOR_EXECUTED_GTID_SET('%s', 5)"
	if b.flavor == "mariadb" {
		wait = "SELECT MASTER_GTID_WAIT('%s', 5)"
	}
	began := time.Now()
	if err := target.Follow(ctx, b.source); err != nil {
		return effort{}, err
	}
	for {
		rows, err := target.Query(ctx, "", fmt.Sprintf(wait, goal))
		if err != nil {
			return effort{}, err
		}
		if rows[0][0] == "0" {
			e := effort{took: time.Since(began)}
			return e, target.Promote(ctx)
		}
		status, err := target.ReplicaStatus(ctx)
		if err != nil {
			return effort{}, err
		}
		if text := status["Last_IO_Error"] + status["Last_SQL_Error"]; text != "" {
			return effort{}, errors.New("the replica stopped: " + text)
		}
	}
}
