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
//   - change: archive, epoch, seq, xid, position, commit_time, received (when capture had
//     the whole transaction, by its own clock; absent where that was not recorded), ordinal
//     and op, then by op: schema and table with key, before, after and evidence (insert, update, delete), with
//     cascade and restart_identity (truncate; a line per table), prefix and content
//     (message), or database and statement (statement: DDL, or changes that the source
//     logged as the statement that made them). (epoch, seq, ordinal) names a change for
//     ever: filters leave lines out and renumber none.
//   - undecoded: a message the decoder refused, verbatim in base64 (raw), with the error.
//     Changes that it had yielded before stand in lines of their own. A message above 256 MiB
//     is not decoded but written piece by piece, as it was stored. Filters never hide such a
//     line. Without a seq it is a definition that belongs to no transaction.
//   - transaction, on request: one of which no line was written. note, if there is one, says
//     what it did beside changes of rows, such as the beginning of a DDL statement;
//     changes counts those that filters left out.
//   - trailer, the last: what was read and written, and the hash of the last segment, which
//     stands for all of the epoch up to there. skipped counts the changes that filters left
//     out, skipped_statements those of them that were statements: a filter on tables leaves
//     out every one, whichever tables it changed. An export without a trailer is not complete.
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
	// Size returns the bytes of the message that begins with raw: more than len(raw)
	// when it goes on in the messages that follow.
	Size(raw []byte) int64
	// Decode takes the next whole message. It and what Next yields may alias raw. After
	// an error the Decoder must be able to go on with the next message.
	Decode(raw []byte) error
	// Next fills ev with the next change of that message and reports whether there was
	// one: messages that only frame or define have none. What ev points to is valid until
	// the next call. After an error the rest of the message is given up.
	Next(ev *change.Event) (bool, error)
}

// ErrGap is wrapped when what was asked for reaches over the end of an epoch, where
// the record may lack transactions (Invariant 6).
var ErrGap = errors.New("the range crosses a gap in the record")
