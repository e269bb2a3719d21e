package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// peerSlot is the slot from which the nth run of the native subscription takes the workload.
func peerSlot(n int) string { return fmt.Sprintf("peer_%d", n+1) }

// publish prepares the native subscription: a dump of what is there, and a slot for each run that has all behind it. Nobody writes meanwhile.
func (b *pointsBench) publish(ctx context.Context) error {
	if err := b.source.Exec(ctx, db, "create publication peer for tables in schema public"); err != nil {
		return err
	}
	for i := range b.runs {
		if err := b.source.Exec(ctx, db, fmt.Sprintf("select pg_create_logical_replication_slot('%s', 'pgoutput')", peerSlot(i))); err != nil {
			return err
		}
	}
	_, err := b.command(ctx, b.source.Client("pg_dump"), "-Fc", "-Z1", "--no-publications", "-f", b.archive("before.dump"), b.source.URL(db))
	return err
}

// subscribe loads the dump into a fresh server and lets a subscription apply the workload. Its slot is gone then.
func (b *pointsBench) subscribe(ctx context.Context, run int) (took time.Duration, err error) {
	target, err := b.fresh(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := target.CreateDB(ctx, db); err != nil {
		return 0, err
	}
	end, err := b.position(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := b.command(ctx, b.source.Client("pg_restore"), "-j2", "-d", target.URL(db), b.archive("before.dump")); err != nil {
		return 0, err
	}
	if err := target.Exec(ctx, db, fmt.Sprintf(`create subscription peer connection 'host=127.0.0.1 port=%d user=postgres password=%s dbname=%s' publication peer
		with (create_slot = false, slot_name = '%s', copy_data = false, synchronous_commit = off)`, b.source.Port, b.source.Password(), db, peerSlot(run))); err != nil {
		return 0, err
	}
	err = poll(ctx, func() (bool, error) {
		// What the source has told it, once it has nothing more to send.
		rows, err := target.Query(ctx, db, fmt.Sprintf("select from pg_stat_subscription where subname = 'peer' and latest_end_lsn >= '%s'", end))
		return len(rows) > 0, err
	})
	if err != nil {
		return 0, err
	}
	took = time.Since(began)
	if err := target.Exec(ctx, db, "drop subscription peer"); err != nil { // and the slot with it
		return 0, err
	}
	return took, b.same(ctx, target.URL(db))
}

// unpublish removes what publish has made, but for slots that are gone.
func (b *pointsBench) unpublish(ctx context.Context) error {
	return errors.Join(b.source.Exec(ctx, db, "drop publication peer"), os.Remove(b.archive("before.dump")))
}
