// Package audit reads the history an archive holds for people: which transactions
// there were, and what exactly each of them changed.
//
// Log reads indexes only and answers "which transaction was it". Export decodes
// the source's messages and writes every change.
//
// # The lines of an export
//
// An export is JSON Lines. "record" tells what a line is:
//
//   - header, the first: archive, engine, system and database, the epoch and why it
//     began, the range (from, to, and the since, until, tables and ops asked for), how far
//     the record reaches (recorded_until), the gaps that border on the range
//     (gap_before, gap_after; null when there is none), and what the record does not cover.
//   - change: archive, epoch, seq, xid, position, commit_time, ordinal and op, then by op:
//     schema and table with key, before, after and evidence (insert, update, delete), with
//     cascade and restart_identity (truncate; a line per table), or prefix and content
//     (message). (epoch, seq, ordinal) names a change for ever: filters leave
//     lines out and renumber none.
//   - undecoded: a message the decoder refused, verbatim in base64 (raw), with the error.
//     Filters never hide it. Without a seq it is a definition that belongs to no transaction.
//   - transaction, on request: one of which no line was written. changes counts those
//     that filters left out.
//   - trailer, the last: what was read and written, and the hash of the last segment, which
//     stands for all of the epoch up to there. An export without a trailer is not complete.
//
// A value is null for SQL NULL, else a string with the server's own text: numbers,
// too, since JSON's would lose digits. Text that is not valid UTF-8 is
// {"base64": "…"}, a value the server sent in binary {"binary": "…"}. A name that is
// not valid UTF-8 is "base64:" and its bytes. What the log does not hold is never rendered as
// a value; it is listed by name instead: unchanged holds columns that an update left as they
// were, so that before, if it has them, holds their values; not_logged those missing
// from before, after_not_logged those missing from after.
//
// key is the identity before the change, or of the new row. It is absent when the
// identity is the whole row, or unknown. evidence says how far the log itself shows
// each image: logged, key only, partly logged or not logged.
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
