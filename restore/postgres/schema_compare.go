package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"txreel/archive"
	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// compareSchemas names what of the schema is another at the cut than in the base, or may be: where changes of definitions are in no
// record, all that is known of them is what the schema was when somebody looked.
func (t *Target) compareSchemas(ctx context.Context) error {
	p := t.job.Plan
	if t.engine.Definitions.Logged || p.Seq == p.Base.Seq {
		return nil
	}
	known, err := t.objectsOf(ctx, p.Base)
	if err != nil {
		return err
	}
	since := p.Base
	if p.Earlier != nil {
		earlier, err := t.objectsOf(ctx, p.Earlier)
		if err != nil {
			return err
		}
		for _, d := range schemaDifferences(known, earlier) {
			t.warn("the schema was another at the point: between base %s and base %s %s; the target has it as in the former", p.Base.ID, p.Earlier.ID, d)
		}
		known, since = earlier, p.Earlier
	}
	if p.Later == nil {
		t.warn("nobody has looked at the schema since %s (base %s): whether it was changed between then and the point is in no record", since.Started, since.ID)
		return nil
	}
	later, err := t.objectsOf(ctx, p.Later)
	if err != nil {
		return err
	}
	for _, d := range schemaDifferences(known, later) {
		t.warn("the schema may have been another at the point: between base %s and base %s, which is behind it, %s", since.ID, p.Later.ID, d)
	}
	return nil
}

// schemaObject is an object of a schema: what it is called, and how it is made.
type schemaObject struct{ name, sql string }

// objectsOf returns the schema of a base, by what tells an object from another one of the same source.
func (t *Target) objectsOf(ctx context.Context, b *archive.Base) (map[string]schemaObject, error) {
	var e pgbase.Engine
	if err := json.Unmarshal(b.Engine, &e); err != nil {
		return nil, fmt.Errorf("%w: manifest of base %s: engine: %w", archive.ErrCorrupt, b.ID, err)
	}
	s, err := t.schemaOf(ctx, b, e.ServerVersion/10000)
	if err != nil {
		return nil, err
	}
	s.leaveOut(e.Publications)
	if p := t.job.Plan.Partial; p != nil {
		c, err := s.choose(&p.Selection)
		var unmatched *restore.UnmatchedError
		if errors.As(err, &unmatched) { // all of it is gone, or not there yet
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		s = c.script()
	}
	ending := regexp.MustCompile(`(?m)^--(?: Completed on .*| PostgreSQL database dump complete)?$`) // of the script, behind its last entry
	all := make(map[string]schemaObject)
	for _, o := range slices.Concat(s.pre, s.post) {
		key := fmt.Sprint(o.kind, "\x00", o.class, "\x00", o.oid)
		if o.oid == 0 { // such as privileges
			key = fmt.Sprint(o.kind, "\x00", o.schema, "\x00", o.name)
		}
		all[key] = schemaObject{name: strings.ToLower(o.kind) + " " + qualified(o), sql: strings.TrimSpace(ending.ReplaceAllString(o.sql, ""))}
	}
	return all, nil
}

// qualified is the name of an entry as a person looks for it.
func qualified(e *entry) string {
	if e.schema == "-" {
		return e.name
	}
	return e.schema + "." + e.name
}

// schemaDifferences says what became of each object that is not the same in both.
func schemaDifferences(before, after map[string]schemaObject) []string {
	var all []string
	for key, o := range before {
		switch now, there := after[key]; {
		case !there:
			all = append(all, o.name+" was dropped")
		case now.name != o.name:
			all = append(all, o.name+" was renamed, or moved, to "+now.name)
		case now.sql != o.sql:
			all = append(all, o.name+" was changed")
		}
	}
	for key, o := range after {
		if _, there := before[key]; !there {
			all = append(all, o.name+" was made")
		}
	}
	slices.SortFunc(all, cmp.Compare[string])
	return all
}
