package main

import (
	"strings"
	"testing"
)

// TestUnknownVariables demands that a variable which names no flag is not passed over.
func TestUnknownVariables(t *testing.T) {
	for _, c := range []struct {
		name string
		says string // "" when it is not refused
	}{
		{"TXREEL_SPOL", "TXREEL_SPOL"},
		{"TXREEL_FLUSHAGE", "TXREEL_FLUSHAGE"},
		{"TXREEL_", "TXREEL_"},
		{"TXREEL_SPOOL", ""},
		{"TXREEL_FROM_SEQ", ""},
		{"TXREEL_ACCOUNT_PASSWORD", ""},
		{"TXREEL_PORT_9187_TCP", ""},
		{"TXREEL_SERVICE_HOST", ""},
		{"TXREELS", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.name, "a secret")
			var stdout, stderr strings.Builder
			code := run([]string{"status", "--archive", "/nowhere"}, &stdout, &stderr)
			if text := stderr.String(); (code == 2) != (c.says != "") || !strings.Contains(text, c.says) || strings.Contains(text, "a secret") {
				t.Errorf("exit code %d: %s", code, text)
			}
		})
	}
}
