package rowlog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"txreel/audit"
	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

var _ audit.Decoder = (*Decoder)(nil)

// newTestDecoder skips the FORMAT_DESCRIPTION.
func newTestDecoder(flavor gtid.Flavor, schema Schema) *Decoder {
	d := NewDecoder(schema)
	d.format = &binlog.Format{Flavor: flavor}
	return d
}

// event frames a body.
func event(typ binlog.Type, body string) []byte {
	return binlog.AppendEvent(nil, binlog.Header{Type: typ}, []byte(body), binlog.ChecksumNone)
}

func unhex(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// What MariaDB 10.11 logged of a table of most of its types, and two rows of it; what a real
// server logs is otherwise compared in TestServers.
func mariadbTable() string {
	return unhex("08000000000001000174000175001203fefefe8d8c8cfefefefefefffc040df60319fe10fe10fe0433000202f701f801fe0ace20fe050404040a03feff030101b8020b3f03080508060807" +
		"2d0a2e0701010428016101750269360269340176016201740165017301630263680262690167016a016601790164017a0a0108050502016101620607030178017901e9080100")
}

func mariadbRows() string {
	return unhex("080000000000010012ffff030000fc010000000e123e4567e89b12d3a456426655441020010db8000000000000000000000001040102030433006162616261626162616261626162616261" +
		"6261626162616261626162616261626162616261626162616261626162616261620f008a01f4cb48cdc9c9cf1825461201000a008a012c7bf97214100b0003030178010079026162190000" +
		"00000000000101000000000000000000f03f0000000000000040080000007b2261223a20317d0000c03f7c80000003008c2a0000000070fc0200000010f81d4fae7dec7000a76500a0c91e" +
		"6bf6000000000000000100000000000080000000000000000000")
}

// simpleTable is a TABLE_MAP of t.s (a int, b varchar(9), j json) with table id 7.
const simpleTable = "\x07\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x01s\x00\x03\x03\x0f\xf5\x03\x09\x00\x04\x07"

// all decodes one event after the other and returns the rows and errors.
func all(t *testing.T, d *Decoder, events ...[]byte) (out []string) {
	t.Helper()
	var ev change.Event
	for _, raw := range events {
		err := d.Decode(raw)
		for is := err == nil; is; {
			if is, err = d.Next(&ev); is {
				out = append(out, ev.Op.String()+row(ev.Old).String()+" ->"+row(ev.New).String())
			}
		}
		if err != nil {
			out = append(out, "error: "+err.Error())
		}
		if is, err := d.Next(&ev); is || err != nil {
			t.Errorf("behind the end of an event: %v, %v", is, err)
		}
	}
	return out
}

func TestRows(t *testing.T) {
	t.Parallel()
	const flags = "\x07\x00\x00\x00\x00\x00\x01\x00\x02\x00\x03"
	json := "\x04\x00\x00\x00\x05\x01\x00" + "" // what follows the length: int16 1 is three bytes
	json = "\x03" + json[1:]
	for _, c := range []struct {
		name string
		typ  binlog.Type
		body string
		want string
	}{
		{"insert", binlog.TypeWriteRows, flags + "\x07" + "\x00\x01\x00\x00\x00\x02hi" + json, "insert -> @1=text \"1\" @2=binary \"hi\" @3=text \"1\""},
		{"null", binlog.TypeWriteRows, flags + "\x07" + "\x06\x01\x00\x00\x00", "insert -> @1=text \"1\" @2=null \"\" @3=null \"\""},
		{"not logged is not null", binlog.TypeWriteRows, flags + "\x03" + "\x02\x01\x00\x00\x00", "insert -> @1=text \"1\" @2=null \"\" @3=not logged \"\""},
		{"delete", binlog.TypeDeleteRows, flags + "\x01" + "\x00\xff\xff\xff\xff", "delete @1=text \"-1\" @2=not logged \"\" @3=not logged \"\" ->"},
		{"update", binlog.TypeUpdateRows, flags + "\x01\x02" + "\x00\x01\x00\x00\x00" + "\x00\x01x", "update @1=text \"1\" @2=not logged \"\" @3=not logged \"\" -> @1=not logged \"\" @2=binary \"x\" @3=not logged \"\""},
		{"an update of nothing", binlog.TypeUpdateRows, flags + "\x01\x00" + "\x00\x01\x00\x00\x00", "update @1=text \"1\" @2=not logged \"\" @3=not logged \"\" -> @1=not logged \"\" @2=not logged \"\" @3=not logged \"\""},
		{"partial", binlog.TypePartialUpdateRows, flags + "\x05\x04" + "\x00\x01\x00\x00\x00" + json + "\x01\x01\x00" + "\x07\x00\x00\x00\x00\x01a\x03\x05\x02\x00",
			"error: column 3 of t.s: malformed JSON"},
		{"partial", binlog.TypePartialUpdateRows, flags + "\x05\x04" + "\x00\x01\x00\x00\x00" + json + "\x01\x01\x00" + "\x07\x00\x00\x00\x00\x01$\x03\x05\x02\x00",
			"update @1=text \"1\" @2=not logged \"\" @3=text \"1\" -> @1=not logged \"\" @2=not logged \"\" @3=text \"2\""},
		{"partial, whole", binlog.TypePartialUpdateRows, flags + "\x05\x04" + "\x00\x01\x00\x00\x00" + json + "\x01\x00\x00" + json,
			"update @1=text \"1\" @2=not logged \"\" @3=text \"1\" -> @1=not logged \"\" @2=not logged \"\" @3=text \"1\""},
		{"partial of what is not logged", binlog.TypePartialUpdateRows, flags + "\x01\x04" + "\x00\x01\x00\x00\x00" + "\x01\x01\x00" + "\x07\x00\x00\x00\x00\x01$\x03\x05\x02\x00",
			"update @1=text \"1\" @2=not logged \"\" @3=not logged \"\" -> @1=not logged \"\" @2=not logged \"\" @3=not logged \"\""},
		{"no rows", binlog.TypeWriteRows, flags + "\x07", ""},
		{"no columns", binlog.TypeWriteRows, flags + "\x00" + "\x00", "error: malformed row"},
		{"cut in a value", binlog.TypeWriteRows, flags + "\x07" + "\x06\x01\x00\x00", "error: malformed row: of t.s, cut within column 1"},
		{"cut in a length", binlog.TypeWriteRows, flags + "\x07" + "\x04\x01\x00\x00\x00", "error: malformed row: of t.s, cut within column 2"},
		{"cut before the diffs", binlog.TypePartialUpdateRows, flags + "\x01\x04" + "\x00\x01\x00\x00\x00", "error: malformed row: of t.s, without the options"},
		{"cut in the options", binlog.TypePartialUpdateRows, flags + "\x01\x04" + "\x00\x01\x00\x00\x00\x01", "error: malformed row: of t.s, cut within the options"},
		{"bad JSON", binlog.TypeWriteRows, flags + "\x04" + "\x00\x01\x00\x00\x00\x05", "error: column 3 of t.s: malformed JSON"},
		{"another width", binlog.TypeWriteRows, "\x07\x00\x00\x00\x00\x00\x01\x00\x02\x00\x02\x03", "error: malformed row: rows of 2 columns, and t.s has 3"},
		{"unknown table", binlog.TypeWriteRows, "\x08\x00\x00\x00\x00\x00\x01\x00\x02\x00\x03\x07", "error: malformed row: rows of table 8"},
		{"end of a statement", binlog.TypeWriteRows, "\xff\xff\xff\x00\x00\x00\x01\x00\x02\x00\x00", ""},
	} {
		d := newTestDecoder(gtid.MySQL, nil)
		good := event(binlog.TypeWriteRows, flags+"\x01"+"\x00\x01\x00\x00\x00")
		got := all(t, d, event(binlog.TypeTableMap, simpleTable), event(c.typ, c.body), good)
		after := "insert -> @1=text \"1\" @2=not logged \"\" @3=not logged \"\""
		if len(got) == 0 || got[len(got)-1] != after {
			t.Errorf("%s: the event behind it became %q", c.name, got)
			continue
		}
		text := strings.Join(got[:len(got)-1], "; ")
		if text != c.want && (c.want == "" || !strings.HasPrefix(c.want, "error") || !strings.HasPrefix(text, c.want)) {
			t.Errorf("%s: got %s\nwant %s", c.name, text, c.want)
		}
	}
}

// TestStrings gives bytes where a character set has no meaning for them.
func TestStrings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ collation, in, want string }{
		{"\x2d", "\xc3\xa9", "insert -> @1=text \"é\""}, {"\x2d", "\xe9", "insert -> @1=binary \"\\xe9\""},
		{"\x08", "\xe9", "insert -> @1=text \"é\""}, {"\x1a", "\x81", "insert -> @1=binary \"\\x81\""}, {"\x3f", "a", "insert -> @1=binary \"a\""},
		{"\xfc\x47\x01", "a", "insert -> @1=binary \"a\""}, // a collation that no server has
	} {
		table := "\x07\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x01s\x00\x01\x0f\x02\x09\x00\x01\x02" + string([]byte{byte(len(c.collation))}) + c.collation
		rows := "\x07\x00\x00\x00\x00\x00\x01\x00\x02\x00\x01\x01\x00" + string([]byte{byte(len(c.in))}) + c.in
		got := all(t, newTestDecoder(gtid.MySQL, nil), event(binlog.TypeTableMap, table), event(binlog.TypeWriteRows, rows))
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%q in collation %x: got %s, want %s", c.in, c.collation, got, c.want)
		}
	}
}

// TestLeftBehind forgets the rows of an event that nobody asked for.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(gtid.MariaDB, nil)
	var ev change.Event
	for _, raw := range [][]byte{event(binlog.TypeTableMap, mariadbTable()), event(binlog.TypeWriteRowsV1, mariadbRows())} {
		if err := d.Decode(raw); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := d.Next(&ev); !is || err != nil {
		t.Fatal(is, err)
	}
	if got := all(t, d, event(binlog.TypeXID, "12345678")); len(got) > 0 {
		t.Errorf("an XID event became %q", got)
	}
}

// TestRelations demands the same Relation for the same table, and another for another.
func TestRelations(t *testing.T) {
	t.Parallel()
	known := func(string, string) ([]Column, bool) {
		return []Column{{Name: "id", Type: "int unsigned", Key: true}, {Name: "name", Type: "varchar(9)", Charset: "latin1"}, {Name: "doc", Type: "json"}}, true
	}
	d := newTestDecoder(gtid.MySQL, known)
	relation := func(body string) *change.Relation {
		t.Helper()
		if err := d.Decode(event(binlog.TypeTableMap, body)); err != nil {
			t.Fatal(err)
		}
		return d.tables[uint64(body[0])].rel
	}
	statement := func(database, text string) {
		t.Helper()
		body := strings.Repeat("\x00", 8) + string([]byte{byte(len(database))}) + "\x00\x00\x00\x00" + database + "\x00" + text
		if err := d.Decode(event(binlog.TypeQuery, body)); err != nil {
			t.Fatal(err)
		}
	}
	first := relation(simpleTable)
	want := []change.Column{{Name: "id", Type: "int unsigned", Key: true}, {Name: "name", Type: "varchar(9)"}, {Name: "doc", Type: "json"}}
	if !slices.Equal(first.Columns, want) {
		t.Errorf("columns are %+v, want %+v", first.Columns, want)
	}
	for _, text := range []string{"TRUNCATE t.s", "insert into t.s values (1)", "GRANT ALL ON t.* TO x", "drop /*!40005 TEMPORARY */ table t.s", "CREATE USER t.s", "create table x.y (a int) comment 't'", "SAVEPOINT t"} {
		statement("other", text)
		if relation("\x09"+simpleTable[1:]) != first {
			t.Fatalf("after %q the same table has another Relation", text)
		}
	}
	for _, c := range [][2]string{{"t", "alter table s add x int"}, {"other", "alter table `t` . s add x int"}, {"other", "RENAME TABLE a.b TO c.d, T.s TO t.q"}, {"", "DROP DATABASE IF EXISTS t"},
		{"other", "/* x */ create /*M!100000 or replace */ table \"t\".s (a int)"}, {"t", "gibberish"}, {"other", "-- note\nALTER SCHEMA # x\n`t` CHARSET latin1"}} {
		d = newTestDecoder(gtid.MySQL, known)
		relation(simpleTable)
		statement(c[0], c[1])
		if got := relation(simpleTable); got.Columns[0].Name != "@1" || got.Columns[0].Key {
			t.Errorf("after %q in %q the schema still stands: %+v", c[1], c[0], got.Columns)
		}
	}
}

// TestManyTables keeps what it knows of tables within bounds, and all tables of a
// transaction.
func TestManyTables(t *testing.T) {
	t.Parallel()
	d := newTestDecoder(gtid.MySQL, nil)
	table := func(id int, name string) []byte {
		return event(binlog.TypeTableMap, string([]byte{byte(id), byte(id >> 8)})+"\x00\x00\x00\x00\x01\x00\x01t\x00"+string([]byte{byte(len(name))})+name+"\x00\x01\x03\x00\x00")
	}
	for txn := range 3 {
		var events [][]byte
		for id := range 3 * maxTables {
			events = append(events, table(id, fmt.Sprintf("t%d_%d", txn, id)))
		}
		events = append(events, event(binlog.TypeWriteRows, "\x00\x00\x00\x00\x00\x00\x01\x00\x02\x00\x01\x01\x00\x01\x00\x00\x00"))
		if got := all(t, d, events...); len(got) != 1 || !strings.HasPrefix(got[0], "insert") {
			t.Fatalf("a row of the first of many tables became %q", got)
		}
		if len(d.known) > 4*maxTables {
			t.Errorf("%d tables are kept", len(d.known))
		}
		all(t, d, event(binlog.TypeAnonymousGTID, strings.Repeat("\x00", 25)))
		if len(d.known) > 0 || len(d.tables) > 0 {
			t.Errorf("%d and %d tables are kept between transactions", len(d.known), len(d.tables))
		}
	}
	wide := func(i int) []byte {
		return event(binlog.TypeTableMap, "\x07\x00\x00\x00\x00\x00"+string([]byte{byte(i), byte(i >> 8)})+"\x01t\x00\x01s\x00\xfd\x00\x80\x00"+strings.Repeat("\x01", 1<<15)+"\x00"+strings.Repeat("\x00", 1<<12))
	}
	refused := false
	for i := 0; i < 40 && !refused; i++ {
		refused = d.Decode(wide(i)) != nil
	}
	if !refused {
		t.Error("any number of columns is kept")
	}
	all(t, d, event(binlog.TypeGTID, ""))
	if err := d.Decode(wide(1)); err != nil {
		t.Errorf("in the next transaction: %v", err)
	}
}

// TestEventErrors goes on after what cannot be decoded.
func TestEventErrors(t *testing.T) {
	t.Parallel()
	d := NewDecoder(nil)
	if err := d.Decode(event(binlog.TypeXID, "12345678")); err == nil || !strings.Contains(err.Error(), "before any FORMAT_DESCRIPTION") {
		t.Errorf("without a format: %v", err)
	}
	if err := d.Decode([]byte("short")); !errors.Is(err, binlog.ErrMalformed) {
		t.Errorf("a short message: %v", err)
	}
	if d.Size([]byte("short")) != 5 {
		t.Error("a short message goes on in the next")
	}
	d.format = &binlog.Format{Flavor: gtid.MySQL}
	if raw := event(binlog.TypeQuery, strings.Repeat("x", 5000)); d.Size(raw[:100]) != int64(len(raw)) {
		t.Error("the size of an event is that of its first piece")
	}
	for _, c := range []struct {
		typ  binlog.Type
		body string
		want string
	}{
		{binlog.TypeIncident, "\x01\x00\x03gap", `incident 1, "gap"`}, {binlog.TypeIncident, "", "malformed"}, {200, "", "cannot decode"}, {binlog.TypePartialRowData, "", "cannot decode"},
		{binlog.TypeQuery, "", "malformed"}, {binlog.TypeTableMap, "", "malformed"}, {binlog.TypeTransactionPayload, "\x01\x01", "malformed"}, {binlog.TypeRowsQuery, "", "malformed"},
		{binlog.TypeTransactionPayload, "\x02\x03\xfc\xff\x00\x00" + string(event(binlog.TypeFormatDescription, strings.Repeat("\x00", 200))), ""},
		{binlog.TypeUserVar, "\x01", "malformed"}, {binlog.TypeUserVar, "\x01\x00\x00\x00a\x00", "malformed"}, {binlog.TypeUserVar, "\x01\x00\x00\x00a", "malformed"},
		{binlog.TypeUserVar, "\x01\x00\x00\x00a\x00\x02\x3f\x00\x00\x00\x01\x00\x00\x00x", "malformed"}, {binlog.TypeUserVar, "\x01\x00\x00\x00a\x00\x09\x3f\x00\x00\x00\x01\x00\x00\x00x", "malformed"},
		{binlog.TypeUserVar, "\x01\x00\x00\x00a\x00\x04\x3f\x00\x00\x00\x01\x00\x00\x00x", "malformed"}, {binlog.TypeBeginLoadQuery, "\x01\x00\x00\x00x", "LOAD DATA"},
	} {
		got := all(t, d, event(c.typ, c.body))
		if len(got) != 1 || !strings.HasPrefix(got[0], "error: ") || !strings.Contains(got[0], c.want) {
			t.Errorf("%s %q: got %q, want an error with %q", c.typ, c.body, got, c.want)
		}
	}
	ignorable := binlog.AppendEvent(nil, binlog.Header{Type: 200, Flags: binlog.FlagIgnorable}, nil, binlog.ChecksumNone)
	if got := all(t, d, ignorable, event(binlog.TypeXID, "12345678"), event(binlog.TypeUserVar, "\x01\x00\x00\x00a\x01")); len(got) != 1 || !strings.HasPrefix(got[0], "message") {
		t.Errorf("what frames became %q", got)
	}
}

// TestCutEverywhere cuts and alters real events at every byte.
func TestCutEverywhere(t *testing.T) {
	t.Parallel()
	table, rows := mariadbTable(), mariadbRows()
	if got := all(t, newTestDecoder(gtid.MariaDB, nil), event(binlog.TypeTableMap, table), event(binlog.TypeWriteRowsV1, rows)); len(got) != 2 {
		t.Fatalf("two rows became %q", got)
	}
	for i := range len(rows) {
		got := all(t, newTestDecoder(gtid.MariaDB, nil), event(binlog.TypeTableMap, table), event(binlog.TypeWriteRowsV1, rows[:i]))
		if len(got) == 2 && !strings.HasPrefix(got[1], "error") {
			t.Errorf("cut at %d it became %q", i, got)
		}
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := []byte(rows)
			b[i] ^= flip
			all(t, newTestDecoder(gtid.MariaDB, nil), event(binlog.TypeTableMap, table), event(binlog.TypeWriteRowsV1, string(b)))
		}
	}
	for i := range len(table) {
		all(t, newTestDecoder(gtid.MariaDB, nil), event(binlog.TypeTableMap, table[:i]), event(binlog.TypeWriteRowsV1, rows))
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := []byte(table)
			b[i] ^= flip
			all(t, newTestDecoder(gtid.MariaDB, nil), event(binlog.TypeTableMap, string(b)), event(binlog.TypeWriteRowsV1, rows))
			all(t, newTestDecoder(gtid.MySQL, nil), event(binlog.TypeTableMap, string(b)), event(binlog.TypeUpdateRowsV1, rows))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(true, mariadbTable(), uint8(binlog.TypeWriteRowsV1), mariadbRows())
	f.Add(false, simpleTable, uint8(binlog.TypePartialUpdateRows), "\x07\x00\x00\x00\x00\x00\x01\x00\x02\x00\x03\x05\x04\x00\x01\x00\x00\x00\x03\x00\x00\x00\x05\x01\x00\x01\x01\x00\x07\x00\x00\x00\x00\x01$\x03\x05\x02\x00")
	f.Add(false, simpleTable, uint8(binlog.TypeUserVar), "\x01\x00\x00\x00a\x00\x04\x3f\x00\x00\x00\x01\x00\x00\x00x")
	f.Add(false, simpleTable, uint8(binlog.TypeQuery), strings.Repeat("\x00", 13)+"\x00alter table t.s add x int")
	f.Fuzz(func(t *testing.T, mariadb bool, table string, typ uint8, body string) {
		flavor := gtid.MySQL
		if mariadb {
			flavor = gtid.MariaDB
		}
		d := newTestDecoder(flavor, func(string, string) ([]Column, bool) {
			return []Column{{Name: "id", Type: "int(3) zerofill"}, {Name: "name", Type: "varchar(9)", Charset: "gbk"}, {Name: "doc", Type: "json"}}, true
		})
		all(t, d, event(binlog.TypeTableMap, table), event(binlog.Type(typ), body))
	})
}

// FuzzDeclared reads types as a manifest may spell them.
func FuzzDeclared(f *testing.F) {
	for _, s := range []string{"int(10) unsigned zerofill", "enum('a','it''s',')')", "decimal(10,2)", "varchar(50) /*M!100301 COMPRESSED*/", "set('a'"} {
		f.Add(s, uint8(binlog.ColumnString), uint16(0xf701))
	}
	f.Fuzz(func(_ *testing.T, text string, typ uint8, meta uint16) {
		c := newColumn(binlog.Column{Type: binlog.ColumnType(typ), Meta: meta})
		d := NewDecoder(nil)
		c.fits(Column{Type: text, Charset: "utf8mb4"}, d.charset)
		_ = c.name()
		if v, _, ok := c.take(make([]byte, 300)); ok {
			_, _ = d.value(&c, v) // whatever it is
		}
	})
}
