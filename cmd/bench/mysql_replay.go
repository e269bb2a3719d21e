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

const replayTables = `
CREATE TABLE account (id int PRIMARY KEY, n int, pad char(60));
CREATE TABLE history (id int AUTO_INCREMENT PRIMARY KEY, account int, d int, at datetime);
INSERT INTO account WITH RECURSIVE d (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM d WHERE i < 99) SELECT a.i * 100 + b.i, 0, 'some filler' FROM d a, d b`

// replay replays small transactions in three ways, in turns, each into a fresh server that
// holds the same base.
func (b *mysqlBench) replay(ctx context.Context) error {
	if err := b.source.Exec(ctx, db, replayTables); err != nil {
		return err
	}
	dir := b.archive("replay")
	if err := b.begin(ctx, dir); err != nil {
		return err
	}
	names, err := b.logged(ctx, func() error { return b.busy(ctx) })
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
		for w := range ways {
			if i%2 == 1 {
				w = len(ways) - 1 - w // who comes first has no advantage
			}
			way := ways[w]
			d, err := b.replayOnce(ctx, &l, way.name, way.run)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			fmt.Printf("%s replay %d: %s %s, load %.1f\n", b.flavor, i+1, way.name, d, l[len(l)-1])
			all[w] = append(all[w], d)
		}
	}
	ours := median(took(all[0]))
	for w := 1; w < len(ways); w++ {
		b.row(fmt.Sprintf("%s: replay of %d transactions (%.0f MB of binlog), %s workers", b.flavor, b.txns/4*4, float64(size)/1e6, workers),
			fmt.Sprintf("%s, %.0f transactions/s", seconds(ours), float64(b.txns/4*4)/ours.Seconds()), ways[w].name+" "+seconds(median(took(all[w]))), times(median(took(all[w])), ours)+" its rate", l)
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
