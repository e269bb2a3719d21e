package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/archive"
	"txreel/internal/rowsum"
	"txreel/sources/mysql/mybase"
)

// baseTable is a table whose rows a base holds.
type baseTable struct {
	mybase.Table
	schema, name string
	create       string // without the next AUTO_INCREMENT
	created      string // CREATE_TIME
	rows, bytes  int64  // estimated
	elsewhere    bool   // its rows are those of other tables, or of another server
}

func (t *baseTable) quoted() string { return mybase.Quote(t.schema, t.name) }

// readTables lists the tables and sequences with their definitions.
func (b *baseRun) readTables(ctx context.Context) error {
	columns, err := b.readColumns(ctx)
	if err != nil {
		return err
	}
	r, err := b.control.Query(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, DATA_LENGTH, CREATE_TIME FROM information_schema.TABLES"+
		" WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') AND TABLE_SCHEMA NOT IN "+systemSchemas+" ORDER BY 1, 2")
	if err != nil {
		return wrapSQL("list the tables", err)
	}
	for _, row := range r.Rows {
		t := &baseTable{schema: row[0].String(), name: row[1].String(), created: row[6].String()}
		if row[2].String() == "SEQUENCE" {
			if err := b.readSequence(ctx, t.schema, t.name); err != nil {
				return err
			}
			continue
		}
		if row[3].Null() {
			return fmt.Errorf("table %s cannot be read: its engine is not there; repair or drop it", t.quoted())
		}
		d, _, err := b.show(ctx, "table", t.schema, t.name)
		if err != nil {
			return err
		}
		b.schema.Tables = append(b.schema.Tables, d)
		t.create = withoutCounter(string(d.SQL))
		t.Engine = row[3].String()
		t.Transactional = strings.EqualFold(t.Engine, "InnoDB") || strings.EqualFold(t.Engine, "RocksDB")
		t.Versioned = row[2].String() == "SYSTEM VERSIONED"
		t.rows, _ = row[4].Int() // estimates; NULL for some engines
		t.bytes, _ = row[5].Int()
		switch strings.ToUpper(t.Engine) {
		case "MRG_MYISAM", "FEDERATED", "CONNECT", "SPIDER", "BLACKHOLE":
			t.elsewhere = true
		}
		t.Columns = columnsOf(columns, t.schema, t.name)
		t.addImplicit()
		b.tables = append(b.tables, t)
		b.progress.Total += t.bytes
	}
	return nil
}

// readColumns reads the columns of all tables.
func (b *baseRun) readColumns(ctx context.Context) (map[string][]mybase.Column, error) {
	all := make(map[string][]mybase.Column)
	err := b.control.Stream(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, COLUMN_KEY, EXTRA, GENERATION_EXPRESSION"+
		" FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN "+systemSchemas+" ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION", func(row []Value) error {
		c := mybase.Column{Name: row[2].String(), Type: row[3].String(), Charset: row[5].String(), Collation: row[6].String(), Key: row[7].String()}
		extra := strings.ToUpper(row[8].String())
		c.Invisible = strings.Contains(extra, "INVISIBLE")
		versioning := row[9].String() == "ROW START" || row[9].String() == "ROW END"
		c.Generated = strings.Contains(strings.ReplaceAll(extra, "DEFAULT_GENERATED", ""), "GENERATED") && !versioning
		if !c.Generated {
			c.Form = b.form(strings.ToLower(row[4].String()))
		}
		key := row[0].String() + "\x00" + row[1].String()
		all[key] = append(all[key], c)
		return nil
	})
	return all, wrapSQL("list the columns", err)
}

// form says how the values of a type are read.
func (b *baseRun) form(datatype string) mybase.Form {
	switch datatype {
	case "enum", "set":
		return mybase.FormNumber
	case "float":
		return mybase.FormReal
	case "double", "real":
		if b.control.mariaDB() {
			return mybase.FormReal
		}
		return mybase.FormDouble
	case "json":
		return mybase.FormText
	case "uuid", "inet4", "inet6", "xmltype":
		if b.control.mariaDB() {
			return mybase.FormText
		}
	}
	return mybase.FormBytes
}

// addImplicit adds the columns of a versioned table that are not declared.
func (t *baseTable) addImplicit() {
	if !t.Versioned || strings.Contains(strings.ToUpper(t.create), " AS ROW START") {
		return
	}
	for _, name := range []string{"row_start", "row_end"} {
		t.Columns = append(t.Columns, mybase.Column{Name: name, Type: "timestamp(6)", Invisible: true, Implicit: true, Form: mybase.FormBytes})
	}
}

func (b *baseRun) readSequence(ctx context.Context, schema, name string) error {
	s := mybase.Sequence{Schema: schema, Name: name}
	create, err := b.control.QueryRow(ctx, "SHOW CREATE SEQUENCE "+mybase.Quote(schema, name))
	if err != nil {
		return wrapSQL("read the definition of sequence "+mybase.Quote(schema, name), err)
	}
	s.SQL = create[1].String()
	row, err := b.control.QueryRow(ctx, "SELECT * FROM "+mybase.Quote(schema, name))
	if err != nil {
		return wrapSQL("read sequence "+mybase.Quote(schema, name), err)
	}
	for _, v := range row {
		s.Values = append(s.Values, v.String())
	}
	b.schema.Sequences = append(b.schema.Sequences, s)
	return nil
}

// withoutCounter takes the next AUTO_INCREMENT out of the options of a CREATE TABLE.
func withoutCounter(create string) string {
	end := strings.LastIndex(create, "\n)")
	before, after, found := strings.Cut(create[max(end, 0):], " AUTO_INCREMENT=")
	if !found {
		return create
	}
	return create[:max(end, 0)] + before + strings.TrimLeft(after, "0123456789")
}

// unchanged checks that a table is still the one that was listed. The reader's lock on
// the definition, which its SELECT took, is still held: nothing can change between the
// rows and this look.
func (t *baseTable) unchanged(ctx context.Context, c *Conn) error {
	row, err := c.QueryRow(ctx, "SHOW CREATE TABLE "+t.quoted())
	if err != nil {
		return wrapSQL("look at table "+t.quoted(), err)
	}
	same := withoutCounter(row[1].String()) == t.create
	if same {
		row, err = c.QueryRow(ctx, "SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = "+quoteLiteral(t.schema)+" AND TABLE_NAME = "+quoteLiteral(t.name))
		if err != nil {
			return wrapSQL("look at table "+t.quoted(), err)
		}
		same = row[0].String() == t.created
	}
	if !same {
		return fmt.Errorf("%w: table %s was altered, truncated or replaced: take another base", errChanged, t.quoted())
	}
	return nil
}

// explainRead turns a failure to read a table's rows into what to do.
func (t *baseTable) explainRead(err error, b *baseRun) error {
	switch {
	case isCode(err, 1412, 1146, 1054, 1032, 1051, 1049, 1505, 1735, 1030):
		return fmt.Errorf("%w: table %s: %w; take another base", errChanged, t.quoted(), err)
	case isCode(err, 1205):
		return fmt.Errorf("table %s has been locked for %d s by a statement that changes it, or by LOCK TABLES: take the base once that is done: %w", t.quoted(), b.LockTimeout, err)
	}
	return wrapSQL("read table "+t.quoted(), err)
}

// entry returns the table as the manifest has it.
func (t *baseTable) entry(chunks []archive.BaseObject, content rowsum.Sum) (archive.BaseTable, error) {
	e, err := marshal(&t.Table)
	if chunks == nil {
		chunks = []archive.BaseObject{}
	}
	entry := archive.BaseTable{Schema: t.schema, Name: t.name, Rows: content.Rows, Chunks: chunks, Engine: e}
	if !t.elsewhere { // nor was it read
		entry.Content = content.Content()
	}
	return entry, err
}
