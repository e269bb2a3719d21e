package rowlog

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
)

// documents are literals of JSON, or what becomes one, of every type of value.
func documents() []string {
	list := []string{"NULL"}
	for _, text := range []string{`{}`, `[]`, `null`, `true`, `false`, `""`, `0`, `-1`, `32767`, `32768`, `-32768`, `-32769`, `65535`, `65536`, `2147483647`, `2147483648`,
		`-2147483648`, `-2147483649`, `4294967295`, `4294967296`, `9223372036854775807`, `-9223372036854775808`, `18446744073709551615`, `18446744073709551616`,
		`1.0`, `-0.0`, `-0`, `1.5`, `1e300`, `1e-7`, `1e15`, `1e16`, `123456789012345678.0`, `0.1`, `5e-324`, `100000000000000000000`, `1e-15`, `1e-16`,
		`{"b": 1, "a": 2, "aa": 3, "B": 4, "": 5, "é": 6, "😀": 7, "k ey": 8}`, `{"a": 1, "a": 2}`, `[1, "two", 3.5, null, true, {"x": [[], {}]}]`,
		`"\u0000\u0001\b\f\n\r\t\u001f\u007f\"\\\/é😀 '"`, `{"\"k\\": "\n"}`, `[70000, -70000, 5000000000, "x"]`,
		strings.Repeat("[", 60) + strings.Repeat("]", 60), strings.Repeat(`{"k": `, 60) + "1" + strings.Repeat("}", 60),
	} {
		list = append(list, quote(text))
	}
	long := `"` + strings.Repeat("é", 40000) + `"`
	list = append(list,
		quote(`{"long": `+long+`, "int": 70000, "small": 1, "n": null, "d": 1.5}`), quote(`[`+long+`, 70000, -70000, 3, true]`), quote(`"`+strings.Repeat("x", 128)+`"`),
		quote(`"`+strings.Repeat("x", 20000)+`"`), quote(`[`+strings.Repeat("1,", 70000)+`1]`),
		"CAST(CAST(1.50 AS DECIMAL(10,2)) AS JSON)", "CAST(CAST(-0.007 AS DECIMAL(10,3)) AS JSON)", "JSON_ARRAY(CAST(12345678901234567890123456789.12 AS DECIMAL(40,5)))",
		"CAST(CAST('2024-02-29' AS DATE) AS JSON)", "CAST(CAST('0000-00-00' AS DATE) AS JSON)", "CAST(CAST('-838:59:59' AS TIME) AS JSON)", "CAST(CAST('12:34:56.789' AS TIME(3)) AS JSON)",
		"CAST(CAST('-00:00:00.000001' AS TIME(6)) AS JSON)", "CAST(CAST('9999-12-31 23:59:59.999999' AS DATETIME(6)) AS JSON)", "CAST(CAST('2024-02-29 01:02:03' AS DATETIME) AS JSON)",
		"CAST(TIMESTAMP'2024-02-29 01:02:03.5' AS JSON)", "JSON_OBJECT('b', CAST('abc\\0' AS BINARY), 'x', x'00ff', 'bit', b'101', 'blob', REPEAT(CAST('z' AS BINARY), 300), 'line', REPEAT(CAST('z' AS BINARY), 57), 'more', REPEAT(CAST('z' AS BINARY), 58))",
		"JSON_OBJECT('year', CAST('2024' AS YEAR), 'f', CAST(1.1 AS FLOAT), 'd', CAST(1 AS DOUBLE), 'g', ST_GeomFromText('POINT(1 2)'))", "JSON_ARRAY(CAST(1 AS UNSIGNED), -1, 1e0, PI())")
	return list
}

// randomJSON writes a document nested so deep at most.
func randomJSON(r *rand.Rand, depth int) string {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch r.IntN(kinds) {
	case 0:
		return []string{"null", "true", "false"}[r.IntN(3)]
	case 1:
		return strconv.FormatInt(r.Int64()>>r.IntN(64), 10)
	case 2:
		return strconv.FormatFloat(r.NormFloat64()*float64(int64(1)<<r.IntN(60)), 'g', -1, 64)
	case 3, 4:
		return strconv.Quote(randomText(r))
	case 5:
		return strconv.FormatUint(r.Uint64(), 10)
	case 6:
		list := make([]string, r.IntN(6))
		for i := range list {
			list[i] = randomJSON(r, depth-1)
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	list := make([]string, r.IntN(6))
	for i := range list {
		list[i] = strconv.Quote(randomKey(r)) + ":" + randomJSON(r, depth-1)
	}
	return "{" + strings.Join(list, ",") + "}"
}

func randomText(r *rand.Rand) string {
	letters := []rune(`abc é😀"\/` + "\t\n")
	b := make([]rune, r.IntN(12))
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

func randomKey(r *rand.Rand) string {
	return []string{"a", "b", "key", "k ey", "é", `q"uote`, `back\slash`, "a.b", "a[0]", "$", "_x1", "1x", "😀", "last"}[r.IntN(14)]
}

// testJSON compares JSON documents with the server's text of them.
func testJSON(t *testing.T, server *dbtest.MySQL) {
	s := newSite(t, server, "json")
	s.exec(t, "CREATE TABLE t (id int PRIMARY KEY, j json, n int)")
	s.mark(t)
	list := documents()
	r := seed()
	for range 300 {
		list = append(list, quote(randomJSON(r, 4)))
	}
	for i, doc := range list {
		s.exec(t, fmt.Sprintf("INSERT INTO t VALUES (%d, %s, %d)", i, doc, i))
	}
	m := follow(t, NewDecoder(nil), s.events(t), "t", s.columns(t, "t"))
	m.compare(t, s.selected(t, "t"))
}

// jsonPath writes a path that may lead into a document.
func jsonPath(r *rand.Rand) string {
	path := "$"
	for range 1 + r.IntN(3) {
		if r.IntN(2) == 0 {
			path += "[" + strconv.Itoa(r.IntN(7)) + "]"
		} else {
			path += "." + strconv.Quote(randomKey(r))
		}
	}
	return quote(path)
}

// testPartialJSON compares documents after updates that log only what they change.
func testPartialJSON(t *testing.T, server *dbtest.MySQL) {
	for _, image := range []string{"FULL", "MINIMAL"} {
		t.Run(image, func(t *testing.T) {
			s := newSite(t, server, "partial_"+strings.ToLower(image))
			s.exec(t, "SET binlog_row_value_options = PARTIAL_JSON, binlog_row_image = "+image)
			s.exec(t, "CREATE TABLE t (id int PRIMARY KEY, a json, n int, b json, t text, c json)")
			r := seed()
			const rows = 12
			for i := range rows {
				docs := make([]any, 2)
				for k := range docs { // large enough for a change to be worth logging alone
					docs[k] = quote(fmt.Sprintf(`{"a": %s, "b": %s, "key": %s, "pad": "%s"}`, randomJSON(r, 4), randomJSON(r, 4), randomJSON(r, 4), strings.Repeat("p", 2000)))
				}
				s.exec(t, fmt.Sprintf("INSERT INTO t VALUES (%d, %s, 1, %s, 'x', NULL)", i, docs[0], docs[1]))
			}
			for i := range 600 {
				var sets []string
				for _, column := range []string{"a", "b", "c"} {
					doc := column
					for range r.IntN(3) {
						switch r.IntN(3) {
						case 0:
							doc = fmt.Sprintf("JSON_SET(%s, %s, CAST(%s AS JSON))", doc, jsonPath(r), quote(randomJSON(r, 2)))
						case 1:
							doc = fmt.Sprintf("JSON_REPLACE(%s, %s, %s)", doc, jsonPath(r), []string{"'text'", "1.50", "NULL", "DATE'2024-02-29'", "17"}[r.IntN(5)])
						case 2:
							doc = fmt.Sprintf("JSON_REMOVE(%s, %s)", doc, jsonPath(r))
						}
					}
					sets = append(sets, column+" = "+doc)
				}
				if r.IntN(10) == 0 {
					sets[r.IntN(3)] = "n = n + 1"
				}
				if r.IntN(40) == 0 {
					sets[2] = "c = JSON_OBJECT('a', JSON_ARRAY(1,2,3), 'pad', REPEAT('p', 500))"
				}
				s.exec(t, fmt.Sprintf("UPDATE t SET %s WHERE id %% 4 = %d", strings.Join(sets, ", "), i%4))
			}
			events := s.events(t)
			if n := count(events, binlog.TypePartialUpdateRows); n < 200 {
				t.Fatalf("only %d partial updates", n)
			}
			if image == "FULL" {
				m := follow(t, NewDecoder(nil), events, "t", s.columns(t, "t"))
				m.compare(t, s.selected(t, "t"))
				if m.lacked > 0 {
					t.Errorf("%d values are not logged", m.lacked)
				}
				return
			}
			lacked := 0
			decode(t, NewDecoder(nil), events, func(ev *change.Event) {
				if ev.Op == change.OpUpdate {
					for i, v := range ev.New {
						if v.State == change.NotLogged && ev.Relation.Columns[i].Type == "json" {
							lacked++
						}
					}
				}
			})
			if lacked < 200 {
				t.Errorf("only %d documents are not logged", lacked)
			}
		})
	}
}
