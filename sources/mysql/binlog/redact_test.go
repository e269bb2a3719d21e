package binlog

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"txreel/change"
)

var (
	usual = Mode{Known: true}
	plain = Mode{Known: true, NoBackslashEscapes: true}
	ansi  = Mode{Known: true, ANSIQuotes: true}
)

func TestRedact(t *testing.T) {
	t.Parallel()
	const r = redacted
	for _, c := range []struct {
		mode     Mode
		in, want string
	}{
		{usual, "create table t (a int) comment 'x'", "create table t (a int) comment 'x'"},
		{usual, "CREATE USER 'u'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$\\0x\\'y\\\\z' REQUIRE NONE", "CREATE USER 'u'@'%' IDENTIFIED WITH 'caching_sha2_password' AS " + r + " REQUIRE NONE"},
		{usual, "CREATE USER 'u'@'%' IDENTIFIED WITH 'caching_sha2_password' AS 0x2441243030", "CREATE USER 'u'@'%' IDENTIFIED WITH 'caching_sha2_password' AS " + r},
		{usual, "create user u1 identified by 'secret'", "create user u1 identified by " + r},
		{usual, "create user 'u1' identified by 'secret', 'u2'@'h' identified by 'secret2'", "create user 'u1' identified by " + r + ", 'u2'@'h' identified by " + r},
		{usual, "CREATE USER IF NOT EXISTS 'u'@'h' IDENTIFIED BY 'se''cret'", "CREATE USER IF NOT EXISTS 'u'@'h' IDENTIFIED BY " + r},
		{usual, "CREATE USER u IDENTIFIED VIA ed25519 USING 'secret' OR mysql_native_password USING PASSWORD('secret')", "CREATE USER u IDENTIFIED VIA ed25519 USING " + r + " OR mysql_native_password USING PASSWORD(" + r + ")"},
		{usual, "grant all on *.* to 'u'@'%' identified by 'secret' with grant option", "grant all on *.* to 'u'@'%' identified by " + r + " with grant option"},
		{usual, "GRANT USAGE ON *.* TO u IDENTIFIED BY PASSWORD '*SECRET'", "GRANT USAGE ON *.* TO u IDENTIFIED BY PASSWORD " + r},
		{usual, "ALTER USER u IDENTIFIED BY 'secret' REPLACE 'secret2' RETAIN CURRENT PASSWORD", "ALTER USER u IDENTIFIED BY " + r + " REPLACE " + r + " RETAIN CURRENT PASSWORD"},
		{usual, "ALTER USER u ADD 2 FACTOR IDENTIFIED BY 'secret', ADD 3 FACTOR IDENTIFIED WITH x BY \"secret\"", "ALTER USER u ADD 2 FACTOR IDENTIFIED BY " + r + ", ADD 3 FACTOR IDENTIFIED WITH x BY " + r},
		{usual, "ALTER USER u 2 FACTOR FINISH REGISTRATION SET CHALLENGE_RESPONSE AS 'secret'", "ALTER USER u 2 FACTOR FINISH REGISTRATION SET CHALLENGE_RESPONSE AS " + r},
		{usual, "SET PASSWORD FOR 'u'@'h'='*SECRET'", "SET PASSWORD FOR 'u'@'h'=" + r},
		{usual, "set password = password( 'secret' )", "set password = password( " + r + " )"},
		{usual, "UPDATE mysql.user SET `Password` = _latin1'secret', host='%'", "UPDATE mysql.user SET `Password` = _latin1" + r + ", host=" + r},
		{usual, "SET @old_password := CONCAT('sec', x'7265', 'ret'), @b = 'c'", "SET @old_password := CONCAT(" + r + ", " + r + ", " + r + "), @b = 'c'"},
		{usual, "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'remote', HOST 'h', PASSWORD 'secret')", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'remote', HOST 'h', PASSWORD " + r + ")"},
		{usual, "CHANGE MASTER TO MASTER_USER='u', MASTER_PASSWORD = 'secret', MASTER_PORT=1", "CHANGE MASTER TO MASTER_USER='u', MASTER_PASSWORD = " + r + ", MASTER_PORT=1"},
		{usual, "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='secret'", "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD=" + r},
		{usual, "CREATE TABLE f (a int) ENGINE=FEDERATED CONNECTION='mysql://u:secret@h/db/t'", "CREATE TABLE f (a int) ENGINE=FEDERATED CONNECTION=" + r},
		{usual, `CREATE TABLE f (a int) ENGINE=SPIDER COMMENT='user "u", password "secret"'`, "CREATE TABLE f (a int) ENGINE=SPIDER COMMENT=" + r},
		{usual, "INSERT INTO t VALUES (1, aes_encrypt('4111', concat('secret', 'key')), 'shown')", "INSERT INTO t VALUES (1, aes_encrypt(" + r + ", concat(" + r + ", " + r + ")), 'shown')"},
		{usual, "CREATE PROCEDURE p() BEGIN SET @s = \"CREATE USER x IDENTIFIED BY 'secret'\"; PREPARE s FROM @s; END", "CREATE PROCEDURE p() BEGIN SET @s = " + r + "; PREPARE s FROM @s; END"},
		{usual, "CREATE /*!50706 USER */ u /*!IDENTIFIED BY*/ 'secret'", "CREATE /*!50706 USER */ u /*!IDENTIFIED BY*/ " + r},
		{usual, "CREATE USER /* secret */ u IDENTIFIED /* it's 'secret' */ BY -- secret\n 'secret' # secret", "CREATE USER u IDENTIFIED BY " + r + " "},
		{usual, "/* password: secret */ CREATE TABLE t (a int)", "CREATE TABLE t (a int)"},
		{usual, "/* it's harmless */ CREATE TABLE `a``b'` (a int)", "/* it's harmless */ CREATE TABLE `a``b'` (a int)"},
		{plain, `CREATE USER u IDENTIFIED BY 'secret\', v@'h' IDENTIFIED BY 'secret'`, `CREATE USER u IDENTIFIED BY ` + r + `, v@'h' IDENTIFIED BY ` + r},
		{ansi, `CREATE USER "u"@"h" IDENTIFIED BY 'secret'`, `CREATE USER "u"@"h" IDENTIFIED BY ` + r},
		{usual, "create user u identified by 'secret", "create user " + r},
		{usual, "/* create user */ alter user u identified by 'secret", r},
		{usual, "insert into t values ('half", "insert into t values ('half"},
		{usual, "SET STATEMENT max_statement_time=1000 FOR SET PASSWORD FOR 'u'@'h' = '*SECRET'", "SET STATEMENT max_statement_time=1000 FOR SET PASSWORD FOR 'u'@'h' = " + r},
		{usual, "SET STATEMENT sql_mode='ANSI' FOR SET PASSWORD = PASSWORD('secret')", "SET STATEMENT sql_mode='ANSI' FOR SET PASSWORD = PASSWORD(" + r + ")"},
		{usual, "/*!50003 SET PASSWORD */ FOR u /*M!100100 = 'secret' */", "/*!50003 SET PASSWORD */ FOR u /*M!100100 = " + r + " */"},
		{usual, "CREATE PROCEDURE p() BEGIN SET PASSWORD FOR 'u'@'h' = '*SECRET'; SELECT 'x'; END", "CREATE PROCEDURE p() BEGIN SET PASSWORD FOR " + r + "@" + r + " = " + r + "; SELECT " + r + "; END"},
		{usual, "CREATE DEFINER='d'@'h' FUNCTION f() RETURNS INT BEGIN SET @p = 'secret'; EXECUTE IMMEDIATE CONCAT('CREATE USER x IDENTIFIED', ' BY ', @p); END",
			"CREATE DEFINER='d'@'h' FUNCTION f() RETURNS INT BEGIN SET @p = " + r + "; EXECUTE IMMEDIATE CONCAT(" + r + ", " + r + ", @p); END"},
		{usual, "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='secret'", "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW CHANGE MASTER TO MASTER_HOST=" + r + ", MASTER_PASSWORD=" + r},
		{usual, "ALTER EVENT e DO CREATE USER u IDENTIFIED BY 0x736563726574", "ALTER EVENT e DO CREATE USER u IDENTIFIED BY " + r},
		{usual, "CREATE PROCEDURE p() SELECT 'shown'", "CREATE PROCEDURE p() SELECT 'shown'"},
		{usual, "ALTER SERVER s OPTIONS (HOST 'h', PASSWORD 'sec' 'ret', `token` 'secret', 'key' \"secret\", DATABASE 'd')", "ALTER SERVER s OPTIONS (HOST 'h', PASSWORD " + r + " " + r + ", `token` " + r + ", " + r + " " + r + ", DATABASE 'd')"},
		{usual, "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='sec' /* x */ \"ret\", SOURCE_HOST='h'", "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD=" + r + " /* x */ " + r + ", SOURCE_HOST='h'"},
		{usual, "CREATE USER u IDENTIFIED BY 'sec'\n'ret'", "CREATE USER u IDENTIFIED BY " + r + "\n" + r},
		{usual, "CREATE USER u IDENTIFIED BY _utf8mb4 X'736563726574', v IDENTIFIED BY N'secret', w IDENTIFIED BY b'01'", "CREATE USER u IDENTIFIED BY _utf8mb4 " + r + ", v IDENTIFIED BY " + r + ", w IDENTIFIED BY " + r},
		{ansi, `CREATE USER "u"@"h" IDENTIFIED BY "secret"`, `CREATE USER "u"@"h" IDENTIFIED BY ` + r},
		{ansi, `CHANGE MASTER TO MASTER_PASSWORD="secret"`, `CHANGE MASTER TO MASTER_PASSWORD=` + r},
		{usual, "UPDATE t SET a = 1, password = CASE WHEN a = 1 THEN 'secret' ELSE b END, c = 'shown' WHERE d = 'shown'", "UPDATE t SET a = 1, password = CASE WHEN a = 1 THEN " + r + " ELSE b END, c = 'shown' WHERE d = 'shown'"},
		{usual, "UPDATE user SET authentication_string = 'secret' WHERE user = 'u'", "UPDATE user SET authentication_string = " + r + " WHERE user = 'u'"},
		{usual, "INSERT INTO `mysql` . global_priv VALUES ('h', 'u', '{\"x\": \"secret\"}')", "INSERT INTO `mysql` . global_priv VALUES (" + r + ", " + r + ", " + r + ")"},
		{usual, "SET @s = 'CREATE USER x IDENTIFIED\nBY ''secret'' '", "SET @s = " + r},
		{usual, "CREATE PROCEDURE p() BEGIN SET PASSWORD = 'secret", "CREATE PROCEDURE " + r},
		// Without its sql_mode, a text that reads in two ways is not trusted.
		{Mode{}, `CREATE USER u IDENTIFIED BY 'a\', v IDENTIFIED BY 'secret'`, "CREATE USER " + r},
		{Mode{}, `CREATE USER u IDENTIFIED BY 'secret'`, "CREATE USER u IDENTIFIED BY " + r},
		{Mode{}, `INSERT INTO users VALUES ('it\'s')`, `INSERT INTO users VALUES ('it\'s')`},
		{usual, "CREATE TABLE t (password varchar(60) DEFAULT '', note text COMMENT 'n')", "CREATE TABLE t (password varchar(60) DEFAULT '', note text COMMENT 'n')"},
	} {
		got := strings.TrimPrefix(string(Redact([]byte(c.in), c.mode)), " ")
		if got != c.want {
			t.Errorf("%s\nbecomes %s\nwant    %s", c.in, got, c.want)
		}
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	long := "CREATE TABLE t (" + strings.Repeat("é int, ", 200) + "z int)"
	for _, c := range []struct{ in, schema, want string }{
		{"ALTER  TABLE t\n\tADD c int -- why\n, ADD d int", "", "ALTER TABLE t ADD c int , ADD d int"},
		{"DROP TABLE t", "sh`op", "use `sh``op`; DROP TABLE t"},
		{"/*!40000 ALTER TABLE t DISABLE KEYS */", "", "ALTER TABLE t DISABLE KEYS"},
		{"CREATE USER u IDENTIFIED BY 'secret'", "mysql", "use `mysql`; CREATE USER u IDENTIFIED BY <redacted>"},
		{"CREATE TABLE t (a int) COMMENT 'two\nlines \xff \u202e'", "", "CREATE TABLE t (a int) COMMENT 'two lines ?  '"},
		{"create user u identified by 'secret", "", "create user <redacted>"},
		{"", "", ""},
		{long, "", strings.ToValidUTF8(long[:change.MaxNote-3], "") + "…"},
	} {
		got := Note([]byte(c.in), c.schema, usual)
		if got != c.want || len(got) > change.MaxNote {
			t.Errorf("%s\nis noted as %s\nwant        %s", c.in, got, c.want)
		}
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"TRUNCATE t", "-.t"},
		{"truncate table t", "-.t"},
		{"TRUNCATE TABLE `a``b` . `c.d`", "a`b.c.d"},
		{"/* x */ truncate/**/table s.t WAIT 5", "s.t"},
		{"/*!40000 TRUNCATE TABLE t */", "-.t"},
		{"-- x\nTRUNCATE\tt", "-.t"},
		{"TRUNCATE TABLE 'x'", ""},
		{"TRUNCATE", ""},
		{"truncated t", ""},
		{"DELETE FROM t", ""},
		{"TABLE TRUNCATE", ""},
		{"TRUNCATE t.", ""},
	} {
		schema, name, ok := truncated([]byte(c.in), usual)
		if schema == nil {
			schema = []byte("-")
		}
		if got := string(schema) + "." + string(name); ok != (c.want != "") || ok && got != c.want || ok && !mayTruncate([]byte(c.in)) {
			t.Errorf("%q empties %s, %v; want %s", c.in, got, ok, c.want)
		}
	}
}

// FuzzRedact puts a secret behind any beginning that is whole by itself: it must never be
// shown.
func FuzzRedact(f *testing.F) {
	for _, text := range []string{"CREATE USER u", "x /*!", "a 'b\\' c", "-- ", "IDENTIFIED", "\"a", "GRANT x TO ", "@", "`", "0x", "N'", "*/"} {
		f.Add([]byte(text), uint8(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, bits uint8) {
		mode := Mode{Known: bits&1 != 0, ANSIQuotes: bits&2 != 0, NoBackslashEscapes: bits&4 != 0}
		for _, in := range [][]byte{text, append(bytes.Clone(text), " IDENTIFIED BY 'tOpSeCrEt'"...), append(bytes.Clone(text), "\nSOURCE_PASSWORD='tOpSeCrEt'"...)} {
			out := Redact(in, mode)
			note := Note(in, "db", mode)
			if !bytes.Equal(in, text) && !bytes.Contains(text, []byte("tOpSeCrEt")) && secretStands(text, mode) &&
				(bytes.Contains(out, []byte("tOpSeCrEt")) || strings.Contains(note, "tOpSeCrEt")) {
				t.Errorf("%q shows its secret: %q, %q", in, out, note)
			}
			if len(note) > change.MaxNote || !utf8.ValidString(note) || strings.ContainsAny(note, "\n\r") {
				t.Errorf("%q has the note %q", in, note)
			}
		}
	})
}

// secretStands reports whether what is appended to the text is a clause, and not part of a
// string, a comment or a word.
func secretStands(text []byte, mode Mode) bool {
	l := lexer{text: append(bytes.Clone(text), "\nMARK"...), mode: mode}
	for {
		t := l.next()
		switch t.kind {
		case kindBroken:
			return false
		case kindEnd:
			return true
		}
		if t.end == len(l.text) && !l.is(t, "MARK") {
			return false
		}
	}
}
