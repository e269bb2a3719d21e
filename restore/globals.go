package restore

import (
	"fmt"
	"io"

	"txreel/change"
)

// Globals says what a restore does, or has done, about what the source held beside the rows and the schema of its database: roles,
// settings and the like. Names only: the value of a setting may be a secret.
type Globals struct {
	From     string          `json:"from"` // the object of the archive that says what there was
	Position change.Position `json:"position"`
	Seen     string          `json:"seen"`  // RFC 3339
	Known    string          `json:"known"` // what that proves of the point, in a sentence
	// Make is what is made, or in a plan without a target what would be made where it is missing.
	Make []string `json:"make"`
	// Differs is what the target has otherwise, and keeps.
	Differs []string `json:"differs"`
	// NotMade is what a restore does not make.
	NotMade []string `json:"not_made"`
}

// print writes the lines of a plan, or with made those of a report.
func (g *Globals) print(w io.Writer, made bool) {
	line := func(format string, args ...any) {
		fmt.Fprintf(w, "%-14s %s\n", "globals", fmt.Sprintf(format, args...))
	}
	line("as of %s (%s, %s): %s", g.Position.Brief(), g.Seen, g.From, g.Known)
	verb := "makes"
	if made {
		verb = "made"
	}
	for _, text := range g.Make {
		line("%s %s", verb, text)
	}
	for _, text := range g.Differs {
		line("differs: %s", text)
	}
	for _, text := range g.NotMade {
		line("not made: %s", text)
	}
}
