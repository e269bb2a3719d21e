package e2e

import (
	"fmt"
	"strings"
)

// everyExtension is what PostgreSQL's own package brings that has types, operators or kinds of indexes.
const everyExtension = `CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION citext; CREATE EXTENSION cube; CREATE EXTENSION seg; CREATE EXTENSION isn;
	CREATE EXTENSION intarray; CREATE EXTENSION lo; CREATE EXTENSION earthdistance; CREATE EXTENSION pg_trgm; CREATE EXTENSION btree_gist; CREATE EXTENSION btree_gin; CREATE EXTENSION bloom`

// ownTypes are types of every kind that a user can make, and what they stand on.
const ownTypes = `CREATE SCHEMA "Odd Types";
	CREATE FUNCTION "Odd Types".is_even(n int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN n % 2 = 0; END $$;
	CREATE TABLE "Odd Types".words (word text PRIMARY KEY); INSERT INTO "Odd Types".words VALUES ('yes'), ('no');
	CREATE FUNCTION "Odd Types".known(t text) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT t IS NULL OR t IN ('yes', 'no') $$;
	CREATE DOMAIN "Odd Types".even AS int CHECK ("Odd Types".is_even(VALUE));
	CREATE DOMAIN "Odd Types".word AS text CHECK ("Odd Types".known(VALUE));
	CREATE TYPE "Odd Types"."a ""mood""" AS ENUM ('it''s', 'so "so"', 'a,b', ' ', 'NULL', '{}');
	CREATE TYPE inner_pair AS (x int, "Y y" text);
	CREATE TYPE outer_pair AS (p inner_pair, m "Odd Types"."a ""mood""", t text[]);
	CREATE DOMAIN outer_pairs AS outer_pair[] CHECK (array_length(VALUE, 1) < 9);
	CREATE TYPE deepest AS (o outer_pairs, e "Odd Types".even);
	CREATE FUNCTION span_apart(a float8, b float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT a - b';
	CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = span_apart, multirange_type_name = spans);
	CREATE TYPE label_range AS RANGE (subtype = text, collation = "C")`

// everyType has values of every type that is not in every database, and of those with values that one can trip over. An
// underscore before the name tells that the type has no order, and cannot be a key.
var everyType = []struct {
	name   string
	values []string // three of them; the first one comes twice where there is no key
}{
	{"hstore", []string{`"a"=>"1", "b"=>NULL, "c d"=>"\"q\" \\ '"`, ``, `""=>""`}},
	{"ltree", []string{`Top.Science.Astronomy`, ``, `a_b.c`}},
	{"_lquery", []string{`Top.*{1,2}.!a|b@*`, `*`, `a`}},
	{"_ltxtquery", []string{`Europe & Russia*@ & !Transportation`, `a`, `b`}},
	{"citext", []string{`MiXed`, ``, `other`}},
	{"cube", []string{`(1,2,3),(-0,NaN,Infinity)`, `(0)`, `()`}},
	{"seg", []string{`1.50 .. <2.0`, `~5.0`, `> 3`}},
	{"ean13", []string{`978-0-393-04002-9`, `9780393040029!`, `9771144875007`}},
	{"isbn", []string{`0-393-04002-X`, `9780393040029`, `0-393-04002-1!`}},
	{"issn13", []string{`9771144875007`, `977-1436-452-00-8`, `9770317847001`}},
	{"ismn", []string{`M-060-11561-5`, `9790060115622`, `M-706700-22-1!`}},
	{"upc", []string{`220356483481`, `036000291452`, `012345678905`}},
	{"_query_int", []string{`1&(2|!3)`, `7`, `8`}},
	{"lo", []string{`4294967295`, `0`, `7`}},
	{"_earth", []string{`(6378168,0,0)`, `(0,6378168,0)`, `(0,0,-6378168)`}},
	{`"Odd Types".even`, []string{`2`, `-4`, `0`}},
	{`"Odd Types".word`, []string{`yes`, `no`, `yes`}},
	{`"Odd Types"."a ""mood"""`, []string{`it's`, `so "so"`, `NULL`}},
	{`inner_pair`, []string{`(,)`, `(1,"")`, `(-1,"a ""b"", \\ (c)")`}},
	{`_outer_pair`, []string{`("(,)",,)`, `("(1,"""")","so ""so""","{NULL,""""}")`, `(,,)`}},
	{`_outer_pairs`, []string{`{}`, `{"(,,)",NULL}`, `{"(\"(1,\"\"\"\")\",\"it's\",{})"}`}},
	{`_deepest`, []string{`(,)`, `({},2)`, `("{NULL,""(,,)""}",-2)`}},
	{`span`, []string{`[-0,1e-320]`, `empty`, `(,Infinity]`}},
	{`spans`, []string{`{[1,2),[3,4]}`, `{}`, `{(,)}`}},
	{`label_range`, []string{`["a,b","c)"]`, `["",z)`, `(,)`}},
	{`"char"`, []string{`x`, ``, `\`}},
	{`name`, []string{`Na"me`, ``, `x`}},
	{`oid`, []string{`4294967295`, `0`, `1259`}},
	{`regclass`, []string{`pg_catalog.pg_class`, `"Odd Types".words`, `4000000000`}},
	{`regproc`, []string{`pg_catalog.now`, `"Odd Types".is_even`, `-`}},
	{`regprocedure`, []string{`pg_catalog.now()`, `"Odd Types".is_even(integer)`, `span_apart(float8,float8)`}},
	{`regtype`, []string{`"Odd Types"."a ""mood"""`, `spans`, `integer`}},
	{`regnamespace`, []string{`"Odd Types"`, `public`, `pg_catalog`}},
	{`regrole`, []string{`postgres`, `pg_monitor`, `-`}},
	{`_regconfig`, []string{`pg_catalog.english`, `pg_catalog.simple`, `pg_catalog.german`}},
	{`_xid`, []string{`4294967295`, `0`, `3`}},
	{`xid8`, []string{`18446744073709551615`, `0`, `3`}},
	{`pg_lsn`, []string{`FFFFFFFF/FFFFFFFF`, `0/0`, `16/B374D848`}},
	{`tid`, []string{`(4294967295,65535)`, `(0,0)`, `(1,2)`}},
	{`tsvector`, []string{`'a b':1A,2 '''':3`, ``, `'x'`}},
	{`tsquery`, []string{`'a' <-> !('b':*A | 'c d')`, ``, `'x'`}},
	{`_jsonpath`, []string{`$."a b"[*]?(@ > 1 && @.x like_regex "^a" flag "i")`, `strict $`, `$`}},
	{`_json`, []string{`{"a" : 1, "a": 2}`, `1e400`, `"\u0041"`}},
	{`jsonb`, []string{`{"a": [1.10, null, "\u00e9"]}`, `""`, `12345678901234567890.10`}},
	{`_xml`, []string{`<a>x &amp; <![CDATA[y]]></a>`, ``, `<?xml version="1.0"?><a/>`}},
	{`money`, []string{`-92233720368547758.08`, `0`, `0.01`}},
	{`varbit`, []string{`1`, ``, `0101010101`}},
	{`bytea`, []string{`\x`, `\x00ff`, `\x5c`}},
	{`interval`, []string{`-178000000 years -11 mons`, `178000000 years 2147483647 days -2147483647:00:54.775807`, `-1 mons +1 days -00:00:00.000001`}},
	{`date`, []string{`4713-01-01 BC`, `-infinity`, `0005-02-29 BC`}},
	{`timestamp`, []string{`infinity`, `4713-01-01 00:00:00 BC`, `294276-12-31 23:59:59.999999`}},
	{`timestamptz`, []string{`-infinity`, `0001-12-31 23:59:59.999999+00 BC`, `1883-11-18 12:03:57+00`}},
	{`timetz`, []string{`24:00:00-15:59`, `00:00:00+15:59:59`, `12:00:00.5+00`}},
	{`float4`, []string{`NaN`, `-0`, `1e-45`}},
	{`float8`, []string{`5e-324`, `-Infinity`, `-0`}},
	{`numeric`, []string{`NaN`, `-Infinity`, `1.00000`}},
	{`_point`, []string{`(NaN,-0)`, `(1e-300,Infinity)`, `(1,1)`}},
	{`bpchar`, []string{`a  `, ``, `b`}},
	{`char(3)`, []string{`a`, ``, `b`}},
	{`varchar(3)`, []string{`a  `, ``, `abc`}},
	{`macaddr8`, []string{`08:00:2b:01:02:03:04:05`, `00:00:00:00:00:00:00:00`, `ff:ff:ff:ff:ff:ff:ff:ff`}},
	{`inet`, []string{`::ffff:1.2.3.4/128`, `10.0.0.1/8`, `10.0.0.1`}},
}

// makeTypes makes a table of each type in a schema: its values as keys, in arrays and composites, and without a key.
func makeTypes(schema string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE SCHEMA %s; SET extra_float_digits = 3; SET xmloption = content; SET lc_monetary = 'C';\n", schema)
	for i, t := range everyType {
		name, unordered := strings.CutPrefix(t.name, "_")
		key := fmt.Sprintf("%s.k%d", schema, i)
		fmt.Fprintf(&b, "CREATE TYPE %s.c%d AS (v %s, more %[3]s[]);\n", schema, i, name)
		fmt.Fprintf(&b, "CREATE TABLE %s (k %s, n int, v %[2]s, a %[2]s[], c %s.c%d, PRIMARY KEY (%s));\n", key, name, schema, i, map[bool]string{true: "n", false: "k, n"}[unordered])
		fmt.Fprintf(&b, "CREATE TABLE %s.f%d (v %s, a %[3]s[], n int); ALTER TABLE %[1]s.f%[2]d REPLICA IDENTITY FULL;\n", schema, i, name)
		for n, v := range t.values {
			element := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
			fmt.Fprintf(&b, "INSERT INTO %s VALUES (%s, %d, %[2]s, %[4]s, ROW(%[2]s::%[5]s, %[6]s::%[5]s[]));\n", key, quoted(v), n, quoted("{"+element+",NULL,"+element+"}"), name, quoted("{"+element+"}"))
			fmt.Fprintf(&b, "INSERT INTO %s.f%d SELECT v, a, 0 FROM %s WHERE n = %d;\n", schema, i, key, n)
		}
		fmt.Fprintf(&b, "INSERT INTO %s.f%d SELECT * FROM %[1]s.f%[2]d LIMIT 1; INSERT INTO %[1]s.f%[2]d VALUES (NULL, '{}', 0), (NULL, '{NULL}', 0);\n", schema, i)
	}
	return b.String()
}

// changeTypes changes and removes rows of those tables, found by values of their types.
func changeTypes(schema string) string {
	var b strings.Builder
	for i := range everyType {
		fmt.Fprintf(&b, `UPDATE %[1]s.k%[2]d SET n = n + 10 WHERE n < 2; UPDATE %[1]s.k%[2]d SET v = NULL, a = '{}', c = NULL WHERE n = 10; UPDATE %[1]s.k%[2]d SET a = a || a WHERE n = 11;
			DELETE FROM %[1]s.k%[2]d WHERE n = 2; INSERT INTO %[1]s.k%[2]d SELECT k, n + 10, v, a, c FROM %[1]s.k%[2]d;
			DELETE FROM %[1]s.f%[2]d WHERE ctid = (SELECT min(ctid) FROM %[1]s.f%[2]d); UPDATE %[1]s.f%[2]d SET n = 1 WHERE ctid = (SELECT max(ctid) FROM %[1]s.f%[2]d);
			UPDATE %[1]s.f%[2]d SET n = 2 WHERE v IS NOT NULL; INSERT INTO %[1]s.f%[2]d SELECT * FROM %[1]s.f%[2]d;
`, schema, i)
	}
	return b.String()
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
