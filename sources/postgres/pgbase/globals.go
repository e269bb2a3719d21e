package pgbase

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Globals is what a server holds beside the rows and the schema of a database: what pg_dumpall --globals-only and pg_dump --create
// would say, but never a password or its verifier. Values of Settings may be secrets of an application: nothing prints them.
type Globals struct {
	// Owner is the role that initdb made, the grantor of what superusers grant.
	Owner       string       `json:"owner"`
	Roles       []Role       `json:"roles"` // all but the predefined ones
	Memberships []Membership `json:"memberships"`
	Settings    []Settings   `json:"settings"`   // ALTER ROLE … SET and ALTER DATABASE … SET, of this database and of all
	Parameters  []Grant      `json:"parameters"` // GRANT … ON PARAMETER, from PostgreSQL 15 on
	Database    Database     `json:"database"`
	Tablespaces []Tablespace `json:"tablespaces"`
	Server      []Parameter  `json:"server"` // what the server was configured with
	// Unseen says what of all this the reading role may not see.
	Unseen []string `json:"unseen"`
}

// Role is a role and its attributes.
type Role struct {
	Name        string `json:"name"`
	Superuser   bool   `json:"superuser,omitempty"`
	Inherit     bool   `json:"inherit,omitempty"`
	CreateRole  bool   `json:"createrole,omitempty"`
	CreateDB    bool   `json:"createdb,omitempty"`
	Login       bool   `json:"login,omitempty"`
	Replication bool   `json:"replication,omitempty"`
	BypassRLS   bool   `json:"bypassrls,omitempty"`
	Connections int    `json:"connections"` // -1 is no limit
	ValidUntil  string `json:"valid_until,omitempty"`
	Comment     string `json:"comment,omitempty"`
	// Password tells that there is one; nil where that is not known.
	Password *bool   `json:"password,omitempty"`
	Labels   []Label `json:"labels,omitempty"`
}

// Label is a security label.
type Label struct {
	Provider string `json:"provider"`
	Label    string `json:"label"`
}

// Membership is a role in another one.
type Membership struct {
	Role    string `json:"role"`
	Member  string `json:"member"`
	Grantor string `json:"grantor,omitempty"` // empty where it is gone
	Admin   bool   `json:"admin,omitempty"`
	Inherit *bool  `json:"inherit,omitempty"` // from PostgreSQL 16 on
	Set     *bool  `json:"set,omitempty"`     // from PostgreSQL 16 on
}

// Settings are what sessions of a role, or all, begin with in the database, or in all.
type Settings struct {
	Role     string   `json:"role,omitempty"` // empty is all
	Database bool     `json:"database,omitempty"`
	Values   []string `json:"values"` // name=value, as pg_db_role_setting has them
}

// Grant is one privilege.
type Grant struct {
	On        string `json:"on,omitempty"`      // the parameter
	Grantee   string `json:"grantee,omitempty"` // empty is PUBLIC
	Grantor   string `json:"grantor"`
	Privilege string `json:"privilege"`
	Grantable bool   `json:"grantable,omitempty"`
}

// Database is what belongs to the database as a whole.
type Database struct {
	Name             string  `json:"name"`
	Owner            string  `json:"owner"`
	Encoding         string  `json:"encoding"`
	Provider         string  `json:"provider,omitempty"` // of the locale: c, i or b; from PostgreSQL 15 on
	Collate          string  `json:"collate"`
	Ctype            string  `json:"ctype"`
	Locale           string  `json:"locale,omitempty"`
	IcuRules         string  `json:"icu_rules,omitempty"`
	CollationVersion string  `json:"collation_version,omitempty"`
	Connections      int     `json:"connections"`
	Template         bool    `json:"template,omitempty"`
	Tablespace       string  `json:"tablespace"`
	ACL              []Grant `json:"acl"` // nil is what a new database has
	Comment          string  `json:"comment,omitempty"`
	Labels           []Label `json:"labels,omitempty"`
}

// Tablespace is a place on the server's disks.
type Tablespace struct {
	Name     string   `json:"name"`
	Owner    string   `json:"owner"`
	Location string   `json:"location"`
	Options  []string `json:"options,omitempty"`
	ACL      []Grant  `json:"acl"`
	Comment  string   `json:"comment,omitempty"`
}

// Parameter is a setting of the server that is not its default.
type Parameter struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Unit  string `json:"unit,omitempty"`
	// Withheld tells that the value is not kept, since it might hold a secret.
	Withheld bool `json:"withheld,omitempty"`
}

// GlobalsRights asks whether a session may learn which roles have a password. To ask for more than it may see is an error
// of the whole query.
const GlobalsRights = `select pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'oid', 'select') and pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'select')`

// GlobalsSQL is one statement that returns the hash of the Globals and, unless the hash is known, what ParseGlobals reads. A session
// with the settings of pgtext must run it, with UTF8 as its client_encoding; version is the server's server_version_num.
func GlobalsSQL(version int, passwords bool, known string) (string, error) {
	for i := range len(known) {
		if c := known[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("%q is no hash of globals", known)
		}
	}
	password, parameters := "null::boolean", "'[]'::json"
	if passwords {
		password = "(select a.rolpassword is not null from pg_catalog.pg_authid a where a.oid = r.oid)"
	}
	if version >= 150000 {
		parameters = `(select ` + list(grantJSON("p.parname", "x"), "p.parname collate \"C\", x.n") + `
			from pg_catalog.pg_parameter_acl p cross join lateral pg_catalog.aclexplode(p.paracl) with ordinality x(grantor, grantee, privilege_type, is_grantable, n)
			where x.grantee <> 10)`
	}
	acl := func(column string) string { // null stays null
		return `case when ` + column + ` is not null then (select ` + list(grantJSON("null::text", "x"), "x.n") + `
			from pg_catalog.aclexplode(` + column + `) with ordinality x(grantor, grantee, privilege_type, is_grantable, n)) end`
	}
	labels := func(catalog, oid string) string {
		return `(select json_agg(json_build_object('provider', l.provider, 'label', l.label) order by l.provider collate "C")
			from pg_catalog.pg_shseclabel l where l.classoid = 'pg_catalog.` + catalog + `'::pg_catalog.regclass and l.objoid = ` + oid + `)`
	}
	return `
with state as (select json_strip_nulls(json_build_object(
	'owner', (select r.rolname from pg_catalog.pg_roles r where r.oid = 10),
	'roles', (select ` + list(`json_build_object('name', r.rolname, 'superuser', r.rolsuper, 'inherit', r.rolinherit, 'createrole', r.rolcreaterole,
			'createdb', r.rolcreatedb, 'login', r.rolcanlogin, 'replication', r.rolreplication, 'bypassrls', r.rolbypassrls, 'connections', r.rolconnlimit,
			'valid_until', r.rolvaliduntil::text, 'comment', pg_catalog.shobj_description(r.oid, 'pg_authid'), 'password', `+password+`,
			'labels', `+labels("pg_authid", "r.oid")+`)`, `r.rolname collate "C"`) + `
		from pg_catalog.pg_roles r where r.rolname !~ '^pg_'),
	'memberships', (select ` + list(`json_build_object('role', r.rolname, 'member', m.rolname, 'grantor', g.rolname, 'admin', a.admin_option,
			'inherit', pg_catalog.to_jsonb(a) -> 'inherit_option', 'set', pg_catalog.to_jsonb(a) -> 'set_option')`, `r.rolname collate "C", m.rolname collate "C", g.rolname collate "C"`) + `
		from pg_catalog.pg_auth_members a join pg_catalog.pg_roles r on r.oid = a.roleid join pg_catalog.pg_roles m on m.oid = a.member
		left join pg_catalog.pg_roles g on g.oid = a.grantor where m.rolname !~ '^pg_'),
	'settings', (select ` + list(`json_build_object('role', r.rolname, 'database', s.setdatabase <> 0, 'values', pg_catalog.to_json(s.setconfig))`, `r.rolname collate "C" nulls first, s.setdatabase <> 0`) + `
		from pg_catalog.pg_db_role_setting s left join pg_catalog.pg_roles r on r.oid = s.setrole
		where s.setdatabase in (0, d.oid) and (s.setrole = 0 or r.oid is not null)),
	'parameters', ` + parameters + `,
	'database', json_build_object('name', d.datname, 'owner', pg_catalog.pg_get_userbyid(d.datdba), 'encoding', pg_catalog.pg_encoding_to_char(d.encoding),
		'provider', j.j ->> 'datlocprovider', 'collate', d.datcollate, 'ctype', d.datctype, 'locale', coalesce(j.j ->> 'datlocale', j.j ->> 'daticulocale'),
		'icu_rules', j.j ->> 'daticurules', 'collation_version', j.j ->> 'datcollversion', 'connections', d.datconnlimit, 'template', d.datistemplate,
		'tablespace', (select t.spcname from pg_catalog.pg_tablespace t where t.oid = d.dattablespace), 'acl', ` + acl("d.datacl") + `,
		'comment', pg_catalog.shobj_description(d.oid, 'pg_database'), 'labels', ` + labels("pg_database", "d.oid") + `),
	'tablespaces', (select ` + list(`json_build_object('name', t.spcname, 'owner', pg_catalog.pg_get_userbyid(t.spcowner), 'location', pg_catalog.pg_tablespace_location(t.oid),
			'options', pg_catalog.to_json(t.spcoptions), 'acl', `+acl("t.spcacl")+`, 'comment', pg_catalog.shobj_description(t.oid, 'pg_tablespace'))`, `t.spcname collate "C"`) + `
		from pg_catalog.pg_tablespace t where t.spcname !~ '^pg_'),
	'server', (select ` + list(`json_build_object('name', s.name, 'value', case when not w.withheld then s.setting end, 'unit', s.unit, 'withheld', w.withheld)`, `s.name collate "C"`) + `
		from pg_catalog.pg_settings s cross join lateral (select s.vartype = 'string' and (s.name ~ '[.]' or s.name ~* '` + secretive + `') as withheld) w
		where s.source in ('configuration file', 'command line', 'environment variable')),
	'unseen', pg_catalog.to_json(array_remove(array[` + unseen(passwords) + `
		case when not pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'usage') then 'settings of the server that only members of pg_read_all_settings see' end], null))
	))::text as state, d.encoding
	from pg_catalog.pg_database d cross join lateral (select pg_catalog.to_jsonb(d) as j) j where d.datname = pg_catalog.current_database()),
hashed as (select s.state, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(s.state, pg_catalog.pg_encoding_to_char(s.encoding))), 'hex') as hash from state s)
select h.hash, case when h.hash <> '` + known + `' then h.state end from hashed h`, nil
}

// secretive matches names of settings whose text may hold a password or a key, or a command that does.
const secretive = `pass|secret|key|token|salt|credential|conninfo|command|auth|connection_string`

func unseen(passwords bool) string {
	if passwords {
		return "null::text,"
	}
	return "'which roles have a password'::text,"
}

func list(value, order string) string {
	return "coalesce(json_agg(" + value + " order by " + order + "), '[]')"
}

// grantJSON is an item of an access list; PUBLIC and owners that are gone have no name.
func grantJSON(on, x string) string {
	return fmt.Sprintf(`json_build_object('on', %s, 'grantee', (select r.rolname from pg_catalog.pg_roles r where r.oid = %s.grantee),
		'grantor', pg_catalog.pg_get_userbyid(%s.grantor), 'privilege', %s.privilege_type, 'grantable', %s.is_grantable)`, on, x, x, x, x)
}

// ParseGlobals reads what GlobalsSQL returns.
func ParseGlobals(state []byte) (*Globals, error) {
	if !utf8.Valid(state) {
		return nil, errors.New("names or settings of the server are not in UTF-8, and the database, which is SQL_ASCII, does not say in what else")
	}
	g := &Globals{}
	if err := json.Unmarshal(state, g); err != nil {
		return nil, fmt.Errorf("read roles and settings: %w", err)
	}
	return g, nil
}
