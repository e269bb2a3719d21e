// Package capture moves transactions from a source into an archive and tells the
// source what is durable.
package capture

import (
	"context"
	"errors"
	"fmt"

	"txreel/change"
)

// Source delivers the committed transactions of a database in commit order.
type Source interface {
	// Next returns the next message, valid until the next call. It returns a
	// KindIdle message at least every quarter of a second while nothing else comes.
	// After an error, which may wrap ErrGap, ErrOtherCapture or an unreachable
	// source, only Close is of use; what it had delivered by then may be archived.
	Next(ctx context.Context) (*change.Message, error)
	// Ack tells the source that the archive holds everything up to position
	// durably: it may forget it (Invariant 1). Positions never go backwards. Ack does
	// not wait for the network.
	Ack(position change.Position)
	// Position returns where the source's log continues behind the last commit, or the
	// last position of an idle source, that Next has returned, and at first where the stream
	// begins: an archive that holds all of it opens the source there. It may say more than the
	// commit's own Position, which every transaction repeats.
	Position() change.Position
	// Wake makes a Next that waits, or else the next one that would, return at once, with
	// a KindIdle message if there is nothing else. It may be called from any goroutine.
	Wake()
}

// Errors a Source reports, for callers that act on them.
var (
	// ErrGap means that transactions behind the archive's tail can no longer be
	// had from the source: the record has a gap, and only a new epoch goes on.
	ErrGap = errors.New("gap in the record")
	// ErrDiverged is a gap with another cause: the source's history is not, or not in
	// full, the one on record. It was reset, restored, or another server took its place.
	ErrDiverged = fmt.Errorf("%w: the source's history is another one", ErrGap)
	// ErrUnreachable is matched when the source cannot be reached, or asked to come
	// back later: waiting may help.
	ErrUnreachable = errors.New("source unreachable")
	// ErrLongPosition means that the source's position has more bytes than a record can hold:
	// the source must be changed before it can be recorded.
	ErrLongPosition = fmt.Errorf("the source's position takes more than the %d bytes that a record has for it: `txreel doctor` says how to shorten it", change.MaxPosition)
	// ErrUnprotected means that COMMIT on the source does not wait for the archive, and why.
	ErrUnprotected = errors.New("COMMIT does not wait for the archive")
	// ErrOtherCapture means that somebody else is reading in our place.
	ErrOtherCapture = errors.New("another capture is at work")
)
