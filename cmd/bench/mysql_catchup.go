package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"txreel/sources/mysql/gtid"
)

// backlog is what the server has committed while nobody listened.
type backlog struct {
	name, what string
	calls      []string // run at the same time
}

const catchUpTables = `
CREATE TABLE one (id int PRIMARY KEY, n int, pad varchar(60));
CREATE TABLE ten (id int PRIMARY KEY, n int, pad varchar(100));
CREATE TABLE bulk (id int PRIMARY KEY, n int, hash varchar(64), pad varchar(100));
INSERT INTO ten WITH RECURSIVE d (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM d WHERE i < 99)
	SELECT a.i * 100 + b.i, 0, CONCAT(LEFT(SHA2(a.i * 100 + b.i, 256), 32), REPEAT(' filler', 9)) FROM d a, d b`

// The procedures run in autocommit: each of their statements is a transaction.
var catchUpProcedures = []string{
	`CREATE PROCEDURE make_small(low int, many int) BEGIN DECLARE i int DEFAULT 0;
		WHILE i < many DO
			INSERT INTO one VALUES (low + i, i, CONCAT('row ', i));
			UPDATE ten SET n = n + 1 WHERE id = (low + i * 7919) MOD 10000;
			SET i = i + 1;
		END WHILE; END`,
	`CREATE PROCEDURE make_tens(many int) BEGIN DECLARE i int DEFAULT 0;
		WHILE i < many DO
			UPDATE ten SET n = n + 1 WHERE id BETWEEN i MOD 1000 * 10 AND i MOD 1000 * 10 + 9;
			SET i = i + 1;
		END WHILE; END`,
	`CREATE PROCEDURE make_bulk(many int) BEGIN DECLARE i int DEFAULT 0;
		WHILE i < many DO
			INSERT INTO bulk SELECT i * 100000 + x.id * 10 + y.id, RAND() * 1000000, SHA2(i * 100000 + x.id * 10 + y.id, 256), x.pad
				FROM ten x, ten y WHERE y.id < 10;
			SET i = i + 1;
		END WHILE; END`,
}

// catchUp reads one backlog after the other with the vendor's program, which writes the
// files as the server has them, and with capture, which compresses and stores them durably,
// in turns.
func (b *mysqlBench) catchUp(ctx context.Context) error {
	if err := b.source.Exec(ctx, db, catchUpTables); err != nil {
		return err
	}
	for _, sql := range catchUpProcedures {
		if err := b.source.Exec(ctx, db, sql); err != nil {
			return err
		}
	}
	half := b.small / 4 // two sessions, two transactions a turn
	for _, l := range []backlog{
		{"small", fmt.Sprintf("%d transactions of one row", half*4), []string{fmt.Sprintf("CALL make_small(0, %d)", half), fmt.Sprintf("CALL make_small(%d, %d)", half, half)}},
		{"ten rows", fmt.Sprintf("%d updates of ten rows", b.tens), []string{fmt.Sprintf("CALL make_tens(%d)", b.tens)}},
		{"bulk", fmt.Sprintf("%d rows by INSERT … SELECT", b.bulk/100_000*100_000), []string{fmt.Sprintf("CALL make_bulk(%d)", b.bulk/100_000)}},
	} {
		if err := b.catchUpWith(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

func (b *mysqlBench) catchUpWith(ctx context.Context, l backlog) error {
	origin := b.archive("origin-" + l.name)
	if err := b.begin(ctx, origin); err != nil {
		return err
	}
	began := time.Now()
	names, err := b.logged(ctx, func() error {
		g, ctx := errgroup.WithContext(ctx)
		for _, sql := range l.calls {
			g.Go(func() error { return b.source.Exec(ctx, db, sql) })
		}
		return g.Wait()
	})
	if err != nil {
		return err
	}
	paths, size, err := b.logFiles(names)
	if err != nil {
		return err
	}
	goal, err := b.executed(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s %s: %d bytes in %d files of the log, made in %s\n", b.flavor, l.name, size, len(names), seconds(time.Since(began)))
	run := b.archive("run")
	var peer, ours []effort
	var load loads
	for i := range b.runs {
		if err := b.quiet(ctx, &load); err != nil {
			return err
		}
		var p, o effort
		turns := []func() error{
			func() (err error) { p, err = b.fetchRaw(ctx, names); return err },
			func() (err error) {
				if err := errors.Join(os.RemoveAll(run), os.CopyFS(run, os.DirFS(origin))); err != nil {
					return err
				}
				o, err = b.record(ctx, run, goal)
				return err
			},
		}
		for t := range turns {
			if err := turns[(t+i)%2](); err != nil { // who comes first has no advantage
				return err
			}
		}
		fmt.Printf("%s catch-up %s %d: %s %s, txreel %s, load %.1f\n", b.flavor, l.name, i+1, filepath.Base(b.source.BinlogTool()), p, o, load[i])
		peer, ours = append(peer, p), append(ours, o)
	}
	stored, err := b.sameEvents(ctx, run, paths)
	if err != nil {
		return err
	}
	p, o, mb := median(took(peer)), median(took(ours)), float64(size)/1e6
	b.row(fmt.Sprintf("%s: catch-up of %s (%.0f MB of binlog)", b.flavor, l.what, mb),
		fmt.Sprintf("%s, %.0f MB/s, %.2f × stored", seconds(o), mb/o.Seconds(), float64(stored)/float64(size)),
		fmt.Sprintf("%s --raw %s, %.0f MB/s", filepath.Base(b.source.BinlogTool()), seconds(p), mb/p.Seconds()), times(p, o)+" its rate", load)
	return errors.Join(os.RemoveAll(run), os.RemoveAll(origin))
}

// fetchRaw times the vendor's program.
func (b *mysqlBench) fetchRaw(ctx context.Context, names []string) (effort, error) {
	out := b.archive("raw")
	if err := os.Mkdir(out, 0o700); err != nil {
		return effort{}, err
	}
	args := append(b.source.ToolArgs(), "--read-from-remote-server", "--raw", "--result-file="+out+"/")
	cmd := exec.CommandContext(ctx, b.source.BinlogTool(), append(args, names...)...)
	cmd.Env = b.source.ToolEnv()
	server := usedBy(b.source.PID())
	began := time.Now()
	text, err := cmd.CombinedOutput()
	e := effort{time.Since(began), used(cmd), usedBy(b.source.PID()) - server}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, text)
	}
	return e, errors.Join(err, os.RemoveAll(out))
}

// record times a capture from its start until its archive durably holds the goal.
func (b *mysqlBench) record(ctx context.Context, archive string, goal *gtid.Set) (effort, error) {
	reached := make(chan time.Time, 1)
	server := usedBy(b.source.PID())
	began := time.Now()
	c, err := b.startCapture(ctx, b.env(), func(line []byte) {
		var e struct{ Message, Position string }
		if json.Unmarshal(line, &e) != nil || e.Message != "segment" {
			return
		}
		if held, err := gtid.Parse(goal.Flavor(), e.Position); err == nil && held.Contains(goal) {
			select {
			case reached <- time.Now():
			default: // a heartbeat behind it
			}
		}
	}, "--archive", archive, "--flush-age", "200ms")
	if err != nil {
		return effort{}, err
	}
	select {
	case at := <-reached:
		err := c.stop()
		return effort{at.Sub(began), used(c.cmd), usedBy(b.source.PID()) - server}, err
	case <-c.ended:
		return effort{}, errors.Join(errors.New("the capture ended before it had caught up"), c.stop())
	}
}

// sameEvents compares, by what the vendor's program prints of them, the transactions of
// the archive with those of files of the log, and returns how large its segments are.
func (b *mysqlBench) sameEvents(ctx context.Context, archive string, log []string) (stored int64, err error) {
	out := b.archive("exported")
	if _, err := execute(ctx, nil, b.program, "binlog", "--archive", archive, out); err != nil {
		return 0, err
	}
	exported, err := filepath.Glob(filepath.Join(out, "binlog.[0-9]*"))
	if err != nil {
		return 0, err
	}
	want, err := b.digest(ctx, log)
	if err != nil {
		return 0, err
	}
	got, err := b.digest(ctx, exported)
	if err != nil {
		return 0, err
	}
	if want != got {
		return 0, fmt.Errorf("the archive holds other transactions than the log: %s, not %s", got, want)
	}
	segments, err := filepath.Glob(filepath.Join(archive, "epochs/*/segments/*"))
	for _, path := range segments {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		stored += info.Size()
	}
	return stored, errors.Join(err, os.RemoveAll(out))
}

// digest sums up which transactions binlog files hold, and every value of their rows.
func (b *mysqlBench) digest(ctx context.Context, files []string) (string, error) {
	cmd := exec.CommandContext(ctx, b.source.BinlogTool(), append([]string{"--no-defaults", "--verbose", "--base64-output=DECODE-ROWS"}, files...)...)
	cmd.Dir, cmd.Stderr = b.dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	sum, txns, rows := sha256.New(), 0, 0
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 64<<20)
	for scan.Scan() {
		line := scan.Bytes()
		switch {
		case bytes.HasPrefix(line, []byte("###")):
			rows++
		case bytes.Contains(line, []byte("AUTOMATIC")):
			continue // the program's own, at the end
		case bytes.Contains(line, []byte("GTID_NEXT=")), bytes.Contains(line, []byte("gtid_seq_no=")):
			txns++
		default:
			continue
		}
		sum.Write(line)
	}
	if err := errors.Join(scan.Err(), cmd.Wait()); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return fmt.Sprintf("%d transactions, %d lines of rows, SHA-256 %s", txns, rows, hex.EncodeToString(sum.Sum(nil))), nil
}
