package rowlog

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// sample is a type with values at its extremes, as literals of SQL, and a source of
// more.
type sample struct {
	typ    string
	values []string
	random func(*rand.Rand) string
}

func numbers() []sample {
	out := []sample{{"year", []string{"0", "1901", "2155", "2024"}, nil}} // first: MariaDB counts it among the signs
	for _, n := range []struct {
		name string
		bits int
	}{{"tinyint", 8}, {"smallint", 16}, {"mediumint", 24}, {"int", 32}, {"bigint", 64}} {
		high := new(big.Int).Lsh(big.NewInt(1), uint(n.bits-1))
		top := new(big.Int).Sub(new(big.Int).Lsh(high, 1), big.NewInt(1))
		out = append(out,
			sample{n.name, []string{"-" + high.String(), new(big.Int).Sub(high, big.NewInt(1)).String(), "0", "-1", "1"},
				func(r *rand.Rand) string { return strconv.FormatInt(r.Int64()>>(64-n.bits), 10) }},
			sample{n.name + " unsigned", []string{"0", top.String(), high.String(), "1"},
				func(r *rand.Rand) string { return strconv.FormatUint(r.Uint64()>>(64-n.bits), 10) }})
	}
	for _, d := range [][2]int{{1, 0}, {1, 1}, {9, 0}, {9, 9}, {10, 2}, {18, 9}, {19, 10}, {30, 30}, {65, 0}, {65, 30}, {38, 7}, {64, 1}} {
		p, s := d[0], d[1]
		digits := func(whole, frac string) string {
			text := whole
			if p == s {
				text = "0"
			}
			if s > 0 {
				text += "." + frac
			}
			return text
		}
		most := digits(strings.Repeat("9", p-s), strings.Repeat("9", s))
		least := digits("0", strings.Repeat("0", max(s-1, 0))+"1")
		out = append(out,
			sample{fmt.Sprintf("decimal(%d,%d)", p, s), []string{most, "-" + most, "0", least, "-" + least},
				func(r *rand.Rand) string {
					b := make([]byte, p)
					for i := range b {
						b[i] = '0' + byte(r.IntN(10))
					}
					text := digits(string(b[:p-s]), string(b[p-s:]))
					if r.IntN(2) == 0 {
						text = "-" + text
					}
					return text
				}},
			sample{fmt.Sprintf("decimal(%d,%d) unsigned", p, s), []string{most, "0", least}, nil})
	}
	double := func(r *rand.Rand) string {
		for {
			if f := math.Float64frombits(r.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
				return strconv.FormatFloat(f, 'e', 17, 64)
			}
		}
	}
	single := func(r *rand.Rand) string {
		for {
			if f := math.Float32frombits(r.Uint32()); f == f && !math.IsInf(float64(f), 0) {
				return strconv.FormatFloat(float64(f), 'e', 17, 64)
			}
		}
	}
	return append(out,
		sample{"float", []string{"0", "-0e0", "1.1", "-1.5", "16777216", "16777217", "3.4028234e38", "-3.4028234e38", "1.17549435e-38", "1e-45", "123456.7", "1e15", "1e14", "0.0001"}, single},
		sample{"float unsigned", []string{"0", "1.5"}, nil},
		sample{"float(7,2)", []string{"0", "1.1", "-99999.99", "12345.67"}, nil},
		sample{"double", []string{"0", "-0e0", "1.1", "1e20", "1e15", "1e14", "123456789012345680", "1234567890123456.7", "1e-14", "1e-15", "1e-16", "1.5e300",
			"1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "0.1", "100000000000000000000", "12345678.9", "1e22", "9007199254740993"}, double},
		sample{"double(20,5)", []string{"0", "1.1", "-99999.99", "123456789.12345"}, nil},
		sample{"int(7) zerofill", []string{"0", "42", "12345678"}, nil},
		sample{"bigint(20) zerofill", []string{"0", "42", "18446744073709551615"}, nil},
		sample{"decimal(10,3) zerofill", []string{"0", "3.14", "9999999.999"}, nil},
		sample{"bit(1)", []string{"b'0'", "b'1'"}, nil},
		sample{"bit(9)", []string{"b'0'", "b'111111111'", "b'100000000'"}, nil},
		sample{"bit(64)", []string{"b'0'", "b'" + strings.Repeat("1", 64) + "'", "b'1" + strings.Repeat("0", 63) + "'"}, nil},
	)
}

func temporals() []sample {
	between := func(format string, limits ...int) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			args := make([]any, len(limits))
			for i, n := range limits {
				args[i] = r.IntN(n)
			}
			return fmt.Sprintf("'"+format+"'", args...)
		}
	}
	out := []sample{
		{"date", []string{"'0000-00-00'", "'2024-00-00'", "'2024-02-00'", "'1000-01-01'", "'9999-12-31'", "'2024-02-29'", "'0001-01-01'"}, between("%04d-1%d-2%d", 10000, 3, 9)},
	}
	for fsp := range 7 {
		suffix := ""
		if fsp > 0 {
			suffix = fmt.Sprintf("(%d)", fsp)
		}
		out = append(out,
			sample{"time" + suffix, []string{"'00:00:00'", "'838:59:59'", "'-838:59:59'", "'-00:00:00.000001'", "'-00:00:01.5'", "'-12:34:56.789012'", "'12:34:56.789012'", "'-00:00:00.9'",
				"'-00:00:01.000001'", "'-838:59:58.999999'"}, func(r *rand.Rand) string {
				return fmt.Sprintf("'%s%d:%d:%d.%06d'", []string{"", "-"}[r.IntN(2)], r.IntN(838), r.IntN(60), r.IntN(60), r.IntN(1000000))
			}},
			sample{"datetime" + suffix, []string{"'0000-00-00 00:00:00'", "'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'2024-02-29 12:34:56.789012'", "'0001-01-01 00:00:00.000001'", "'2024-00-00 01:02:03'"},
				between("%04d-1%d-2%d 1%d:%d:%d.%06d", 10000, 3, 9, 10, 60, 60, 1000000)},
			sample{"timestamp" + suffix + " NULL", []string{"'0000-00-00 00:00:00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'2024-02-29 12:34:56.789012'", "'2000-02-29 23:59:59.999998'", "'2001-03-01 00:00:00'"},
				between("20%02d-1%d-2%d 1%d:%d:%d.%06d", 37, 3, 9, 10, 60, 60, 1000000)})
	}
	return out
}

func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}

func randomBytes(most int) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = byte(r.Uint32() >> (r.IntN(2) * 24)) // many zeros
		}
		return "x'" + hex.EncodeToString(b) + "'"
	}
}

func binaries() []sample {
	long := "REPEAT('ab\\0', 30000)"
	return []sample{
		{"binary(8)", []string{"x'0102000000000000'", "''", "x'00'", "x'ffffffffffffffff'", "'ab'", "'ab  '"}, randomBytes(8)},
		{"binary(0)", []string{"''"}, nil},
		{"binary(255)", []string{"'x'", "''", "REPEAT('y', 255)"}, randomBytes(255)},
		{"varbinary(8)", []string{"x'0102000000000000'", "''", "x'00'", "'ab  '"}, randomBytes(8)},
		{"varbinary(300)", []string{"''", "REPEAT('y', 300)", "x'00'"}, randomBytes(300)},
		{"tinyblob", []string{"''", "x'00ff00'", "REPEAT('x', 255)"}, randomBytes(255)},
		{"blob", []string{"''", "x'00ff00'", "REPEAT('x', 65535)"}, randomBytes(600)},
		{"mediumblob", []string{"''", "x'00ff00'", long}, randomBytes(600)},
		{"longblob", []string{"''", "x'00ff00'", long}, randomBytes(600)},
		{"enum('a','b','it''s','ü,','')", []string{"'a'", "'b'", "'it''s'", "'ü,'", "''", "'none'", "1"}, nil},
		{"enum(" + manyMembers(300) + ")", []string{"'m1'", "'m255'", "'m256'", "'m300'", "'none'"}, nil},
		{"set('a','b','it''s','ü')", []string{"'a'", "'a,b'", "''", "'it''s,ü'", "'a,b,it''s,ü'"}, nil},
		{"set(" + manyMembers(64) + ")", []string{"'m1'", "'m64'", "'m1,m64'", "''", "'m2,m33,m40'"}, nil},
		{`enum('a\\b','x\ny','q"')`, []string{"1", "2", "3"}, nil},
		{`set('a\\','it''s','\r\0')`, []string{"1", "2", "3", "4"}, nil},
		{"enum('é','ж') CHARACTER SET cp1251", []string{"'ж'"}, nil},
		{"set('é','ü') CHARACTER SET latin1", []string{"'é,ü'", "'ü'"}, nil},
	}
}

func manyMembers(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("'m%d'", i+1)
	}
	return strings.Join(list, ",")
}

// texts has a few columns of every character set.
func texts(mysql bool) []sample {
	sets := map[string]string{
		"armscii8": "Հայ", "ascii": "plain ~", "big5": "中文", "cp1250": "žluťoučký", "cp1251": "жёлтый", "cp1256": "\u0633\u0644\u0627\u0645", "cp1257": "ąčęė",
		"cp850": "éüß", "cp852": "žluť", "cp866": "жёлтый", "cp932": "日本語①～", "dec8": "éü", "eucjpms": "日本語①", "euckr": "한국어", "gb2312": "中国",
		"gbk": "中國", "geostd8": "ქართ", "greek": "Ελλάδα", "hebrew": "\u05e9\u05dc\u05d5\u05dd", "hp8": "éü", "keybcs2": "žluť", "koi8r": "жёлтый", "koi8u": "жїґ", "latin1": "é€\u0081ÿ",
		"latin2": "žluť", "latin5": "ığş", "latin7": "ąčę", "macce": "žluť", "macroman": "éü", "sjis": "日本語〜\\", "swe7": "ÅÄÖ", "tis620": "\u0e44\u0e17\u0e22", "ucs2": "é中",
		"ujis": "日本語〜", "utf16": "é中😀", "utf16le": "é中😀", "utf32": "é中😀", "utf8mb3": "é中", "utf8mb4": "é中😀",
	}
	if mysql {
		sets["gb18030"] = "中國😀"
	}
	var out []sample
	for _, set := range slices.Sorted(maps.Keys(sets)) {
		text := sets[set]
		values := []string{quote(text), "''", quote(text + text), "'a'", "'trailing  '", `'it''s "\\" \n'`}
		if set == "swe7" {
			values[5] = "'x'"
		}
		letters := []rune(text)
		random := func(r *rand.Rand) string {
			b := make([]rune, r.IntN(10))
			for i := range b {
				b[i] = letters[r.IntN(len(letters))]
			}
			return quote(string(b))
		}
		out = append(out,
			sample{"char(20) CHARACTER SET " + set, values, random},
			sample{"varchar(20) CHARACTER SET " + set, values, random},
			sample{"text CHARACTER SET " + set, append(values, "REPEAT("+quote(text)+", 500)"), random})
	}
	return append(out,
		sample{"char(0)", []string{"''"}, nil},
		sample{"char(255) CHARACTER SET utf8mb4", []string{"''", "REPEAT('😀', 255)", "'x'"}, nil},
		sample{"varchar(0)", []string{"''"}, nil},
		sample{"varchar(300) CHARACTER SET utf8mb4", []string{"''", "REPEAT('😀', 300)", "'x'"}, nil},
		sample{"tinytext", []string{"''", "REPEAT('x', 255)"}, nil},
		sample{"mediumtext", []string{"''", "REPEAT('é', 40000)"}, nil},
		sample{"longtext", []string{"''", "REPEAT('é', 40000)"}, nil})
}

func spatials(mysql bool) []sample {
	out := []sample{
		{"geometry", []string{"ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)')"}, nil},
		{"point", []string{"ST_GeomFromText('POINT(1.5 -2)')"}, nil},
		{"linestring", []string{"ST_GeomFromText('LINESTRING(0 0,1 1,2 2)')"}, nil},
		{"polygon", []string{"ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 10,0 0))')"}, nil},
		{"multipoint", []string{"ST_GeomFromText('MULTIPOINT(0 0,1 1)')"}, nil},
		{"multilinestring", []string{"ST_GeomFromText('MULTILINESTRING((0 0,1 1),(2 2,3 3))')"}, nil},
		{"multipolygon", []string{"ST_GeomFromText('MULTIPOLYGON(((0 0,3 0,3 3,0 3,0 0)))')"}, nil},
		{"geometrycollection", []string{"ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')"}, nil},
		// MariaDB counts geometries among the character sets.
		{"varchar(9) CHARACTER SET latin1", []string{"'é'"}, nil},
		{"varchar(9) CHARACTER SET cp1251", []string{"'ж'"}, nil},
	}
	if mysql {
		out = append(out,
			sample{"point SRID 4326", []string{"ST_GeomFromText('POINT(1 2)', 4326)"}, nil},
			sample{"vector(3)", []string{"STRING_TO_VECTOR('[1,2,3]')", "STRING_TO_VECTOR('[1]')"}, nil},
			sample{"vector", []string{"STRING_TO_VECTOR('[-1e30]')"}, nil})
	}
	return out
}

// mariadbs has the types that only MariaDB has.
func mariadbs() []sample {
	words := func(r *rand.Rand) string {
		b := make([]string, 8)
		for i := range b {
			b[i] = []string{"0", "0", "1", "ffff", "ab", strconv.FormatUint(uint64(r.Uint32()>>16), 16)}[r.IntN(6)]
		}
		return "'" + strings.Join(b, ":") + "'"
	}
	uuid := func(r *rand.Rand) string {
		b := make([]byte, 16)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for i := 16 - r.IntN(8); i < 16; i++ {
			b[i] = 0
		}
		h := hex.EncodeToString(b)
		return "'" + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-") + "'"
	}
	inet4 := func(r *rand.Rand) string {
		return fmt.Sprintf("'%d.%d.%d.%d'", r.IntN(256), r.IntN(256), r.IntN(3), r.IntN(3))
	}
	return []sample{
		{"uuid", []string{"'00000000-0000-0000-0000-000000000000'", "'123e4567-e89b-12d3-a456-426655440000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
			"'01890a5d-ac96-774b-bcce-b302099a8057'", "'1ec9414c-232a-6b00-b3c8-9e6bdeced846'"}, uuid},
		{"inet6", []string{"'::'", "'::1'", "'1::'", "'2001:db8::1'", "'::1.2.3.4'", "'::ffff:1.2.3.4'", "'1:0:0:2::3'", "'1:0:2:3:4:5:6:7'", "'1:2:3:4:5:6:0:0'", "'::5:0:0:0:1'", "'::ffff:0:0'"}, words},
		{"inet4", []string{"'0.0.0.0'", "'255.255.255.255'", "'1.2.3.4'", "'10.0.0.0'"}, inet4},
		{"varchar(50) COMPRESSED", []string{"''", "'x'", "REPEAT('ab', 25)"}, nil},
		{"varchar(3000) COMPRESSED CHARACTER SET latin1", []string{"''", "'é'", "REPEAT('é', 3000)"}, nil},
		{"varbinary(3000) COMPRESSED", []string{"''", "x'00'", "REPEAT('z', 3000)"}, randomBytes(2000)},
		{"tinyblob COMPRESSED", []string{"''", "REPEAT('z', 200)"}, nil},
		{"blob COMPRESSED", []string{"''", "x'00'", "REPEAT('z', 60000)"}, randomBytes(2000)},
		{"text COMPRESSED", []string{"''", "'é'", "REPEAT('é', 20000)"}, nil},
		{"mediumtext COMPRESSED CHARACTER SET utf16", []string{"''", "'é'", "REPEAT('é', 20000)"}, nil},
		{"longblob COMPRESSED", []string{"''", "REPEAT('z', 100000)"}, nil},
		{"json", []string{"'{}'", `'{"b": 1, "a": [1, 2.50, "é"]}'`, "'null'"}, nil},
	}
}
