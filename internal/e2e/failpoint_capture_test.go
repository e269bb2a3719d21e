package e2e

import (
	"strings"
	"time"

	"txreel/archive"
	"txreel/internal/failpoint"
	"txreel/sink/spool"
)

// captureCommand is a capture that hurries.
func captureCommand(more ...string) []string {
	return append([]string{"capture", "--flush-age", "50ms", "--heartbeat", "500ms"}, more...)
}

// capture ends captures at all points that are theirs, one after the other on one archive, and returns it with a record
// that is whole.
func (o *ordeal) capture() *archive.Archive {
	o.t.Helper()
	p, e := o.place, o.engine
	for i, at := range o.points(failpoint.ArchiveCreating, failpoint.BaseCommitted) {
		if process, _ := e.kills(i, at); process {
			o.kill(p, at, captureCommand()...)
			o.between()
		}
	}
	first := p.capture()
	a := p.waitArchive()
	p.waitBases(a, 1, 1)
	e.begun(a)
	first.kill()

	o.endCaptures(a, o.points(failpoint.CaptureRead, failpoint.RollupCreated), captureCommand())
	spooled := captureCommand("--spool", o.spool)
	o.endCaptures(a, o.points(failpoint.SpoolSyncMarker, failpoint.SpoolUnlink), spooled)
	o.stop(a, p.start(spooled...), "capture started") // it heeds signals by then
	if spool.Holds(o.spool) {
		o.t.Error("the spool is not empty at the end of a capture")
	}
	synced := captureCommand("--sync", "--sync-timeout", "60s")
	o.endCaptures(a, o.points(failpoint.SourceAcking, failpoint.ProtectionCreated), synced)
	o.stop(a, p.start(synced...), protectedNow)

	last := p.capture()
	for _, at := range o.points(failpoint.MarkCreating, failpoint.MarkCreated) {
		o.kill(p, at, "mark", string(at))
		if r := p.run("mark", string(at)); r.code != 0 && (at != failpoint.MarkCreated || !strings.Contains(r.stderr, "exists already")) {
			o.t.Errorf("a mark after one that was killed at %q ends with %d: %s", at, r.code, r.stderr)
		}
	}
	e.settle()
	e.passed(a)
	last.kill()
	o.whole(a)
	return a
}

// points returns those of the points that the engine comes to, from one to another in the order of all.
func (o *ordeal) points(from, to failpoint.Point) []failpoint.Point {
	var some []failpoint.Point
	inside := false
	for _, p := range failpoint.All() {
		inside = inside || p == from
		if inside && o.engine.has(p) {
			some = append(some, p)
		}
		if p == to {
			break
		}
	}
	return some
}

// endCaptures ends captures, or the source under one, at each of the points.
func (o *ordeal) endCaptures(a *archive.Archive, points []failpoint.Point, command []string) {
	o.t.Helper()
	p, e := o.place, o.engine
	for i, at := range points {
		process, server := e.kills(i, at)
		if process {
			o.kill(p, at, command...)
			o.between()
		}
		if server && at != failpoint.SpoolSyncMarker && at != failpoint.SpoolRenameMarker { // a spool is marked once
			c := o.strand(p, e.source(), at, command...)
			e.passed(a) // the same process goes on by itself
			if !c.alive() {
				o.t.Fatalf("a capture whose source was killed at %q ended with %d:\n%s", at, c.wait(0), tail(c.stderr(), 10))
			}
			c.kill()
			o.between()
		}
		if *long && at != failpoint.SpoolSyncMarker { // whose next step would not be taken again
			c := p.start(command...)
			e.passed(a)
			c.kill()
			p.must("verify", "--full")
		}
	}
}

// stop lets a capture catch up, and say something, and ends it in order.
func (o *ordeal) stop(a *archive.Archive, c *process, says string) {
	o.t.Helper()
	eventually(o.t, patience(), "the capture says "+says, func() bool { return c.has(says) })
	o.engine.passed(a)
	c.signal(terminate)
	if code := c.wait(time.Minute); code != 0 {
		o.t.Errorf("a capture that was stopped ended with %d:\n%s", code, tail(c.stderr(), 10))
	}
	o.between()
}

// between looks at what must hold while no capture runs. What is in the spool is part of the record, and not in the
// archive yet: the next capture brings it there, and what must hold is seen then.
func (o *ordeal) between() {
	o.t.Helper()
	if !spool.Holds(o.spool) {
		o.engine.between()
	}
}

// whole fails the test unless the record is one epoch without a gap, and right.
func (o *ordeal) whole(a *archive.Archive) {
	o.t.Helper()
	if epochs, err := a.Epochs(o.t.Context()); err != nil || len(epochs) != 1 {
		o.t.Fatalf("%d epochs: %v", len(epochs), err)
	}
	if gap, err := a.Gap(o.t.Context(), 1); err != nil || gap != nil {
		o.t.Fatalf("gap %+v: %v", gap, err)
	}
	o.engine.check(a)
	o.place.must("verify", "--full")
}

// breakOff breaks the record, and ends captures while that is put on record and while the next epoch begins.
func (o *ordeal) breakOff(a *archive.Archive) {
	o.t.Helper()
	p := o.place
	o.engine.gap()
	for _, at := range []failpoint.Point{failpoint.GapCreating, failpoint.GapCreated} {
		o.kill(p, at, captureCommand()...)
	}
	if r := p.run(captureCommand()...); r.code != 3 {
		o.t.Errorf("a capture behind a gap ends with %d: %s", r.code, r.stderr)
	}
	for _, at := range []failpoint.Point{failpoint.EpochCreating, failpoint.EpochCreated} {
		o.kill(p, at, captureCommand("--new-epoch")...)
	}
	c := p.capture("--new-epoch")
	o.engine.passed(a)
	p.waitBases(a, 2, 1)
	c.kill()
	epochs, err := a.Epochs(o.t.Context())
	if err != nil || len(epochs) != 2 || epochs[1].Cause == archive.CauseFirst {
		o.t.Errorf("epochs %+v: %v", epochs, err)
	}
	if gap, err := a.Gap(o.t.Context(), 1); err != nil || gap == nil {
		o.t.Errorf("gap %+v: %v", gap, err)
	}
}
