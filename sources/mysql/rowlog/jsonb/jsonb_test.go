package jsonb

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// document is {"a": [1, "x", null], "bb": {"k": true}} in binary.
const document = "\x00" + "\x02\x00\x30\x00" + "\x12\x00\x01\x00" + "\x13\x00\x02\x00" + "\x02\x15\x00" + "\x00\x24\x00" + "a" + "bb" +
	"\x03\x00\x0f\x00" + "\x05\x01\x00" + "\x0c\x0d\x00" + "\x04\x00\x00" + "\x01x" +
	"\x01\x00\x0c\x00" + "\x0b\x00\x01\x00" + "\x04\x01\x00" + "k"

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "null"},
		{"document", document, `{"a": [1, "x", null], "bb": {"k": true}}`},
		{"int", "\x05\xff\xff", "-1"},
		{"large array", "\x03\x02\x00\x00\x00\x12\x00\x00\x00\x07\x70\x11\x01\x00\x08\xff\xff\xff\xff", "[70000, 4294967295]"},
		{"opaque", "\x0f\xff\x03abc", `"base64:type255:YWJj"`},
		{"escapes", "\x0c\x05\"\\\n\x01\x7f", `"\"\\\n\u0001` + "\x7f\""},
		{"double", "\x0b\x00\x00\x00\x00\x00\x00\xf0\x3f", "1.0"},
	} {
		got, err := Append([]byte("x"), []byte(c.in))
		if err != nil || string(got) != "x"+c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for i := 1; i < len(document); i++ {
		if got, err := Append(nil, []byte(document[:i])); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: got %q, %v", i, got, err)
		}
	}
	for _, in := range []string{"\x04", "\x04\x03", "\x05\x01", "\x0c", "\x0c\x80\x80\x80\x80\x80\x01", "\x0c\x05ab", "\x0d", "\x0e", "\x0f", "\x0f\xf6\x01\x01", "\x0f\x0a\x02ab",
		"\x00\xff\xff\xff\xff", "\x03\xff\xff\xff\xff\xff\xff\xff\xff", "\x11"} {
		if got, err := Append(nil, []byte(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
}

// TestSharedParts has an array of which every element lies at the same place, which
// would make a text of exponential size.
func TestSharedParts(t *testing.T) {
	t.Parallel()
	const width, depth = 20, 100
	var b []byte
	size := 4 + 3*width
	for range depth {
		level := binary.LittleEndian.AppendUint16(nil, width)
		level = binary.LittleEndian.AppendUint16(level, uint16(size+len(b)))
		for range width {
			level = binary.LittleEndian.AppendUint16(append(level, smallArray), uint16(size))
		}
		if b == nil {
			level = bytes.Repeat([]byte{0}, 4) // an empty array
			binary.LittleEndian.PutUint16(level[2:], 4)
		}
		b = append(level, b...)
	}
	doc := append([]byte{smallArray}, b...)
	if got, err := Append(nil, doc); !errors.Is(err, ErrMalformed) || len(got) > 100*len(doc) {
		t.Errorf("it became a text of %d bytes, %v", len(got), err)
	}
	var p Patch
	path := "$" + strings.Repeat("[0]", depth-2)
	diff := append([]byte{opRemove, 0xfc, byte(len(path)), byte(len(path) >> 8)}, path...)
	if got, err := p.Append(nil, doc, bytes.Repeat(diff, 50)); err == nil {
		t.Errorf("patched, it became a text of %d bytes", len(got))
	}
}

func diff(op byte, path, value string) string {
	d := string([]byte{op, byte(len(path))}) + path
	if op != opRemove {
		d += string([]byte{byte(len(value))}) + value
	}
	return d
}

func TestPatch(t *testing.T) {
	t.Parallel()
	const one, text = "\x05\x01\x00", "\x0c\x01y"
	var p Patch
	for _, c := range []struct{ name, diffs, want string }{
		{"none", "", `{"a": [1, "x", null], "bb": {"k": true}}`},
		{"replace all", diff(opReplace, "$", one), `1`},
		{"replace a cell", diff(opReplace, "$.a[1]", text), `{"a": [1, "y", null], "bb": {"k": true}}`},
		{"remove a cell", diff(opRemove, "$.a[0]", ""), `{"a": ["x", null], "bb": {"k": true}}`},
		{"insert a cell", diff(opInsert, "$.a[0]", text), `{"a": ["y", 1, "x", null], "bb": {"k": true}}`},
		{"append a cell", diff(opInsert, "$.a[9]", text), `{"a": [1, "x", null, "y"], "bb": {"k": true}}`},
		{"insert members in order", diff(opInsert, "$.b", one) + diff(opInsert, `$."a\"a"`, one) + diff(opInsert, `$.aa`, one),
			`{"a": [1, "x", null], "b": 1, "aa": 1, "bb": {"k": true}, "a\"a": 1}`},
		{"what was put in", diff(opReplace, "$.a[0]", document) + diff(opRemove, "$.a[0].bb.k", ""),
			`{"a": [{"a": [1, "x", null], "bb": {}}, "x", null], "bb": {"k": true}}`},
	} {
		got, err := p.Append([]byte("x"), []byte(document), []byte(c.diffs))
		if err != nil || string(got) != "x"+c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
		if !CheckDiffs([]byte(c.diffs)) {
			t.Errorf("%s: taken for no diffs", c.name)
		}
	}
	for _, c := range []struct{ name, diffs string }{
		{"insert what is there", diff(opInsert, "$.a", one)}, {"replace what is not", diff(opReplace, "$.c", one)}, {"remove what is not", diff(opRemove, "$.a[3]", "")},
		{"remove all", diff(opRemove, "$", "")}, {"into a scalar", diff(opInsert, "$.a[0].b", one)}, {"a cell of an object", diff(opInsert, "$[0]", one)},
		{"a member of an array", diff(opInsert, "$.a.b", one)}, {"operation", diff(3, "$.a", one)}, {"path", diff(opReplace, "a", one)}, {"path", diff(opReplace, "$.", one)},
		{"path", diff(opReplace, "$[", one)}, {"path", diff(opReplace, "$[]", one)}, {"path", diff(opReplace, `$."a`, one)}, {"path", diff(opReplace, `$a`, one)},
		{"path", diff(opReplace, "$[99999999999999999999]", one)}, {"cut", "\x00"}, {"cut", "\x00\x05$"}, {"cut", "\x00\x01$\x05a"}, {"length", "\x00\xfb"}, {"length", "\x00\xfd\x00"},
		{"length", "\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff"},
	} {
		if got, err := p.Append(nil, []byte(document), []byte(c.diffs)); err == nil {
			t.Errorf("%s: %q gave %q", c.name, c.diffs, got)
		}
	}
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte(document))
	f.Add([]byte("\x03\x02\x00\x00\x00\x12\x00\x00\x00\x07\x70\x11\x01\x00\x08\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Append(nil, in)
		if len(out) > limit(0, len(in))+64+2*len(in) {
			t.Errorf("%d bytes became %d", len(in), len(out))
		}
		if err == nil && !json.Valid(bytes.ToValidUTF8(out, []byte("?"))) && !bytes.Contains(out, []byte("Inf")) && !bytes.Contains(out, []byte("NaN")) {
			t.Errorf("%x became %q", in, out)
		}
	})
}

func FuzzPatch(f *testing.F) {
	f.Add([]byte(document), []byte(diff(opInsert, "$.b", "\x05\x01\x00")))
	f.Add([]byte(document), []byte(diff(opRemove, `$."a"[0]`, "")))
	var p Patch
	f.Fuzz(func(t *testing.T, doc, diffs []byte) {
		if out, err := p.Append(nil, doc, diffs); err == nil && !CheckDiffs(diffs) {
			t.Errorf("%q are no diffs and gave %q", diffs, out)
		}
	})
}
