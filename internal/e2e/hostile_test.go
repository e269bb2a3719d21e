package e2e

import (
	"bytes"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestHostileSettings records the same rows under the server's defaults and under settings of role and database that
// change how values are written: not a byte of the record differs.
func TestHostileSettings(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "hostile", nil).setup()
	s.exec(`
		CREATE ROLE recorder LOGIN SUPERUSER PASSWORD 'weak';
		CREATE SCHEMA elsewhere;
		CREATE TYPE elsewhere.mood AS ENUM ('a', 'b');
		CREATE FUNCTION elsewhere.int4out(int) RETURNS text LANGUAGE sql AS $$ SELECT 'gotcha' $$;
		CREATE TABLE v (id int PRIMARY KEY, d date, ts timestamp, tz timestamptz, t timetz, iv interval, f4 float4, f8 float8,
			b bytea, m money, x xml, r tstzrange, mood elsewhere.mood, fs float8[]);
		ALTER TABLE v REPLICA IDENTITY FULL;
		CREATE TABLE kept (LIKE v)`)
	s.extra = []string{"TXREEL_SOURCE=" + pg.URLAs("recorder", "weak", s.db)}
	const row = `(1, '2024-02-03', '2024-02-03 04:05:06.789012', '2024-02-03 04:05:06.789012+05:30', '04:05:06+09',
		'1 year 2 mons -3 days 04:05:06.7', 0.1, 0.1::float8 + 0.2, decode('deadbeef00', 'hex'), 12345.67, '<a>é</a>',
		'[2024-02-03 04:05:06+00, infinity)', 'b', '{0.1,1e-300,NaN,-Infinity}')`
	s.exec(`INSERT INTO kept VALUES ` + row)

	round := func(bases int) archive.Base {
		t.Helper()
		capture := s.capture()
		a := s.waitArchive()
		if bases > 1 {
			s.must("base")
		}
		base := s.waitBases(a, 1, bases)[bases-1]
		s.exec(`INSERT INTO v VALUES ` + row)
		s.exec(`UPDATE v SET d = '0044-03-15 BC', f8 = pi() WHERE id = 1`)
		s.exec(`DELETE FROM v`)
		s.waitPast(a, s.here())
		capture.signal(terminate)
		if code := capture.wait(time.Minute); code != 0 {
			t.Fatalf("exit code %d, want 0", code)
		}
		return base
	}
	before := round(1)
	s.exec(`
		ALTER ROLE recorder SET datestyle = 'SQL, DMY';
		ALTER ROLE recorder SET intervalstyle = 'sql_standard';
		ALTER ROLE recorder SET search_path = 'elsewhere', 'pg_catalog';
		ALTER ROLE recorder SET statement_timeout = '1ms';
		ALTER ROLE recorder SET default_transaction_read_only = on;
		ALTER ROLE recorder SET default_transaction_isolation = 'serializable';
		ALTER ROLE recorder SET client_encoding = 'LATIN1';
		ALTER ROLE recorder SET quote_all_identifiers = on;
		ALTER ROLE recorder SET standard_conforming_strings = off;
		ALTER DATABASE hostile SET extra_float_digits = -5;
		ALTER DATABASE hostile SET timezone = 'Asia/Kathmandu';
		ALTER DATABASE hostile SET bytea_output = 'escape';
		ALTER DATABASE hostile SET lc_monetary = 'C.UTF-8';
		ALTER DATABASE hostile SET xmlbinary = 'hex'`)
	after := round(2)

	var messages [][]byte
	a := s.mustOpen()
	for _, txn := range readRecord(t, a, 1) {
		if len(txn.rows["public.v"]) > 0 {
			for _, raw := range txn.raw {
				if raw[0] != 'B' && raw[0] != 'C' { // positions and times
					messages = append(messages, raw)
				}
			}
		}
	}
	half := len(messages) / 2
	if half != 3 || len(messages) != 6 {
		t.Fatalf("%d messages of rows, want 6", len(messages))
	}
	for i := range half {
		if !bytes.Equal(messages[i], messages[half+i]) {
			t.Errorf("by default\n%q\nunder hostile settings\n%q", messages[i], messages[half+i])
		}
	}
	kept := func(b archive.Base) archive.BaseObject {
		for _, table := range b.Tables {
			if table.Name == "kept" && len(table.Chunks) == 1 {
				return table.Chunks[0]
			}
		}
		t.Fatalf("base %s does not hold the table", b.ID)
		return archive.BaseObject{}
	}
	if x, y := kept(before), kept(after); x.Rows != 1 || x.Raw != y.Raw || x.SHA256 != y.SHA256 {
		t.Errorf("the table in the base by default\n%+v\nunder hostile settings\n%+v", x, y)
	}

	// What those settings do to a session that does not defend itself.
	if got := s.value(`SELECT pi()::text`); got == "3.141592653589793" {
		t.Error("the settings have no effect at all")
	}
}
