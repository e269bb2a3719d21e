package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/change"
)

type compactCmd struct {
	archiveFlag
	OlderThan  span          `default:"24h" placeholder:"SPAN" help:"Pack segments whose transactions committed before that, such as 24h or 7d (${default})."`
	TargetSize byteSize      `default:"64MiB" help:"Size that a pack is to have; larger segments stay as they are."`
	Confirm    bool          `help:"Do what the plan names; without it nothing is put and nothing removed."`
	SpillDir   string        `placeholder:"DIR" help:"Where packs wait to be put (default: the system's temporary folder)."`
	JSON       bool          `help:"Print JSON."`
	Settle     time.Duration `hidden:"" default:"15m" help:"How long nothing is removed after packs were put, in tests."`
}

// What a pack may be: smaller ones save nothing, and stores take objects up to 5 GiB at once.
const (
	smallestPack = 64 << 10
	largestPack  = 4 << 30
)

// Validate is called by kong.
func (c *compactCmd) Validate() error {
	if c.TargetSize < smallestPack || c.TargetSize > largestPack {
		return errors.New("--target-size: 64KiB to 4GiB")
	}
	return nil
}

// compactedReport is what compact prints as JSON.
type compactedReport struct {
	*archive.CompactPlan
	Compacted bool `json:"compacted"` // the plan was carried out
}

// Run implements the command.
func (c *compactCmd) Run(a *app) error {
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	store, ok := ar.Store.(archive.Deleter)
	if !ok {
		return fmt.Errorf("%s cannot remove objects", ar.Store)
	}
	plan, err := ar.PlanCompact(a.ctx, archive.CompactOptions{
		Before: change.Time(time.Now().Add(-time.Duration(c.OlderThan)).UnixMicro()), Target: int64(c.TargetSize),
	})
	if err != nil {
		return err
	}
	if !c.JSON {
		printCompactPlan(a.stdout, plan)
	}
	act := c.Confirm && !plan.Nothing()
	if act {
		bars := newBars(a.stderr, c.JSON)
		err := ar.Compact(a.ctx, store, plan, archive.CompactRun{SpillDir: c.SpillDir, Settle: c.Settle, Progress: c.progress(bars)})
		bars.close()
		if err != nil {
			return err
		}
	}
	switch {
	case c.JSON:
		return writeJSON(a.stdout, compactedReport{plan, act})
	case act:
		_, err = fmt.Fprintf(a.stdout, "put %s; removed %s objects\n", packSums(plan), humanize.Comma(plan.Segments+plan.Left))
	case plan.Nothing():
		_, err = fmt.Fprintln(a.stdout, "nothing to compact")
	default:
		_, err = fmt.Fprintf(a.stdout, "would put %s, and remove %s objects: nothing was; --confirm does it\n", packSums(plan), humanize.Comma(plan.Segments+plan.Left))
	}
	return err
}

// progress shows what a compaction is at.
func (c *compactCmd) progress(bars *bars) func(step archive.CompactStep, done, total int64) {
	settling := showSettling(bars, c.Settle, "readers rely so long on what they saw of packs")
	return func(step archive.CompactStep, done, total int64) {
		detail := ""
		switch step {
		case archive.CompactSettle:
			settling(time.Duration(done) * time.Second)
			return
		case archive.CompactPack:
			detail = fmt.Sprintf("%s of %s", humanize.IBytes(uint64(done)), humanize.IBytes(uint64(total)))
		case archive.CompactRemove:
			detail = fmt.Sprintf("%s of %s objects", humanize.Comma(done), humanize.Comma(total))
		}
		bars.set(string(step), done, total, detail)
	}
}

// showSettling says why nothing is removed for a while, and shows how long that is still to be.
func showSettling(bars *bars, span time.Duration, why string) func(waited time.Duration) {
	said := false
	return func(waited time.Duration) {
		if !said {
			fmt.Fprintf(bars, "waiting for %s before anything more is removed: %s. To end it now does no harm; run it again to go on\n", span, why)
		}
		said = true
		bars.set("settle", int64(waited/time.Second), int64(span/time.Second), (span-waited).Round(time.Second).String()+" left")
	}
}

func packSums(p *archive.CompactPlan) string {
	return fmt.Sprintf("%d packs of %s segments, %s", p.Packs, humanize.Comma(p.Segments), humanize.IBytes(uint64(p.Bytes)))
}

func printCompactPlan(w io.Writer, p *archive.CompactPlan) {
	fmt.Fprintf(w, "archive   %s\ncompact   what committed before %s, to packs of %s\n\n", p.Store, p.Before, humanize.IBytes(uint64(p.Target)))
	for i := range p.Epochs {
		e := &p.Epochs[i]
		segments, bytes := 0, int64(0)
		for _, x := range e.Packs {
			segments += x.Segments
			bytes += x.Bytes
		}
		if segments > 0 {
			fmt.Fprintf(w, "epoch %d   packs %s segments of %s, from %s to %s, into %d\n", e.Epoch, humanize.Comma(int64(segments)), humanize.IBytes(uint64(bytes)),
				e.Packs[0].First, e.Packs[len(e.Packs)-1].Last, len(e.Packs))
		}
		if e.Left > 0 {
			fmt.Fprintf(w, "epoch %d   removes %s objects of segments that packs hold, which an earlier compact did not come to\n", e.Epoch, humanize.Comma(e.Left))
		}
	}
}
