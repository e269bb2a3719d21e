package pgoutput

import (
	"strconv"
	"testing"

	"txreel/internal/dbtest"
)

// testBuiltin compares the table of built-in types with a live
// server's catalog, over every OID a built-in type can have.
func testBuiltin(t *testing.T, pg *dbtest.Postgres) {
	rows := pg.MustQuery(t, "postgres", `
		SELECT t.oid, t.typtype, COALESCE(e.typname || '[]', t.typname)
		FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid
		WHERE t.oid < 10000`)
	want, pseudo := map[uint32]string{}, map[uint32]bool{}
	for _, r := range rows {
		oid, err := strconv.ParseUint(r[0], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		want[uint32(oid)], pseudo[uint32(oid)] = r[2], r[1] == "p"
	}
	if len(want) < 150 {
		t.Fatalf("the server names only %d types", len(want))
	}
	for oid := range uint32(10000) {
		got := builtin(oid)
		if got == want[oid] || got == "" && pseudo[oid] { // no column is of a pseudo-type
			continue
		}
		t.Errorf("OID %d: %q, the server says %q", oid, got, want[oid])
	}
}
