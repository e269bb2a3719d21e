package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"txreel/change"
)

// TestLayout compares epochs, gaps, bases and marks with a model under random
// operations.
func TestLayout(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		placed := make(map[string]change.Seq) // of bases
		st := newMem()
		a, err := Init(ctx, st, testIdentity)
		if err != nil {
			rt.Fatal(err)
		}
		type epoch struct {
			e       Epoch
			tail    Tail
			gap     string
			bases   []string // committed
			open    []*Base
			marks   map[string]Mark
			created int
		}
		var epochs []*epoch
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		pick := func() *epoch {
			if len(epochs) == 0 {
				rt.Skip("no epoch yet")
			}
			return epochs[rapid.IntRange(0, len(epochs)-1).Draw(rt, "epoch")]
		}
		list := func() (have []Epoch) {
			for _, e := range epochs {
				have = append(have, e.e)
			}
			return have
		}
		rt.Repeat(map[string]func(*rapid.T){
			"start": func(rt *rapid.T) {
				have := list()
				stale := len(have) > 0 && rapid.Bool().Draw(rt, "stale")
				if stale {
					have = have[:len(have)-1]
				}
				cause := rapid.SampledFrom([]string{CauseFirst, CauseGap}).Draw(rt, "cause")
				e, err := a.StartEpoch(ctx, have, cause, fmt.Sprint("epoch ", len(have)+1), map[string]string{"timeline": "1"})
				if n := len(have); cause == CauseGap && n > 0 && epochs[n-1].gap == "" {
					epochs[n-1].gap = fmt.Sprint("epoch ", n+1)
				}
				if stale {
					// The same content within the same second is refused, too.
					if !errors.Is(err, fs.ErrExist) {
						rt.Fatalf("an epoch that exists was started: %v", err)
					}
					return
				}
				must(err)
				n := len(epochs)
				if e.Number != uint64(n+1) || (e.Previous == nil) != (n == 0) || n > 0 && *e.Previous != epochs[n-1].tail {
					rt.Fatalf("epoch %+v behind %d", e, n)
				}
				epochs = append(epochs, &epoch{e: e, tail: Tail{Epoch: e.Number}, marks: map[string]Mark{}})
			},
			"write": func(rt *rapid.T) {
				if len(epochs) == 0 {
					rt.Skip("no epoch yet")
				}
				e := epochs[len(epochs)-1]
				if e.gap != "" {
					rt.Skip("a capture does not write behind a gap")
				}
				w, err := a.NewWriter(ctx, e.e.Number, "")
				must(err)
				defer w.Close()
				if w.Tail() != e.tail {
					rt.Fatalf("tail %+v, want %+v", w.Tail(), e.tail)
				}
				must(w.Heartbeat("0/1", change.Time(e.tail.Seq)))
				s, err := w.Seal("0/1")
				must(err)
				must(w.Ship(ctx, s))
				e.tail = w.Tail()
			},
			"gap": func(rt *rapid.T) {
				e := pick()
				detail := rapid.StringMatching("[a-z]{1,5}").Draw(rt, "detail")
				must(a.RecordGap(ctx, e.e.Number, CauseGap, detail))
				if e.gap == "" {
					e.gap = detail
				}
			},
			"begin base": func(rt *rapid.T) {
				e := pick()
				b, err := NewBase(e.e.Number, "test")
				must(err)
				o, err := a.CreateObject(ctx, b, "data/1", strings.NewReader("x"), 1)
				must(err)
				b.Objects = append(b.Objects, o)
				e.open = append(e.open, b)
			},
			"commit base": func(rt *rapid.T) {
				e := pick()
				if len(e.open) == 0 {
					rt.Skip("none begun")
				}
				i := rapid.IntRange(0, len(e.open)-1).Draw(rt, "base")
				b := e.open[i]
				e.open = slices.Delete(e.open, i, i+1)
				b.Seq = e.tail.Seq
				must(a.CommitBase(ctx, b))
				e.bases = append(e.bases, b.ID)
				placed[b.ID] = b.Seq
				slices.SortFunc(e.bases, func(x, y string) int { // by the second, then by what they hold
					return cmp.Or(strings.Compare(x[:len("20060102T150405Z")], y[:len("20060102T150405Z")]), cmp.Compare(placed[x], placed[y]), strings.Compare(x, y))
				})
				b.Reason = "another"
				if err := a.CommitBase(ctx, b); !errors.Is(err, fs.ErrExist) {
					rt.Fatalf("committed twice: %v", err)
				}
			},
			"mark": func(rt *rapid.T) {
				e := pick()
				name := rapid.SampledFrom([]string{"a", "a.json", "B-2", "..", "x_y", "a/b", "", "é", strings.Repeat("n", 201)}).Draw(rt, "name")
				e.created++
				m := Mark{Name: name, Epoch: e.e.Number, Seq: change.Seq(e.created), XID: "1"}
				err := a.CreateMark(ctx, m)
				_, taken := e.marks[name]
				switch {
				case slices.Contains([]string{"..", "a/b", "", "é", strings.Repeat("n", 201)}, name):
					if err == nil || errors.Is(err, fs.ErrExist) {
						rt.Fatalf("mark %q: %v", name, err)
					}
					if _, err := a.Mark(ctx, e.e.Number, name); err == nil {
						rt.Fatalf("mark %q read", name)
					}
				case taken:
					if !errors.Is(err, fs.ErrExist) {
						rt.Fatalf("mark %q twice: %v", name, err)
					}
				default:
					must(err)
					e.marks[name] = m
				}
			},
			"": func(rt *rapid.T) {
				got, err := a.Epochs(ctx)
				must(err)
				if len(got) != len(epochs) {
					rt.Fatalf("%d epochs, want %d", len(got), len(epochs))
				}
				for i, e := range epochs {
					if rapid.IntRange(0, 2).Draw(rt, "skip") > 0 {
						continue
					}
					n := e.e.Number
					if got[i].Number != n || got[i].Detail != e.e.Detail || got[i].Source["timeline"] != "1" {
						rt.Fatalf("epoch %+v, want %+v", got[i], e.e)
					}
					gap, err := a.Gap(ctx, n)
					must(err)
					if (gap == nil) != (e.gap == "") || gap != nil && gap.Detail != e.gap {
						rt.Fatalf("gap %+v, want %q", gap, e.gap)
					}
					bases, err := a.Bases(ctx, n)
					must(err)
					var ids []string
					for _, b := range bases {
						ids = append(ids, b.ID)
						if b.Size() != 1 || b.Epoch != n {
							rt.Fatalf("base %+v", b)
						}
					}
					if !slices.Equal(ids, e.bases) {
						rt.Fatalf("bases %q, want %q", ids, e.bases)
					}
					marks, err := a.Marks(ctx, n)
					must(err)
					if len(marks) != len(e.marks) {
						rt.Fatalf("%d marks, want %d", len(marks), len(e.marks))
					}
					for _, m := range marks {
						one, err := a.Mark(ctx, n, m.Name)
						must(err)
						if m != e.marks[m.Name] || one != m {
							rt.Fatalf("mark %+v, want %+v", m, e.marks[m.Name])
						}
					}
					if _, err := a.Mark(ctx, n, "none"); !errors.Is(err, fs.ErrNotExist) {
						rt.Fatalf("a mark that does not exist: %v", err)
					}
				}
			},
		})
	})
}
