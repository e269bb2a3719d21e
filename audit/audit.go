// Package audit reads the history an archive holds for people: which transactions
// there were, and what exactly each of them changed.
//
// Log reads indexes only and answers "which transaction was it". Export decodes
// the source's messages and writes every change as a line of JSON; docs/export.md
// specifies the lines.
package audit

import (
	"errors"

	"txreel/change"
)

// Decoder turns a source's messages into events. It is shown every message of the
// record in order, definitions included, because what a message means may depend on
// those before it.
type Decoder interface {
	// Decode reads raw into ev and reports whether it is a change: messages that
	// only frame or define are not. The event may alias raw and memory of the Decoder; it
	// is valid until the next call. After an error the Decoder must be able to go
	// on with the next message.
	Decode(raw []byte, ev *change.Event) (bool, error)
}

// ErrGap is wrapped when what was asked for reaches over the end of an epoch, where
// the record may lack transactions (Invariant 6).
var ErrGap = errors.New("the range crosses a gap in the record")
