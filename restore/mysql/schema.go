package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"txreel/sources/mysql/mybase"
)

// What an interrupted run has made is there: the servers' numbers for that.
const (
	errDatabaseExists = 1007
	errTableExists    = 1050
	errRoutineExists  = 1304
	errTriggerExists  = 1359
	errEventExists    = 1537
)

func (l *loader) createDatabases(ctx context.Context, s *conn) error {
	for _, d := range l.schema.Databases {
		if err := s.exec(ctx, d.SQL); err != nil && !isError(err, errDatabaseExists) {
			return fmt.Errorf("create database %s: %w", quote(d.Name), err)
		}
	}
	return nil
}

// createSequences makes the sequences, which tables may refer to, and gives them their
// values.
func (l *loader) createSequences(ctx context.Context, s *conn) error {
	for _, q := range l.schema.Sequences {
		name := quote(q.Schema, q.Name)
		err := s.exec(ctx, "USE "+quote(q.Schema))
		if err == nil {
			err = s.exec(ctx, q.SQL)
		}
		if err != nil && !isError(err, errTableExists) {
			return fmt.Errorf("create sequence %s: %w", name, err)
		}
		values := make([]string, len(q.Values))
		for i, v := range q.Values {
			values[i] = literal(v)
		}
		if err := s.exec(ctx, "INSERT INTO "+name+" VALUES ("+strings.Join(values, ", ")+")"); err != nil {
			return fmt.Errorf("set sequence %s: %w", name, err)
		}
	}
	return nil
}

func (l *loader) createTables(ctx context.Context, _ *conn) error {
	return l.each(ctx, len(l.tables), func(ctx context.Context, s *conn, i int) error {
		t := l.tables[i]
		err := s.exec(ctx, "USE "+quote(t.Schema))
		if err == nil {
			err = s.exec(ctx, t.parts.statement())
		}
		if err != nil && !isError(err, errTableExists) {
			return fmt.Errorf("create table %s: %w", t.quoted(), err)
		}
		return nil
	})
}

// addIndexes adds the keys that were left out, all of a table in one go.
func (l *loader) addIndexes(ctx context.Context) error {
	var missing []*loadTable
	for _, t := range l.tables {
		if len(t.parts.indexes) > 0 {
			missing = append(missing, t)
		}
	}
	return l.each(ctx, len(missing), func(ctx context.Context, s *conn, i int) error {
		t := missing[i]
		first := strings.ReplaceAll(strings.Trim(nameOf(t.parts.indexes[0]), "`"), "``", "`")
		n, err := s.value(ctx, "SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = "+literal(t.Schema)+
			" AND TABLE_NAME = "+literal(t.Name)+" AND INDEX_NAME = "+literal(first))
		if err != nil || n != "0" { // they were added together
			return err
		}
		if err := s.exec(ctx, "ALTER TABLE "+t.quoted()+" ADD "+strings.Join(t.parts.indexes, ", ADD ")); err != nil {
			return fmt.Errorf("add indexes to table %s: %w", t.quoted(), err)
		}
		return nil
	})
}

// addForeignKeys adds them all before the replay: the target's server runs their
// cascades itself, where the source's log does not have them.
func (l *loader) addForeignKeys(ctx context.Context, s *conn) error {
	for _, t := range l.tables {
		if len(t.parts.foreign) == 0 {
			continue
		}
		n, err := s.value(ctx, "SELECT COUNT(*) FROM information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_TYPE = 'FOREIGN KEY' AND TABLE_SCHEMA = "+
			literal(t.Schema)+" AND TABLE_NAME = "+literal(t.Name))
		if err == nil && n != "0" {
			continue
		}
		if err == nil {
			err = s.exec(ctx, "USE "+quote(t.Schema))
		}
		if err == nil {
			err = s.exec(ctx, "ALTER TABLE "+t.quoted()+" ADD "+strings.Join(t.parts.foreign, ", ADD "))
		}
		if err != nil {
			return fmt.Errorf("add foreign keys to table %s: %w", t.quoted(), err)
		}
	}
	return nil
}

// define makes an object of a stored program's kind, in a session that is as the one that
// defined it.
func (l *loader) define(ctx context.Context, s *conn, d *mybase.Definition, sql string, exists uint16) (err error) {
	set := []string{}
	if d.Client != "" {
		set = append(set, "character_set_client = "+literal(d.Client))
	}
	if d.Connection != "" {
		set = append(set, "collation_connection = "+literal(d.Connection))
	}
	if d.Mode != nil {
		set = append(set, "sql_mode = "+literal(*d.Mode))
	}
	if d.Zone != "" {
		set = append(set, "time_zone = "+literal(d.Zone))
	}
	if d.Altered > 0 {
		// An event whose time is past would be dropped as soon as it is made.
		set = append(set, fmt.Sprintf("timestamp = %d", d.Altered))
	}
	err = s.exec(ctx, "USE "+quote(d.Schema))
	if err == nil && len(set) > 0 {
		err = s.exec(ctx, "SET SESSION "+strings.Join(set, ", "))
	}
	if err == nil {
		if err = s.exec(ctx, sql); isError(err, exists) {
			err = nil
		}
	}
	if serr := s.exec(ctx, "SET NAMES utf8mb4"); err == nil {
		err = serr
	}
	if serr := s.exec(ctx, "SET SESSION sql_mode = '"+loadMode+"', time_zone = '+00:00', timestamp = DEFAULT"); err == nil {
		err = serr
	}
	return err
}

func (l *loader) defineAll(ctx context.Context, s *conn, list []mybase.Definition, exists uint16) error {
	for i := range list {
		d := &list[i]
		if err := l.inDatabase(ctx, s, d, string(d.SQL), exists); err != nil {
			return fmt.Errorf("create %s %s: %w", d.Kind, quote(d.Schema, d.Name), err)
		}
	}
	return nil
}

// inDatabase defines an object whose database had another collation when it was
// made: parameters and variables without one have the database's.
func (l *loader) inDatabase(ctx context.Context, s *conn, d *mybase.Definition, sql string, exists uint16) error {
	if d.Database == "" {
		return l.define(ctx, s, d, sql, exists)
	}
	now, err := s.value(ctx, "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = "+literal(d.Schema))
	if err != nil {
		return err
	}
	if now == d.Database {
		return l.define(ctx, s, d, sql, exists)
	}
	if err := s.exec(ctx, "ALTER DATABASE "+quote(d.Schema)+" COLLATE "+d.Database); err != nil {
		return err
	}
	err = l.define(ctx, s, d, sql, exists)
	return errors.Join(err, s.exec(ctx, "ALTER DATABASE "+quote(d.Schema)+" COLLATE "+now))
}

func (l *loader) createRoutines(ctx context.Context, s *conn) error {
	return l.defineAll(ctx, s, l.schema.Routines, errRoutineExists)
}

func (l *loader) createTriggers(ctx context.Context, s *conn) error {
	return l.defineAll(ctx, s, l.schema.Triggers, errTriggerExists)
}

// createViews makes views in rounds, since one may need others: a round in which none
// can be made is the last.
func (l *loader) createViews(ctx context.Context, s *conn) error {
	left := make([]*mybase.Definition, 0, len(l.schema.Views))
	for i := range l.schema.Views {
		left = append(left, &l.schema.Views[i])
	}
	for len(left) > 0 {
		var again []*mybase.Definition
		var first error
		for _, d := range left {
			err := l.define(ctx, s, d, string(d.SQL), errTableExists)
			if err == nil {
				continue
			}
			if s.broken != nil || ctx.Err() != nil {
				return err
			}
			again = append(again, d)
			if first == nil || !d.Broken {
				first = fmt.Errorf("create view %s: %w", quote(d.Schema, d.Name), err)
			}
		}
		if len(again) < len(left) {
			left = again
			continue
		}
		for _, d := range again {
			if !d.Broken {
				return first
			}
			l.warn("view %s could not be made; it did not work in the source either", quote(d.Schema, d.Name))
		}
		return nil
	}
	return nil
}

// createEvents makes the events disabled: they must not run before the restore is
// over. What they were is in the base's manifest.
func (l *loader) createEvents(ctx context.Context, s *conn) error {
	for i := range l.schema.Events {
		d := &l.schema.Events[i]
		sql, ok := disabled(string(d.SQL))
		if !ok {
			return fmt.Errorf("create event %s: its definition cannot be read", quote(d.Schema, d.Name))
		}
		if err := l.inDatabase(ctx, s, d, sql, errEventExists); err != nil {
			return fmt.Errorf("create event %s: %w", quote(d.Schema, d.Name), err)
		}
	}
	return nil
}

// disabled returns a CREATE EVENT, as SHOW CREATE EVENT prints it, of the same event but
// disabled.
func disabled(sql string) (string, bool) {
	for i := 0; i < len(sql); i++ {
		if end := quotedEnd(sql, i); end > i {
			i = end - 1
			continue
		}
		for _, completion := range []string{" ON COMPLETION PRESERVE ", " ON COMPLETION NOT PRESERVE "} {
			rest, ok := strings.CutPrefix(sql[i:], completion)
			if !ok {
				continue
			}
			for _, state := range []string{"DISABLE ON SLAVE", "DISABLE ON REPLICA", "DISABLE", "ENABLE"} {
				if after, ok := strings.CutPrefix(rest, state); ok {
					return sql[:i] + completion + "DISABLE" + after, true
				}
			}
		}
	}
	return "", false
}
