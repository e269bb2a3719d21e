package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/internal/rowsum"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// comparison is a table of the target and what it is compared with.
type comparison struct {
	*table
	want    int64              // rows that base and changes make
	content *archive.BaseTable // what is on record of its content; nil to count rows
	record  string             // which base that is
	parts   int                // still to be read
	sum     rowsum.Sum
}

// partPages is how much of a table one session reads at a time: as much as is one chunk of a base.
const partPages = 8192

// part is a range of a table's blocks.
type part struct {
	*comparison
	from, to int64 // both 0 for all of it; to < 0: to the end
}

// compareTables compares every table of the base with what is on record of it. Where the record has its content at the
// cut, it is read, as the source's was: by COPY, in sessions with the same settings. Of others the rows are counted.
func (t *Target) compareTables(ctx context.Context, want map[string]int64) ([]restore.TableRows, error) {
	all, err := t.comparisons(want, major(t.control.PgConn()))
	if err != nil {
		return nil, err
	}
	parts, err := t.parts(ctx, all)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var done int64
	err = t.parallel(ctx, len(parts), func(ctx context.Context, conn *pgx.Conn, i int) error {
		p := &parts[i]
		sum, err := p.read(ctx, conn)
		if err != nil {
			return err
		}
		mu.Lock()
		p.sum.Merge(sum)
		if p.parts--; p.parts == 0 {
			done++
		}
		now := done
		mu.Unlock()
		t.job.Progress(restore.PhaseVerify, now, int64(len(all)), "tables")
		return nil
	})
	if err != nil {
		return nil, err
	}
	t.warnAbsent()
	tables := make([]restore.TableRows, len(all))
	var wrong restore.MismatchError
	for i := range all {
		c := &all[i]
		if m, ok := c.judge(); !ok {
			wrong = append(wrong, m)
		}
		tables[i] = restore.TableRows{Table: c.name(), Rows: c.sum.Rows, Verified: restore.ByRows}
		if c.content != nil {
			tables[i].Verified = restore.ByContent
		}
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return tables, nil
}

// comparisons says what each table is compared with, in a target of a major version.
func (t *Target) comparisons(want map[string]int64, version int) ([]comparison, error) {
	all := make([]comparison, len(t.tables))
	for i := range t.tables {
		c := &all[i]
		*c = comparison{table: &t.tables[i], want: want[t.tables[i].name()]}
		if t.job.Verify != restore.VerifyContent || !readsTheSame(c.Columns, t.engine.ServerVersion/10000, version) {
			continue
		}
		atCut, err := t.atCut(c.table)
		switch {
		case err != nil:
			return nil, err
		case atCut != nil:
			c.content, c.record = atCut, t.job.Plan.Proof.ID
		case len(t.job.Plan.Definitions) > 0: // who knows what was changed under which name
		case t.job.Plan.Untouched(c.Schema, c.Name):
			c.content, c.record = c.BaseTable, t.job.Plan.Base.ID
		}
		if !restore.HasContent(c.content) {
			c.content, c.record = nil, ""
		}
	}
	slices.SortFunc(all, func(a, b comparison) int { return strings.Compare(a.name(), b.name()) })
	return all, nil
}

// atCut returns what the base at the cut has on record of a table, if it is comparable: the same table by its
// definition, whose changes between the two bases are on record.
func (t *Target) atCut(tab *table) (*archive.BaseTable, error) {
	p := t.job.Plan
	found := p.AtCut(tab.Schema, tab.Name)
	if !restore.HasContent(found) {
		return nil, nil
	}
	if p.Proof == p.Base {
		return found, nil
	}
	var there pgbase.Table
	if err := json.Unmarshal(found.Engine, &there); err != nil {
		return nil, fmt.Errorf("%w: manifest of base %s: %s: %w", archive.ErrCorrupt, p.Proof.ID, tab.name(), err)
	}
	if found.Version != tab.Version || there.Unpublished || tab.Unpublished {
		return nil, nil
	}
	return found, nil
}

// readsTheSame reports whether two major versions write values of the columns' types as the same text: "char" was
// written in another way before version 16.
func readsTheSame(columns []pgbase.Column, source, target int) bool {
	const changed = 16
	return (source < changed) == (target < changed) ||
		!slices.ContainsFunc(columns, func(c pgbase.Column) bool { return strings.HasPrefix(c.Type, `"char"`) })
}

// warnAbsent names the tables that the base at the cut has and the plan's own does not: they were made between the two.
func (t *Target) warnAbsent() {
	p := t.job.Plan
	if p.Proof == nil || p.Proof == p.Base || len(p.Definitions) > 0 {
		return
	}
	have := make(map[string]bool)
	for i := range p.Base.Tables {
		have[p.Base.Tables[i].Schema+"."+p.Base.Tables[i].Name] = true
	}
	for i := range p.Proof.Tables {
		if tab := &p.Proof.Tables[i]; tab.Schema != ourSchema && !have[tab.Schema+"."+tab.Name] && (p.Partial == nil || p.Partial.Selection.Names(tab.Schema, tab.Name)) {
			t.warn("table %s.%s was made, or got its name, between base %s and base %s, which has %d rows of it: the target does not have it", tab.Schema, tab.Name, p.Base.ID, p.Proof.ID, tab.Rows)
		}
	}
}

// parts cuts the tables whose content is read into ranges, the largest first; of the others it makes one part each.
func (t *Target) parts(ctx context.Context, all []comparison) ([]part, error) {
	var parts []part
	for i := range all {
		c := &all[i]
		c.parts = 1
		if c.content == nil {
			parts = append(parts, part{comparison: c})
			continue
		}
		var pages int64
		err := t.control.QueryRow(ctx, "SELECT pg_catalog.pg_relation_size($1::regclass) / pg_catalog.current_setting('block_size')::int8", c.quoted()).Scan(&pages)
		if err != nil {
			return nil, fmt.Errorf("look at table %s: %w", c.name(), err)
		}
		c.parts = int(max(1, pages/partPages))
		for k := range c.parts {
			p := part{comparison: c, from: int64(k) * partPages, to: int64(k+1) * partPages}
			if k == c.parts-1 {
				p.to = -1
			}
			parts = append(parts, p)
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.parts, a.parts) })
	return parts, nil
}

// read sums up the rows of the part, or counts those of a table of which no more is on record.
func (p *part) read(ctx context.Context, conn *pgx.Conn) (rowsum.Sum, error) {
	if p.content == nil {
		var sum rowsum.Sum
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM ONLY "+p.quoted()).Scan(&sum.Rows); err != nil {
			return sum, fmt.Errorf("count the rows of %s: %w", p.name(), err)
		}
		return sum, nil
	}
	var rows rowsum.Lines
	tag, err := conn.PgConn().CopyTo(ctx, &rows, p.copySQL())
	if err != nil {
		return rows.Sum, fmt.Errorf("read table %s: %w", p.name(), err)
	}
	if tag.RowsAffected() != rows.Rows {
		return rows.Sum, fmt.Errorf("read table %s: %d lines came, the server speaks of %d rows", p.name(), rows.Rows, tag.RowsAffected())
	}
	return rows.Sum, nil
}

func (p *part) copySQL() string {
	var names []string
	for _, c := range p.Columns {
		names = append(names, quote(c.Name))
	}
	columns := strings.Join(names, ", ")
	if p.from == 0 && p.to < 0 && columns != "" { // of this table only; the grammar has no empty list
		return "COPY " + p.quoted() + " (" + columns + ") TO STDOUT"
	}
	where := fmt.Sprintf("ctid >= '(%d,0)'", p.from)
	if p.to >= 0 {
		where += fmt.Sprintf(" AND ctid < '(%d,0)'", p.to)
	}
	return "COPY (SELECT " + columns + " FROM ONLY " + p.quoted() + " WHERE " + where + ") TO STDOUT"
}

// judge compares what was found with what is on record.
func (c *comparison) judge() (restore.Mismatch, bool) {
	m := restore.Mismatch{Table: c.name(), Record: "base and changes", Want: restore.Found{Rows: c.want}, Found: restore.Found{Rows: c.sum.Rows}}
	if c.content == nil {
		return m, c.sum.Rows == c.want
	}
	m.Record = "base " + c.record
	m.Want = restore.Found{Rows: c.content.Rows, Content: c.content.Content}
	m.Found.Content = c.sum.Content()
	return m, m.Want == m.Found
}
