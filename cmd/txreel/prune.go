package main

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/change"
	pgtarget "txreel/restore/postgres"
)

type pruneCmd struct {
	archiveFlag
	Keep    span          `required:"" placeholder:"SPAN" help:"Every point of the last SPAN stays restorable, such as 30d, 12w or 720h."`
	Confirm bool          `help:"Remove what the plan names; without it nothing is removed."`
	JSON    bool          `help:"Print JSON."`
	Settle  time.Duration `hidden:"" default:"15m" help:"How long segments and packs stay after they were put on record as pruned, in tests."`
}

// span is a span of time that may be given in days or weeks.
type span time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *span) UnmarshalText(text []byte) error {
	d, err := parseSpan(string(text))
	if err == nil && d <= 0 {
		err = fmt.Errorf("%q is no time at all", text)
	}
	*s = span(d)
	return err
}

// prunedReport is what prune prints as JSON.
type prunedReport struct {
	*archive.PrunePlan
	Removed bool `json:"removed"` // the plan was carried out
}

// Run implements the command.
func (c *pruneCmd) Run(a *app) error {
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	store, ok := ar.Store.(archive.Deleter)
	if !ok {
		return fmt.Errorf("%s cannot remove objects", ar.Store)
	}
	now := time.Now()
	plan, err := ar.PlanPrune(a.ctx, archive.PruneOptions{
		Keep: change.Time(now.Add(-time.Duration(c.Keep)).UnixMicro()), Now: now, Fences: pgtarget.FencesRead,
	})
	if err != nil {
		return err
	}
	if !c.JSON {
		printPrunePlan(a.stdout, plan, c.Settle)
	}
	act := c.Confirm && !plan.Nothing()
	if act {
		bars := newBars(a.stderr, c.JSON)
		err := ar.Prune(a.ctx, store, plan, archive.PruneRun{
			By: whoami(), Settle: c.Settle,
			Settling: showSettling(bars, c.Settle, "what goes is on record, but a capture that was held up, and readers, rely so long on what they knew before"),
			Progress: func(done, total int64) {
				bars.set("prune", done, total, fmt.Sprintf("%s of %s objects", humanize.Comma(done), humanize.Comma(total)))
			},
		})
		bars.close()
		if err != nil {
			return err
		}
	}
	switch {
	case c.JSON:
		return writeJSON(a.stdout, prunedReport{plan, act})
	case act:
		_, err = fmt.Fprintf(a.stdout, "removed %s\n", sums(plan))
	case plan.Nothing():
		_, err = fmt.Fprintln(a.stdout, "nothing to remove")
	default:
		_, err = fmt.Fprintf(a.stdout, "would remove %s: nothing was; --confirm does it\n", sums(plan))
	}
	return err
}

// whoami says who runs the command, for the record.
func whoami() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "somewhere"
	}
	return name + "@" + host
}

func sums(p *archive.PrunePlan) string {
	return fmt.Sprintf("%d bases, %s segments, %s packs and %s rollups, %s", p.Bases, humanize.Comma(p.Segments), humanize.Comma(p.Packs), humanize.Comma(p.Rollups), humanize.IBytes(uint64(p.Bytes)))
}

func printPrunePlan(w io.Writer, p *archive.PrunePlan, settle time.Duration) {
	fmt.Fprintf(w, "archive   %s\nkeep      every point from %s on\n", p.Store, p.Keep)
	for _, h := range p.Holds {
		fmt.Fprintf(w, "hold      %s\n", holdText(&h))
	}
	for _, x := range p.Pins {
		fmt.Fprintf(w, "pin       %s reads epoch %d from its base after %s on, until %s\n", x.What, x.Epoch, x.Base, x.Expires)
	}
	for i := range p.Epochs {
		e := &p.Epochs[i]
		switch {
		case e.Whole:
			fmt.Fprintf(w, "\nepoch %d   goes as a whole\n", e.Epoch)
		case e.Earliest != nil:
			fmt.Fprintf(w, "\nepoch %d   restorable from %s (%s) on, with base %s\n", e.Epoch, e.Earliest.Seq, e.Earliest.Time, e.Earliest.Base)
		default:
			fmt.Fprintf(w, "\nepoch %d   has no base to restore from\n", e.Epoch)
		}
		if len(e.KeptBy) > 0 {
			fmt.Fprintf(w, "  kept by   %s\n", strings.Join(e.KeptBy, ", "))
		}
		for _, b := range e.Bases {
			what := "base"
			switch {
			case !b.Committed:
				what = "what is left of base"
			case b.Partial:
				what = "partial base"
			}
			fmt.Fprintf(w, "  removes   %s %s: %d objects, %s\n", what, b.ID, b.Objects, humanize.IBytes(uint64(b.Bytes)))
		}
		if e.Segments+e.Packs+e.Rollups > 0 {
			fmt.Fprintf(w, "  removes   %s segments, %s packs, %s rollups\n", humanize.Comma(e.Segments), humanize.Comma(e.Packs), humanize.Comma(e.Rollups))
		}
	}
	if p.Segments+p.Packs > 0 {
		fmt.Fprintf(w, "\nwait      %s before segments and packs go, once that is on record\n", settle)
	}
	fmt.Fprintln(w)
}
