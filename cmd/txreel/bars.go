package main

import (
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bars shows progress on a terminal, and nothing elsewhere. It may be used
// concurrently. What is written to it appears above the bars.
type bars struct {
	out      io.Writer
	mu       sync.Mutex
	progress *mpb.Progress // nil when nobody watches
	byName   map[string]*bar
}

type bar struct {
	*mpb.Bar
	detail string
}

func newBars(w io.Writer, quiet bool) *bars {
	b := &bars{out: w, byName: make(map[string]*bar)}
	if !quiet && isTerminal(w) {
		b.progress = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))
	}
	return b
}

// Write implements io.Writer.
func (b *bars) Write(p []byte) (int, error) {
	if b.progress == nil {
		return b.out.Write(p)
	}
	return b.progress.Write(p)
}

// set moves the bar of that name, making it when it is new and there is something
// to show.
func (b *bars) set(name string, done, total int64, detail string) {
	if b.progress == nil || done <= 0 && total <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.byName[name]
	if x == nil {
		x = &bar{}
		b.byName[name] = x
		x.Bar = b.progress.AddBar(total,
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.Percentage(decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
				b.mu.Lock()
				defer b.mu.Unlock()
				return x.detail
			}), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
	}
	x.detail = detail
	if total > 0 {
		x.SetTotal(total, false)
	}
	x.SetCurrent(done)
}

// close leaves the bars as they are and waits for the screen. Calling it again
// does nothing.
func (b *bars) close() {
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	all := make([]*bar, 0, len(b.byName))
	for _, x := range b.byName {
		all = append(all, x)
	}
	b.mu.Unlock()
	for _, x := range all {
		x.SetTotal(-1, true)
		x.Abort(false)
	}
	b.progress.Wait()
	b.progress = nil
}
