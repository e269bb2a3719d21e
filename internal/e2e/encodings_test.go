package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// TestEncodings records databases that are not in UTF-8, and restores the bytes of their values. What is exported is JSON all the
// same, a target of another encoding is refused before its first byte, and so is a name that is not ASCII.
func TestEncodings(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	for _, c := range []struct {
		name, encoding string
		before, after  string // values, as hexadecimal bytes
		label          string // what may be a name, likewise
	}{
		{"latin", "LATIN1", "e46e646572", "fc0ae9df", "74e47374"},
		{"japanese", "EUC_JP", "a4a2a4a4", "b4c1bbfa5c", "a4a2"},
		{"ascii", "SQL_ASCII", "80ff5cfe", "c328a0", "74ff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			create := func(db, encoding string) {
				pg.MustExec(t, "postgres", `CREATE DATABASE `+db+` TEMPLATE template0 ENCODING '`+encoding+`' LC_COLLATE 'C' LC_CTYPE 'C'`)
			}
			create(c.name, c.encoding)
			s := siteOf(t, pg, c.name, nil)
			text := func(hex string) string { return `convert_from('\x` + hex + `', getdatabaseencoding())` }
			s.exec(`CREATE TABLE plain (id int PRIMARY KEY, v text, a text[]); CREATE TABLE keyless (v text); ALTER TABLE keyless REPLICA IDENTITY FULL;
				INSERT INTO plain SELECT 1, ` + text(c.before) + `, ARRAY[` + text(c.before) + `]; INSERT INTO keyless SELECT v FROM plain; INSERT INTO keyless SELECT v FROM plain`)
			s.setup()
			s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)
			s.exec(`UPDATE plain SET v = ` + text(c.after) + `; INSERT INTO plain SELECT 2, v, ARRAY[v, NULL] FROM plain; DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless); UPDATE keyless SET v = v || ` + text(c.after))
			s.exec(`CREATE TABLE later (id int PRIMARY KEY, v text); INSERT INTO later SELECT id, v FROM plain`)
			s.waitPast(a, s.here())
			again := c.name + "_again"
			create(again, c.encoding)
			s.with("TXREEL_TARGET=" + pg.URL(again)).must("restore")
			if diff := dbtest.Diff(s.dump(s.db), s.dump(again)); diff != "" {
				t.Errorf("the restored database differs:\n%s", diff)
			}
			if diff := firstDifference(s.schema(s.db), s.schema(again)); diff != "" {
				t.Errorf("the restored schema differs:\n%s", diff)
			}
			other := c.name + "_other"
			create(other, "UTF8")
			refused := s.with("TXREEL_TARGET=" + pg.URL(other)).run("restore")
			if !contains(refused.stderr, "encoding UTF8", "the base "+c.encoding) {
				t.Errorf("a target of another encoding: %s", tail(refused.stderr, 2))
			}
			if n := s.in(other, `SELECT count(*) FROM pg_class WHERE oid >= 16384`); refused.code == 0 || n != "0" {
				t.Errorf("exit code %d, and %s relations", refused.code, n)
			}
			for line := range strings.Lines(s.must("audit", "export").stdout) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %q", line)
				}
			}
			for line := range strings.Lines(s.must("log", "--json").stdout) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %q", line)
				}
			}
			// Names, and what else the log of definitions says, would have to be in UTF-8.
			s.exec(`DO $$ BEGIN EXECUTE format('COMMENT ON TABLE plain IS %L', ` + text(c.label) + `); EXECUTE format('CREATE TABLE %I ()', ` + text(c.label) + `); END $$`)
			s.waitPast(a, s.here())
			inexact := c.name + "_inexact"
			create(inexact, c.encoding)
			if r := s.with("TXREEL_TARGET=" + pg.URL(inexact)).run("restore"); r.code == 0 || !contains(r.stderr, "is not in UTF-8, as the database is not") {
				t.Errorf("a definition with other characters: exit code %d, %s", r.code, tail(r.stderr, 2))
			}
			if r := s.run("base"); r.code == 0 || !contains(r.stderr, "has a name that is not ASCII") {
				t.Errorf("a name with other characters: exit code %d, %s", r.code, tail(r.stderr, 2))
			}
		})
	}
}
