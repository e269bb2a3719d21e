package pgoutput

import "encoding/binary"

// StreamStart is a Stream Start message: what follows up to Stream Stop belongs to one transaction that
// has not ended yet.
type StreamStart struct {
	XID   uint32
	First bool // nothing of the transaction was sent before
}

// ParseStreamStart reads a Stream Start message.
func ParseStreamStart(m []byte) (StreamStart, error) {
	if len(m) != 6 || m[0] != TagStreamStart {
		return StreamStart{}, malformed("Stream Start", m)
	}
	return StreamStart{XID: binary.BigEndian.Uint32(m[1:]), First: m[5] == 1}, nil
}

// StreamCommit is a Stream Commit message.
type StreamCommit struct {
	Commit
	XID uint32
}

// ParseStreamCommit reads a Stream Commit message.
func ParseStreamCommit(m []byte) (StreamCommit, error) {
	if len(m) != 30 || m[0] != TagStreamCommit {
		return StreamCommit{}, malformed("Stream Commit", m)
	}
	return StreamCommit{
		XID: binary.BigEndian.Uint32(m[1:]),
		Commit: Commit{
			CommitLSN:  binary.BigEndian.Uint64(m[6:]),
			EndLSN:     binary.BigEndian.Uint64(m[14:]),
			CommitTime: Time(binary.BigEndian.Uint64(m[22:])),
		},
	}, nil
}

// Whole appends the Begin and the Commit message that the server would have sent, had it sent
// the transaction in one piece.
func (c *StreamCommit) Whole(begin, commit []byte) ([]byte, []byte) {
	stamp := uint64(int64(c.CommitTime) - pgEpoch)
	begin = binary.BigEndian.AppendUint64(append(begin, TagBegin), c.CommitLSN)
	begin = binary.BigEndian.AppendUint64(begin, stamp)
	begin = binary.BigEndian.AppendUint32(begin, c.XID)
	commit = binary.BigEndian.AppendUint64(append(commit, TagCommit, 0), c.CommitLSN)
	commit = binary.BigEndian.AppendUint64(commit, c.EndLSN)
	return begin, binary.BigEndian.AppendUint64(commit, stamp)
}

// StreamAbort is a Stream Abort message. Sub is XID when the whole transaction is rolled back.
type StreamAbort struct {
	XID, Sub uint32
}

// ParseStreamAbort reads a Stream Abort message.
func ParseStreamAbort(m []byte) (StreamAbort, error) {
	if len(m) != 9 || m[0] != TagStreamAbort {
		return StreamAbort{}, malformed("Stream Abort", m)
	}
	return StreamAbort{XID: binary.BigEndian.Uint32(m[1:]), Sub: binary.BigEndian.Uint32(m[5:])}, nil
}

// Streamed reports whether a message begins, between Stream Start and Stream Stop, with the id of the
// (sub)transaction that wrote it, and returns that id. Without those four bytes behind the tag it is what
// protocol version 1 sends.
func Streamed(m []byte) (xid uint32, ok bool) {
	if len(m) < 5 {
		return 0, false
	}
	switch m[0] {
	case TagRelation, TagType, TagInsert, TagUpdate, TagDelete, TagTruncate, TagMessage:
		return binary.BigEndian.Uint32(m[1:]), true
	}
	return 0, false
}
