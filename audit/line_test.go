package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"txreel/change"
)

// FuzzText holds our JSON strings against encoding/json: whatever the bytes are,
// the reader gets the same ones back.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x01\x1f\x7f", `"\/`, "a\tb\r\n", "ünï 🎞 \u2028", "\xff", "\xed\xa0\x80", "cut \xf0\x9f", "</script>&"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var l lines
		l.text(b)
		var v any
		if err := json.Unmarshal(l.buf, &v); err != nil {
			t.Fatalf("%q: %q: %v", b, l.buf, err)
		}
		switch got := v.(type) {
		case string:
			if got != string(b) || !utf8.Valid(b) {
				t.Fatalf("%q comes back as %q", b, got)
			}
		case map[string]any:
			raw, err := base64.StdEncoding.DecodeString(got["base64"].(string))
			if err != nil || !bytes.Equal(raw, b) || utf8.Valid(b) || len(got) != 1 {
				t.Fatalf("%q comes back as %v", b, got)
			}
		}
		var name string
		if err := json.Unmarshal(appendString(nil, string(b)), &name); err != nil {
			t.Fatalf("name %q: %v", b, err)
		}
		want := string(b)
		if !utf8.Valid(b) {
			want = "base64:" + base64.StdEncoding.EncodeToString(b)
		}
		if name != want {
			t.Fatalf("name %q comes back as %q", want, name)
		}
	})
}

// TestLargeValues writes values larger than the buffer: they come out whole, and
// the buffer stays as large as it is.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("a\"ü🎞\x01", 1<<19)
	var out bytes.Buffer
	l := lines{out: &out}
	l.raw("[")
	l.text([]byte(text))
	l.raw(",")
	l.text([]byte(text + "\xff"))
	l.raw(",")
	l.object("binary", []byte(text))
	l.raw("]")
	if cap(l.buf) > 1<<20 {
		t.Errorf("the buffer grew to %d bytes", cap(l.buf))
	}
	l.flush()
	var got [3]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	bin, err := base64.StdEncoding.DecodeString(got[2].(map[string]any)["binary"].(string))
	if got[0] != text || err != nil || string(bin) != text {
		t.Error("a large value is not what it was")
	}
	raw, err := base64.StdEncoding.DecodeString(got[1].(map[string]any)["base64"].(string))
	if err != nil || string(raw) != text+"\xff" {
		t.Error("large bytes are not what they were")
	}
}

func TestAppendPrintsAsChangeDoes(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, -1, time.Now().UnixMicro(), 0x7fffffffffff, -62135596800e6} {
		if got, want := string(appendTime(nil, change.Time(n))), change.Time(n).String(); got != want {
			t.Errorf("time %s, want %s", got, want)
		}
		if got, want := string(appendSeq(nil, change.Seq(n))), change.Seq(n).String(); got != want {
			t.Errorf("Seq %s, want %s", got, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, schema, name string
		want                  bool
	}{
		{"public.orders", "public", "orders", true},
		{"public.orders", "public", "Orders", false},
		{"public.orders", "public", "orders2", false},
		{"orders", "any", "orders", true},
		{"orders", "any", "my.orders", false},
		{"ord*", "any", "orders", true},
		{"*", "a", "b", true},
		{"*.*", "a", "b", true},
		{"public.*", "public", "a.b", true},
		{"public.*_log", "public", "a_log_log", true},
		{"public.*_log", "public", "a_log_", false},
		{"pub*.o*s", "public", "orders", true},
		{"pub*.o*s", "pub", "xs", false},
		{"?", "s", "ü", true},
		{"?", "s", "ab", false},
		{`a\*b`, "s", "a*b", true},
		{`a\*b`, "s", "axb", false},
		{`a\\*`, "s", `a\x`, true},
		{"a.b.c", "a.b", "c", true},
		{"", "s", "t", false},
	} {
		var l patterns
		if c.pattern != "" {
			var err error
			if l, err = parsePatterns([]string{c.pattern}); err != nil {
				t.Fatal(err)
			}
		} else {
			l = patterns{{}}
		}
		if got := l.match(c.schema, c.name); got != c.want {
			t.Errorf("%q on %q.%q: %v, want %v", c.pattern, c.schema, c.name, got, c.want)
		}
	}
}
