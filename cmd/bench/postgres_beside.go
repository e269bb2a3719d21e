package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// besideFor is how long each rate of pgbench is taken.
const besideFor = 20 * time.Second

// beside measures what an application notices of a capture and of the event triggers that setup makes, against
// pg_recvlogical on the same publication without any triggers, and against nothing attached: pgbench's rates, in turns.
func (b *postgresBench) beside(ctx context.Context) error {
	var l loads
	rates := make(map[string][]float64)
	ways := []struct {
		name   string
		attach func(context.Context) (detach func() error, err error)
	}{
		{"nothing", func(context.Context) (func() error, error) { return func() error { return nil }, nil }},
		{"pg_recvlogical", b.attachReceiver},
		{"txreel", b.attachCapture},
	}
	for i := range max(b.runs, 5) {
		for _, way := range ways {
			if err := b.quiet(ctx, &l); err != nil {
				return err
			}
			detach, err := way.attach(ctx)
			if err != nil {
				return err
			}
			err = b.source.Exec(ctx, db, "checkpoint")
			var rate float64
			if err == nil {
				rate, err = b.rate(ctx)
			}
			if err := errors.Join(err, detach()); err != nil {
				return err
			}
			rates[way.name] = append(rates[way.name], rate)
		}
		fmt.Printf("postgres beside %d: nothing %.0f, pg_recvlogical %.0f, txreel %.0f transactions/s\n", i+1, rates["nothing"][i], rates["pg_recvlogical"][i], rates["txreel"][i])
	}
	var pairs []float64
	for i, ours := range rates["txreel"] {
		pairs = append(pairs, ours/rates["pg_recvlogical"][i])
	}
	b.row(fmt.Sprintf("pgbench (8 clients, scale 10) beside a capture, with the event triggers; without anything it has %.0f/s", median(rates["nothing"])),
		fmt.Sprintf("%.0f transactions/s", median(rates["txreel"])), fmt.Sprintf("beside pg_recvlogical, without triggers, %.0f/s", median(rates["pg_recvlogical"])),
		fmt.Sprintf("%.2f × its rate, the median of %d pairs", median(pairs), len(pairs)), l)
	return nil
}

// rate returns pgbench's transactions per second.
func (b *postgresBench) rate(ctx context.Context) (float64, error) {
	out, err := b.command(ctx, filepath.Join(b.source.BinDir, "pgbench"), "-n", "-c", "8", "-j", "2", "-T", strconv.Itoa(int(besideFor.Seconds())),
		"-h", "127.0.0.1", "-p", strconv.Itoa(b.source.Port), "-U", "postgres", db)
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^tps = ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench says no rate:\n%s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// attachReceiver switches the event triggers off, and lets pg_recvlogical throw away what the publication has.
func (b *postgresBench) attachReceiver(ctx context.Context) (detach func() error, err error) {
	const slot = "beside"
	if err := b.triggers(ctx, "DISABLE"); err != nil {
		return nil, err
	}
	if err := b.source.Exec(ctx, db, `select pg_create_logical_replication_slot('`+slot+`', 'pgoutput')`); err != nil {
		return nil, err
	}
	receiver := exec.CommandContext(ctx, filepath.Join(b.source.BinDir, "pg_recvlogical"), "-h", "127.0.0.1", "-p", strconv.Itoa(b.source.Port), "-U", "postgres",
		"-d", db, "--slot", slot, "--start", "-o", "proto_version=1", "-o", "publication_names=txreel", "-o", "messages=true", "-f", "/dev/null")
	receiver.Env = append(receiver.Environ(), "PGPASSWORD="+b.source.Password())
	if err := receiver.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_ = receiver.Process.Kill() // nothing of it is needed
		_ = receiver.Wait()
		gone := poll(ctx, func() (bool, error) {
			rows, err := b.source.Query(ctx, db, `select active from pg_replication_slots where slot_name = '`+slot+`'`)
			return err == nil && len(rows) == 1 && rows[0][0] == "f", err
		})
		return errors.Join(gone, b.source.Exec(ctx, db, `select pg_drop_replication_slot('`+slot+`')`), b.triggers(ctx, "ENABLE ALWAYS"))
	}, nil
}

func (b *postgresBench) triggers(ctx context.Context, how string) error {
	return b.source.Exec(ctx, db, `do $$declare t record; begin for t in select evtname from pg_event_trigger where evtname like 'txreel%' loop
		execute format('alter event trigger %I `+how+`', t.evtname); end loop; end$$`)
}

// attachCapture starts a capture, which first catches up with what came before it.
func (b *postgresBench) attachCapture(ctx context.Context) (detach func() error, err error) {
	stop, err := b.capture(ctx, b.archive("origin"), "txreel")
	if err != nil {
		return nil, err
	}
	end, err := b.position(ctx)
	if err == nil {
		err = b.confirmed(ctx, "txreel", end)
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}
