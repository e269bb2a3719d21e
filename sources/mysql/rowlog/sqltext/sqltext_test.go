package sqltext

import (
	"math"
	"strconv"
	"testing"
	"time"
)

func TestDouble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   float64
		want string
	}{
		{0, "0"}, {math.Copysign(0, -1), "-0"}, {1, "1"}, {-1.5, "-1.5"}, {1e14, "100000000000000"}, {1e15, "1e15"}, {123456789012345, "123456789012345"},
		{1234567890123456, "1.234567890123456e15"}, {1234567890123456.5, "1234567890123456.5"}, {1e-15, "0.000000000000001"}, {1e-16, "1e-16"}, {1.5e-16, "1.5e-16"},
		{math.MaxFloat64, "1.7976931348623157e308"}, {5e-324, "5e-324"}, {math.Inf(-1), "-Inf"},
	} {
		if got := string(AppendDouble([]byte("x"), c.in)); got != "x"+c.want {
			t.Errorf("%g became %q, want %q", c.in, got[1:], c.want)
		}
	}
	for _, c := range []struct {
		in   float32
		want string
	}{{1.1, "1.1"}, {16777216, "16777216"}, {math.MaxFloat32, "3.4028235e38"}, {1e-45, "1e-45"}, {1e15, "1e15"}} {
		if got := string(AppendFloat(nil, c.in)); got != c.want {
			t.Errorf("%g became %q, want %q", c.in, got, c.want)
		}
	}
}

func TestDecimal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in               string
		precision, scale int
		want             string
	}{
		{"\x80\x00\x00\x03\x00\x8c", 10, 3, "3.140"}, {"\x7f\xff\xff\xfc\xff\x73", 10, 3, "-3.140"}, {"\x80", 1, 0, "0"}, {"\x89", 1, 1, "0.9"}, {"\x76", 1, 1, "-0.9"},
		{"\x80\x00\x00\x00", 9, 0, "0"}, {"\xbb\x9a\xc9\xff", 9, 9, "0.999999999"},
		{"\x80\x00\x03\x00", 10, 3, ""}, {"", 0, 0, ""}, {"\x80", 66, 0, ""}, {"\x80", 1, 2, ""}, {"\x8b", 1, 0, ""}, {"\x80", 1, -1, ""},
	} {
		got, ok := AppendDecimal([]byte("x"), []byte(c.in), c.precision, c.scale)
		if ok != (c.want != "") || ok && string(got) != "x"+c.want {
			t.Errorf("decimal(%d,%d) %x became %q %v, want %q", c.precision, c.scale, c.in, got, ok, c.want)
		}
	}
}

// TestUnix compares dates with the standard library's.
func TestUnix(t *testing.T) {
	t.Parallel()
	for seconds := uint64(1); seconds < math.MaxUint32; seconds += 40009 {
		want := time.Unix(int64(seconds), 0).UTC().Format("2006-01-02 15:04:05")
		if got := string(AppendUnix(nil, seconds, 0, 0)); got != want {
			t.Fatalf("second %d became %q, want %q", seconds, got, want)
		}
	}
	if got := string(AppendUnix(nil, 1, 123456, 4)); got != "1970-01-01 00:00:01.1234" {
		t.Errorf("a fraction became %q", got)
	}
	if got := string(AppendUnix(nil, 0, 0, 2)); got != "0000-00-00 00:00:00.00" {
		t.Errorf("the zero date became %q", got)
	}
}

func FuzzDecimal(f *testing.F) {
	f.Add([]byte("\x80\x00\x00\x03\x00\x8c"), 10, 3)
	f.Fuzz(func(t *testing.T, in []byte, precision, scale int) {
		out, ok := AppendDecimal(nil, in, precision, scale)
		if !ok {
			return
		}
		if _, err := strconv.ParseFloat(string(out), 64); err != nil {
			t.Errorf("decimal(%d,%d) %x became %q", precision, scale, in, out)
		}
	})
}

func FuzzTimes(f *testing.F) {
	f.Add(int64(-1), uint64(1), uint64(2), 6)
	f.Fuzz(func(_ *testing.T, a int64, b, c uint64, digits int) {
		AppendTime(nil, a, digits)
		AppendUnix(nil, b, c, digits)
		AppendDatetime(nil, b, c, digits)
		AppendOldDatetime(nil, b, c, digits)
		AppendOldTime(nil, a)
		AppendDate(nil, b, c, b)
	})
}
