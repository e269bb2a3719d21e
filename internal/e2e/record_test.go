package e2e

import (
	"errors"
	"io"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// recordedTxn is a transaction as the archive holds it.
type recordedTxn struct {
	seq      change.Seq
	kind     change.TxnKind
	xid      string
	end      lsn.LSN
	raw      [][]byte // the source's messages, definitions left out
	rows     map[string][]recordedRow
	messages []string // written by pg_logical_emit_message: prefix and content
}

// recordedRow is a change of one row. A value the log does not hold is "?".
type recordedRow struct {
	op       string
	old, new []string
}

// readRecord reads a whole epoch. Holes, broken chains and damage are errors of the archive's stream; that Seq counts
// without holes and that positions rise is checked here once more.
func readRecord(t *testing.T, a *archive.Archive, epoch uint64) []recordedTxn {
	t.Helper()
	tail, err := a.Tail(t.Context(), epoch)
	if err != nil {
		t.Fatal(err)
	}
	stream := a.Stream(t.Context(), epoch, 1, tail.Seq, t.TempDir())
	defer stream.Close()
	var decoder pgoutput.Decoder
	var txns []recordedTxn
	var cur *recordedTxn
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read the record: %v", err)
		}
		switch rec.Kind {
		case segment.Definition:
			if _, err := decoder.Event(rec.Raw, new(change.Event)); err != nil {
				t.Fatal(err)
			}
		case segment.Begin:
			if cur != nil {
				t.Fatalf("transaction %s begins inside another", rec.Seq)
			}
			cur = &recordedTxn{seq: rec.Seq, kind: rec.TxnKind, rows: make(map[string][]recordedRow)}
		case segment.Message:
			cur.add(t, &decoder, rec.Raw)
		case segment.Commit:
			cur.xid, cur.end = rec.XID, position(t, rec.Position)
			if want := change.Seq(len(txns) + 1); cur.seq != want {
				t.Fatalf("transaction %s stands where %s must", cur.seq, want)
			}
			if n := len(txns); n > 0 && cur.end < txns[n-1].end {
				t.Fatalf("transaction %s ends at %s, the one before it at %s", cur.seq, cur.end, txns[n-1].end)
			}
			txns = append(txns, *cur)
			cur = nil
		}
	}
	if cur != nil || change.Seq(len(txns)) != tail.Seq {
		t.Fatalf("read %d transactions, the archive's tail is %s", len(txns), tail.Seq)
	}
	return txns
}

func (r *recordedTxn) add(t *testing.T, decoder *pgoutput.Decoder, raw []byte) {
	t.Helper()
	r.raw = append(r.raw, append([]byte(nil), raw...))
	var ev change.Event
	is, err := decoder.Event(raw, &ev)
	if err != nil {
		t.Fatalf("transaction %s: %v", r.seq, err)
	}
	switch {
	case !is:
	case ev.Op == change.OpMessage:
		r.messages = append(r.messages, ev.Prefix+" "+string(ev.Content))
	case ev.Op == change.OpTruncate:
		for _, rel := range ev.Relations {
			r.rows[rel.String()] = append(r.rows[rel.String()], recordedRow{op: "truncate"})
		}
	default:
		name := ev.Relation.String()
		r.rows[name] = append(r.rows[name], recordedRow{op: ev.Op.String(), old: texts(ev.Old), new: texts(ev.New)})
	}
}

func texts(values []change.Value) []string {
	out := make([]string, len(values))
	for i, v := range values {
		switch v.State {
		case change.Text:
			out[i] = string(v.Bytes)
		case change.Null:
			out[i] = "NULL"
		default:
			out[i] = "?"
		}
	}
	return out
}
