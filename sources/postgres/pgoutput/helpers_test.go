package pgoutput

import (
	"encoding/hex"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// TestAgainstServer runs what needs a live server, on one.
func TestAgainstServer(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	for name, test := range map[string]func(*testing.T, *dbtest.Postgres){
		"built-in types":       testBuiltin,
		"oracle":               testOracle,
		"rows equal the table": testTable,
		"events":               testEvents,
		"versions":             testVersions,
	} {
		t.Run(name, func(t *testing.T) { test(t, pg) })
	}
}

// source is a database whose changes a test reads as pgoutput messages.
type source struct {
	t  testing.TB
	pg *dbtest.Postgres
	db string
}

// newSource creates a database with a publication for all tables and a slot.
func newSource(t testing.TB, pg *dbtest.Postgres, db string) *source {
	t.Helper()
	if _, err := pg.CreateDB(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	s := &source{t: t, pg: pg, db: db}
	s.exec("CREATE PUBLICATION p FOR ALL TABLES")
	s.exec("SELECT pg_create_logical_replication_slot('" + db + "', 'pgoutput')")
	return s
}

func (s *source) exec(sql string) {
	s.t.Helper()
	s.pg.MustExec(s.t, s.db, sql)
}

// messages returns what the server has sent since the last call, verbatim.
func (s *source) messages() [][]byte {
	s.t.Helper()
	rows := s.pg.MustQuery(s.t, s.db, "SELECT data FROM pg_logical_slot_get_binary_changes('"+s.db+
		"', NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')")
	var list [][]byte
	for _, r := range rows {
		b, err := hex.DecodeString(strings.TrimPrefix(r[0], `\x`))
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}
