package dbtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sampleLimit is how many bytes of rows a TableDump keeps, so that Diff can show the rows that differ.
const sampleLimit = 64 << 10

// TableDump is the content of one table whatever the order of its rows: two tables hold the same multiset of rows
// exactly when Rows and SHA256 are equal.
type TableDump struct {
	Rows   int64
	SHA256 string
	// Sample holds all rows as text when they are small together, else nothing.
	Sample []string
}

// Dump reads the content of every table of a database in one snapshot: ordinary and unlogged, each partition and
// inheritance child by itself, except those in the schemas to skip. Names are
// schema-qualified and quoted as SQL wants them. It is the oracle of every restore test: rows are compared as the
// server's own text, in which NULL and the empty string differ, under pinned output settings and in the database's
// own encoding; the server sorts them, so memory here stays constant.
func Dump(ctx context.Context, url string, skipSchemas ...string) (map[string]TableDump, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("dump database: %w", err)
	}
	maps.Copy(cfg.RuntimeParams, map[string]string{"datestyle": "ISO, YMD", "intervalstyle": "postgres", "timezone": "UTC",
		"extra_float_digits": "3", "bytea_output": "hex", "lc_monetary": "C", "xmlbinary": "base64", "search_path": "",
		"row_security": "off", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"client_encoding": "SQL_ASCII"}) // SQL_ASCII: no conversion, whatever the database's encoding
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("dump database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only read
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("dump database: %w", err)
	}
	tables, err := userTables(ctx, tx, skipSchemas)
	if err != nil {
		return nil, fmt.Errorf("dump database: %w", err)
	}
	dump := make(map[string]TableDump, len(tables))
	for _, name := range tables {
		h := &rowHash{hash: sha256.New()}
		// "r.*" is the whole row even where a column is called r.
		_, err := conn.PgConn().CopyTo(ctx, h,
			`COPY (SELECT (r.*)::text FROM ONLY `+name+` AS r ORDER BY (r.*)::text COLLATE pg_catalog."C") TO STDOUT`)
		if err != nil {
			return nil, fmt.Errorf("dump table %s: %w", name, err)
		}
		dump[name] = h.table()
	}
	return dump, nil
}

func userTables(ctx context.Context, tx pgx.Tx, skipSchemas []string) ([]string, error) {
	if skipSchemas == nil {
		skipSchemas = []string{}
	}
	rows, err := tx.Query(ctx, `
		SELECT n.nspname::text, c.relname::text
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\_%'
		  AND n.nspname <> 'information_schema' AND NOT n.nspname = ANY ($1::text[])
		ORDER BY 1, 2`, skipSchemas)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var schema, table string
		err := row.Scan(&schema, &table)
		return pgx.Identifier{schema, table}.Sanitize(), err
	})
}

// rowHash takes COPY's text, one line per row whatever the row holds.
type rowHash struct {
	hash   hash.Hash
	rows   int64
	sample bytes.Buffer
	large  bool
}

func (h *rowHash) Write(b []byte) (int, error) {
	h.rows += int64(bytes.Count(b, []byte{'\n'}))
	if h.large = h.large || h.sample.Len()+len(b) > sampleLimit; h.large {
		h.sample.Reset()
	} else {
		h.sample.Write(b)
	}
	return h.hash.Write(b)
}

func (h *rowHash) table() TableDump {
	t := TableDump{Rows: h.rows, SHA256: hex.EncodeToString(h.hash.Sum(nil))}
	if !h.large && h.rows > 0 {
		t.Sample = strings.Split(strings.TrimSuffix(h.sample.String(), "\n"), "\n")
		slices.Sort(t.Sample) // COPY's escapes sort unlike what they stand for
	}
	return t
}

// Diff names every table in which b differs from a, with the first rows that do where both are small. It returns
// the empty string when nothing differs.
func Diff(a, b map[string]TableDump) string {
	var out strings.Builder
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		ta, inA := a[name]
		tb, inB := b[name]
		switch {
		case !inA:
			fmt.Fprintf(&out, "%s: only in the second, %d rows\n", name, tb.Rows)
		case !inB:
			fmt.Fprintf(&out, "%s: only in the first, %d rows\n", name, ta.Rows)
		case ta.Rows != tb.Rows || ta.SHA256 != tb.SHA256:
			fmt.Fprintf(&out, "%s: %d rows sha256 %.12s…, then %d rows sha256 %.12s…\n", name, ta.Rows, ta.SHA256, tb.Rows, tb.SHA256)
			diffRows(&out, ta, tb)
		}
	}
	return out.String()
}

// diffRows walks two sorted samples and shows the first rows that only one of them has.
func diffRows(out *strings.Builder, a, b TableDump) {
	if a.Rows != int64(len(a.Sample)) || b.Rows != int64(len(b.Sample)) {
		return // too large to have been kept
	}
	x, y := a.Sample, b.Sample
	for shown := 0; len(x)+len(y) > 0; shown++ {
		for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
			x, y = x[1:], y[1:]
		}
		if shown == 10 && len(x)+len(y) > 0 {
			out.WriteString("  …\n")
			return
		}
		switch {
		case len(x) > 0 && (len(y) == 0 || x[0] < y[0]):
			fmt.Fprintf(out, "  - %.300s\n", x[0])
			x = x[1:]
		case len(y) > 0:
			fmt.Fprintf(out, "  + %.300s\n", y[0])
			y = y[1:]
		}
	}
}
