package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"txreel/internal/dbtest"
)

const (
	partialTables = 20
	partialRows   = 150_000 // of each table
)

// partial restores one of many tables, and all of them.
func (b *postgresBench) partial(ctx context.Context) error {
	return b.onItsOwn(ctx, (*pointsBench).partialOf)
}

func (b *pointsBench) partialOf(ctx context.Context) (err error) {
	var sql strings.Builder
	for i := range partialTables {
		fmt.Fprintf(&sql, `create table t%02d (id int primary key, a int, b text, c text); insert into t%02[1]d select g, g %% 1000, md5(g::text), md5((g * %d)::text) from generate_series(1, %d) g; create index on t%02[1]d (b);`, i, i+2, partialRows)
	}
	if err := b.source.Exec(ctx, db, sql.String()); err != nil {
		return err
	}
	if _, err := b.txreel(ctx, "setup", "--source", b.url, "--apply"); err != nil {
		return err
	}
	const archive = "partial"
	stop, err := b.capture(ctx, b.archive(archive), "txreel")
	if err != nil {
		return err
	}
	err = b.touchAll(ctx)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	var all, one []time.Duration
	var l loads
	var bytes [2]int64
	for range b.runs {
		if err := b.quiet(ctx, &l); err != nil {
			return err
		}
		d, n, err := b.restorePart(ctx, archive, "t%")
		if err != nil {
			return err
		}
		all, bytes[0] = append(all, d), n
		if d, n, err = b.restorePart(ctx, archive, "t07", "--table", "t07"); err != nil {
			return err
		}
		one, bytes[1] = append(one, d), n
	}
	whole, part := median(all), median(one)
	b.row(fmt.Sprintf("restore of one table of %d, against all of them", partialTables), seconds(part), seconds(whole),
		fmt.Sprintf("%.3f of the time, %.3f of the bytes", part.Seconds()/whole.Seconds(), float64(bytes[1])/float64(bytes[0])), l)
	return nil
}

// touchAll changes a part of each table, one after the other, in transactions of a thousand rows, and waits until the archive has it.
func (b *pointsBench) touchAll(ctx context.Context) error {
	for i := range partialTables {
		err := b.source.Exec(ctx, db, fmt.Sprintf(`do $$begin for k in 0..19 loop update t%02d set a = a + 1, b = md5(b) where id between k * 1000 + 1 and k * 1000 + 1000; commit; end loop; end$$`, i))
		if err != nil {
			return err
		}
	}
	return b.recorded(ctx)
}

// restorePart restores what flags say into a fresh server and compares the tables like a pattern with the source's. It says how many bytes of the archive are read.
func (b *pointsBench) restorePart(ctx context.Context, archive, like string, flags ...string) (took time.Duration, read int64, err error) {
	target, err := b.fresh(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := target.CreateDB(ctx, db); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	_, err = b.restore(ctx, []string{"PGPASSWORD=" + target.Password()}, b.archive(archive), fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", target.Port, db), flags...)
	took = time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	var plan struct{ Estimate struct{ Bytes int64 } }
	out, err := b.txreel(ctx, append([]string{"restore", "--archive", b.archive(archive), "--dry-run", "--json"}, flags...)...)
	if err == nil {
		err = json.Unmarshal(out, &plan)
	}
	if err != nil {
		return 0, 0, err
	}
	if plan.Estimate.Bytes == 0 {
		return 0, 0, errors.New("the plan does not say how many bytes are read")
	}
	return took, plan.Estimate.Bytes, b.sameLike(ctx, target, like)
}

// sameLike compares tables with the source's.
func (b *pointsBench) sameLike(ctx context.Context, target *dbtest.Postgres, like string) error {
	rows, err := b.source.Query(ctx, db, `select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relname like '`+like+`' order by 1`)
	if err != nil {
		return err
	}
	for _, r := range rows {
		sum := `select count(*), sum(hashtextextended(t::text, 0)::numeric) from ` + r[0] + ` t`
		want, err := b.source.Query(ctx, db, sum)
		if err != nil {
			return err
		}
		got, err := target.Query(ctx, db, sum)
		if err != nil {
			return err
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("table %s holds %v rows and sum, the source's %v", r[0], got, want)
		}
	}
	return nil
}
