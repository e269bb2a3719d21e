package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/segment"
	"txreel/sources/postgres/ddl"
	"txreel/sources/postgres/pgoutput"
)

// definer carries out what transactions of the replay change in the schema, from the source's log of definitions. Each
// of them becomes a transaction of the target's own, in front of which the schema is whole: indexes, constraints
// and triggers are what a definition may speak of. From then on rows are replayed into the schema as it is.
type definer struct {
	r       *replay
	pending []change.Seq // transactions still to come, in order
	ahead   map[change.Seq][]ddl.Entry
	whole   bool        // the schema has been completed
	entries []ddl.Entry // of the transaction being applied
	done    []bool      // those carried out
	drops   []ddl.Object
	rewrite []ddl.Object
	next    map[string]int // of a text with several statements: the one that is to come
	names   map[uint32]string
	tried   []attempt // what the last command's text may have been, the likeliest first
	refused []error   // why each of them did not do
}

// lookAhead is how many transactions are searched at a time for those that change definitions.
const lookAhead = 1000

func newDefiner(r *replay, after change.Seq) *definer {
	d := &definer{r: r, ahead: make(map[change.Seq][]ddl.Entry)}
	for _, seq := range r.target.job.Plan.Definitions {
		if seq > after {
			d.pending = append(d.pending, seq)
		} else {
			d.whole = true // an earlier run did that, and what the base says of tables holds no more
			clear(r.tables)
		}
	}
	return d
}

// at reports whether a transaction changes definitions.
func (d *definer) at(seq change.Seq) bool { return len(d.pending) > 0 && d.pending[0] == seq }

// begin makes the target ready for the transaction, in which its definitions change.
func (d *definer) begin(ctx context.Context, seq change.Seq) error {
	r := d.r
	r.target.grammar.Wait()
	if err := r.end(); err != nil { // what is open must not be in the way of those who build
		return err
	}
	if err := r.pipe.drain(); err != nil {
		return err
	}
	if r.open {
		return errors.New("a transaction of the target is open in front of a change of definitions")
	}
	if err := d.complete(ctx); err != nil {
		return err
	}
	if err := d.look(ctx, seq); err != nil {
		return err
	}
	d.entries = d.ahead[seq]
	delete(d.ahead, seq)
	d.pending = d.pending[1:]
	d.done, d.drops, d.rewrite, d.next = make([]bool, len(d.entries)), nil, nil, make(map[string]int)
	r.forget()
	if err := r.start(); err != nil {
		return err
	}
	if err := r.pipe.drain(); err != nil {
		return err
	}
	var err error
	d.names, err = readNames(ctx, r.conn)
	return err
}

// complete makes what the schema lacks, once, but for what acts by itself: event triggers.
func (d *definer) complete(ctx context.Context) error {
	if d.whole {
		return nil
	}
	t := d.r.target
	if err := mayReplica(ctx, d.r.conn); err != nil {
		return err
	}
	done, err := t.doneEntries(ctx)
	if err != nil {
		return err
	}
	err = t.build(ctx, restore.PhaseKeys, done, func(e *entry) bool {
		return e.kind == "INDEX" || e.class == catalogConstraint && e.kind == "CONSTRAINT"
	})
	if err != nil {
		return err
	}
	for _, e := range t.schema.post {
		if done[e.id] || e.kind == "EVENT TRIGGER" {
			continue
		}
		if err := t.withWorker(ctx, func(conn *pgx.Conn) error { return t.buildOne(ctx, conn, e) }); err != nil {
			return err
		}
	}
	d.whole = true
	return inTx(ctx, t.control, func() error {
		if err := d.placeAll(ctx, t.control); err != nil {
			return err
		}
		return openTriggers(ctx, t.control)
	})
}

// mayReplica refuses a session in which triggers and foreign keys would act on what is replayed.
func mayReplica(ctx context.Context, conn *pgx.Conn) error {
	var role string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('session_replication_role')").Scan(&role); err != nil {
		return fmt.Errorf("look at the session: %w", err)
	}
	if role != "replica" {
		return fmt.Errorf("%w: following it takes a role that may set session_replication_role: a superuser, or on 15 and later GRANT SET ON PARAMETER session_replication_role",
			restore.ErrDefinitionChanged)
	}
	return nil
}

// look reads the log's rows of the transaction, and of those that follow it closely. They are needed before the rows of the
// transaction: those of CREATE TABLE AS come before the row that speaks of the table.
func (d *definer) look(ctx context.Context, seq change.Seq) error {
	if _, ok := d.ahead[seq]; ok {
		return nil
	}
	last := seq
	for _, s := range d.pending {
		if s > seq+lookAhead {
			break
		}
		last = s
	}
	p := d.r.target.job.Plan
	s := d.r.target.job.Archive.Stream(ctx, p.Epoch, seq, last, d.r.target.opts.TempDir)
	defer s.Close()
	var decoder pgoutput.Decoder
	var event change.Event
	var at change.Seq
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if rec.Kind == segment.Begin {
			at = rec.Seq
		}
		if rec.Kind != segment.Definition && rec.Kind != segment.Message {
			continue
		}
		isEvent, err := decoder.Event(rec.Raw, &event)
		if err != nil {
			return &restore.RecordError{Seq: at, Err: err}
		}
		if !isEvent || event.Op != change.OpInsert {
			continue
		}
		e, ok, err := ddl.Read(&event)
		if err != nil {
			return &restore.RecordError{Seq: at, Err: err}
		}
		if ok {
			d.ahead[at] = append(d.ahead[at], e)
		}
	}
	if len(d.ahead[seq]) == 0 {
		return &restore.RecordError{Seq: seq, Err: errors.New("its index says that it changes definitions, and no row of it says how")}
	}
	return nil
}

// row is shown a row of the log in its place among the others.
func (d *definer) row(ctx context.Context) error {
	e, ok, err := ddl.Read(&d.r.event)
	if err != nil || !ok {
		return err
	}
	i := slices.IndexFunc(d.entries, func(x ddl.Entry) bool { return x.ID == e.ID })
	if i < 0 {
		return fmt.Errorf("row %s of the log of definitions was not there when it was looked for", e.ID)
	}
	if d.done[i] {
		return nil
	}
	d.done[i] = true
	switch e := &d.entries[i]; e.Event {
	case ddl.Failed:
		return fmt.Errorf("%w: the source could not write down what %s did (%s): the next base snapshot behind it holds it", restore.ErrDefinitionChanged, e.Tag, e.Context)
	case ddl.Drop:
		d.drops = append(d.drops, e.Objects...)
	case ddl.Rewrite:
		d.rewrite = append(d.rewrite, e.Objects...)
	case ddl.End:
		err = d.carryOut(ctx, e)
		d.drops, d.rewrite = nil, nil
	}
	return err
}

// missing makes a table that rows come for ahead of the command that made it.
func (d *definer) missing(ctx context.Context, rel *change.Relation) error {
	for i := range d.entries {
		e := &d.entries[i]
		if d.done[i] || !makesRows(e.Tag) || len(e.Objects) == 0 {
			continue
		}
		if n := e.Objects[0].Names; len(n) == 2 && n[0] == rel.Schema && n[1] == rel.Name {
			d.done[i] = true
			return d.carryOut(ctx, e)
		}
	}
	return fmt.Errorf("%w: the record has rows of table %s, and not how it was made", restore.ErrDefinitionChanged, rel)
}

// makesRows reports whether a command makes a table and fills it.
func makesRows(tag string) bool { return tag == "CREATE TABLE AS" || tag == "SELECT INTO" }

// end is called when all of the transaction has been applied, before it is committed.
func (d *definer) end(ctx context.Context) error {
	for i := range d.entries {
		if !d.done[i] {
			return fmt.Errorf("row %s of the log of definitions has not come", d.entries[i].ID)
		}
	}
	d.entries, d.names = nil, nil
	d.r.forget()
	return nil
}

// carryOut does what a command did, between the rows in front of it and those behind it.
func (d *definer) carryOut(ctx context.Context, e *ddl.Entry) error {
	r := d.r
	if err := r.flushAll(); err != nil {
		return err
	}
	if err := r.pipe.drain(); err != nil {
		return err
	}
	if r.deferred { // as the source had it: with a check outstanding it could not have done this
		if err := run(ctx, r.conn, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
			return err
		}
	}
	for _, do := range []func() error{
		func() error { return r.target.dropHelpers(ctx, r.conn) },
		func() error { return closeIdentities(ctx, r.conn) },
		func() error { return closeTriggers(ctx, r.conn) },
		func() error { return d.perform(ctx, e) },
		func() error { return openTriggers(ctx, r.conn) },
		func() error { return openIdentities(ctx, r.conn) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	r.forget()
	if err := r.findDeferrable(ctx); err != nil {
		return err
	}
	if r.deferred {
		if err := run(ctx, r.conn, "SET CONSTRAINTS ALL DEFERRED"); err != nil {
			return err
		}
	}
	return d.recount(ctx)
}

// ready makes a table ready for rows, once definitions have changed: it makes it if rows come for it ahead of the
// command that made it, and finds out, or makes, what its rows are found by. It returns the relation under the name that the
// table has in the target.
func (d *definer) ready(ctx context.Context, rel *change.Relation) (*change.Relation, error) {
	conn := d.r.conn
	rel, known, err := d.place(ctx, rel)
	if err != nil {
		return nil, err
	}
	quoted := quote(rel.Schema, rel.Name)
	there := known
	if !known {
		if err := conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", quoted).Scan(&there); err != nil {
			return nil, fmt.Errorf("look for table %s: %w", quoted, err)
		}
	}
	if !there {
		if err := d.missing(ctx, rel); err != nil {
			return nil, err
		}
	}
	if !known {
		if _, err := conn.Exec(ctx, placeSQL, int64(rel.ID), quoted); err != nil {
			return nil, fmt.Errorf("note where table %s is: %w", quoted, err)
		}
	}
	tab := &table{BaseTable: &archive.BaseTable{Schema: rel.Schema, Name: rel.Name}}
	var key bool
	err = conn.QueryRow(ctx, `
		SELECT c.oid::int8, EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), c.relreplident::text,
			array(SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
				WHERE i.indrelid = c.oid AND i.indisprimary)
		FROM pg_catalog.pg_class c WHERE c.oid = $1::regclass`, quoted).Scan(&tab.OID, &key, &tab.Identity, &tab.Key)
	if err != nil {
		return nil, fmt.Errorf("look at table %s: %w", quoted, err)
	}
	d.r.tables[rel.String()] = tab
	if key || tab.Identity != "f" {
		return rel, nil
	}
	return rel, makeHelper(ctx, conn, tab)
}

// placeSQL notes which table of the target has the number that the record gives to one of the source.
const placeSQL = `INSERT INTO txreel_restore.relations VALUES ($1, $2::regclass)
	ON CONFLICT (source) DO UPDATE SET target = EXCLUDED.target`

// place finds a table by its number in the source. After ALTER SCHEMA … RENAME the record may go on with the name from
// before: the server's decoder keeps what it knows of a table until the table itself is changed.
func (d *definer) place(ctx context.Context, rel *change.Relation) (at *change.Relation, known bool, err error) {
	now := *rel
	err = d.r.conn.QueryRow(ctx, `SELECT n.nspname::text, c.relname::text FROM txreel_restore.relations r JOIN pg_catalog.pg_class c ON c.oid = r.target
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.source = $1`, int64(rel.ID)).Scan(&now.Schema, &now.Name)
	if errors.Is(err, pgx.ErrNoRows) {
		return rel, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look for table %s: %w", rel, err)
	}
	return &now, true, nil
}

// placeAll notes where the base's tables are.
func (d *definer) placeAll(ctx context.Context, conn *pgx.Conn) error {
	batch := &pgx.Batch{}
	for i := range d.r.target.tables {
		t := &d.r.target.tables[i]
		if t.Unnumbered {
			continue // its first row tells
		}
		batch.Queue(placeSQL, int64(t.OID), quote(t.Schema, t.Name))
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("note where tables are: %w", err)
	}
	return nil
}

// recount lets every count of rows follow its table, whatever that is called now.
func (d *definer) recount(ctx context.Context) error {
	now, err := readNames(ctx, d.r.conn)
	if err != nil {
		return err
	}
	counts := make(map[string]int64, len(now))
	for oid, name := range now {
		counts[name] = d.r.counts[d.names[oid]] // a new one has none, and no name before
	}
	d.r.counts, d.names = counts, now
	return nil
}

// readNames returns the tables of which rows are on record, by their OIDs in the target.
func readNames(ctx context.Context, conn *pgx.Conn) (map[uint32]string, error) {
	rows, err := conn.Query(ctx, `
		SELECT c.oid::int8, n.nspname::text || '.' || c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', $1)`, bookSchema)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	names := make(map[uint32]string)
	var oid uint32
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &name}, func() error { names[oid] = name; return nil }); err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return names, nil
}

// openTriggers switches off what would act on replayed rows in spite of session_replication_role, and notes it.
func openTriggers(ctx context.Context, conn *pgx.Conn) error {
	err := run(ctx, conn, `
		INSERT INTO txreel_restore.triggers
		SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'TRIGGER ' || quote_ident(t.tgname), CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END
		FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal
		UNION ALL
		SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'RULE ' || quote_ident(w.rulename), CASE w.ev_enabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END
		FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE w.ev_enabled IN ('A', 'R') AND w.rulename <> '_RETURN';
		DO $$DECLARE i record; BEGIN
			FOR i IN SELECT * FROM txreel_restore.triggers LOOP
				EXECUTE 'ALTER TABLE ONLY ' || i.tab || ' DISABLE ' || i.what;
			END LOOP;
		END$$`)
	if err != nil {
		return fmt.Errorf("switch triggers off for the replay: %w", err)
	}
	return nil
}

// closeTriggers undoes openTriggers.
func closeTriggers(ctx context.Context, conn *pgx.Conn) error {
	err := run(ctx, conn, `
		DO $$DECLARE i record; BEGIN
			FOR i IN DELETE FROM txreel_restore.triggers RETURNING * LOOP
				EXECUTE 'ALTER TABLE ONLY ' || i.tab || ' ENABLE ' || i.mode || ' ' || i.what;
			END LOOP;
		END$$`)
	if err != nil {
		return fmt.Errorf("switch triggers on again: %w", err)
	}
	return nil
}

// relist replaces the base's tables by those that the target has behind the replay. What is known of them is how many rows
// they must have, or what a base at the cut says.
func (t *Target) relist(ctx context.Context) error {
	names, err := readNames(ctx, t.control)
	if err != nil {
		return err
	}
	t.tables = nil
	rows, err := t.control.Query(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = ANY ($1) AND c.oid NOT IN (SELECT relation FROM txreel_restore.aside) ORDER BY 1, 2`, slices.Collect(maps.Keys(names)))
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	var schema, name string
	_, err = pgx.ForEachRow(rows, []any{&schema, &name}, func() error {
		tab := table{BaseTable: &archive.BaseTable{Schema: schema, Name: name}}
		if at := t.job.Plan.AtCut(schema, name); at != nil {
			tab.BaseTable = at
			if err := json.Unmarshal(at.Engine, &tab.Table); err != nil {
				return fmt.Errorf("%w: manifest of base %s: %s: %w", archive.ErrCorrupt, t.job.Plan.Proof.ID, tab.name(), err)
			}
		}
		t.tables = append(t.tables, tab)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	return nil
}

// warnInexact names the tables that changes of definitions have filled with other values than the source's.
func (t *Target) warnInexact(ctx context.Context) error {
	rows, err := t.control.Query(ctx, `SELECT n.nspname::text || '.' || c.relname::text, i.seq, i.why FROM txreel_restore.inexact i JOIN pg_catalog.pg_class c ON c.oid = i.relation
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY i.seq, 1`)
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	var tab, seq, why string
	_, err = pgx.ForEachRow(rows, []any{&tab, &seq, &why}, func() error {
		t.warn("table %s is not exact: transaction %s rewrote it, and %s; behind the next base snapshot of it it is exact again", tab, seq, why)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	return nil
}
