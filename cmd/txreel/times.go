package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"txreel/change"
)

// parseTime reads a moment: RFC 3339 with a zone, or a span before now such as
// "5 minutes ago". A time without a zone is refused: nobody can tell which was
// meant.
func parseTime(text string, now time.Time) (change.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "T", 1)); err == nil {
		return change.Time(t.UnixMicro()), nil
	}
	if text == "now" {
		return change.Time(now.UnixMicro()), nil
	}
	if ago, ok := strings.CutSuffix(strings.TrimSpace(text), " ago"); ok {
		if d, err := parseSpan(ago); err == nil {
			return change.Time(now.Add(-d).UnixMicro()), nil
		}
	}
	return 0, &usageError{fmt.Sprintf("%q is not a moment: write 2026-01-31T17:04:05.678901Z, with Z or an offset such as +02:00, or \"5 minutes ago\"", text)}
}

// parseSpan reads "5 minutes", "1 hour 30 minutes", "90s" or "30d".
func parseSpan(text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	words := strings.Fields(text)
	if n := len(text) - 1; len(words) == 1 && n > 0 { // 30d, 4w
		if unit := map[byte]string{'d': "days", 'w': "weeks"}[text[n]]; unit != "" {
			words = []string{text[:n], unit}
		}
	}
	var sum time.Duration
	const longest = 100 * 365 * 24 * time.Hour // a Duration ends at 292 years
	for i := 0; i+1 < len(words); i += 2 {
		n, err := strconv.ParseUint(words[i], 10, 31)
		unit, ok := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}[strings.TrimSuffix(words[i+1], "s")]
		if err != nil || !ok || n > uint64(longest/unit) {
			return 0, fmt.Errorf("%q is not a span of time", text)
		}
		if sum += time.Duration(n) * unit; sum > longest {
			return 0, fmt.Errorf("%q is too long a span of time", text)
		}
	}
	if len(words) == 0 || len(words)%2 != 0 {
		return 0, fmt.Errorf("%q is not a span of time", text)
	}
	return sum, nil
}
