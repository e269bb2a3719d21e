package main

import (
	"errors"
	"testing"
	"time"

	"txreel/change"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	micro := now.UnixMicro()
	const second = change.Time(1_000_000)
	ago := func(d change.Time) change.Time { return change.Time(micro) - d*second }
	at := func(text string) change.Time {
		x, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return change.Time(x.UnixMicro())
	}
	for in, want := range map[string]change.Time{
		"2026-01-31T17:04:05Z":             at("2026-01-31T17:04:05Z"),
		"2026-01-31 17:04:05Z":             at("2026-01-31T17:04:05Z"),
		"2026-01-31T17:04:05.678901+02:00": at("2026-01-31T15:04:05.678901Z"),
		"2026-01-31T17:04:05.6789019Z":     at("2026-01-31T17:04:05.678901Z"), // a moment is not rounded up
		"1960-01-01T00:00:00.0000001Z":     at("1960-01-01T00:00:00Z"),
		"2024-02-29T23:59:59-00:30":        at("2024-03-01T00:29:59Z"),
		"now":                              change.Time(micro),
		"5 minutes ago":                    ago(300),
		" 5 minutes ago ":                  ago(300),
		"1 hour 30 minutes ago":            ago(5400),
		"1 day ago":                        ago(86400),
		"2 weeks ago":                      ago(14 * 86400),
		"90s ago":                          ago(90),
		"1h30m ago":                        ago(5400),
		"0 seconds ago":                    ago(0),
	} {
		if got, err := parseTime(in, now); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	var usage *usageError
	for _, in := range []string{
		"", "yesterday", "2026-01-31", "2026-01-31T17:04:05", "2026-01-31 17:04:05", "17:04:05Z", "2026-02-30T00:00:00Z", "2026-01-31T24:00:00Z",
		"5 minutes", "ago", " ago", "minutes ago", "5 ago", "-5 minutes ago", "5 fortnights ago", "5 minutes 3 ago", "-1h ago", "1.5 hours ago",
		"2147483647 weeks ago", "99999999999999999999 seconds ago", "5300 weeks ago 1", "5300 weeks 1 second ago", "999999999h ago", "1738800000",
	} {
		if got, err := parseTime(in, now); !errors.As(err, &usage) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("5 minutes ago")
	f.Add("2026-01-31T17:04:05Z")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseTime(text, now)
		if err == nil && len(text) > 4 && text[len(text)-4:] == " ago" && (got > change.Time(now.UnixMicro()) || got < change.Time(now.AddDate(-300, 0, 0).UnixMicro())) {
			t.Errorf("%q is %v", text, got)
		}
	})
}
