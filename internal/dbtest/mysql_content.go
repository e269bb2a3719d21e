package dbtest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// mysqlTable is a table whose content is to be read.
type mysqlTable struct {
	database, table string
	versioned       bool // its history is content too
}

func (t mysqlTable) name() string { return quoteName(t.database) + "." + quoteName(t.table) }

// table reads the content of one table, in two ways that share nothing.
func (r *mysqlReader) table(ctx context.Context, t mysqlTable) error {
	columns, err := r.columns(ctx, t)
	if err != nil {
		return err
	}
	from := t.name()
	if t.versioned {
		from += " FOR SYSTEM_TIME ALL"
	}
	if r.dump.Tables[t.name()], err = r.content(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+from); err != nil {
		return err
	}
	// Of a table with an index over the elements of a JSON array MySQL says something else to every session.
	if arrays, err := r.arrayIndex(ctx, t); err != nil || arrays {
		return err
	}
	rows, err := namedRows(ctx, r.conn, "CHECKSUM TABLE "+t.name()+" EXTENDED")
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return errors.New("CHECKSUM TABLE gave no row")
	}
	// A sequence has none.
	r.dump.Checksums[t.name()] = rows[0]["Checksum"]
	return nil
}

// arrayIndex reports whether a table has an index over the elements of a JSON array.
func (r *mysqlReader) arrayIndex(ctx context.Context, t mysqlTable) (bool, error) {
	if r.mariadb {
		return false, nil
	}
	rows, err := namedRows(ctx, r.conn, "SELECT 1 FROM information_schema.STATISTICS WHERE EXPRESSION LIKE '% array)' AND TABLE_SCHEMA = "+
		quoteText(t.database)+" AND TABLE_NAME = "+quoteText(t.table)+" LIMIT 1")
	return len(rows) > 0, err
}

// columns are the expressions that show all that a row holds.
func (r *mysqlReader) columns(ctx context.Context, t mysqlTable) ([]string, error) {
	rows, err := namedRows(ctx, r.conn, "SELECT COLUMN_NAME AS name, DATA_TYPE AS type, GENERATION_EXPRESSION AS made FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = "+
		quoteText(t.database)+" AND TABLE_NAME = "+quoteText(t.table)+" ORDER BY ORDINAL_POSITION")
	if err != nil {
		return nil, err
	}
	var columns []string
	for _, row := range rows {
		name := quoteName(row["name"])
		switch strings.ToLower(row["type"]) {
		case "float", "double":
			columns = append(columns, "CAST("+name+" AS DOUBLE)") // as text it is rounded
		case "enum", "set":
			columns = append(columns, name, "CAST("+name+" AS UNSIGNED)") // '' may be a member, or an error
		default:
			columns = append(columns, name)
		}
	}
	named := func(row map[string]string) bool { return row["made"] == "ROW START" }
	if t.versioned && !slices.ContainsFunc(rows, named) {
		columns = append(columns, "ROW_START", "ROW_END") // unseen by information_schema
	}
	if len(columns) == 0 {
		return nil, errors.New("it has no columns: was it dropped meanwhile?")
	}
	return columns, nil
}

// content reads rows and sums up a hash of each, which is the same in every order.
func (r *mysqlReader) content(ctx context.Context, query string) (TableDump, error) {
	rows, err := r.conn.QueryContext(ctx, query)
	if err != nil {
		return TableDump{}, err
	}
	defer func() { _ = rows.Close() }() // a second time
	names, err := rows.Columns()
	if err != nil {
		return TableDump{}, err
	}
	values, into := make([]sql.RawBytes, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	var sum rowSum
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return TableDump{}, err
		}
		sum.add(values)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return TableDump{}, err
	}
	return sum.table(), nil
}

// rowSum is a sum over rows that tells two multisets of rows apart.
type rowSum struct {
	rows   int64
	sum    [4]uint64
	row    []byte
	sample []string
	size   int
}

func (s *rowSum) add(values []sql.RawBytes) {
	s.row = s.row[:0]
	for _, v := range values {
		if v == nil {
			s.row = append(s.row, 0)
			continue
		}
		s.row = append(s.row, 1)
		s.row = binary.LittleEndian.AppendUint64(s.row, uint64(len(v)))
		s.row = append(s.row, v...)
	}
	hash := sha256.Sum256(s.row)
	for i := range s.sum {
		s.sum[i] += binary.LittleEndian.Uint64(hash[8*i:])
	}
	s.rows++
	if s.size += len(s.row); s.size <= sampleLimit {
		s.sample = append(s.sample, rowText(values))
	}
}

// rowText is a row for a person to read.
func rowText(values []sql.RawBytes) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		if v == nil {
			b.WriteString("NULL")
		} else {
			b.WriteString(strconv.Quote(string(v)))
		}
	}
	return "(" + b.String() + ")"
}

func (s *rowSum) table() TableDump {
	var sum []byte
	for _, part := range s.sum {
		sum = binary.LittleEndian.AppendUint64(sum, part)
	}
	t := TableDump{Rows: s.rows, SHA256: hex.EncodeToString(sum)}
	if s.rows > 0 && s.size <= sampleLimit {
		slices.Sort(s.sample)
		t.Sample = s.sample
	}
	return t
}

// show runs a SHOW statement and writes what it says line by line, without the columns named.
func (r *mysqlReader) show(ctx context.Context, statement string, without ...string) (string, error) {
	rows, err := r.conn.QueryContext(ctx, statement)
	if err != nil {
		return "", fmt.Errorf("%s: %w", statement, err)
	}
	defer func() { _ = rows.Close() }() // a second time
	names, err := rows.Columns()
	if err != nil {
		return "", fmt.Errorf("%s: %w", statement, err)
	}
	values, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	var found []string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return "", fmt.Errorf("%s: %w", statement, err)
		}
		var line []string
		for i, v := range values {
			if !slices.Contains(without, names[i]) {
				line = append(line, v.String)
			}
		}
		found = append(found, strings.Join(line, "\n"))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return "", fmt.Errorf("%s: %w", statement, err)
	}
	slices.Sort(found) // of grants, which come in no order
	return strings.Join(found, "\n"), nil
}
