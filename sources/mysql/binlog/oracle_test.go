package binlog

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// TestAgainstServers compares what is read of what real servers logged with what the
// vendor's own mysqlbinlog, and the server itself, say of it.
func TestAgainstServers(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			m := dbtest.My(t, flavor)
			files := runCorpus(t, m)
			t.Run("groups", func(t *testing.T) { testGroups(t, m, files) })
			t.Run("rows", func(t *testing.T) { testRows(t, m, files) })
			t.Run("metadata", func(t *testing.T) { testMetadata(t, m, files) })
			t.Run("events", func(t *testing.T) { testEvents(t, m, files) })
			t.Run("made", func(t *testing.T) { testMade(t, m, files) })
		})
	}
}

// printed is what mysqlbinlog prints of one file.
func printed(t *testing.T, m *dbtest.MySQL, file string) string {
	t.Helper()
	text, err := m.Tool(t.Context(), "mysqlbinlog", "--base64-output=decode-rows", "--verbose", file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// group is a group of events as a test sees it.
type group struct {
	id         string
	begin, end uint64
}

var (
	headLine = regexp.MustCompile(`^#\d{6} [ \d]\d:\d\d:\d\d server id \d+  end_log_pos (\d+)(?: CRC32 0x[0-9a-f]{8})? \t(.*)$`)
	nextGTID = regexp.MustCompile(`^SET @@SESSION.GTID_NEXT= '(.*)'/\*!\*/;$`)
	frame    = regexp.MustCompile(`^(Rotate|Stop|Start:|Previous-GTIDs|Gtid list|Binlog checkpoint)`)
	atLine   = regexp.MustCompile(`^# at (\d+)$`)
)

// printedGroups returns the groups that mysqlbinlog prints: each begins with its GTID, and ends with
// the last event before the next one, or before what belongs to the file.
func printedGroups(text string) []group {
	var groups []group
	var at uint64
	open := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := atLine.FindStringSubmatch(line); m != nil {
			at, _ = strconv.ParseUint(m[1], 10, 64)
		}
		if m := nextGTID.FindStringSubmatch(line); m != nil && m[1] != "AUTOMATIC" {
			groups[len(groups)-1].id = m[1]
		}
		m := headLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		end, _ := strconv.ParseUint(m[1], 10, 64)
		switch {
		case strings.HasPrefix(m[2], "GTID"), strings.HasPrefix(m[2], "Anonymous_GTID"):
			id, _, _ := strings.Cut(strings.TrimPrefix(m[2], "GTID "), " ")
			groups, open = append(groups, group{id: id, begin: at}), true
		case frame.MatchString(m[2]):
			open = false
		}
		if open {
			groups[len(groups)-1].end = end
		}
	}
	return groups
}

// testGroups compares the groups of the Grouper with those that mysqlbinlog prints, and MySQL's
// own lengths of them. All groups before a file are what its beginning says.
func testGroups(t *testing.T, m *dbtest.MySQL, files []string) {
	held := gtid.New(flavorOf(m))
	var g Grouper
	for _, file := range files {
		var groups []group
		eachEvent(t, file, func(at uint64, f *Format, e *Event) {
			if f.Flavor != flavorOf(m) || !strings.HasPrefix(f.Version, m.Version) {
				t.Fatalf("the format says %s %s, the server is %s", f.Flavor, f.Version, m.Version)
			}
			place, torn, err := g.Next(e)
			if err != nil || torn {
				t.Fatalf("%s at %d: torn %v, %v", file, at, torn, err)
			}
			end := at + uint64(e.Size)
			switch place {
			case Begins:
				groups = append(groups, group{id: g.Group.GTID.String(), begin: at})
				if g.Group.Anonymous {
					groups[len(groups)-1].id = "ANONYMOUS"
				} else if !held.Add(g.Group.GTID) {
					t.Errorf("%s comes twice", g.Group.GTID)
				}
				if secs := int64(g.Group.CommitTime() / 1e6); secs-int64(e.Timestamp) > 60 || int64(e.Timestamp)-secs > 60 {
					t.Errorf("%s was committed at %s, its statement began at %d", g.Group.GTID, g.Group.CommitTime(), e.Timestamp)
				}
			case Ends:
				last := &groups[len(groups)-1]
				last.end = end
				if n := g.Group.Length; n != 0 && n != end-last.begin || n == 0 && f.Flavor == gtid.MySQL {
					t.Errorf("%s has %d bytes, it says %d", last.id, end-last.begin, n)
				}
			case Stray:
				t.Errorf("%s at %d: a stray %s event", file, at, e.Type)
			case Frame:
				if e.Type == TypePreviousGTIDs || e.Type == TypeGTIDList {
					if before, err := ParsePrevious(e); err != nil || !before.Equal(held) {
						t.Errorf("%s says that %s came before it, but %s did: %v", file, before, held, err)
					} else if f.Flavor == gtid.MySQL && !bytes.Equal(before.EncodeMySQL(), e.Body) {
						t.Errorf("%s is encoded as %x, by the server as %x", before, before.EncodeMySQL(), e.Body)
					}
				}
			}
		})
		if g.Open() {
			t.Errorf("%s ends within a group", file)
		}
		if want := printedGroups(printed(t, m, file)); !slices.Equal(groups, want) {
			t.Errorf("%s: %d groups, mysqlbinlog prints %d", file, len(groups), len(want))
			for i := range min(len(groups), len(want)) {
				if groups[i] != want[i] {
					t.Errorf("the first that differs: %+v, want %+v", groups[i], want[i])
					break
				}
			}
		}
	}
	query := map[gtid.Flavor]string{gtid.MySQL: "SELECT @@gtid_executed", gtid.MariaDB: "SELECT @@gtid_binlog_pos"}[flavorOf(m)]
	said, err := gtid.Parse(flavorOf(m), m.MustQuery(t, "", query)[0][0])
	if err != nil || !said.Equal(held) {
		t.Errorf("the server executed %s, the files hold %s: %v", said, held, err)
	}
	if held.Flavor() == gtid.MySQL && (held.Count() < 130 || !strings.Contains(held.String(), ":tag_1:")) || held.Flavor() == gtid.MariaDB && len(held.Domains()) != 2 {
		t.Errorf("the corpus is poor: %s", held)
	}
}

var rowLine = regexp.MustCompile("^### (INSERT INTO|UPDATE|DELETE FROM) (`.*`)$")

// testRows compares the Counter's counts with the rows that mysqlbinlog prints.
func testRows(t *testing.T, m *dbtest.MySQL, files []string) {
	c := NewCounter()
	tables := map[string]*change.Table{}
	for _, file := range files {
		got, want := map[string]uint64{}, map[string]uint64{}
		truncates := 0
		eachEvent(t, file, func(at uint64, f *Format, e *Event) {
			touched, whole := c.Count(e, f)
			if !whole {
				t.Errorf("%s at %d: a %s event cannot be counted", file, at, e.Type)
			}
			for _, touch := range touched {
				name := touch.Table.String()
				if tables[name] != nil && tables[name] != touch.Table {
					t.Errorf("%s is two tables", name)
				}
				tables[name] = touch.Table
				if touch.Op == change.OpTruncate {
					truncates++
					continue
				}
				got[fmt.Sprintf("%s `%s`.`%s`", touch.Op, touch.Table.Schema, touch.Table.Name)] += touch.Rows
			}
		})
		ops := map[string]change.Op{"INSERT INTO": change.OpInsert, "UPDATE": change.OpUpdate, "DELETE FROM": change.OpDelete}
		text := printed(t, m, file)
		for line := range strings.Lines(text) {
			if r := rowLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); r != nil {
				want[ops[r[1]].String()+" "+strings.ReplaceAll(r[2], "``", "`")]++
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: counted %v\nmysqlbinlog prints %v", file, got, want)
		}
		if n := len(regexp.MustCompile(`(?mi)^(/\* why \*/ )?truncate`).FindAllString(text, -1)); n != truncates {
			t.Errorf("%s: %d tables emptied, mysqlbinlog prints %d", file, truncates, n)
		}
	}
}

// testMetadata compares what TABLE_MAP events say of columns with the server's own
// catalog.
func testMetadata(t *testing.T, m *dbtest.MySQL, files []string) {
	type table struct {
		TableMap
		*Metadata
	}
	last := map[string]table{}
	see := func(e *Event, f *Format) {
		var tm TableMap
		e = &Event{Header: e.Header, Raw: bytes.Clone(e.Raw), Body: bytes.Clone(e.Body)}
		if err := tm.Parse(e, f); err != nil {
			t.Fatal(err)
		}
		meta, err := tm.ParseMetadata(e)
		if err != nil {
			t.Fatal(err)
		}
		last[string(tm.Schema)+"."+string(tm.Name)] = table{tm, meta}
	}
	eachInner(t, files, see)
	keys := map[string][]string{}
	for _, r := range m.MustQuery(t, "", "SELECT table_schema, table_name, column_name FROM information_schema.statistics WHERE index_name = 'PRIMARY' ORDER BY 1, 2, seq_in_index") {
		keys[r[0]+"."+r[1]] = append(keys[r[0]+"."+r[1]], r[2])
	}
	catalog := map[string][][]string{}
	for _, r := range m.MustQuery(t, "", `SELECT c.table_schema, c.table_name, c.column_name, c.column_type, c.extra, COALESCE(k.id, 0), c.is_nullable, c.column_default
		FROM information_schema.columns c LEFT JOIN information_schema.collations k ON k.collation_name = c.collation_name
		WHERE c.table_schema IN ('c', 'm', 'd2') ORDER BY 1, 2, c.ordinal_position`) {
		catalog[r[0]+"."+r[1]] = append(catalog[r[0]+"."+r[1]], r[2:])
	}
	compared := 0
	for name, seen := range last {
		columns := catalog[name]
		if columns == nil || len(columns) != len(seen.TableMap.Columns) {
			continue // dropped, or altered since
		}
		compared++
		var key []string
		for _, part := range seen.Key {
			key = append(key, string(seen.Metadata.Columns[part.Column].Name))
		}
		if !slices.Equal(key, keys[name]) {
			t.Errorf("%s: key %v, want %v", name, key, keys[name])
		}
		for i, want := range columns {
			col, meta := seen.TableMap.Columns[i], seen.Metadata.Columns[i]
			what := fmt.Sprintf("%s.%s %s", name, want[0], want[1])
			if string(meta.Name) != want[0] {
				t.Errorf("%s: name %s", what, meta.Name)
			}
			if meta.Unsigned != (strings.Contains(want[1], "unsigned") || strings.HasPrefix(want[1], "year")) {
				t.Errorf("%s: unsigned %v", what, meta.Unsigned)
			}
			if meta.Invisible != strings.Contains(want[2], "INVISIBLE") && flavorOf(m) == gtid.MySQL {
				t.Errorf("%s: invisible %v, %s", what, meta.Invisible, want[2])
			}
			if id, _ := strconv.Atoi(want[3]); id != 0 && meta.Collation != uint32(id) && (col.character() || col.enumOrSet()) {
				t.Errorf("%s: collation %d, want %d", what, meta.Collation, id)
			}
			if bit(seen.Nullable, i) != (want[4] == "YES") {
				t.Errorf("%s: nullable %v", what, !bit(seen.Nullable, i))
			}
			real, length := col.Real()
			switch word, _, _ := strings.Cut(want[1], "("); word {
			case "enum", "set":
				var members []string
				for _, member := range meta.Members {
					text := string(member)
					if meta.Collation == 8 { // latin1_swedish_ci
						text = strings.Map(func(r rune) rune { return r }, string([]rune(latin1(member))))
					}
					members = append(members, "'"+strings.ReplaceAll(text, "'", "''")+"'")
				}
				if got := word + "(" + strings.Join(members, ",") + ")"; got != want[1] {
					t.Errorf("%s: %s", what, got)
				}
				if (real == ColumnEnum) != (word == "enum") || (real == ColumnSet) != (word == "set") {
					t.Errorf("%s: type %d", what, real)
				}
			case "binary":
				if want[1] != fmt.Sprintf("binary(%d)", length) {
					t.Errorf("%s: length %d", what, length)
				}
			case "vector":
				if want[1] != fmt.Sprintf("vector(%d)", meta.Dimension) {
					t.Errorf("%s: dimension %d", what, meta.Dimension)
				}
			case "point":
				if meta.Geometry != 1 {
					t.Errorf("%s: geometry %d", what, meta.Geometry)
				}
			}
		}
	}
	if compared < 12 {
		t.Errorf("only %d tables compared", compared)
	}
}

func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

// eachInner visits the TABLE_MAP events of files, those in payloads included.
func eachInner(t *testing.T, files []string, visit func(e *Event, f *Format)) {
	var u Unpacker
	for _, file := range files {
		eachEvent(t, file, func(_ uint64, f *Format, e *Event) {
			switch e.Type {
			case TypeTableMap:
				visit(e, f)
			case TypeTransactionPayload:
				p, err := ParsePayload(e)
				if err == nil {
					err = u.Open(&p)
				}
				var total uint64
				for err == nil {
					var inner Event
					if inner, err = u.Next(1 << 20); err == nil {
						total += uint64(inner.Size)
						if inner.Type == TypeTableMap {
							visit(&inner, f)
						}
					}
				}
				if total != p.Size {
					t.Errorf("a payload of %d bytes says %d: %v", total, p.Size, err)
				}
			}
		})
	}
}

// testEvents reads everything else that the files hold, and demands that they hold it.
func testEvents(t *testing.T, m *dbtest.MySQL, files []string) {
	var in Inflater
	seen := map[Type]int{}
	var statements, shown strings.Builder
	for i, file := range files {
		eachEvent(t, file, func(at uint64, f *Format, e *Event) {
			seen[e.Type]++
			var err error
			switch e.Type {
			case TypeQuery, TypeQueryCompressed, TypeExecuteLoadQuery:
				var q Query
				if q, err = ParseQuery(e); err != nil {
					break
				}
				var text []byte
				if text, err = in.Text(&q, 1<<20); err != nil {
					break
				}
				if mode := q.Mode(); !mode.Known || mode.ANSIQuotes || mode.NoBackslashEscapes {
					t.Errorf("%s at %d: %+v", file, at, mode)
				}
				statements.Write(append(text, '\n'))
				shown.Write(append(Redact(text, q.Mode()), '\n'))
				note := in.Note(e)
				shown.WriteString(note + "\n")
				words := strings.Fields(strings.ToUpper(string(text)))
				if (note == "") != slices.Contains([]string{"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT"}, words[0]) && words[1] != "START" && words[1] != "END" {
					t.Errorf("%s at %d: %q has the note %q", file, at, text, note)
				}
				if e.Type == TypeExecuteLoadQuery && !bytes.HasPrefix(q.Text[q.FileNameAt:], []byte(" INFILE '")) && !bytes.Contains(q.Text[q.FileNameAt:q.FileNameEnd], []byte("INFILE")) {
					t.Errorf("the file's name is said to be at %q", q.Text[q.FileNameAt:q.FileNameEnd])
				}
			case TypeRowsQuery, TypeAnnotateRows:
				var text []byte
				if text, err = ParseRowsQuery(e); err == nil {
					statements.Write(append(text, '\n'))
					shown.Write(append(Redact(text, Mode{}), '\n'))
				}
			case TypeXID:
				_, err = ParseXID(e)
			case TypeXAPrepare:
				var x XAID
				if x, err = ParseXAPrepare(e); err == nil && (x.Format != 1 && x.Format != 77 || len(x.Global) == 0 || x.OnePhase != (string(x.Global) == "x3")) {
					t.Errorf("%s at %d: %+v", file, at, x)
				}
			case TypeRotate:
				var r Rotate
				if r, err = ParseRotate(e); err == nil && (r.Position != 4 || i+1 < len(files) && string(r.Name) != filepath.Base(files[i+1])) {
					t.Errorf("%s is followed by %+v", file, r)
				}
			case TypeMariaDBGTID:
				var g Group
				if g, err = ParseGroup(e); err == nil && g.Flags&(FLPreparedXA|FLCompletedXA) != 0 && (len(g.XAID.Global) == 0 || g.XAID.Global[0] != 'x') {
					t.Errorf("%s at %d: %+v", file, at, g)
				}
				if g.FlagsMore&(FLXCommitAlter|FLXRollbackAlter) != 0 && (g.AlterID == 0 || g.AlterID >= g.GTID.N) {
					t.Errorf("%s at %d: %+v", file, at, g)
				}
			}
			if err != nil {
				t.Errorf("%s at %d: %v", file, at, err)
			}
		})
	}
	want := []Type{TypeFormatDescription, TypeQuery, TypeRotate, TypeXID, TypeIntvar, TypeRand, TypeUserVar, TypeTableMap, TypeBeginLoadQuery, TypeExecuteLoadQuery, TypeXAPrepare}
	if flavorOf(m) == gtid.MySQL {
		want = append(want, TypeWriteRows, TypeUpdateRows, TypeDeleteRows, TypePartialUpdateRows, TypeRowsQuery, TypeGTID, TypeAnonymousGTID, TypeGTIDTagged, TypePreviousGTIDs, TypeTransactionPayload)
	} else {
		want = append(want, TypeWriteRowsV1, TypeUpdateRowsV1, TypeDeleteRowsV1, TypeAnnotateRows, TypeMariaDBGTID, TypeGTIDList, TypeBinlogCheckpoint, TypeQueryCompressed,
			TypeWriteRowsCompressedV1, TypeUpdateRowsCompressedV1, TypeDeleteRowsCompressedV1)
	}
	for _, typ := range want {
		if seen[typ] == 0 {
			t.Errorf("the corpus made no %s event: %v", typ, seen)
		}
	}
	secret := regexp.MustCompile(`topsecret|\*[0-9A-F]{40}|\$A\$00`)
	if n := len(secret.FindAllString(statements.String(), -1)); n < 2 {
		t.Errorf("the corpus logged %d passwords", n)
	}
	if secret.MatchString(shown.String()) {
		t.Error("a password, or the hash of one, is shown")
	}
}

// testMade makes a file of events that were built or moved, and lets mysqlbinlog read and
// verify it.
func testMade(t *testing.T, m *dbtest.MySQL, files []string) {
	out := []byte(Magic)
	held := gtid.New(flavorOf(m))
	h := Header{ServerID: 5, Timestamp: 1_700_000_000}
	next := func(size int) uint32 { return uint32(len(out) + size) }
	count := 0
	eachEvent(t, files[0], func(at uint64, f *Format, e *Event) {
		switch e.Type {
		case TypeFormatDescription:
			out = AppendMoved(out, e, next(len(e.Raw)))
			h.LogPos = next(HeaderSize + len(held.EncodeList()) + 4)
			if f.Flavor == gtid.MySQL {
				h.LogPos = next(HeaderSize + 8 + 4)
			}
			out = AppendPrevious(out, h, held, f.Checksum)
			resumed, err := Resume(e)
			if err == nil {
				var again Event
				if again, err = f.Parse(resumed); err == nil {
					err = again.Verify()
				}
				if f2, err2 := ParseFormat(&again); err2 != nil || f2.Created != 0 || f2.Version != f.Version {
					t.Errorf("a resumed format is %+v, %v", f2, err2)
				}
			}
			if err != nil {
				t.Error(err)
			}
		case TypePreviousGTIDs, TypeGTIDList, TypeBinlogCheckpoint:
		case TypeRotate:
			h.LogPos = next(HeaderSize + 8 + len("binlog.000009") + 4)
			out = AppendRotate(out, h, Rotate{Position: 4, Name: []byte("binlog.000009")}, f.Checksum)
		default:
			if e.Type.Begins() {
				count++
			}
			out = AppendMoved(out, e, next(len(e.Raw)))
		}
	})
	file := filepath.Join(t.TempDir(), "binlog.000001")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := m.Tool(t.Context(), "mysqlbinlog", "--verify-binlog-checksum", "--base64-output=decode-rows", "--verbose", file)
	if err != nil {
		t.Fatal(err)
	}
	groups := printedGroups(text)
	if len(groups) != count || !strings.Contains(text, "Rotate to binlog.000009  pos: 4") {
		t.Errorf("mysqlbinlog finds %d groups in the made file, want %d", len(groups), count)
	}
	eachEvent(t, file, func(at uint64, _ *Format, e *Event) {
		if uint64(e.LogPos) != at+uint64(e.Size) {
			t.Fatalf("a %s event at %d of %d bytes says that %d follows", e.Type, at, e.Size, e.LogPos)
		}
	})
}
