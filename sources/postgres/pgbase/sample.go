package pgbase

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Sample says how far sequences had come: what a fence carries in its message, behind the fence's own line.
type Sample struct {
	// Upto is an LSN that was current before the first value was read: whatever a transaction has drawn that committed up
	// to there, the values cover.
	Upto string `json:"upto"`
	// Since is the number of an earlier fence of the same chain, whose sample is whole: what is not among Values stands
	// there, and has not changed. Zero means that this one is whole.
	Since  uint64          `json:"since,omitempty"`
	Values []SequenceValue `json:"values"`
}

// SequenceValue is the state of a sequence.
type SequenceValue struct {
	Name
	Last   int64 `json:"last"`
	Called bool  `json:"called"`
}

// Message returns the content of a fence's message: its line and, behind a line feed, the sample.
func (s *Sample) Message(fence string) (string, error) {
	b, err := json.Marshal(s)
	return fence + "\n" + string(b), err
}

// ParseFence splits the content of a fence's message; the sample is nil when it carries none.
func ParseFence(content []byte) (fence string, s *Sample, err error) {
	line, rest, ok := bytes.Cut(content, []byte("\n"))
	if !ok {
		return string(line), nil, nil
	}
	s = &Sample{}
	if err := json.Unmarshal(rest, s); err != nil {
		return string(line), nil, fmt.Errorf("read the sample of sequences in %s: %w", line, err)
	}
	return string(line), s, nil
}
