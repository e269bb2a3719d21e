package e2e

import (
	"testing"

	"txreel/internal/dbtest"
)

// TestLargeObjects restores large objects as a base has them, with all that is known of them: no log carries their changes.
func TestLargeObjects(t *testing.T) {
	t.Parallel()
	pg := dbtest.PG(t)
	s := newSite(t, pg, "large", nil).setup()
	s.exec(`CREATE ROLE lo_owner; CREATE ROLE lo_reader; CREATE TABLE files (id int PRIMARY KEY, content oid);
		INSERT INTO files SELECT g, lo_from_bytea(0, decode(repeat(md5(g::text), g * 100), 'hex')) FROM generate_series(1, 20) g;
		DO $$DECLARE o oid; BEGIN SELECT content INTO o FROM files WHERE id = 3;
			EXECUTE format('ALTER LARGE OBJECT %s OWNER TO lo_owner; GRANT SELECT ON LARGE OBJECT %s TO lo_reader WITH GRANT OPTION; COMMENT ON LARGE OBJECT %s IS ''the third'';', o, o, o);
		END$$;
		SELECT lo_put(content, 100000, 'behind a hole') FROM files WHERE id = 4; SELECT lo_create(424242)`)
	s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	s.waitPast(a, s.here())
	const all = `SELECT string_agg(concat_ws('|', m.oid, m.lomowner::regrole, m.lomacl, obj_description(m.oid, 'pg_largeobject'), md5(lo_get(m.oid)), length(lo_get(m.oid))), E'\n' ORDER BY m.oid) FROM pg_largeobject_metadata m`
	want := s.value(all)
	s.restore("large_again")
	if got := s.in("large_again", all); got != want {
		t.Errorf("want\n%s\ngot\n%s", want, got)
	}
	s.restore("large_unowned", "--no-owner")
	if got := s.in("large_unowned", `SELECT count(*) FROM pg_largeobject_metadata`); got != "21" {
		t.Errorf("%s large objects without their owners", got)
	}
	if r := s.must("status"); !contains(r.stdout, "large objects", "as they stood at each base") {
		t.Errorf("status says\n%s", r.stdout)
	}
}
