package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/sources/postgres/pgbase"
)

const (
	// sampleLimit is when a sample that takes long is given up, between two statements.
	sampleLimit = 3 * time.Second
	// wholeEvery is after how many samples there is a whole one again.
	wholeEvery = 100
	// sampleAtOnce is how many sequences one statement reads.
	sampleAtOnce = 500
)

// sampler reads how far sequences have come, which no log tells. It belongs to the watching goroutine.
type sampler struct {
	at      time.Time // when it was last tried
	traffic uint64    // what the last sample covers
	whole   map[pgbase.Name]pgbase.SequenceValue
	since   uint64 // the fence that carries whole
}

var errSlow = errors.New("reading sequences takes too long")

// due reports whether there is traffic that no sample covers, and a new one may be taken.
func (m *sampler) due(o *SourceOptions, traffic uint64) bool {
	return o.SequenceEvery > 0 && traffic != m.traffic && time.Since(m.at) >= o.SequenceEvery
}

// sample returns what the fence of that number says of sequences; nil when it says nothing. It never waits for long, and
// what the server refuses is no reason to stop: a restore says of which sequences it knows less.
func (s *Source) sample(ctx context.Context, number, traffic uint64) (*pgbase.Sample, error) {
	m := &s.sequences
	if !m.due(&s.opts, traffic) {
		return nil, nil
	}
	m.at = time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.opts.silence)
	defer cancel()
	sample, err := readSample(ctx, s.control)
	var refused *pgconn.PgError
	if (errors.As(err, &refused) || errors.Is(err, errSlow)) && !s.control.IsClosed() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.traffic = traffic
	if len(sample.Values) == 0 && m.whole == nil {
		return nil, nil
	}
	var changed []pgbase.SequenceValue
	for _, v := range sample.Values {
		if m.whole[v.Name] != v {
			changed = append(changed, v)
		}
	}
	if m.whole != nil && number-m.since < wholeEvery && len(changed) <= len(sample.Values)/2 {
		sample.Since, sample.Values = m.since, changed
		return sample, nil
	}
	m.whole, m.since = make(map[pgbase.Name]pgbase.SequenceValue, len(sample.Values)), number
	for _, v := range sample.Values {
		m.whole[v.Name] = v
	}
	return sample, nil
}

// readSample reads the end of the log and then all permanent sequences that the role may read, in this order: what a
// transaction has drawn that committed before the former is in the latter.
func readSample(ctx context.Context, conn *pgx.Conn) (*pgbase.Sample, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, wrapSQL("sample sequences", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "set local lock_timeout = '500ms'; set local statement_timeout = '2s'"); err != nil {
		return nil, wrapSQL("sample sequences", err)
	}
	sample, began := &pgbase.Sample{}, time.Now()
	if err := tx.QueryRow(ctx, "select pg_catalog.pg_current_wal_insert_lsn()::text").Scan(&sample.Upto); err != nil {
		return nil, wrapSQL("sample sequences", err)
	}
	rows, err := tx.Query(ctx, `
		select n.nspname::text as schema, c.relname::text as name
		  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where c.relkind = 'S' and c.relpersistence = 'p' and n.nspname <> 'txreel'
		   and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select') order by c.oid`)
	if err != nil {
		return nil, wrapSQL("list sequences", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByName[pgbase.Name])
	if err != nil {
		return nil, wrapSQL("list sequences", err)
	}
	for len(names) > 0 {
		if time.Since(began) > sampleLimit {
			return nil, errSlow
		}
		some := names[:min(len(names), sampleAtOnce)]
		names = names[len(some):]
		var sql strings.Builder
		for i, n := range some {
			if i > 0 {
				sql.WriteString(" union all ")
			}
			fmt.Fprintf(&sql, "select %d, last_value, is_called from %s", i, quoteIdent(n.Schema, n.Name))
		}
		rows, err := tx.Query(ctx, sql.String(), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return nil, wrapSQL("sample sequences", err)
		}
		var i int
		var v pgbase.SequenceValue
		if _, err := pgx.ForEachRow(rows, []any{&i, &v.Last, &v.Called}, func() error {
			v.Name = some[i]
			sample.Values = append(sample.Values, v)
			return nil
		}); err != nil {
			return nil, wrapSQL("sample sequences", err)
		}
	}
	return sample, nil
}
