package postgres

import (
	"fmt"
	"strings"
)

// typeValues holds for every type the values it can trip over. Row k of a table of
// types has the value k of every type, or NULL.
var typeValues = []struct {
	name   string
	values []string
}{
	{"bool", []string{"t", "f"}},
	{"bytea", []string{`\x00ff5c0a0d09`, `\x`}},
	{`"char"`, []string{"x", "", `\`}},
	{"name", []string{`na"me`, ""}},
	{"int2", []string{"-32768", "32767"}},
	{"int4", []string{"-2147483648", "0"}},
	{"int8", []string{"9223372036854775807", "-9223372036854775808"}},
	{"text", []string{"tab\tand \\ and \\N\nline\r\b\f\v", "", `\N`, `\.`, "ünï ‽ 漢字"}},
	{"oid", []string{"4294967295", "0"}},
	{"tid", []string{"(1,2)", "(0,0)"}},
	{"xid", []string{"7", "0"}},
	{"xid8", []string{"18446744073709551615", "0"}},
	{"cid", []string{"5", "0"}},
	{"json", []string{`{"a" :  1, "a": 2}`, "null", `"\u0041"`}},
	{"jsonb", []string{`{"b": [1, null]}`, "null"}},
	{"xml", []string{"<a>x &amp; y</a>", "", `<?xml version="1.0"?><!DOCTYPE a><a/>`}},
	{"point", []string{"(1,2)", "(-0,NaN)", "(Infinity,1e-300)"}},
	{"lseg", []string{"[(0,0),(1,1)]"}},
	{"path", []string{"((0,0),(1,1))", "[(0,0)]"}},
	{"box", []string{"(1,1),(0,0)"}},
	{"polygon", []string{"((0,0),(1,1),(1,0))"}},
	{"line", []string{"{1,2,3}"}},
	{"circle", []string{"<(0,0),5>"}},
	{"float4", []string{"NaN", "-0", "1e-45", "3.4028235e38"}},
	{"float8", []string{"-Infinity", "2.2250738585072014e-308", "0.30000000000000004", "-0"}},
	{"money", []string{"-92233720368547758.08", "0"}},
	{"macaddr", []string{"08:00:2b:01:02:03"}},
	{"macaddr8", []string{"08:00:2b:01:02:03:04:05"}},
	{"inet", []string{"10.1.2.3/24", "::1", "10.1.2.3"}},
	{"cidr", []string{"10.0.0.0/8", "::/0"}},
	{"char(5)", []string{"ab", ""}},
	{"bpchar", []string{"trail  ", "", "trail"}},
	{"varchar(10)", []string{"va  ", ""}},
	{"date", []string{"4713-01-01 BC", "5874897-12-31", "infinity", "0005-02-29 BC"}},
	{"time", []string{"24:00:00", "00:00:00.000001"}},
	{"time(2)", []string{"23:59:59.99"}},
	{"timetz", []string{"23:59:59.999999+15:59", "00:00:00-15:59"}},
	{"timestamp", []string{"infinity", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999"}},
	{"timestamptz", []string{"-infinity", "4713-01-01 00:00:00+00 BC", "2026-11-22 01:02:03.456789+05:30"}},
	{"interval", []string{"-1 year -2 mons +3 days -04:05:06.789", "178000000 years", "0"}},
	{"interval day to second(2)", []string{"1 day 00:00:01.25"}},
	{"bit(3)", []string{"101", "000"}},
	{"varbit", []string{"1", ""}},
	{"numeric", []string{"NaN", "Infinity", "0.10", "-1e-200", "1" + strings.Repeat("0", 300), "0.100"}},
	{"numeric(10,3)", []string{"1234567.891", "-0.001"}},
	{"uuid", []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}},
	{"pg_lsn", []string{"16/B374D848", "0/0"}},
	{"tsvector", []string{"'fat':1A 'cat':2", ""}},
	{"tsquery", []string{"'fat' & !'rat'", ""}},
	{"jsonpath", []string{`$.a[*] ? (@ > 1)`, "$"}},
	{"regclass", []string{"pg_catalog.pg_class"}},
	{"regtype", []string{"int4"}},
	{"regproc", []string{"pg_catalog.now"}},
	{"regrole", []string{"postgres"}},
	{"int4range", []string{"[1,5)", "empty"}},
	{"numrange", []string{"(,1.5]", "(,)"}},
	{"tstzrange", []string{"[2020-01-01 00:00+00,infinity)", "empty"}},
	{"int4multirange", []string{"{[1,3),[5,7)}", "{}"}},
	{"nummultirange", []string{"{(,)}"}},
	{"datemultirange", []string{"{[2020-01-01,2020-02-01)}"}},
	{"int4[]", []string{"{1,NULL,3}", "{}"}},
	{"text[]", []string{`{"",NULL,"a\"b,c","NULL","\\"}`, "{}"}},
	{"int4[][]", []string{"[2:3][0:1]={{1,2},{3,4}}"}},
	{"timestamptz[]", []string{`{"infinity","2020-01-01 00:00+00"}`}},
	{"bytea[]", []string{`{"\\x00","\\x"}`}},
	{"point[]", []string{`{"(1,2)"}`}},
	{"json[]", []string{`{"{\"a\": 1}"}`}},
	{"mood", []string{"it's", "sad"}},
	{"mood[]", []string{"{sad,it's}"}},
	{"pair", []string{`(1,"x y")`, "(,)", `(,"")`}},
	{"pair[]", []string{`{"(1,)","(,\"\")"}`, `{"(,)"}`}},
	{"posint", []string{"5"}},
	{"txt", []string{"", "d"}},
	{"posint[]", []string{"{1,2}"}},
	{"frange", []string{"[1.5,2.5)", "empty"}},
	{"pg_snapshot", []string{"10:20:10,14,15"}},
}

const typeRows = 7 // row 0 is all NULL

func typeColumns() string {
	var b strings.Builder
	for i, v := range typeValues {
		fmt.Fprintf(&b, ", c%d %s", i, v.name)
	}
	return b.String()
}

// insertTypes fills a table of types.
func insertTypes(table string) string {
	var b strings.Builder
	b.WriteString("SET xmloption = content; SET lc_monetary = 'C';\n")
	for row := range typeRows {
		fmt.Fprintf(&b, "INSERT INTO %s VALUES (%d", table, row)
		for _, v := range typeValues {
			if row > 0 && row <= len(v.values) {
				b.WriteString(", " + literalE(v.values[row-1]))
			} else {
				b.WriteString(", NULL")
			}
		}
		b.WriteString(");\n")
	}
	return b.String()
}

func literalE(s string) string {
	return "E'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}

const everythingBefore = `
INSERT INTO toast_d SELECT i, 0, repeat(md5(i::text), 32768) FROM generate_series(1, 3) i;
INSERT INTO toast_f SELECT * FROM toast_d; INSERT INTO toast_n SELECT n, big, '{"a": 1}' FROM toast_d; INSERT INTO toast_n SELECT n, big, '{"a": 1}' FROM toast_d LIMIT 1;
INSERT INTO dups SELECT 'same', 1.0, 0, '{}', '<a/>', NULL FROM generate_series(1, 5);
INSERT INTO dups VALUES ('same', 1.00, 0, '{}', '<a/>', NULL), ('same', 1.0, '-0', '{}', '<a/>', NULL), ('same', 1.0, 0, '{ }', '<a/>', NULL), ('same', 1.0, 0, '{}', '<a/>', ROW(NULL, NULL)), (NULL, NULL, 'NaN', NULL, NULL, NULL), ('', NULL, 'NaN', NULL, NULL, NULL), (NULL, NULL, 'NaN', NULL, NULL, NULL), ('', NULL, 'NaN', NULL, NULL, NULL);
INSERT INTO onlyjson VALUES ('{}'), ('{}'), ('[]'), (NULL), (NULL);
INSERT INTO ident (v) VALUES ('a'), ('b'), ('c'); INSERT INTO ident2 (k, v) VALUES ('x', '1'), ('y', '2');
INSERT INTO gen_only VALUES (1), (2); INSERT INTO gen_key (a) VALUES (1), (2), (3); INSERT INTO gen (a, b) VALUES (1, 'one'), (NULL, 'none'); INSERT INTO gen_nokey (a, b) VALUES (1, 'one'), (1, 'one'), (NULL, NULL);
INSERT INTO "Odd Schema"."Ta""ble" VALUES (1, 'q"'), (2, NULL);
INSERT INTO part VALUES (1, 'e', 'x'), (2, 'w', 'y'), (200, 'w', 'z');
INSERT INTO tr1 (v) SELECT 'v' || i FROM generate_series(1, 300) i; INSERT INTO tr2 (r) VALUES (1), (2);
INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (3, 4), (3, 4);
INSERT INTO swaps VALUES (1, 'a'), (2, 'b'), (3, 'a'); INSERT INTO swaps2 VALUES (1, 1, 'a'), (2, 2, 'b');
INSERT INTO uniq VALUES ('u1', 'v'), ('u2', NULL); INSERT INTO dual VALUES (1, 10, 'a'), (2, 20, 'b');
INSERT INTO keyonly VALUES (1, 'x'), (2, 'y'); INSERT INTO empty_columns DEFAULT VALUES; INSERT INTO empty_columns DEFAULT VALUES;
INSERT INTO txreel.own VALUES (1);
REFRESH MATERIALIZED VIEW mv1; REFRESH MATERIALIZED VIEW mv2;
SELECT nextval('free_seq'), nextval('down_seq');
`

// everythingSteps are changes; each is one transaction unless it says otherwise, and
// after each the database is compared.
var everythingSteps = []string{
	// Rows found by key, whole rows and duplicates; every value of every type compared and written.
	`UPDATE types SET id = id + 100 WHERE id < 3; DELETE FROM types WHERE id = 4; UPDATE types SET c7 = 'changed';
	 UPDATE types_full SET id = id + 100 WHERE id < 3; DELETE FROM types_full WHERE id = 5;
	 UPDATE types_nokey SET id = id + 1; UPDATE types_nokey SET c4 = 12 WHERE c7 = ''; DELETE FROM types_nokey WHERE id IN (1, 3, 7);`,
	"UPDATE types SET id = id + 1000;" + insertTypes("types") + `UPDATE types_nokey SET id = id + 2000; INSERT INTO types SELECT * FROM types_nokey;`,
	`INSERT INTO types_nokey SELECT t.* FROM types t, generate_series(1, 5)`, // enough for COPY
	`UPDATE toast_d SET n = n + 1; UPDATE toast_f SET n = n + 1; UPDATE toast_n SET n = n + 1;`,
	`UPDATE toast_d SET big = big || 'x' WHERE id = 2; UPDATE toast_f SET big = reverse(big) WHERE id = 2; UPDATE toast_n SET j = '[]' WHERE ctid = (SELECT min(ctid) FROM toast_n);
	 UPDATE toast_d SET id = 30 WHERE id = 3; UPDATE toast_f SET id = 30 WHERE id = 3; DELETE FROM toast_n WHERE ctid = (SELECT max(ctid) FROM toast_n);`,
	`DELETE FROM dups WHERE ctid = (SELECT min(ctid) FROM dups WHERE t = 'same'); UPDATE dups SET t = 'other' WHERE ctid IN (SELECT ctid FROM dups WHERE n::text = '1.0' ORDER BY ctid LIMIT 2);
	 DELETE FROM dups WHERE f::text = '-0'; UPDATE dups SET n = 7 WHERE t = ''; DELETE FROM dups WHERE ctid = (SELECT min(ctid) FROM dups WHERE t IS NULL); UPDATE dups SET x = '<b/>' WHERE p IS NOT DISTINCT FROM ROW(NULL, NULL)::pair;
	 DELETE FROM onlyjson WHERE ctid = (SELECT min(ctid) FROM onlyjson); UPDATE onlyjson SET j = '1' WHERE ctid = (SELECT max(ctid) FROM onlyjson);`,
	`UPDATE ident SET v = 'x', other = other + 1; UPDATE ident SET id = DEFAULT WHERE v = 'x'; INSERT INTO ident (id, v) OVERRIDING SYSTEM VALUE VALUES (777, 'sys');
	 UPDATE ident2 SET id = DEFAULT; UPDATE ident2 SET k = 'xx' WHERE k = 'x'; INSERT INTO ident2 (k) VALUES ('new');`,
	`UPDATE gen_only SET id = id; UPDATE gen_key SET b = 'two'; UPDATE gen_key SET a = a + 10 WHERE a = 1; DELETE FROM gen_key WHERE a = 2; UPDATE toast_d SET big = big;
	 UPDATE gen SET a = 5; INSERT INTO gen (a) VALUES (8); DELETE FROM gen WHERE b = 'one'; UPDATE gen_nokey SET a = 9 WHERE ctid = (SELECT min(ctid) FROM gen_nokey); DELETE FROM gen_nokey WHERE a IS NULL;`,
	`UPDATE "Odd Schema"."Ta""ble" SET "Co l" = 5, "se""l" = 'z' WHERE "Co l" = 1; DELETE FROM "Odd Schema"."Ta""ble" WHERE "Co l" = 2; INSERT INTO "Odd Schema"."Ta""ble" SELECT i, i FROM generate_series(100, 250) i;`,
	`UPDATE part SET region = 'w' WHERE k = 1; UPDATE part SET k = 50 WHERE k = 200; UPDATE part SET v = v || '2'; INSERT INTO part VALUES (7, 'e', NULL); DELETE FROM part WHERE k = 2;`,
	`UPDATE tr1 SET v = 'w' WHERE id < 10; INSERT INTO tr1 (v) SELECT 'n' FROM generate_series(1, 60); INSERT INTO tr2 (r) SELECT id FROM tr1 WHERE id > 300; DELETE FROM tr2 WHERE r = 1; DELETE FROM tr1 WHERE id = 1;`,
	`UPDATE child SET b = 5 WHERE ctid = (SELECT min(ctid) FROM child); UPDATE parent SET a = a + 10 WHERE a = 1; DELETE FROM ONLY parent WHERE a = 2;`,
	`UPDATE swaps SET id = 3 - id WHERE id < 3; UPDATE swaps SET id = CASE id WHEN 1 THEN 3 WHEN 3 THEN 1 ELSE id END; UPDATE swaps2 SET u = 3 - u; UPDATE swaps SET v = 'same'; UPDATE swaps SET id = CASE id WHEN 1 THEN 3 WHEN 3 THEN 1 ELSE id END;`,
	`UPDATE uniq SET u = 'u9', v = 'w' WHERE u = 'u1'; UPDATE uniq SET v = 'w'; DELETE FROM uniq WHERE u = 'u2'; UPDATE dual SET v = 'c', id = id + 5; UPDATE dual SET u = 30 WHERE u = 20; DELETE FROM dual WHERE u = 10;`,
	`UPDATE keyonly SET b = b; UPDATE keyonly SET a = 5 WHERE a = 1; DELETE FROM keyonly WHERE a = 2; INSERT INTO empty_columns DEFAULT VALUES; DELETE FROM empty_columns WHERE ctid = (SELECT min(ctid) FROM empty_columns);`,
	`TRUNCATE tr1, tr2 RESTART IDENTITY; INSERT INTO tr1 (v) VALUES ('after'); INSERT INTO tr2 (r) VALUES (1);`,
	`BEGIN; INSERT INTO gen (a) SELECT i FROM generate_series(1, 100) i; TRUNCATE gen; INSERT INTO gen (a) VALUES (1); SAVEPOINT s; DELETE FROM gen; ROLLBACK TO s; UPDATE gen SET a = 2; COMMIT;`,
	`TRUNCATE part_w1; TRUNCATE ONLY parent; TRUNCATE toast_n; INSERT INTO part VALUES (3, 'w', 'again');`,
	`SELECT pg_logical_emit_message(true, 'app', 'a message'); INSERT INTO txreel.own VALUES (2); UPDATE txreel.own SET id = id + 10;`,
	`DELETE FROM types; DELETE FROM types_nokey; DELETE FROM types_full; DELETE FROM swaps; DELETE FROM onlyjson; DELETE FROM dups;`,
}
