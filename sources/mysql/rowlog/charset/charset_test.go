package charset

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"txreel/internal/dbtest"
)

// TestServers compares every character of every character set that a server has with
// the server's own conversion, and the numbers of all collations.
func TestServers(t *testing.T) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			server := dbtest.My(t, flavor)
			testCollations(t, server)
			for _, row := range server.MustQuery(t, "", "SELECT character_set_name FROM information_schema.character_sets ORDER BY 1") {
				testSet(t, server, row[0])
			}
		})
	}
}

func testSet(t *testing.T, server *dbtest.MySQL, name string) {
	if name == "binary" {
		if Named(name) != nil {
			t.Error("binary is taken for text")
		}
		return
	}
	c := Named(name)
	if c == nil {
		t.Errorf("character set %s is not known", name)
		return
	}
	checked := 0
	for _, query := range samples(name) {
		for _, row := range server.MustQuery(t, "", query) {
			if row[0] == dbtest.Null || row[1] == dbtest.Null {
				continue
			}
			code, err := hex.DecodeString(row[0])
			if err != nil {
				t.Fatal(err)
			}
			text, err := hex.DecodeString(row[1])
			if err != nil {
				t.Fatal(err)
			}
			want := string(text)
			if strings.ContainsAny(want, "?\ufffd") && string(code) != "?" || want == "" || !utf8.ValidString(want) {
				continue // it has no character for these bytes
			}
			checked++
			got, ok := c.Append(nil, code)
			if !ok || string(got) != want {
				t.Errorf("%s %x: got %q %v, want %q", name, code, got, ok, want)
			}
		}
	}
	if checked < 127 {
		t.Errorf("%s: only %d characters to compare", name, checked)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// samples are queries for the bytes of characters and what the server makes of them.
func samples(name string) []string {
	one := "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < 255) "
	unicode := one + "SELECT HEX(CONVERT(u USING %[1]s)), HEX(CONVERT(u USING utf8mb4)) FROM " +
		"(SELECT CONVERT(UNHEX(LPAD(HEX(b.i*256+a.i + %[2]d*65536), 8, '0')) USING utf32) u FROM n a, n b WHERE %[2]d > 0 OR b.i NOT BETWEEN 216 AND 223) t"
	bytes := func(lead string) string {
		return fmt.Sprintf(one+"SELECT HEX(c), HEX(CONVERT(c USING utf8mb4)) FROM "+
			"(SELECT CHAR(%s b.i, a.i USING %s) c FROM n a, n b WHERE a.i >= 48 AND b.i >= 128) t", lead, name)
	}
	queries := []string{fmt.Sprintf(one+"SELECT HEX(c), HEX(CONVERT(c USING utf8mb4)) FROM (SELECT CHAR(i USING %s) c FROM n) t", name)}
	switch name {
	case "utf8mb3", "ucs2":
		queries = append(queries, fmt.Sprintf(unicode, name, 0))
	case "utf8mb4", "utf16", "utf16le", "utf32", "gb18030":
		queries = append(queries, fmt.Sprintf(unicode, name, 0), fmt.Sprintf(unicode, name, 1), fmt.Sprintf(unicode, name, 16))
	case "ujis", "eucjpms":
		queries = append(queries, bytes(""), bytes("143,"))
	case "gbk", "gb2312", "big5", "euckr", "sjis", "cp932":
		queries = append(queries, bytes(""))
	}
	return queries
}

// testCollations looks up the number of every collation the server knows.
func testCollations(t *testing.T, server *dbtest.MySQL) {
	query := "SELECT id, character_set_name FROM information_schema.collations"
	if server.Flavor == "mariadb" {
		query = "SELECT id, character_set_name FROM information_schema.collation_character_set_applicability"
	}
	rows := server.MustQuery(t, "", query)
	if len(rows) < 200 {
		t.Errorf("only %d collations", len(rows))
	}
	for _, row := range rows {
		var id uint64
		if _, err := fmt.Sscan(row[0], &id); err != nil {
			t.Fatal(err)
		}
		if got := Of(id); got != row[1] {
			t.Errorf("collation %d belongs to %q, want %q", id, got, row[1])
		}
	}
}

// TestNotText refuses what is cut, or no character at all.
func TestNotText(t *testing.T) {
	for _, c := range []struct{ name, in string }{
		{"utf8mb4", "a\xff"}, {"utf8mb3", "\xc3"}, {"ascii", "\x80"}, {"swe7", "\x80"}, {"cp1250", "\x81"},
		{"ucs2", "\x00"}, {"ucs2", "\xd8\x3d\xde\x00"}, {"utf16", "\xd8\x3d"}, {"utf16", "\xd8\x3d\x00a"}, {"utf16", "\xde\x00\x00a"},
		{"utf16le", "a\x00b"}, {"utf32", "\x00\x00\x00"}, {"utf32", "\x00\x11\x00\x00"}, {"utf32", "\x00\x00\xd8\x00"}, {"utf32", "\x80\x00\x00a"},
		{"big5", "\xa4"}, {"gbk", "\x81\x30"}, {"euckr", "\xff\xff"}, {"sjis", "\x81"}, {"cp932", "\x80"},
		{"ujis", "\x8f"}, {"ujis", "\x8f\xa1"}, {"eucjpms", "\x8f\xa1\x20"}, {"gb18030", "\x81\x30"}, {"gb18030", "\x81\x30\x81"}, {"gb18030", "\x81\x30\x81a"},
	} {
		if got, ok := Named(c.name).Append(nil, []byte(c.in)); ok {
			t.Errorf("%s %q: took it for %q", c.name, c.in, got)
		}
	}
	if Named("klingon") != nil || Of(0) != "" || Of(327) != "" || Of(63) != "binary" || Of(1<<40) != "" {
		t.Error("knows what neither server does")
	}
}

func FuzzAppend(f *testing.F) {
	names := []string{"utf8mb4", "ascii", "latin1", "swe7", "big5", "gbk", "gb18030", "sjis", "cp932", "ujis", "eucjpms", "euckr", "ucs2", "utf16", "utf16le", "utf32"}
	sets := make([]*Charset, len(names))
	for i, name := range names {
		sets[i] = Named(name)
		f.Add(uint8(i), []byte("a\xa4\xa4\x8f\xa1\xa1\x81\x30\x81\x30"))
	}
	f.Fuzz(func(t *testing.T, set uint8, in []byte) {
		c := sets[int(set)%len(sets)]
		if out, ok := c.Append(nil, in); ok && !utf8.Valid(out) {
			t.Errorf("%s %q became %q, which is not UTF-8", c.Name, in, out)
		}
	})
}
