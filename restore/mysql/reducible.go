package mysql

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/change"
	"txreel/restore/mysql/reduce"
	"txreel/sources/mysql/gtid"
)

// reducible knows of which of the target's tables updates may be left out. The replay alters tables, so it reads them from the
// target, and again when the target has executed a transaction that may have altered them. It is used by one sender after another.
type reducible struct {
	target *Target
	ledger *ledger
	flush  func() error // sends what the replica did not get yet

	tables  reduce.Tables // nil until they are read
	altered change.Seq    // the last transaction that may have altered them
	unsent  bool          // that was not sent yet to the replica which has connected
	worth   int64         // bytes of the record that must pass before it pays to read them again
}

// replayRate is how many bytes of its log a server executes in a second, more or less: what waiting for the tables costs.
const replayRate = 32 << 20

// stall is how long the target may execute the same before nobody waits for it: a long statement, or MariaDB's first half of an ALTER, whose
// second half must be sent.
const stall = 500 * time.Millisecond

// Tables implements reduce.Catalog. It waits for the target, but only if it has waited for a small part of the time so far, and only as long as
// the target gets on.
func (r *reducible) Tables(ctx context.Context, passed int64) (reduce.Tables, error) {
	if r.tables != nil || r.target.opts.Exact || r.unsent || passed < r.worth {
		return r.tables, nil
	}
	c, err := r.target.spare(ctx)
	if err != nil {
		return nil, err
	}
	defer r.target.returnSpare(c)
	if there, err := r.reach(ctx, c); err != nil || !there {
		r.worth = passed + r.target.patience*int64(stall.Seconds()*replayRate)
		return nil, err
	}
	began := time.Now()
	r.tables, err = r.target.reducibleTables(ctx, c)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil { // nothing is left out then
		r.tables = nil
	}
	r.worth = passed + r.target.patience*int64(time.Since(began).Seconds()*replayRate)
	if r.tables != nil {
		r.worth -= passed // which begins anew
	}
	return r.tables, nil
}

// Altered implements reduce.Catalog.
func (r *reducible) Altered(seq change.Seq) {
	r.tables = nil
	if seq >= r.altered {
		r.altered, r.unsent = seq, false
	}
}

// connected begins anew with a replica that is sent what is behind the last transaction known to be executed.
func (r *reducible) connected(flush func() error) {
	r.flush = flush
	r.unsent = r.altered > r.ledger.at()
}

// reach waits until the target has executed what may have altered its tables, which was sent, or the replica had it. It returns false if the target
// does not get on.
func (r *reducible) reach(ctx context.Context, c *conn) (there bool, err error) {
	var before *gtid.Set
	moved := time.Now()
	for pause := time.Millisecond; r.ledger.at() < r.altered; pause = min(2*pause, 50*time.Millisecond) {
		if err := r.flush(); err != nil {
			return false, err
		}
		executed, err := r.target.executedBy(ctx, c)
		if err != nil {
			return false, err
		}
		r.ledger.executed(executed)
		switch {
		case before == nil || !executed.Equal(before):
			before, moved = executed, time.Now()
		case time.Since(moved) > stall:
			return false, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return true, nil
}

// reducibleTables reads which tables a replica finds rows of by a primary key, and what their rows have to do with others; nil where a statement
// that alters one is at work, which MariaDB leaves out with a warning. Those of MariaDB with system versioning are no base tables: each update of theirs leaves a row in
// their history.
func (t *Target) reducibleTables(ctx context.Context, c *conn) (reduce.Tables, error) {
	const from = " FROM information_schema."
	const where = " WHERE table_schema NOT IN " + systemSchemas
	k := keysRead{make(map[string]*tableKeys), make(map[string][]*tableKeys)}
	for _, read := range []struct {
		sql  string
		take func(row)
	}{
		{"SELECT table_schema, table_name" + from + "tables" + where + " AND table_type = 'BASE TABLE' AND engine = 'InnoDB'", k.table},
		{"SELECT table_schema, table_name, column_name, ordinal_position, extra, generation_expression" + from + "columns" + where, k.column},
		{"SELECT table_schema, table_name, column_name, index_name" + from + "statistics" + where + " AND non_unique = 0", k.index},
		{"SELECT table_schema, table_name, column_name, referenced_table_schema, referenced_table_name, referenced_column_name" + from +
			"key_column_usage" + where + " AND referenced_table_name IS NOT NULL", k.reference},
	} {
		rows, all, err := described(ctx, c, t.version, read.sql)
		if err != nil || !all {
			return nil, err
		}
		for _, r := range rows {
			read.take(r)
		}
	}
	return k.reducible(), nil
}

// described asks for descriptions of tables, and reports whether it got all: MariaDB waits for a statement that alters a table, or leaves the table out with a
// warning. Here it does not wait, as the end of that statement may be behind what was sent.
func described(ctx context.Context, c *conn, v version, sql string) (rows []row, all bool, err error) {
	if v.mariadb() {
		sql = "SET STATEMENT lock_wait_timeout = 0 FOR " + sql
	}
	if rows, err = c.query(ctx, sql); isError(err, mysql.ER_LOCK_WAIT_TIMEOUT) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	warnings, err := c.query(ctx, "SHOW WARNINGS")
	if err != nil {
		return nil, false, err
	}
	const shown = 64 // max_error_count, as a session has it
	for _, w := range warnings {
		if w.text(1) != strconv.Itoa(mysql.ER_VIEW_INVALID) {
			return nil, false, nil
		}
	}
	return rows, len(warnings) < shown, nil
}

// keysRead gathers what is read of tables.
type keysRead struct {
	tables map[string]*tableKeys // by reduce.TableKey
	// folded has them by their names in lower case, as foreign keys may have their names: those that are not told apart then.
	folded map[string][]*tableKeys
}

// tableKeys is what is read of a table.
type tableKeys struct {
	columns  map[string]int // positions, by names in lower case
	computed []int          // the positions of generated columns
	guarded  map[int]bool
	key      []int
	no       bool // updates of it stay
}

func (k *keysRead) table(r row) {
	t := &tableKeys{columns: make(map[string]int), guarded: make(map[int]bool)}
	key := reduce.TableKey(r.text(0), r.text(1))
	k.tables[key] = t
	k.folded[strings.ToLower(key)] = append(k.folded[strings.ToLower(key)], t)
}

func (k *keysRead) column(r row) {
	t := k.tables[reduce.TableKey(r.text(0), r.text(1))]
	if t == nil {
		return
	}
	n, err := strconv.Atoi(r.text(3))
	if err != nil || n < 1 {
		t.no = true
		return
	}
	name := strings.ToLower(r.text(2))
	t.columns[name] = n - 1
	if r.text(5) != "" {
		t.computed = append(t.computed, n-1)
	}
	// InnoDB counts on from the largest number of a full-text index's documents as it does with AUTO_INCREMENT, and lets none be far above it.
	if strings.Contains(strings.ToLower(r.text(4)), "auto_increment") || name == "fts_doc_id" {
		t.guarded[n-1] = true
	}
}

func (k *keysRead) index(r row) {
	t := k.tables[reduce.TableKey(r.text(0), r.text(1))]
	if t == nil {
		return
	}
	t.guard(r.text(2)) // that of an expression has no name
	if r.text(3) == "PRIMARY" {
		t.key = append(t.key, t.columns[strings.ToLower(r.text(2))])
	}
}

func (k *keysRead) reference(r row) {
	for _, t := range k.folded[strings.ToLower(reduce.TableKey(r.text(0), r.text(1)))] {
		t.guard(r.text(2))
	}
	for _, t := range k.folded[strings.ToLower(reduce.TableKey(r.text(3), r.text(4)))] {
		t.guard(r.text(5))
	}
}

// guard notes that rows may depend on a column of others.
func (t *tableKeys) guard(column string) {
	n, ok := t.columns[strings.ToLower(column)]
	if !ok {
		t.no = true
		return
	}
	t.guarded[n] = true
}

// reducible returns the tables of which updates may be left out.
func (k *keysRead) reducible() reduce.Tables {
	tables := make(reduce.Tables)
	for name, t := range k.tables {
		computed := func(n int) bool { return t.guarded[n] } // of others, which an update may change
		if t.no || len(t.key) == 0 || slices.ContainsFunc(t.computed, computed) {
			continue
		}
		slices.Sort(t.key)
		tables[name] = &reduce.Table{Columns: len(t.columns), Guarded: slices.Sorted(maps.Keys(t.guarded)), Key: t.key}
	}
	return tables
}
