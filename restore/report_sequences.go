package restore

import "fmt"

// Sequences says what the restored values of sequences rest on.
type Sequences struct {
	// Proven counts those for which a sample at or behind the point shows how far they had come.
	Proven int `json:"proven"`
	// NotProven are the others: they were set ahead of all that is known of them.
	NotProven []SequenceMargin `json:"not_proven,omitempty"`
}

// SequenceMargin is a sequence that no sample covers up to the point.
type SequenceMargin struct {
	Name   string `json:"name"`   // schema and name, unquoted
	Value  int64  `json:"value"`  // what it was set to
	Margin uint64 `json:"margin"` // how far that is ahead of what is known
}

func (s *Sequences) lines() []string {
	lines := []string{fmt.Sprintf("%d proven by a sample at or behind the point, %d not proven", s.Proven, len(s.NotProven))}
	for _, m := range s.NotProven {
		lines = append(lines, fmt.Sprintf("%s: not proven: set to %d, %d ahead of what is known of it", m.Name, m.Value, m.Margin))
	}
	return lines
}
