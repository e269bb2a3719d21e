package postgres

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"txreel/internal/dbtest"
	"txreel/sources/postgres/pgbase"
)

func TestGlobals(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t, "app.token=server-secret", "work_mem=5MB", "archive_command=false secret-of-a-command")
	if _, err := pg.CreateDB(t.Context(), "shared"); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "shared", `
		create role "Größe, "" 'x'" createdb connection limit 7 valid until '2031-02-03 04:05:06+00';
		create role parent nologin noinherit; create role app login password 'hunter-2' in role parent;
		grant pg_read_all_data to parent with admin option;
		comment on role app is 'it''s the app';
		alter role app set search_path to "A b", public; alter role app in database shared set app.jwt_secret to 'kept but never shown';
		alter database shared set statement_timeout to '1h'; alter database shared connection limit 40; revoke temp on database shared from public;
		grant create on database shared to app with grant option; comment on database shared is 'all of it';
		alter role all set lock_timeout to '2h';
		create role least login replication password 'pw'`)
	look := func(conn *pgx.Conn, known string) *GlobalsLook {
		t.Helper()
		l, err := LookAtGlobals(t.Context(), conn, known)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	super, least := connectTo(t, pg.URL("shared")), connectTo(t, pg.URLAs("least", "pw", "shared"))
	l := look(super, "")
	g := l.State
	if g == nil || len(l.Hash) != 64 || l.Position == "" || l.After == "" {
		t.Fatalf("%+v", l)
	}
	if again := look(super, l.Hash); again.State != nil || again.Hash != l.Hash {
		t.Errorf("nothing has changed: %+v", again)
	}
	role := func(g *pgbase.Globals, name string) pgbase.Role {
		i := slices.IndexFunc(g.Roles, func(r pgbase.Role) bool { return r.Name == name })
		if i < 0 {
			t.Fatalf("no role %q in %+v", name, g.Roles)
		}
		return g.Roles[i]
	}
	if r := role(g, `Größe, " 'x'`); !r.CreateDB || r.Login || !r.Inherit || r.Connections != 7 || r.ValidUntil != "2031-02-03 04:05:06+00" || r.Password == nil || *r.Password {
		t.Errorf("%+v", r)
	}
	if r := role(g, "app"); !r.Login || r.Comment != "it's the app" || r.Password == nil || !*r.Password || r.Connections != -1 {
		t.Errorf("%+v", r)
	}
	if r := role(g, "parent"); r.Inherit {
		t.Errorf("%+v", r)
	}
	var memberships []string
	for _, m := range g.Memberships {
		if m.Grantor != g.Owner {
			t.Errorf("granted by %q", m.Grantor)
		}
		admin := ""
		if m.Admin {
			admin = "!"
		}
		memberships = append(memberships, m.Member+" in "+m.Role+admin)
	}
	if want := []string{"app in parent", "parent in pg_read_all_data!"}; !slices.Equal(memberships, want) {
		t.Errorf("memberships %q, want %q", memberships, want)
	}
	settings, err := json.Marshal(g.Settings)
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"values":["lock_timeout=2h"]},{"database":true,"values":["statement_timeout=1h"]},{"role":"app","values":["search_path=\"A b\", public"]},{"role":"app","database":true,"values":["app.jwt_secret=kept but never shown"]}]`; string(settings) != want {
		t.Errorf("settings %s, want %s", settings, want)
	}
	d := g.Database
	if d.Name != "shared" || d.Owner != "postgres" || d.Connections != 40 || d.Comment != "all of it" || d.Encoding != "UTF8" || len(d.ACL) != 5 {
		t.Errorf("%+v", d)
	}
	server := make(map[string]pgbase.Parameter)
	for _, p := range g.Server {
		server[p.Name] = p
	}
	if p := server["work_mem"]; p.Value != "5120" || p.Unit != "kB" {
		t.Errorf("%+v", p)
	}
	all, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if p := server["archive_command"]; !p.Withheld || p.Value != "" {
		t.Errorf("%+v", p)
	}
	for _, secret := range []string{"server-secret", "secret-of-a-command", "hunter", "SCRAM", "********"} {
		if strings.Contains(string(all), secret) {
			t.Errorf("it holds %q: %s", secret, all)
		}
	}
	// Who may see less is told less, and what.
	g = look(least, l.Hash).State
	if g == nil || role(g, "app").Password != nil || len(g.Unseen) != 2 || len(g.Settings) != 4 || len(g.Memberships) != 2 {
		t.Errorf("to the least role: %+v", g)
	}
	for _, change := range []string{
		"alter role app nologin", "alter role app valid until 'infinity'", "alter role app set work_mem to '1MB'", "revoke parent from app", "alter database shared reset all",
		"comment on role app is null", "alter role parent rename to ancestor", "grant temp on database shared to app", "alter role app password null",
	} {
		pg.MustExec(t, "shared", change)
		now := look(super, l.Hash)
		if now.State == nil {
			t.Errorf("%s: not seen", change)
		}
		l = now
	}
}
