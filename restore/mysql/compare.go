package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-mysql-org/go-mysql/mysql"
	"golang.org/x/sync/errgroup"

	"txreel/archive"
	"txreel/restore"
	"txreel/sources/mysql/mybase"
)

// comparison is a table and what it is compared with.
type comparison struct {
	tableName
	there bool // in the target

	own, proof    *archive.BaseTable // of the plan's base, and of another one that was taken at the cut; nil where it is not
	ownAs, proved mybase.Table       // their columns

	record  string             // where the record speaks of it
	content *archive.BaseTable // what it says of its content; nil to count rows
	columns mybase.Table
	counted bool // want is certain
	want    int64
	found   restore.Found
}

// absent is the number of rows of a table that is not there.
const absent = -1

func (c *comparison) quoted() string { return quote(c.schema, c.name) }

// compareTables compares the target's tables with what is on record of them. Where the record has a table's content at the cut,
// it is read as the source's was; of the others the rows are counted.
func (t *Target) compareTables(ctx context.Context) ([]restore.TableRows, error) {
	if err := t.readLinks(ctx); err != nil {
		return nil, err
	}
	all, err := t.comparisons(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	next, done := 0, 0
	g, gctx := errgroup.WithContext(ctx)
	for range min(len(all), t.job.Workers) {
		g.Go(func() error {
			c, err := t.spare(gctx)
			if err != nil {
				return err
			}
			defer c.close()
			if err := prepareReading(gctx, c); err != nil {
				return err
			}
			var content mybase.Content
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(all) {
					return nil
				}
				if err := all[i].read(gctx, c, &content); err != nil {
					return err
				}
				mu.Lock()
				done++
				now := done
				mu.Unlock()
				t.job.Progress(restore.PhaseVerify, int64(now), int64(len(all)), "tables")
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var wrong restore.MismatchError
	var tables []restore.TableRows
	for i := range all {
		c := &all[i]
		if m, ok := c.judge(); !ok {
			wrong = append(wrong, m)
		}
		tables = append(tables, restore.TableRows{Table: c.schema + "." + c.name, Rows: c.found.Rows, Verified: c.evidence()})
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return tables, nil
}

// prepareReading gives a session the settings with which the source's values were read, besides those that all
// sessions have.
func prepareReading(ctx context.Context, c *conn) error {
	for _, set := range []string{
		"character_set_results = NULL",
		"max_statement_time = 0", // MariaDB's name for it
		"max_execution_time = 0",
	} {
		if err := c.exec(ctx, "SET SESSION "+set); err != nil && !isError(err, mysql.ER_UNKNOWN_SYSTEM_VARIABLE) {
			return fmt.Errorf("prepare a session to read tables: %w", err)
		}
	}
	return nil
}

// comparisons lists the tables of the target, and those that must be there, with what each is compared with.
func (t *Target) comparisons(ctx context.Context) ([]comparison, error) {
	rows, err := t.control.query(ctx, "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') "+
		"AND table_schema NOT IN "+systemSchemas+" AND table_schema <> "+literal(bookSchema))
	if err != nil {
		return nil, fmt.Errorf("list the target's tables: %w", err)
	}
	all := make(map[tableName]*comparison)
	get := func(n tableName) *comparison {
		if all[n] == nil {
			all[n] = &comparison{tableName: n}
		}
		return all[n]
	}
	for _, r := range rows {
		get(tableName{r.text(0), r.text(1)}).there = true
	}
	p := t.job.Plan
	for i := range p.Base.Tables {
		c := get(tableName{p.Base.Tables[i].Schema, p.Base.Tables[i].Name})
		c.own = &p.Base.Tables[i]
		if c.ownAs, err = columnsOf(c.own, p.Base); err != nil {
			return nil, err
		}
	}
	if p.Proof != nil && p.Proof != p.Base {
		for i := range p.Proof.Tables {
			c := get(tableName{p.Proof.Tables[i].Schema, p.Proof.Tables[i].Name})
			c.proof = &p.Proof.Tables[i]
			if c.proved, err = columnsOf(c.proof, p.Proof); err != nil {
				return nil, err
			}
		}
	}
	var list []comparison
	for _, c := range all {
		if t.choose(c) {
			list = append(list, *c)
		}
	}
	slices.SortFunc(list, func(a, b comparison) int { return strings.Compare(a.schema+"."+a.name, b.schema+"."+b.name) })
	return list, nil
}

func columnsOf(tab *archive.BaseTable, base *archive.Base) (columns mybase.Table, err error) {
	if err = json.Unmarshal(tab.Engine, &columns); err != nil {
		err = fmt.Errorf("%w: manifest of base %s: %s: %w", archive.ErrCorrupt, base.ID, quote(tab.Schema, tab.Name), err)
	}
	return columns, err
}

// choose decides what a table is compared with; it reports false for one that a statement has dropped, or may have.
func (t *Target) choose(c *comparison) bool {
	p := t.job.Plan
	full := t.job.Verify == restore.VerifyContent
	expected, certain := int64(0), false
	if c.own != nil {
		expected, certain = t.past.rows(c.tableName, c.own.Rows)
	}
	c.columns = c.ownAs
	if c.proof != nil {
		c.columns = c.proved
	}
	switch {
	case c.proof != nil && c.proved.Transactional: // of others a base has the rows as they were a little later
		c.record, c.counted, c.want = "base "+p.Proof.ID, true, c.proof.Rows
		if full && restore.HasContent(c.proof) {
			c.content = c.proof
		}
	case c.own != nil && full && restore.HasContent(c.own) && t.past.untouched(c.tableName):
		c.record, c.content, c.columns = "base "+p.Base.ID, c.own, c.ownAs
	case certain:
		c.record, c.counted, c.want = "base and changes", true, expected
	}
	if !c.there {
		// One of the base at the cut must be there, and one of the plan's base that no statement names.
		must := c.proof != nil || c.own != nil && (p.Proof == p.Base || p.Proof == nil && t.past.sameTable(c.tableName))
		if must && c.record == "" {
			c.record, c.counted, c.want = "base "+p.Base.ID, true, c.rowsOnRecord()
		}
		return must
	}
	// Statements are replayed too: there is nothing that the base at the cut does not have.
	if p.Proof != nil && len(p.Proof.Objects) > 0 && c.proof == nil && (c.own == nil || p.Proof != p.Base) {
		c.record, c.content, c.counted, c.want = "base "+p.Proof.ID, nil, true, absent
	}
	return true
}

func (c *comparison) rowsOnRecord() int64 {
	if c.proof != nil {
		return c.proof.Rows
	}
	return c.own.Rows
}

// read reads the table, or counts its rows.
func (c *comparison) read(ctx context.Context, session *conn, content *mybase.Content) error {
	c.found.Rows = absent
	if !c.there {
		return nil
	}
	from := " FROM " + c.quoted()
	if c.columns.Versioned {
		from += " FOR SYSTEM_TIME ALL"
	}
	if c.content == nil {
		text, err := session.value(ctx, "SELECT COUNT(*)"+from)
		if err == nil {
			_, err = fmt.Sscan(text, &c.found.Rows)
		}
		if err != nil {
			return fmt.Errorf("count the rows of %s: %w", c.quoted(), err)
		}
		return nil
	}
	list := c.columns.SelectList()
	if list == "" {
		list = "''"
	}
	content.Begin(&c.columns)
	if err := session.sum(ctx, "SELECT "+list+from, content); err != nil {
		return fmt.Errorf("read table %s: %w", c.quoted(), err)
	}
	c.found = restore.Found{Rows: content.Rows, Content: content.Content()}
	return nil
}

// judge compares what was found with what is on record.
func (c *comparison) judge() (restore.Mismatch, bool) {
	m := restore.Mismatch{Table: c.schema + "." + c.name, Record: c.record, Want: restore.Found{Rows: c.want}, Found: c.found}
	if c.content != nil {
		m.Want = restore.Found{Rows: c.content.Rows, Content: c.content.Content}
	} else if !c.counted {
		return m, c.there
	}
	return m, m.Want == m.Found
}

func (c *comparison) evidence() restore.Evidence {
	switch {
	case c.content != nil:
		return restore.ByContent
	case c.counted:
		return restore.ByRows
	}
	return restore.ByPresence
}

// readLinks finds the foreign keys that let a change of one table change another, and what that makes uncertain.
func (t *Target) readLinks(ctx context.Context) error {
	rows, err := t.control.query(ctx, "SELECT UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME, CONSTRAINT_SCHEMA, TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS "+
		"WHERE DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION')")
	if err != nil {
		return fmt.Errorf("list the target's foreign keys: %w", err)
	}
	links := make(map[tableName][]tableName)
	for _, r := range rows {
		parent := t.past.key(tableName{r.text(0), r.text(1)})
		links[parent] = append(links[parent], t.past.key(tableName{r.text(2), r.text(3)}))
	}
	t.past.spread(links)
	return nil
}
