package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/sink/spool"
)

// refit stops the capture and starts one that runs another way. A spool is left only when it is empty, and zero-loss
// mode only by a capture that has let COMMITs go: else the one that follows runs as the one before, and refit reports
// false.
func (s *stack) refit(m mode) bool {
	s.t.Helper()
	clean := s.stop()
	ok := clean && (m.spool || !spool.Holds(s.spool))
	if ok {
		s.setMode(m)
		if err := s.engine.patient(s.t.Context(), m.timeout()); err != nil {
			s.t.Fatal(err)
		}
	}
	s.tell("captures run as %+v", s.mode)
	s.startCapture()
	return ok
}

// underway waits until the capture has got as far as recording: one that has just begun cannot be stopped in order.
func (s *stack) underway(ctx context.Context) bool {
	s.t.Helper()
	return poll(ctx, 20*time.Second, func() bool {
		s.mind()
		return s.capture.has("capture started")
	}) == nil
}

func (s *stack) setMode(m mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = m
}

// protect has COMMIT wait, with a capture that has no spool, and reports whether that came about in the store's weather.
func (s *stack) protect(ctx context.Context, patient bool) bool {
	s.t.Helper()
	if want := (mode{sync: true, patient: patient}); s.mode != want && (!s.underway(ctx) || !s.refit(want)) {
		return false
	}
	if poll(ctx, 20*time.Second, func() bool { return s.protected() || !s.capture.alive() }) != nil || !s.capture.alive() {
		s.tell("COMMIT does not wait in time: %s", tail(s.capture.stderr(), 1))
		return false
	}
	return true
}

// protected reports whether the capture said last that COMMIT waits.
func (s *stack) protected() bool {
	log := s.capture.stderr()
	begun := strings.LastIndex(log, protectedNow)
	return begun >= 0 && !contested(log[begun:])
}

// contested reports whether a log says that COMMIT may not have waited.
func contested(log string) bool {
	for _, text := range []string{"capture interrupted", "does not wait for the archive", "zero-loss mode has ended"} {
		if strings.Contains(log, text) {
			return true
		}
	}
	return false
}

// silence holds the store still while COMMIT waits for it. Clients go on after a while, and none of their transactions
// fails for it.
func (s *stack) silence(ctx context.Context) {
	s.t.Helper()
	if !s.protect(ctx, false) {
		return
	}
	// What an earlier strike did to clients they may notice late.
	if before := s.bank.acked.Load(); poll(ctx, time.Minute, func() bool { return s.bank.acked.Load() > before+20 }) != nil {
		return
	}
	failed := s.bank.failed.Load()
	if err := s.gateway.Pause(); err != nil {
		s.t.Fatal(err)
	}
	acked := s.bank.acked.Load()
	// As many as the store cannot have had.
	err := poll(ctx, time.Minute, func() bool { return s.bank.acked.Load() > acked+20 })
	if err := s.gateway.Resume(); err != nil {
		s.t.Fatal(err)
	}
	s.count(storeSilent, 1)
	if err != nil {
		s.t.Errorf("COMMITs do not go on while the store is silent:\n%s", tail(s.capture.stderr(), 5))
	}
	if now := s.bank.failed.Load(); now != failed {
		s.t.Errorf("%d transactions failed while the store was silent", now-failed)
	}
}

// leaveAlone kills the capture, and perhaps the source before it, while COMMIT waits, and looks at the archive as if
// there were nothing else any more: it holds all that was acknowledged.
func (s *stack) leaveAlone(ctx context.Context, x strike) {
	s.t.Helper()
	if !s.protect(ctx, true) {
		return
	}
	c, behind := s.capture, s.bank.ticket.Load()
	time.Sleep(x.lasts)
	if x.settle {
		if err := s.engine.kill(ctx); err != nil {
			s.t.Fatal(err)
		}
		s.count(sourceKilled, 1)
	}
	upTo := s.bank.ticket.Load() // with the source dead, all there will ever be
	c.kill()
	s.count(captureAlone, 1)
	log := c.stderr()
	if contested(log[strings.LastIndex(log, protectedNow):]) {
		s.tell("COMMIT may not have waited: %s", tail(log, 1))
	} else if spans := s.spans(); x.settle && len(spans) > 0 && !spans[len(spans)-1].Protected {
		// It was killed between the record, which comes first, and the log.
		s.tell("the capture noticed that the source was dead, and put on record that COMMIT waits no more")
	} else {
		s.lookAlone(spans, s.bank.acknowledged(behind, upTo))
	}
	s.setMode(mode{sync: true})
	if x.settle {
		if err := s.engine.start(ctx); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.engine.patient(ctx, s.mode.timeout()); err != nil {
		s.t.Fatal(err)
	}
	s.startCapture()
}

// spans reads what is on record of COMMIT waiting.
func (s *stack) spans() []archive.Span {
	s.t.Helper()
	all, err := s.direct.mustOpen().Protections(s.t.Context(), 1) // status would ask the source, too
	if err != nil {
		s.t.Fatal(err)
	}
	return archive.Spans(all)
}

// lookAlone looks for transactions in the archive.
func (s *stack) lookAlone(spans []archive.Span, acked []entry) {
	s.t.Helper()
	if n := len(spans); n == 0 || !spans[n-1].Protected {
		s.t.Errorf("COMMIT waited, and the record says %+v", spans)
		return
	}
	held := make(map[entry]bool)
	from := max(spans[len(spans)-1].From, 1)
	for line := range strings.Lines(s.direct.must("audit", "export", "--from", from.String(), "--table", "entries", "--op", "insert").stdout) {
		var l entered
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			s.t.Fatal(err)
		}
		held[l.entry()] = true
	}
	for _, e := range acked {
		if !held[e] {
			s.t.Errorf("%v was acknowledged while COMMIT waited, and the archive does not hold it", e)
		}
	}
	s.alone += len(acked)
	s.tell("%d acknowledged transactions are in the archive alone", len(acked))
}

// entered is a change of the table entries.
type entered struct {
	After struct{ Client, N json.Number }
}

func (l *entered) entry() entry {
	client, err1 := l.After.Client.Int64()
	n, err2 := l.After.N.Int64()
	if errors.Join(err1, err2) != nil {
		return entry{} // the header, or the trailer
	}
	return entry{int(client), int(n)}
}

// killSpooling kills the capture while transactions are in its spool and not in the store. The one that follows has the
// same spool.
func (s *stack) killSpooling(last func()) {
	s.t.Helper()
	if !s.mode.spool && (!s.underway(s.t.Context()) || !s.refit(mode{spool: true, sync: s.mode.sync})) {
		return
	}
	s.settle()
	s.setMood(storeDown)
	err := poll(s.t.Context(), 20*time.Second, func() bool { return spool.Holds(s.spool) || !s.capture.alive() })
	s.capture.kill()
	if err == nil && spool.Holds(s.spool) {
		s.count(spoolKilled, 1)
	} else {
		s.count(captureKilled, 1)
	}
	s.startCapture()
	last()
	s.setMood("")
}

// fillDisk leaves the spool no room for a while.
func (s *stack) fillDisk(last func()) {
	s.t.Helper()
	if !s.mode.spool && (!s.underway(s.t.Context()) || !s.refit(mode{spool: true, sync: s.mode.sync})) {
		return
	}
	s.settle()
	path := filepath.Join(filepath.Dir(s.spool), "filler")
	if err := fill(path); err != nil {
		s.tell("the disk is not full: %v", err)
	} else {
		s.count(diskFull, 1)
		last()
	}
	if err := os.Remove(path); err != nil {
		s.t.Fatal(err)
	}
}

// fill writes a file until there is no room, or 64 MiB: then the disk is not a small one.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 64 << 10; size > 0; { // what large writes leave, small ones take
		for range 1024 {
			if _, err = f.Write(make([]byte, size)); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(err, errors.New("it has much room"))
		}
		size /= 16
	}
	return nil
}

// checkProtection compares what the record says of COMMITs with what clients saw: of a transaction on record as
// protected no client heard before it was in the store.
func (s *stack) checkProtection(a *archive.Archive, firsts []change.Seq, r *record, o *outcome) {
	s.t.Helper()
	all, err := a.Protections(s.t.Context(), 1)
	if err != nil {
		s.t.Fatal(err)
	}
	spans := archive.Spans(all)
	s.mu.Lock()
	defer s.mu.Unlock()
	unseen, i := 0, 0
	for _, txn := range r.txns {
		for i+1 < len(firsts) && firsts[i+1] <= txn.seq {
			i++
		}
		m := s.bank.txns[txn.entry]
		if !archive.Protected(spans, txn.seq) || m.acked == 0 {
			continue
		}
		switch at, ok := s.there[firsts[i]]; {
		case !ok:
			unseen++
		case !at.spooled:
			if o.guarded++; m.acked < at.ticket {
				if o.early++; o.early <= 10 {
					s.t.Errorf("transaction %s (%v) was acknowledged before the archive held it, and the record says that COMMIT waited", txn.seq, txn.entry)
				}
			}
		}
	}
	s.tell("%d protected transactions, %d more whose segment was not seen to arrive", o.guarded, unseen)
	if unseen > o.guarded/10+20 || *long && o.guarded == 0 {
		s.t.Errorf("%d protected transactions were compared, %d could not be", o.guarded, unseen)
	}
}
