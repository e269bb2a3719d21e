package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
)

// Delete implements archive.Deleter.
func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(key)
	return nil
}

// pruned is an archive of two epochs of five transactions each, a to e and f to j, a second apart, each in a segment: the first
// epoch and the first two transactions of the second are gone.
func pruned(t *testing.T) *archive.Archive {
	t.Helper()
	store := newMemory()
	r := newRecorder(t, store, "test")
	base := func() {
		b, err := archive.NewBase(r.epoch, "test")
		r.check(err)
		b.Seq, b.Position = r.w.Tail().Seq, r.w.Tail().Position
		r.check(r.a.CommitBase(t.Context(), b))
	}
	write := func(names string, at float64) {
		for i, name := range names {
			r.add(testTxn{xid: string(name), position: change.Position(name), at: moment(at + float64(i)), messages: []change.Message{touch(&change.Table{Schema: "public", Name: "t"}, change.OpInsert, 1)}})
			r.ship()
		}
	}
	base()
	write("abcde", 0)
	r.startEpoch(archive.CauseGap, "test")
	base()
	write("fgh", 10)
	base()
	write("ij", 13)
	p, err := r.a.PlanPrune(t.Context(), archive.PruneOptions{Keep: moment(13), Now: time.Now()})
	r.check(err)
	r.check(r.a.Prune(t.Context(), store, p, archive.PruneRun{By: "me@here"}))
	return r.a
}

// silent is a Decoder of messages without changes.
type silent struct{}

func (silent) Size(raw []byte) int64            { return int64(len(raw)) }
func (silent) Decode([]byte) error              { return nil }
func (silent) Next(*change.Event) (bool, error) { return false, nil }

// The log of a pruned archive says where it begins, and that it cannot tell of what is gone.
func TestLogPruned(t *testing.T) {
	t.Parallel()
	a := pruned(t)
	for _, tt := range []struct {
		name string
		q    audit.Query
		want string // names, "|" for what was pruned, "_" for a gap
		gone bool   // the error says so
	}{
		{"all", audit.Query{}, "jih|_|", false},
		{"all, oldest first", audit.Query{Reverse: true}, "|_|hij", false},
		{"limited", audit.Query{Limit: 2}, "ji", false},
		{"limited, oldest first", audit.Query{Limit: 2, Reverse: true}, "|_|hi", false},
		{"the second epoch", audit.Query{Epoch: 2}, "jih|", false},
		{"the first one", audit.Query{Epoch: 1}, "_|", false},
		{"since what is there", audit.Query{Since: moment(13)}, "ji", false},
		{"since what is not", audit.Query{Since: moment(11)}, "jih|", false},
		{"since what is not, oldest first", audit.Query{Since: moment(11), Reverse: true}, "|hij", false},
		{"until what is there", audit.Query{Until: moment(13)}, "ih|_|", false},
		{"from what is there", audit.Query{Epoch: 2, From: 4}, "ji", false},
		{"from what is not", audit.Query{Epoch: 2, From: 2}, "", true},
		{"to what is not", audit.Query{Epoch: 2, To: 2}, "", true},
		{"in what is not", audit.Query{Since: moment(1), Until: moment(3)}, "||", true},
		{"until what is not", audit.Query{Until: moment(3)}, "||", true},
		{"an id that is there", audit.Query{XID: "i"}, "i|_|", false},
		{"one that is not", audit.Query{XID: "b"}, "|_|", true},
	} {
		var got strings.Builder
		err := audit.Log(t.Context(), a, tt.q, func(e *audit.Entry) error {
			switch e.Kind {
			case audit.KindPruned:
				got.WriteString("|")
				if !strings.Contains(e.Detail, "me@here") || e.Seq == 0 {
					t.Errorf("%s: %+v", tt.name, e)
				}
			case audit.KindGap:
				got.WriteString("_")
			default:
				got.WriteString(e.XID)
			}
			return nil
		})
		if errors.Is(err, archive.ErrPruned) != tt.gone || err != nil && !tt.gone {
			t.Errorf("%s: %v", tt.name, err)
		}
		if have, want := strings.ReplaceAll(got.String(), "_", ""), strings.ReplaceAll(tt.want, "_", ""); have != want {
			t.Errorf("%s: %q, want %q", tt.name, got.String(), tt.want)
		}
	}
	var out bytes.Buffer
	if err := audit.Log(t.Context(), a, audit.Query{Epoch: 2}, audit.Text(&out, audit.TextOptions{})); err != nil || !strings.Contains(out.String(), "PRUNED: epoch 2 up to transaction 0000000000000002") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// An export of a pruned epoch says what it begins behind, and refuses what it cannot hold.
func TestExportPruned(t *testing.T) {
	t.Parallel()
	a := pruned(t)
	var out bytes.Buffer
	sum, err := audit.Export(t.Context(), a, silent{}, audit.ExportOptions{Epoch: 2}, &out)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Pruned(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	var head struct {
		Pruned *audit.Pruned `json:"pruned_before"`
	}
	if err := json.NewDecoder(&out).Decode(&head); err != nil {
		t.Fatal(err)
	}
	for _, got := range []*audit.Pruned{sum.PrunedBefore, head.Pruned} {
		if got == nil || got.Seq != 2 || got.Hash != p.Tail.Hash || got.By != "me@here" {
			t.Errorf("%+v, want what %+v says", got, p)
		}
	}
	if sum.From != 3 || sum.Transactions != 3 {
		t.Errorf("%+v", sum)
	}
	if sum, err = audit.Export(t.Context(), a, silent{}, audit.ExportOptions{Epoch: 2, From: 4}, &out); err != nil || sum.PrunedBefore != nil {
		t.Errorf("from behind the first one: %+v, %v", sum, err)
	}
	for _, opts := range []audit.ExportOptions{{Epoch: 1}, {Epoch: 2, From: 1}, {Epoch: 2, To: 2}, {Epoch: 2, Since: moment(11)}, {Epoch: 2, Until: moment(10)}} {
		out.Reset()
		if _, err := audit.Export(t.Context(), a, silent{}, opts, &out); !errors.Is(err, archive.ErrPruned) || bytes.Contains(out.Bytes(), []byte(`"complete":true`)) {
			t.Errorf("%+v: %v, %s", opts, err, out.String())
		}
	}
}
