package main

import (
	"context"
	"fmt"
	"strconv"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/sources/postgres"
	"txreel/sources/postgres/lsn"
)

// sameSystem refuses to go on with a record on another cluster, whose positions mean something else.
func sameSystem(epoch archive.Epoch, is string) error {
	was := epoch.Source["system"]
	if was == "" || was == is {
		return nil
	}
	return fmt.Errorf("%w: the source was system %s when epoch %d began and is system %s now: another cluster took its place; run capture with --new-epoch to go on behind the gap", capture.ErrDiverged, was, epoch.Number, is)
}

// sameTimeline refuses to go on with a record on a server that was promoted, or
// restored, since the epoch began: the last of what is recorded may never have happened
// there, and what happened there instead may be missing, without a trace in the
// positions (Invariant 6). forked says what is known of that.
func sameTimeline(epoch archive.Epoch, is string, forked func(was, is int32) string) error {
	was := epoch.Source["timeline"]
	if was == "" || was == is {
		return nil
	}
	known := ""
	a, err1 := strconv.ParseInt(was, 10, 32)
	b, err2 := strconv.ParseInt(is, 10, 32)
	if err1 == nil && err2 == nil {
		known = forked(int32(a), int32(b))
	}
	return fmt.Errorf("%w: the source was on timeline %s when epoch %d began and is on timeline %s now: it was promoted or restored%s: run capture with --new-epoch to go on behind the gap", capture.ErrDiverged, was, epoch.Number, is, known)
}

// forkedTail says which of the recorded transactions never happened on the timeline that the source is on now. They
// stay on record: on the old one they were committed.
func (d *postgresDatabase) forkedTail(ctx context.Context, a *archive.Archive, tail archive.Tail, was, is int32) string {
	at, ok, err := postgres.LeftTimeline(ctx, d.Source, is, was)
	switch {
	case err != nil:
		return fmt.Sprintf(", and where is not known (%v)", err)
	case !ok:
		return fmt.Sprintf(", and its history does not come from timeline %d: nothing of the record need have happened there", was)
	case tail.Seq == 0:
		return fmt.Sprintf(" at %s", at)
	}
	e, found, err := a.FirstBehind(ctx, tail.Epoch, func(t *change.Txn) (bool, error) {
		end, err := lsn.FromPosition(t.Position)
		return end > at, err
	})
	switch {
	case err != nil:
		return fmt.Sprintf(" at %s, and which recorded transactions lie behind that is not known (%v)", at, err)
	case !found:
		return fmt.Sprintf(" at %s; the record ends at %s, and all of it is in the source's history", at, tail.Position)
	}
	return fmt.Sprintf(" at %s; what the record holds from Seq %s (at %s) to its end at %s was committed behind that, on the old server, and never happened on this one", at, e.Seq, e.Position, tail.Position)
}
