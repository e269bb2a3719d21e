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
	pipe             []effort // the vendor's dump program into its client
	dumping, loading loads
}

// base takes a base of sysbench's tables and loads it, in turns with the vendor's dump
// program and client.
func (b *mysqlBench) base(ctx context.Context) error { return b.bases(ctx, b.loadOnce) }

// dumps takes bases in turns with the vendor's dump program, and loads none.
func (b *mysqlBench) dumps(ctx context.Context) error { return b.bases(ctx, nil) }

func (b *mysqlBench) bases(ctx context.Context, load func(ctx context.Context, i int, dir, script string, t *baseTimes) error) error {
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
		if err = b.baseOnce(ctx, i, dir, script, t); err == nil && load != nil {
			err = load(ctx, i, dir, script, t)
		}
	}
	if err := errors.Join(err, capture.stop()); err != nil {
		return err
	}
	rows := fmt.Sprintf("of sysbench's 4 tables of %d rows", b.tableRows)
	dumper, client := filepath.Base(b.source.DumpTool()), filepath.Base(b.source.Program("mysql"))
	b.row(fmt.Sprintf("%s: base %s", b.flavor, rows), fmt.Sprintf("%s (%s with the wait for the record)", seconds(median(took(t.base))), seconds(median(t.passed))),
		dumper+" --single-transaction > file "+seconds(median(took(t.dump))), times(median(took(t.dump)), median(took(t.base)))+" its rate", t.dumping)
	if load != nil {
		b.row(fmt.Sprintf("%s: load of that base", b.flavor), seconds(median(took(t.load))),
			client+" < file "+seconds(median(took(t.client))), times(median(took(t.client)), median(took(t.load)))+" its rate", t.loading)
		ours, loaded, pipe := median(took(t.base)), median(took(t.load)), median(took(t.pipe))
		b.row(fmt.Sprintf("%s: both, one after the other", b.flavor), seconds(ours+loaded), dumper+" \\| "+client+" "+seconds(pipe),
			fmt.Sprintf("%s its rate; the base alone %s, the load %s", times(pipe, ours+loaded), times(pipe, ours), times(pipe, loaded)), append(t.dumping, t.loading...))
	}
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
	return nil
}

// loadOnce loads the base that was taken last, the script, and what the dump program says
// just then, each into a fresh server.
func (b *mysqlBench) loadOnce(ctx context.Context, i int, dir, script string, t *baseTimes) error {
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
	both := filepath.Base(b.source.DumpTool()) + " | " + name
	pipe, err := b.replayOnce(ctx, &t.loading, both, func(target *dbtest.MySQL) (effort, error) { return b.dumpInto(ctx, target) })
	if err != nil {
		return err
	}
	fmt.Printf("%s load %d: %s %s, txreel %s, %s %s, load %s\n", b.flavor, i+1, name, client, load, both, pipe, t.loading[3*i:])
	t.client, t.load, t.pipe = append(t.client, client), append(t.load, load), append(t.pipe, pipe)
	return nil
}

// dump times the vendor's dump program.
func (b *mysqlBench) dump(ctx context.Context, script string) (e effort, err error) {
	out, err := os.Create(script)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	cmd := b.dumper(ctx)
	cmd.Stdout = out
	before := usedBy(b.source.PID())
	began := time.Now()
	err = cmd.Run()
	return effort{time.Since(began), used(cmd), usedBy(b.source.PID()) - before}, err
}

// dumper is the vendor's dump program, told to read all rows from one snapshot.
func (b *mysqlBench) dumper(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.source.DumpTool(), append(b.source.ToolArgs(), "--single-transaction", "--databases", db)...)
	if b.flavor == "mysql" {
		cmd.Args = append(cmd.Args, "--set-gtid-purged=OFF") // a target with users has GTIDs of its own
	}
	cmd.Env, cmd.Stderr = b.source.ToolEnv(), os.Stderr
	return cmd
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
	cmd := b.client(ctx, target)
	cmd.Stdin = in
	began := time.Now()
	err = cmd.Run()
	return effort{took: time.Since(began), program: used(cmd)}, err
}

// client is the vendor's client of a target.
func (b *mysqlBench) client(ctx context.Context, target *dbtest.MySQL) *exec.Cmd {
	cmd := exec.CommandContext(ctx, target.Program("mysql"), append(target.ToolArgs(), "--init-command=SET SESSION sql_log_bin = 0")...)
	cmd.Env, cmd.Stderr = target.ToolEnv(), os.Stderr
	return cmd
}

// dumpInto times the vendor's dump program, whose script its client runs at the same time. What the
// source spends on it is not counted.
func (b *mysqlBench) dumpInto(ctx context.Context, target *dbtest.MySQL) (effort, error) {
	dumper, client := b.dumper(ctx), b.client(ctx, target)
	var err error
	if client.Stdin, err = dumper.StdoutPipe(); err != nil {
		return effort{}, err
	}
	began := time.Now()
	if err := dumper.Start(); err != nil {
		return effort{}, err
	}
	if err = client.Run(); err != nil {
		_ = dumper.Process.Kill() // nobody reads what it says any more
	}
	err = errors.Join(err, dumper.Wait())
	return effort{took: time.Since(began), program: used(dumper) + used(client)}, err
}
