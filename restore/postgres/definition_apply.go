package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"txreel/restore"
	"txreel/sources/postgres/ddl"
)

// command makes the target's catalog what the source's was when a command had ended. What the command's text may be is
// tried in turn: only that counts which leaves every object as it was left in the source, by the same description of
// it. Where there is no text to go by, or where it would have to be the source's data, objects are made from their
// description.
func (d *definer) command(ctx context.Context, e *ddl.Entry) error {
	if len(e.Objects) > 0 && !slices.ContainsFunc(e.Objects, func(o ddl.Object) bool { return o.Type != "subscription" }) {
		d.withoutSubscriptions()
		return nil
	}
	var attempts []attempt
	switch {
	case makesRows(e.Tag):
		if len(e.Objects) == 0 {
			return nil // it was there already
		}
		sql, err := tableSQL(&e.Objects[0])
		if err != nil {
			return err
		}
		attempts = []attempt{{sql: sql}}
	case strings.HasPrefix(e.Tag, "DROP ") && e.Tag != "DROP OWNED":
		if err := d.keepMembers(ctx); err != nil {
			return err
		}
		if len(d.drops) == 0 {
			return nil // what it dropped was temporary, or not there
		}
		attempts = []attempt{{sql: dropSQL(d.drops)}}
	case e.Tag == "REINDEX": // which the server tells of from version 17 on
		attempts = []attempt{{sql: ""}}
	case len(e.Objects) == 0 && len(d.drops) == 0 && named(e.Tag):
		return nil // what it touched was temporary, or not there
	default:
		var err error
		if attempts, err = d.attempts(ctx, e); err != nil {
			return err
		}
	}
	for _, a := range attempts {
		if strings.ContainsRune(a.sql, '\\') { // a text is read as a whole, and before the SET at its beginning is carried out
			a.otherwise = true
			attempts = append(attempts, a)
		}
	}
	grants := e.Tag == "GRANT" || e.Tag == "REVOKE"
	if grants { // who may not is only warned, and who may is not named as the one who gives when a superuser does
		for i := len(attempts) - 1; i >= 0; i-- { // each at once, since the next one may have another command's objects
			a := attempts[i]
			a.plain = true
			attempts = slices.Insert(attempts, i+1, a)
		}
	}
	var failed []string
	d.tried = attempts
	for i := range attempts {
		a := &attempts[i]
		if a.skip {
			if a.subscription {
				d.withoutSubscriptions()
			}
			return nil
		}
		err := d.try(ctx, e, a)
		var wrong *notEqualError
		var refused *pgconn.PgError
		switch {
		case err == nil:
			a.taken(d)
			return d.judge(ctx, e, a)
		case errors.As(err, &wrong), errors.As(err, &refused) && !d.r.conn.IsClosed():
			failed = append(failed, err.Error())
			d.refused = append(d.refused, err)
		default:
			return err
		}
	}
	switch {
	case grants && len(failed) > 0:
		return d.grant(ctx, e, &attempts[0], failed)
	case len(e.Objects) == 0 && len(d.drops) == 0:
		return nil // it did nothing that shows, such as CREATE … IF NOT EXISTS of what exists
	case len(failed) == 0:
		failed = []string{"its text cannot be told from what was sent"}
	}
	return fmt.Errorf("%w: %s by row %s of the log of definitions cannot be carried out: %s: %s: "+
		"restore to a point before it, or to one behind the next base snapshot", restore.ErrDefinitionChanged, e.Tag, e.ID, clip(e.Query), strings.Join(failed, "; "))
}

// named reports whether the server names all that commands with a tag touch. Of one that touched nothing nobody can tell whether a text is its own.
func named(tag string) bool {
	verb, object, _ := strings.Cut(tag, " ")
	return (verb == "ALTER" || verb == "CREATE") && slices.Contains([]string{"TABLE", "INDEX", "VIEW", "SEQUENCE", "TYPE", "DOMAIN"}, object)
}

// grant does what may be more than what the source did, and says so: who gave what may depend on memberships, which are in no log.
func (d *definer) grant(ctx context.Context, e *ddl.Entry, a *attempt, failed []string) error {
	states := e.Objects
	e.Objects = nil
	err := d.try(ctx, e, a)
	e.Objects = states
	if err != nil {
		return fmt.Errorf("%w: %s by row %s of the log of definitions cannot be carried out: %s: %s", restore.ErrDefinitionChanged, e.Tag, e.ID, clip(e.Query), strings.Join(failed, "; "))
	}
	a.taken(d)
	d.r.target.warn("privileges are not quite the source's after %s: %s", clip(e.Query), failed[0])
	return nil
}

// keepMembers leaves out of what is to be dropped what belongs to an extension here: the extension's own script has dropped it in the
// source, and does it here.
func (d *definer) keepMembers(ctx context.Context) error {
	var mine []ddl.Object
	for _, o := range d.drops {
		member := false
		_, err := d.lookAt(ctx, &o, func() error {
			return d.r.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_get_object_address($1, $2, $3) a JOIN pg_catalog.pg_depend p
				ON p.classid = a.classid AND p.objid = a.objid WHERE p.deptype = 'e')`, o.Type, o.Names, append([]string{}, o.Args...)).Scan(&member)
		})
		if err != nil {
			return err
		}
		if !member {
			mine = append(mine, o)
		}
	}
	d.drops = mine
	return nil
}

// withoutSubscriptions says, once, that they are left out.
func (d *definer) withoutSubscriptions() {
	const why = "subscriptions of the source are not restored: a restored database must not receive what is meant for the source"
	if t := d.r.target; !slices.Contains(t.warnings, why) {
		t.warn(why)
	}
}

func clip(s string) string {
	const most = 200
	if s = strings.Join(strings.Fields(s), " "); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// notEqualError says that an object is not what it was in the source.
type notEqualError struct{ object, want, got string }

// notThere is notEqualError.got of an object that does not exist.
const notThere = "not there"

// Error implements error.
func (e *notEqualError) Error() string {
	return fmt.Sprintf("%s is %s, it was %s", e.object, e.got, e.want)
}

// try executes one text, and takes it back unless it did what the command did.
func (d *definer) try(ctx context.Context, e *ddl.Entry, a *attempt) (err error) {
	return inSavepoint(ctx, d.r.conn, func() error {
		if err := d.makeRoles(ctx, a.roles); err != nil {
			return err
		}
		settings := e.Settings
		if a.otherwise {
			settings = maps.Clone(settings)
			settings[conforming] = map[string]string{"on": "off", "off": "on"}[settings[conforming]]
		}
		before, err := d.filled(ctx, e)
		if err != nil {
			return err
		}
		if err := d.as(ctx, e, settings, a.plain, func() error { return run(ctx, d.r.conn, a.sql) }); err != nil {
			return err
		}
		if err := d.fill(ctx, e, before); err != nil {
			return err
		}
		return d.compare(ctx, e)
	})
}

// conforming is the setting that decides what a backslash in a string is.
const conforming = "standard_conforming_strings"

// inSavepoint runs do, and takes back what it did if it fails.
func inSavepoint(ctx context.Context, conn *pgx.Conn, do func() error) error {
	if err := run(ctx, conn, "SAVEPOINT txreel"); err != nil {
		return err
	}
	err := do()
	if err == nil {
		return run(ctx, conn, "RELEASE txreel")
	}
	if back := run(ctx, conn, "ROLLBACK TO txreel; RELEASE txreel"); back != nil {
		return errors.Join(back, err)
	}
	return err
}

// makeRoles makes roles that a command speaks of and the target lacks.
func (d *definer) makeRoles(ctx context.Context, names []string) error {
	for _, name := range names {
		var there bool
		if err := d.r.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", name).Scan(&there); err != nil {
			return fmt.Errorf("look for role %s: %w", name, err)
		}
		if there {
			continue
		}
		if err := run(ctx, d.r.conn, "CREATE ROLE "+quote(name)+" NOLOGIN"); err != nil {
			return fmt.Errorf("create role %s: %w", name, err)
		}
		d.r.target.warn("role %s was missing and has been created without login, password or memberships", name)
	}
	return nil
}

// as lets do run with the settings and the role of the command. Where this session is a superuser the role has its rights for
// that long, within the transaction, unless they shall be plain: it need not own here what it may touch in the source. Otherwise the
// session's own role does it.
func (d *definer) as(ctx context.Context, e *ddl.Entry, settings map[string]string, plain bool, do func() error) error {
	conn := d.r.conn
	role := e.Role
	if role == "none" {
		role = e.Login
	}
	if owner := e.Owner(); strings.HasPrefix(e.Tag, "CREATE ") && owner != "" && !strings.HasPrefix(owner, "pg_") {
		role = owner
	}
	var super, there, equal bool
	err := conn.QueryRow(ctx, `SELECT rolsuper, EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1), coalesce((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = $1), false)
		FROM pg_catalog.pg_roles WHERE rolname = current_user`, role).Scan(&super, &there, &equal)
	if err != nil {
		return fmt.Errorf("look for role %s: %w", role, err)
	}
	assume := super && !d.r.target.opts.NoOwner
	equal = equal || plain
	if assume && !there {
		if err := d.makeRoles(ctx, []string{role}); err != nil {
			return err
		}
	}
	if assume && !equal {
		if err := run(ctx, conn, "ALTER ROLE "+quote(role)+" SUPERUSER"); err != nil {
			return fmt.Errorf("act as role %s: %w", role, err)
		}
	}
	before, err := d.set(ctx, settings, role)
	if err != nil {
		return err
	}
	if assume {
		if err := run(ctx, conn, "SET LOCAL ROLE "+quote(role)); err != nil {
			return fmt.Errorf("act as role %s: %w", role, err)
		}
	}
	if err := do(); err != nil {
		return err // the caller takes everything back
	}
	if assume {
		if err := run(ctx, conn, "RESET ROLE"); err != nil {
			return err
		}
	}
	if _, err := d.set(ctx, before, role); err != nil {
		return err
	}
	if assume && !equal {
		return run(ctx, conn, "ALTER ROLE "+quote(role)+" NOSUPERUSER")
	}
	return nil
}

// set changes settings for the transaction and returns what they were. One that the target does not know, or has no such
// value for, stays.
func (d *definer) set(ctx context.Context, settings map[string]string, role string) (before map[string]string, err error) {
	before = make(map[string]string, len(settings))
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		if name == "search_path" {
			value = strings.ReplaceAll(value, `"$user"`, quote(role))
		}
		var old *string
		if err := d.r.conn.QueryRow(ctx, "SELECT pg_catalog.current_setting($1, true)", name).Scan(&old); err != nil {
			return nil, fmt.Errorf("look at setting %s: %w", name, err)
		}
		if old == nil || *old == value {
			continue
		}
		err := inSavepoint(ctx, d.r.conn, func() error {
			_, err := d.r.conn.Exec(ctx, "SELECT pg_catalog.set_config($1, $2, true)", name, value)
			return err
		})
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
		before[name] = *old
	}
	return before, nil
}

// columnOf is a column of the target, by its numbers there.
type columnOf struct {
	table  int64
	number int16
}

// filled returns the columns that rows have a value of without holding it, in front of a command that may add some.
func (d *definer) filled(ctx context.Context, e *ddl.Entry) (map[columnOf]bool, error) {
	if !slices.ContainsFunc(e.Objects, func(o ddl.Object) bool { return len(o.Missing) > 0 }) {
		return nil, nil
	}
	rows, err := d.r.conn.Query(ctx, "SELECT attrelid::int8, attnum FROM pg_catalog.pg_attribute WHERE atthasmissing AND NOT attisdropped")
	if err != nil {
		return nil, fmt.Errorf("look at columns: %w", err)
	}
	all := make(map[columnOf]bool)
	var a columnOf
	if _, err := pgx.ForEachRow(rows, []any{&a.table, &a.number}, func() error { all[a] = true; return nil }); err != nil {
		return nil, fmt.Errorf("look at columns: %w", err)
	}
	return all, nil
}

// fill gives rows that were there before a column the value they have in the source, where the column's default gave
// them another one here: now() was evaluated then, once. Columns that were there before the command have their values.
func (d *definer) fill(ctx context.Context, e *ddl.Entry, before map[columnOf]bool) error {
	for i := range e.Objects {
		o := &e.Objects[i]
		if len(o.Missing) == 0 || len(o.Names) != 2 {
			continue
		}
		table := quote(o.Names...)
		rows, err := d.r.conn.Query(ctx, `SELECT attrelid::int8, attnum, attname::text, attmissingval::text FROM pg_catalog.pg_attribute
			WHERE attrelid = $1::regclass AND atthasmissing AND NOT attisdropped`, table)
		if err != nil {
			return fmt.Errorf("look at the columns of %s: %w", table, err)
		}
		var name, value string
		var differ []string
		var a columnOf
		_, err = pgx.ForEachRow(rows, []any{&a.table, &a.number, &name, &value}, func() error {
			if want, ok := o.Missing[name]; ok && want != value && !before[a] {
				differ = append(differ, name)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("look at the columns of %s: %w", table, err)
		}
		for _, name := range differ {
			sql := fmt.Sprintf(`DO $$BEGIN EXECUTE pg_catalog.format('UPDATE ONLY %%s SET %%I = ((%%L::%%s[])[1])', %s, %s, %s,
				(SELECT pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute WHERE attrelid = %s::regclass AND attname = %s)); END$$`,
				literal(table), literal(name), literal(o.Missing[name]), literal(table), literal(name))
			if err := run(ctx, d.r.conn, sql); err != nil {
				return fmt.Errorf("give the rows of %s their value of column %s: %w", table, name, err)
			}
		}
	}
	return nil
}

// compare looks at every object of the command.
func (d *definer) compare(ctx context.Context, e *ddl.Entry) error {
	for i := range d.drops {
		if !strings.HasPrefix(e.Tag, "DROP ") {
			break // what ALTER dropped it may have made again, and its own description tells
		}
		o := &d.drops[i]
		_, there, err := d.describe(ctx, o)
		if err != nil {
			return err
		}
		if there {
			return &notEqualError{object: o.Kind + " " + o.Identity, want: "dropped", got: "there"}
		}
	}
	for i := range e.Objects {
		o := &e.Objects[i]
		if len(o.Names) == 0 || len(o.State) == 0 || string(o.State) == "null" {
			continue
		}
		got, there, err := d.describe(ctx, o)
		if err != nil {
			return err
		}
		if !there {
			return &notEqualError{object: o.Kind + " " + o.Identity, want: "there", got: notThere}
		}
		if where, want, have := differ(d.r.target.withoutLeftOut(o.State), d.r.target.withoutLeftOut(got), d.r.target.opts.NoOwner); where != "" && d.sameMajor() {
			return &notEqualError{object: o.Kind + " " + o.Identity + where, want: clip(want), got: clip(have)}
		}
	}
	return nil
}

// sameMajor reports whether source and target describe things in the same words.
func (d *definer) sameMajor() bool {
	return major(d.r.conn.PgConn()) == d.r.target.engine.ServerVersion/10000
}

// describe describes an object of the target as the source has described its own.
func (d *definer) describe(ctx context.Context, o *ddl.Object) (state []byte, there bool, err error) {
	there, err = d.lookAt(ctx, o, func() error {
		if len(o.Names) == 3 && strings.HasSuffix(o.Type, " column") {
			return d.r.conn.QueryRow(ctx, "SELECT txreel_restore.describe('pg_catalog.pg_class'::regclass, attrelid) FROM pg_catalog.pg_attribute WHERE attrelid = $1::text::regclass AND attname = $2 AND NOT attisdropped",
				quote(o.Names[:2]...), o.Names[2]).Scan(&state)
		}
		if len(o.Names) == 2 && o.Type == "composite type" { // the server does not take all it gives
			return d.r.conn.QueryRow(ctx, "SELECT txreel_restore.describe('pg_catalog.pg_class'::regclass, $1::text::regclass)", quote(o.Names[:2]...)).Scan(&state)
		}
		return d.r.conn.QueryRow(ctx, "SELECT txreel_restore.describe(a.classid, a.objid) FROM pg_catalog.pg_get_object_address($1, $2, $3) a",
			o.Type, o.Names, append([]string{}, o.Args...)).Scan(&state)
	})
	return state, there, err
}

// lookAt runs a query for an object by its address; there is false when the target has no such object.
func (d *definer) lookAt(ctx context.Context, o *ddl.Object, query func() error) (there bool, err error) {
	if len(o.Names) == 0 || strings.HasPrefix(o.Type, "operator of ") || strings.HasPrefix(o.Type, "function of ") {
		return false, nil
	}
	err = inSavepoint(ctx, d.r.conn, query)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (strings.HasPrefix(refused.Code, "42") || strings.HasPrefix(refused.Code, "3F") || strings.HasPrefix(refused.Code, "22")) {
		return false, nil // undefined, of whatever kind
	}
	if err != nil {
		return false, fmt.Errorf("look at %s %s: %w", o.Kind, o.Identity, err)
	}
	return true, nil
}

// differ names the first difference between two descriptions; "" when there is none.
func differ(want, got []byte, noOwner bool) (where, wanted, found string) {
	var a, b any
	if err := errors.Join(json.Unmarshal(want, &a), json.Unmarshal(got, &b)); err != nil {
		return "", err.Error(), "" // both come from a server's jsonb
	}
	return difference("", a, b, noOwner)
}

func difference(at string, a, b any, noOwner bool) (where, wanted, found string) {
	x, ok := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	if ok && ok2 {
		keys := maps.Clone(x)
		maps.Copy(keys, y)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			if noOwner && (k == "owner" || k == "acl") {
				continue
			}
			if where, wanted, found := difference(at+"."+k, x[k], y[k], noOwner); where != "" {
				return where, wanted, found
			}
		}
		return "", "", ""
	}
	p, ok := a.([]any)
	q, ok2 := b.([]any)
	if ok && ok2 && len(p) == len(q) {
		for i := range p {
			if where, wanted, found := difference(fmt.Sprintf("%s[%d]", at, i), p[i], q[i], noOwner); where != "" {
				return where, wanted, found
			}
		}
		return "", "", ""
	}
	if reflect.DeepEqual(a, b) {
		return "", "", ""
	}
	return at + ":", fmt.Sprint(a), fmt.Sprint(b)
}
