package postgres

import (
	"slices"
	"strings"
	"testing"

	"txreel/sources/postgres/pgbase"
)

func TestSplitNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		``:                       nil,
		`public`:                 {"public"},
		`"$user", public`:        {"$user", "public"},
		`"a ""b"", c" , d,"e"`:   {`a "b", c`, "d", "e"},
		`""`:                     {""},
		`"never closed, public`:  {"never closed, public"},
		`a, b , c`:               {"a", "b", "c"},
		`"x"; drop table t --,y`: {"x", "y"},
	} {
		if got := splitNames(in); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	if got, want := settingValue("Search_Path", `"a'b", c`), `'a''b', 'c'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := settingValue("app.list", `a, 'b'`), `'a, ''b'''`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A target that has some of it keeps that, and a role that is no superuser makes what it may.
func TestGlobalsSteps(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	want := &recorded{Globals: &pgbase.Globals{
		Owner: "postgres",
		Roles: []pgbase.Role{
			{Name: "postgres", Superuser: true, Inherit: true, Connections: -1},
			{Name: "new", Superuser: true, Inherit: true, Login: true, Replication: true, BypassRLS: true, CreateDB: true, CreateRole: true, Connections: -1, Password: &yes},
			{Name: "there", Inherit: true, Connections: 5},
			{Name: `o"dd; drop`, Connections: 0, Comment: `it's`, ValidUntil: "infinity"},
		},
		// In this order nobody could grant the second before the third.
		Memberships: []pgbase.Membership{
			{Role: "there", Member: "postgres", Grantor: "postgres"},
			{Role: "new", Member: `o"dd; drop`, Grantor: "there", Inherit: &no, Set: &yes},
			{Role: "new", Member: "there", Grantor: "postgres", Admin: true},
			{Role: "pg_monitor", Member: "new", Grantor: "gone"},
		},
		Settings: []pgbase.Settings{
			{Values: []string{"work_mem=1MB", "lock_timeout=1s"}},
			{Role: "there", Values: []string{"work_mem=2MB", "app.secret=hidden"}},
			{Role: "there", Database: true, Values: []string{"app.secret=hidden"}},
			{Role: "lost", Database: true, Values: []string{"work_mem=1MB"}},
			{Database: true, Values: []string{`search_path="A b", public`}},
		},
		Database:    pgbase.Database{Name: "was", Owner: "new", Connections: 9, Collate: "C", ACL: []pgbase.Grant{{Grantor: "new", Privilege: "CONNECT"}, {Grantor: "new", Grantee: "lost", Privilege: "CREATE"}, {Grantor: "there", Grantee: "new", Privilege: "CREATE; DROP", Grantable: true}}},
		Tablespaces: []pgbase.Tablespace{{Name: "fast", Owner: "new", Location: "/fast"}},
		Server:      []pgbase.Parameter{{Name: "work_mem", Value: "5"}, {Name: "same", Value: "1"}},
		Unseen:      []string{"something"},
	}}
	have := &pgbase.Globals{
		Owner: "admin",
		Roles: []pgbase.Role{{Name: "admin", Superuser: true, Inherit: true, Connections: -1}, {Name: "postgres", Inherit: true, Connections: -1}, {Name: "there", Inherit: true, Connections: 6}},
		Settings: []pgbase.Settings{
			{Values: []string{"work_mem=3MB"}},
			{Role: "there", Values: []string{"work_mem=2MB"}},
		},
		Database: pgbase.Database{Name: `is "it"`, Owner: "admin", Connections: -1, Collate: "en"},
		Server:   []pgbase.Parameter{{Name: "same", Value: "1"}},
	}
	sql := func(g *globals) string {
		var all []string
		for _, s := range g.steps {
			all = append(all, s.sql...)
		}
		return strings.Join(all, "\n")
	}
	g := newGlobals(want, have, rights{user: "admin", super: true, major: 16})
	const super = `CREATE ROLE "new" SUPERUSER CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS
CREATE ROLE "o""dd; drop" NOINHERIT CONNECTION LIMIT 0 VALID UNTIL 'infinity'
COMMENT ON ROLE "o""dd; drop" IS 'it''s'
GRANT "new" TO "there" WITH ADMIN OPTION GRANTED BY "admin"
GRANT "pg_monitor" TO "new"
GRANT "new" TO "o""dd; drop" WITH INHERIT FALSE, SET TRUE GRANTED BY "there"
ALTER ROLE ALL SET "lock_timeout" TO '1s'
ALTER ROLE "there" IN DATABASE "is ""it""" SET "app.secret" TO 'hidden'
ALTER DATABASE "is ""it""" SET "search_path" TO 'A b', 'public'
ALTER DATABASE "is ""it""" CONNECTION LIMIT 9
ALTER DATABASE "is ""it""" OWNER TO "new"
REVOKE ALL ON DATABASE "is ""it""" FROM PUBLIC CASCADE
REVOKE ALL ON DATABASE "is ""it""" FROM "new" CASCADE
GRANT CONNECT ON DATABASE "is ""it""" TO PUBLIC
SET LOCAL ROLE "there"
GRANT CREATE DROP ON DATABASE "is ""it""" TO "new" WITH GRANT OPTION
RESET ROLE`
	if got := sql(g); got != super {
		t.Errorf("got\n%s\nwant\n%s", got, super)
	}
	r := g.report()
	said := strings.Join(slices.Concat(r.Make, r.Differs, r.NotMade), "\n")
	for _, part := range []string{`role "postgres": superuser`, `role "there": connection limit`, `membership of "postgres" in "there"`, `setting "work_mem" of all roles`,
		`setting "app.secret" of role "there"`, `collate of the database: it was "C", and is "en"`, `tablespace "fast" (owner "new", location /fast)`, `1 of these roles had one ("new")`,
		"settings of the server: work_mem", "something: the capture could not see it", `privilege CREATE on the database of "lost"`} {
		if !strings.Contains(said, part) {
			t.Errorf("not said: %s\n%s", part, said)
		}
	}
	if strings.Contains(said, "hidden") || strings.Contains(said, `"same"`) {
		t.Errorf("said too much:\n%s", said)
	}
	g = newGlobals(want, have, rights{user: "maker", createRole: true, createDB: true, major: 16})
	if got := strings.SplitN(sql(g), "\n", 2)[0]; got != `CREATE ROLE "new" CREATEROLE CREATEDB LOGIN` {
		t.Error(got)
	}
	if said := strings.Join(g.report().NotMade, "\n"); !strings.Contains(said, `SUPERUSER of role "new": "maker" may not give it`) || !strings.Contains(said, "BYPASSRLS") || strings.Contains(sql(g), "GRANTED BY") {
		t.Errorf("%s\n%s", said, sql(g))
	}
}
