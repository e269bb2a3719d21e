package change

import (
	"strconv"
	"strings"
)

// Fence is a message that a capture itself writes into the source's log now and then, numbered 1, 2, 3 … in each chain.
// A number that is missing between two others proves that something is missing from the record.
type Fence struct {
	Chain  string // random; every stream begins one
	Number uint64
}

const fenceWord = "fence "

// String is how a fence stands in Txn.Note, and in its message.
func (f Fence) String() string { return fenceWord + f.Chain + " " + strconv.FormatUint(f.Number, 10) }

// ParseFence reads what String writes, and nothing else.
func ParseFence(note string) (f Fence, ok bool) {
	rest, ok := strings.CutPrefix(note, fenceWord)
	chain, digits, ok2 := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(digits, 10, 64)
	f = Fence{Chain: chain, Number: n}
	return f, ok && ok2 && err == nil && n > 0 && chain != "" && f.String() == note
}
