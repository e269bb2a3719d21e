package e2e

import (
	"math/rand/v2"
	"slices"
	"testing"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/faults"
)

// newClock returns a clock, and a folder like dir in which a program runs under it.
func newClock(t *testing.T, dir, program string) (*faults.Clock, string) {
	t.Helper()
	c, err := faults.NewClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	folder, err := c.Under(dir, program)
	if err != nil {
		t.Fatal(err)
	}
	return c, folder
}

// moment is a transaction of the record and when it committed, as it says.
type moment struct {
	seq change.Seq
	at  change.Time
}

// timeline returns the commit times of the record, and the first transaction of each segment.
func (s *stack) timeline(a *archive.Archive) (all []moment, firsts []change.Seq) {
	s.t.Helper()
	for x, err := range a.Segments(s.t.Context(), 1, 1) {
		if err != nil {
			s.t.Fatal(err)
		}
		firsts = append(firsts, x.Txns[0].Seq)
		for i := range x.Txns {
			all = append(all, moment{x.Txns[i].Seq, x.Txns[i].CommitTime})
		}
	}
	return all, firsts
}

// checkTimes compares the commit times on record with what the source's clock showed. That goes forward and back: the
// record follows it, and its order does not.
func (s *stack) checkTimes(all []moment, r *record, o *outcome) {
	s.t.Helper()
	at := make(map[change.Seq]change.Time, len(all))
	for i, m := range all {
		at[m.seq] = m.at
		if i > 0 && all[i-1].at-m.at >= 1e6 {
			o.back++
		}
	}
	grain := s.engine.grain().Microseconds()
	for _, txn := range r.txns {
		m := s.bank.txns[txn.entry]
		if m.from == 0 {
			continue
		}
		o.timed++
		if t := int64(at[txn.seq]); t < m.from-m.from%grain || t > m.to {
			if o.wrong++; o.wrong <= 10 {
				s.t.Errorf("transaction %s committed at %s, says the record; the source's clock showed %s to %s", txn.seq, change.Time(t), change.Time(m.from), change.Time(m.to))
			}
		}
	}
	if o.timed == 0 || o.back == 0 {
		s.t.Errorf("%d commit times were compared, %d of them went back", o.timed, o.back)
	}
}

// cutAt returns the last transaction in front of the first one, in commit order, that committed later than t.
func cutAt(all []moment, t change.Time) change.Seq {
	for _, m := range all {
		if m.at > t {
			return m.seq - 1
		}
	}
	return all[len(all)-1].seq
}

// somewhere draws a moment: of any transaction, or of the last one before the clock went back.
func somewhere(random *rand.Rand, all []moment) change.Time {
	var turns []int
	for i := range all[1:] {
		if all[i].at-all[i+1].at >= 1e6 {
			turns = append(turns, i)
		}
	}
	i := random.IntN(len(all))
	if len(turns) > 0 && random.IntN(2) == 0 {
		i = turns[random.IntN(len(turns))]
	}
	return all[i].at + change.Time(random.IntN(3)-1)
}

// lookUp asks for moments, and compares where a restore to them would end.
func (s *stack) lookUp(all []moment, random *rand.Rand, o *outcome) {
	s.t.Helper()
	latest := slices.MaxFunc(all, func(x, y moment) int { return int(x.at - y.at) }).at
	past := s.direct.run("restore", "--dry-run", "--to-time", (latest + 1).String())
	if past.code != 6 {
		s.t.Errorf("a moment after all that is recorded: exit code %d\n%s%s", past.code, past.stdout, past.stderr)
	}
	for range times(6, 60) {
		t := somewhere(random, all)
		switch r := s.direct.run("restore", "--dry-run", "--json", "--to-time", t.String()); r.code {
		case 0:
			var plan struct{ Seq change.Seq }
			r.decode(s.t, &plan)
			if want := cutAt(all, t); plan.Seq != want {
				s.t.Errorf("--to-time %s ends at %s, the record says %s", t, plan.Seq, want)
			}
			o.lookups++
		case 6: // before the first base, or behind a definition that changed
		default:
			s.t.Errorf("--to-time %s: exit code %d\n%s", t, r.code, r.stderr)
		}
	}
}
