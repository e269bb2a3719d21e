package e2e

import (
	"context"
	"os"
	"syscall"
	"time"

	"txreel/internal/faults"
)

// strike does one thing to the stack. Whatever it broke is whole again afterwards; the capture may not have noticed yet.
func (s *stack) strike(x strike) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience())
	defer cancel()
	if x.settle {
		s.settle()
	}
	s.mind()
	s.tell("%s for %s", x.kind, x.lasts)
	last := func() { time.Sleep(x.lasts) } // for as long as the plan says, and not until something holds
	must := func(errs ...error) {
		s.t.Helper()
		for _, err := range errs {
			if err != nil {
				s.t.Fatalf("%s: %v", x.kind, err)
			}
		}
	}
	switch x.kind {
	case faults.Cut, faults.Silent, faults.Stall, faults.Delay, faults.Trickle, faults.Refuse:
		must(s.proxy.For(ctx, x.kind, x.lasts)) // it counts the connections that meet it
	case storeKilled:
		must(s.gateway.Stop())
		last()
		must(s.gateway.Start(ctx))
		s.count(x.kind, 1)
	case storePaused:
		must(s.gateway.Pause())
		last()
		must(s.gateway.Resume())
		s.count(x.kind, 1)
	case storeDown, storeMute, storeSkewed: // the requests are counted
		s.setMood(x.kind)
		last()
		s.setMood("")
	case captureKilled:
		s.capture.kill()
		s.count(x.kind, 1)
		s.startCapture()
	case captureStopped:
		s.refit(x.mode)
	case capturePaused:
		s.suspend(last)
	case captureTaken:
		s.succeed(last)
	case secondCapture:
		s.second(x.lasts)
	case sourceKilled:
		must(s.engine.kill(ctx))
		last()
		must(s.engine.start(ctx))
		s.count(x.kind, 1)
	case sourceRestarted:
		must(s.engine.restart(ctx))
		s.count(x.kind, 1)
	case sourcePaused, senderPaused:
		what, resume, err := s.engine.pause(ctx, x.kind == senderPaused)
		must(err)
		last()
		must(resume())
		s.count(what, 1)
	case clockForward, clockBack: // counted by the clock
		clock := s.engine.clock()
		far := farthest
		if x.kind == clockBack {
			far = -far
		}
		must(clock.Set(clock.Shift() + time.Duration(x.jump*float64(far-clock.Shift()))))
		s.tell("the source's clock is %s ahead", clock.Shift())
		acked := s.bank.acked.Load()
		_ = poll(ctx, 20*time.Second, func() bool { // or nobody commits under this clock
			s.mind()
			return s.bank.acked.Load() > acked+10
		})
		last()
	case storeSilent:
		s.silence(ctx)
	case captureAlone:
		s.leaveAlone(ctx, x)
	case spoolKilled:
		s.killSpooling(last)
	case diskFull:
		s.fillDisk(last)
	case clientsCut:
		n, err := s.engine.cut(ctx)
		must(err)
		s.count(x.kind, n)
	case definitions:
		for _, sql := range s.engine.definitions() {
			if err := s.engine.exec(ctx, sql); err != nil { // a base may hold the table
				s.tell("%.40s: %v", sql, err)
			}
		}
	case baseAsked:
		s.bases = append(s.bases, s.broken.start("base")) // nobody waits for it, and it may fail
	default:
		s.t.Fatalf("nobody knows how to do %q", x.kind)
	}
	time.Sleep(x.pause)
}

// stop tells the capture to end, and reports whether it did so without a complaint. One that has got as far as recording
// has none.
func (s *stack) stop() bool {
	s.t.Helper()
	_ = s.capture.cmd.Process.Signal(terminate) // it may have just ended
	code := s.capture.wait(patience())
	s.count(captureStopped, 1)
	if code != 0 && !s.capture.has("capture started") {
		s.tell("the capture was told to stop and ended with %d: %s", code, tail(s.capture.stderr(), 1))
	} else if code != 0 && code != 5 && code != 7 {
		s.t.Errorf("a capture that was told to stop ended with %d:\n%s", code, tail(s.capture.stderr(), 5))
	}
	return code == 0
}

// suspend stops the capture's process for a while.
func (s *stack) suspend(last func()) {
	s.t.Helper()
	send := func(sig os.Signal) bool { return s.capture.cmd.Process.Signal(sig) == nil } // it may have just ended
	if send(syscall.SIGSTOP) {
		last()
		send(syscall.SIGCONT)
		s.count(capturePaused, 1)
	}
}

// succeed kills the capture while another one stands by. A spool has one owner, and whoever comes next needs it.
func (s *stack) succeed(last func()) {
	s.t.Helper()
	s.count(captureTaken, 1)
	if s.mode.spool {
		s.capture.kill()
		s.startCapture()
		return
	}
	first := s.capture
	s.startCapture("--standby")
	last()
	first.kill()
}

// second starts another capture on the same archive and source. At most one of them goes on; if both do for too long,
// the first one is killed.
func (s *stack) second(while time.Duration) {
	s.t.Helper()
	other := s.broken.start(s.command()...)
	s.count(secondCapture, 1)
	_ = poll(s.t.Context(), min(10*while, 20*time.Second), func() bool { return !other.alive() || !s.capture.alive() }) // or both, for a while
	switch {
	case !other.alive():
		switch code := other.wait(time.Minute); code {
		case 1, 5, 7:
			s.tell("the second one ended with %d: %s", code, tail(other.stderr(), 1))
		default:
			s.t.Errorf("a second capture ended with %d:\n%s", code, tail(other.stderr(), 10))
		}
	case !s.capture.alive():
		switch code := s.capture.wait(time.Minute); code {
		case 1, 5, 7:
			s.tell("the first one ended with %d: %s", code, tail(s.capture.stderr(), 1))
		default:
			s.t.Errorf("the first of two captures ended with %d:\n%s", code, tail(s.capture.stderr(), 10))
		}
		other.kill() // it serves no metrics
		s.startCapture()
	default:
		other.kill()
	}
}
