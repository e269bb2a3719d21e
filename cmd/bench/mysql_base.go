package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"txreel/internal/dbtest"
)

// baseTimes are what measurements of bases took.
type baseTimes struct {
	dump, base       []effort        // the vendor's dump; a base
	passed           []time.Duration // until the record had passed the base
	client, load     []effort
	dumping, loading loads
}

// base takes a base of sysbench's tables and loads it, in turns with the vendor's dump
// program and client.
func (b *mysqlBench) base(ctx context.Context) error {
	if _, err := dbtest.Sysbench(ctx, b.source, db, "oltp_read_write", "--tables=4", fmt.Sprintf("--table-size=%d", b.tableRows), "prepare"); err != nil {
		return err
	}
	if err := b.source.Exec(ctx, db, "ANALYZE TABLE sbtest1, sbtest2, sbtest3, sbtest4"); err != nil {
		return err
	}
	dir, script := b.archive("base"), b.archive("dump.sql")
	// Something has to carry the record past a base before that can be finished.
	capture, err := b.startCapture(ctx, b.env(), nil, "--archive", dir, "--heartbeat", "500ms")
	if err != nil {
		return err
	}
	t := &baseTimes{}
	err = hasBase(ctx, dir)
	for i := 0; i < b.runs && err == nil; i++ {
		err = b.baseOnce(ctx, i, dir, script, t)
	}
	if err := errors.Join(err, capture.stop()); err != nil {
		return err
	}
	rows := fmt.Sprintf("of sysbench's 4 tables of %d rows", b.tableRows)
	dumper, client := filepath.Base(b.source.DumpTool()), filepath.Base(b.source.Program("mysql"))
	b.row(fmt.Sprintf("%s: base %s", b.flavor, rows), fmt.Sprintf("%s (%s with the wait for the record)", seconds(median(took(t.base))), seconds(median(t.passed))),
		dumper+" --single-transaction "+seconds(median(took(t.dump))), times(median(took(t.dump)), median(took(t.base)))+" its rate", t.dumping)
	b.row(fmt.Sprintf("%s: load of that base", b.flavor), seconds(median(took(t.load))),
		client+" < file "+seconds(median(took(t.client))), times(median(took(t.client)), median(took(t.load)))+" its rate", t.loading)
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(script))
}

func (b *mysqlBench) baseOnce(ctx context.Context, i int, dir, script string, t *baseTimes) error {
	if err := b.quiet(ctx, &t.dumping); err != nil {
		return err
	}
	dump, err := b.dump(ctx, script)
	if err != nil {
		return err
	}
	base, passed, err := b.takeBase(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Printf("%s base %d: %s %s, txreel %s, %s with the wait for the record, load %.1f\n", b.flavor, i+1, filepath.Base(b.source.DumpTool()),
		dump, base, seconds(passed), t.dumping[i])
	t.dump, t.base, t.passed = append(t.dump, dump), append(t.base, base), append(t.passed, passed)
	name := filepath.Base(b.source.Program("mysql"))
	client, err := b.replayOnce(ctx, &t.loading, name, func(target *dbtest.MySQL) (effort, error) { return b.load(ctx, script, target) })
	if err != nil {
		return err
	}
	load, err := b.replayOnce(ctx, &t.loading, "txreel", func(target *dbtest.MySQL) (effort, error) {
		r, err := b.restore(ctx, nil, dir, target.URL(""), "--jobs", workers)
		if err != nil {
			return effort{}, err
		}
		return effort{took: r.phase("base") + r.phase("keys"), program: r.used}, nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s load %d: %s %s, txreel %s, load %.1f and %.1f\n", b.flavor, i+1, name, client, load, t.loading[2*i], t.loading[2*i+1])
	t.client, t.load = append(t.client, client), append(t.load, load)
	return nil
}

// dump times the vendor's dump program.
func (b *mysqlBench) dump(ctx context.Context, script string) (e effort, err error) {
	out, err := os.Create(script)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	cmd := exec.CommandContext(ctx, b.source.DumpTool(), append(b.source.ToolArgs(), "--single-transaction", "--databases", db)...)
	if b.flavor == "mysql" {
		cmd.Args = append(cmd.Args, "--set-gtid-purged=OFF") // a target with users has GTIDs of its own
	}
	cmd.Env, cmd.Stdout, cmd.Stderr = b.source.ToolEnv(), out, os.Stderr
	before := usedBy(b.source.PID())
	began := time.Now()
	err = cmd.Run()
	return effort{time.Since(began), used(cmd), usedBy(b.source.PID()) - before}, err
}

// takeBase times a base: until all of it is in the archive, and until the record has passed
// the moment it was taken at, without which it is not finished.
func (b *mysqlBench) takeBase(ctx context.Context, archive string) (base effort, passed time.Duration, err error) {
	cmd := exec.CommandContext(ctx, b.program, "base", "--archive", archive)
	cmd.Env = append(os.Environ(), b.env()...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return base, 0, err
	}
	before := usedBy(b.source.PID())
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return base, 0, err
	}
	var said []string
	for scan := bufio.NewScanner(stderr); scan.Scan(); {
		if strings.HasPrefix(scan.Text(), "waiting for the capture") {
			base.took = time.Since(began)
		}
		said = append(said, scan.Text())
	}
	if err := cmd.Wait(); err != nil || base.took == 0 {
		return base, 0, fmt.Errorf("txreel base: %w\n%s", err, strings.Join(said, "\n"))
	}
	passed = time.Since(began)
	base.program, base.server = used(cmd), usedBy(b.source.PID())-before
	return base, passed, nil
}

// load times the vendor's client, which writes no log of its own, as a restore does not.
func (b *mysqlBench) load(ctx context.Context, script string, target *dbtest.MySQL) (effort, error) {
	in, err := os.Open(script)
	if err != nil {
		return effort{}, err
	}
	defer func() { _ = in.Close() }() // it was only read
	cmd := exec.CommandContext(ctx, target.Program("mysql"), append(target.ToolArgs(), "--init-command=SET SESSION sql_log_bin = 0")...)
	cmd.Env, cmd.Stdin, cmd.Stderr = target.ToolEnv(), in, os.Stderr
	began := time.Now()
	err = cmd.Run()
	return effort{took: time.Since(began), program: used(cmd)}, err
}
