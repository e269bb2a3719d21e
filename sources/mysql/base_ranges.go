package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"txreel/archive"
	"txreel/internal/rowsum"
	"txreel/sources/mysql/mybase"
)

// maxRanges bounds the pieces of a table.
const maxRanges = 512

// piece is a range of a table's primary key, or all of a table.
type piece struct {
	table  int
	number int
	where  string
	bytes  int64 // estimated

	tries   int                  // that ended with the loss of a session
	objects []archive.BaseObject // stored
	content rowsum.Sum           // of all its rows, once it is read
}

// plan cuts the tables into pieces. c sees the snapshot, and keeps no lock on the definitions of the tables that it
// looks into: those who want to alter one would wait for the whole base.
func (b *baseRun) plan(ctx context.Context, c *Conn) ([]piece, error) {
	if err := c.Exec(ctx, "SAVEPOINT txreel"); err != nil {
		return nil, wrapSQL("cut the tables into parts", err)
	}
	var all []piece
	for i, t := range b.tables {
		if t.elsewhere {
			continue
		}
		wheres := []string{""}
		if n := min(t.bytes/b.ChunkBytes, maxRanges); n > 1 && t.Transactional && !t.Versioned {
			var err error
			if wheres, err = t.ranges(ctx, c, n); err != nil {
				return nil, t.explainRead(err, b)
			}
		}
		for k, where := range wheres {
			all = append(all, piece{table: i, number: k, where: where, bytes: t.bytes / int64(len(wheres))})
		}
	}
	return all, wrapSQL("cut the tables into parts", c.Exec(ctx, "ROLLBACK TO SAVEPOINT txreel"))
}

// keyColumn returns the first column of the primary key if it is a whole number.
func (t *baseTable) keyColumn(ctx context.Context, c *Conn) (*mybase.Column, error) {
	row, err := c.QueryRow(ctx, "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = "+quoteLiteral(t.schema)+
		" AND TABLE_NAME = "+quoteLiteral(t.name)+" AND INDEX_NAME = 'PRIMARY' AND SEQ_IN_INDEX = 1")
	if errors.Is(err, ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range t.Columns {
		col := &t.Columns[i]
		if col.Name == row[0].String() && !col.Generated && strings.Contains(strings.SplitN(strings.ToLower(col.Type), "(", 2)[0], "int") {
			return col, nil
		}
	}
	return nil, nil
}

// ranges cuts a table into about n ranges of its key. Values need not be spread evenly:
// a range that the server believes to hold too many rows is cut again.
func (t *baseTable) ranges(ctx context.Context, c *Conn, n int64) ([]string, error) {
	col, err := t.keyColumn(ctx, c)
	if err != nil || col == nil {
		return []string{""}, err
	}
	key := mybase.Quote(col.Name)
	row, err := c.QueryRow(ctx, "SELECT MIN("+key+"), MAX("+key+") FROM "+t.quoted())
	if err != nil || row[0].Null() {
		return []string{""}, err
	}
	signed := !strings.Contains(strings.ToLower(col.Type), "unsigned")
	low, err1 := parseKey(row[0], signed)
	high, err2 := parseKey(row[1], signed)
	if err1 != nil || err2 != nil || low >= high {
		return []string{""}, nil
	}
	target := max(t.rows/n, 1)
	var cuts []uint64 // where a range begins that is not the first
	budget := 8 * n
	var split func(low, high uint64, depth int) error
	split = func(low, high uint64, depth int) error { // of keys from low to high, both included
		if high-low < 1 || depth > 64 || int64(len(cuts)) >= maxRanges || budget <= 0 {
			return nil
		}
		budget--
		rows, err := t.estimate(ctx, c, key, printKey(low, signed), printKey(high, signed))
		if err != nil || rows <= target+target/2 {
			return err
		}
		mid := low + (high-low)/2 + 1
		if err := split(low, mid-1, depth+1); err != nil {
			return err
		}
		cuts = append(cuts, mid)
		return split(mid, high, depth+1)
	}
	if err := split(low, high, 0); err != nil {
		return nil, err
	}
	if len(cuts) == 0 {
		return []string{""}, nil
	}
	wheres := []string{key + " < " + printKey(cuts[0], signed)}
	for i, from := range cuts {
		where := key + " >= " + printKey(from, signed)
		if i+1 < len(cuts) {
			where += " AND " + key + " < " + printKey(cuts[i+1], signed)
		}
		wheres = append(wheres, where)
	}
	return wheres, nil
}

// estimate asks how many rows the server believes to be in a range. It is not told to use
// the index by force: MySQL does not look into an index that it has to use anyway.
func (t *baseTable) estimate(ctx context.Context, c *Conn, key, low, high string) (int64, error) {
	explain := "EXPLAIN "
	if !c.mariaDB() && c.Number >= 80032 {
		explain += "FORMAT=TRADITIONAL "
	}
	r, err := c.Query(ctx, fmt.Sprintf("%sSELECT * FROM %s USE INDEX (PRIMARY) WHERE %s >= %s AND %s <= %s", explain, t.quoted(), key, low, key, high))
	if err != nil || len(r.Rows) == 0 {
		return 0, err
	}
	rows := r.Value(0, "rows")
	if rows.Null() { // "no matching row"
		return 0, nil
	}
	return rows.Int()
}

// parseKey maps a key to numbers without sign, in the same order.
func parseKey(v Value, signed bool) (uint64, error) {
	if !signed {
		return v.Uint()
	}
	n, err := v.Int()
	return uint64(n) ^ 1<<63, err
}

func printKey(k uint64, signed bool) string {
	if !signed {
		return strconv.FormatUint(k, 10)
	}
	return strconv.FormatInt(int64(k^1<<63), 10)
}
