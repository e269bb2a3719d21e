package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"txreel/internal/dbtest"
)

// history restores the same database twice, the second time behind ten times as many updates, without a base from history and with one.
func (b *postgresBench) history(ctx context.Context) error {
	return b.onItsOwn(ctx, (*pointsBench).historyOf)
}

// onItsOwn measures something of a source of its own.
func (b *postgresBench) onItsOwn(ctx context.Context, measure func(*pointsBench, context.Context) error) (err error) {
	inner := *b
	p := &pointsBench{postgresBench: &inner}
	settings := map[string]string{"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "synchronous_commit": "off"}
	if p.source, err = dbtest.StartPostgres(ctx, dbtest.PostgresOptions{Settings: settings, OwnSystem: true}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.source.Close()) }()
	if _, err := p.source.CreateDB(ctx, db); err != nil {
		return err
	}
	p.url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", p.source.Port, db)
	return measure(p, ctx)
}

func (b *pointsBench) historyOf(ctx context.Context) (err error) {
	if err := b.makeHot(ctx); err != nil {
		return err
	}
	if _, err := b.txreel(ctx, "setup", "--source", b.url, "--apply"); err != nil {
		return err
	}
	const archive, times = "history", 40
	stop, err := b.capture(ctx, b.archive(archive), "txreel")
	if err != nil {
		return err
	}
	defer func() {
		if stop != nil {
			err = errors.Join(err, stop())
		}
	}()
	var took [3]time.Duration
	var l loads
	restores := func(i int) error {
		var all []time.Duration
		for range b.runs {
			if err := b.quiet(ctx, &l); err != nil {
				return err
			}
			d, err := b.restoreOurs(ctx, archive)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		took[i] = median(all)
		return nil
	}
	if err := b.updated(ctx, times); err != nil {
		return err
	}
	if err := restores(0); err != nil {
		return err
	}
	if err := b.updated(ctx, 9*times); err != nil {
		return err
	}
	err, stop = stop(), nil
	if err != nil {
		return err
	}
	if err := restores(1); err != nil {
		return err
	}
	began := time.Now()
	if _, err := b.txreel(ctx, "base", "--from-history", "--archive", b.archive(archive)); err != nil {
		return err
	}
	made := time.Since(began)
	if err := restores(2); err != nil {
		return err
	}
	b.row("restore of hot with ten times the history, against itself", seconds(took[1]), seconds(took[0]), fmt.Sprintf("%.2f × as long", took[1].Seconds()/took[0].Seconds()), l)
	b.row("the same from a base from history, which took "+seconds(made), seconds(took[2]), seconds(took[0]), fmt.Sprintf("%.2f × as long", took[2].Seconds()/took[0].Seconds()), l)
	return nil
}

// updated updates all rows some times, and waits until the archive has it.
func (b *pointsBench) updated(ctx context.Context, times int) error {
	if err := b.hot(ctx, times); err != nil {
		return err
	}
	return b.recorded(ctx)
}
