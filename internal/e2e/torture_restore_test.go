package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"txreel/archive"
	"txreel/change"
)

// compare restores to the end, and to points chosen at random or right behind a base.
func (s *stack) compare(a *archive.Archive, all []moment, r *record, o *outcome) {
	s.t.Helper()
	random := rand.New(rand.NewPCG(o.seed, 2))
	bases, err := a.Bases(s.t.Context(), 1)
	if err != nil || len(bases) == 0 {
		s.t.Fatal("no base: ", err)
	}
	// An answer that breaks off ends a restore, and the next one goes on: in the long form there would be no end to it.
	s.http.Set(s.fault(o.seed+1, weather(4, times(2, 0))))
	defer s.http.Set(nil)
	end := r.txns[len(r.txns)-1].seq
	r.at(end).compare(s.t, "the end", s.restore(0, random))
	o.restores++
	tries := 1
	for want := 1 + times(2, 8); o.restores < want && tries < 20*want; tries++ {
		seq := r.txns[random.IntN(len(r.txns))].seq
		if tries%2 == 0 {
			seq = min(end, bases[random.IntN(len(bases))].Seq+change.Seq(random.IntN(50)))
		}
		point := []string{"--to-seq", seq.String()}
		if tries%3 == 0 {
			t := somewhere(random, all)
			seq, point = cutAt(all, t), []string{"--to-time", t.String()}
		}
		if seq >= bases[0].Seq && s.engine.reaches(point...) { // a clock that went back names moments before any base
			r.at(seq).compare(s.t, fmt.Sprint(point), s.restore(tries, random, point...))
			o.restores++
		}
	}
	s.tell("%d points tried, %d restored", tries, o.restores)
	if o.restores < 2 {
		s.t.Error("no point in the middle of the record could be restored")
	}
}

// restore restores to a point in the store's weather. The process is killed at a random moment, or the server that it
// restores into, several times in the long form; then it is run until it gets there.
func (s *stack) restore(n int, random *rand.Rand, point ...string) (query func(sql string) [][]string) {
	s.t.Helper()
	v := s.engine.target(n)
	args := append([]string{"restore", "--target", v.url}, point...)
	for kill := range times(1, 4) {
		doomed := s.broken.start(args...)
		done := false
		select {
		case <-doomed.done:
			done = true
		case <-time.After(time.Duration(random.IntN(1500+times(0, 5000)*kill)) * time.Millisecond): // a random moment is what is wanted
		}
		switch {
		case done:
		case (n+kill)%2 == 0:
			s.count(restoreKilled, 1)
			doomed.kill()
		default:
			s.count(targetKilled, 1)
			s.killTarget(v, doomed)
		}
		if doomed.kill(); doomed.cmd.ProcessState.ExitCode() == 0 {
			return v.query
		}
	}
	var r result
	for range 20 {
		r = s.broken.run(args...)
		switch {
		case r.code == 0, strings.Contains(r.stderr, "not empty"): // it was killed when all was done
			return v.query
		case r.code != 1 && r.code != 5 && r.code != 7: // the store, or what is left of the killed one in the target
			s.t.Fatalf("restore %q ends with %d:\n%s", point, r.code, tail(r.stderr, 10))
		}
		s.tell("restore %q ends with %d: %s", point, r.code, tail(r.stderr, 1))
		time.Sleep(200 * time.Millisecond)
	}
	s.t.Fatalf("restore %q does not get there: %s", point, tail(r.stderr, 10))
	return nil
}

// killTarget kills a server under a restore, which ends with an error that says so, unless it was done, and starts it
// again.
func (s *stack) killTarget(v victim, doomed *process) {
	s.t.Helper()
	if err := v.kill(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	code := doomed.wait(patience())
	s.tell("target killed; the restore ends with %d: %s", code, tail(doomed.stderr(), 1))
	if code != 0 && code != 1 && code != 7 {
		s.t.Errorf("a restore whose target was killed ends with %d:\n%s", code, tail(doomed.stderr(), 5))
	}
	if err := v.start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}
