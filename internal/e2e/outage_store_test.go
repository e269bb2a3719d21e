package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

var outageFor = flag.Duration("e2e.outage", 10*time.Minute, "how long the long form of TestOutage takes the store away")

// TestOutage takes the object store away while clients commit: it hangs for a while, and then refuses. The source keeps its
// rate, the capture stays within its memory and its disk, and everything arrives when the store is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	table := &shown{}
	table.print(t, "engine", "phase", "COMMITs/s", "p50", "p99", "longest", "log kept by the source", "capture's memory", "its files")
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			if !*long {
				t.Parallel() // the long form measures
			}
			outage(t, engine, table)
		})
	}
}

// fillLimit is what a capture gathers, in flush sizes, while its store is slow: as much may be on its way.
const fillLimit = 4

func outage(t *testing.T, engine string, table *shown) {
	flush, size := int64(256<<10), 4096
	lasting, around := 6*time.Second, 2*time.Second
	if *long {
		flush, lasting, around = 8<<20, *outageFor, *outageFor/10
	}
	gateway := dbtest.S3(t)
	var s *loaded
	if engine == "postgres" {
		s = loadedPG(t, newSite(t, dbtest.PG(t, "max_wal_size=4GB"), "outage", gateway))
	} else {
		s = loadedMy(t, newMySite(t, engine, gateway), time.Second)
	}
	work := s.startLoad(0, 4, 20*time.Millisecond, size)
	show := func(name string, from, to time.Time, used *usage) {
		p := work.between(from, to)
		table.add(engine, name, fmt.Sprintf("%.0f", p.rate), ms(p.p50), ms(p.p99), ms(p.worst), mib(s.kept()), mib(used.memory.Load()), mib(used.files.Load()))
	}
	quiet := func(name string, used *usage) {
		begun := time.Now()
		time.Sleep(around)
		show(name, begun, time.Now(), used)
	}
	quiet("1 no capture", &usage{})

	// A limit of its own shows what is kept in files: all that does not fit into memory.
	c := s.capture("--flush-size", fmt.Sprint(flush), "--spill-dir", t.TempDir())
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	based := time.Now()
	used := watchUsage(t, c)
	quiet("2 before", used)
	before := s.kept()

	begun := time.Now()
	if err := gateway.Pause(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lasting / 2)
	hung := time.Now()
	work.since(hung)
	show("3 store hung", begun, hung, used)
	if err := gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lasting / 2)
	refused := time.Now()
	work.since(refused)
	show("4 store refused", hung, refused, used)
	if s.pg != nil {
		if most := s.kept(); most < before+1<<20 {
			t.Errorf("the slot holds back %s after the outage and %s before: nothing was held up", mib(most), mib(before))
		}
	}
	if !c.alive() {
		t.Fatalf("the capture ended:\n%s", tail(c.stderr(), 5))
	}
	if err := gateway.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	s.waitAll(a)
	caught := time.Now()
	show("5 until all had arrived", back, caught, used)
	quiet("6 after", used)
	work.end()
	s.waitAll(a)
	t.Logf("%s: after an outage of %v all had arrived in %v", engine, back.Sub(begun).Round(time.Second), caught.Sub(back).Round(100*time.Millisecond))
	if s.pg != nil {
		eventually(t, patience(), "the source forgets what has arrived", func() bool {
			s.pg.exec(`CHECKPOINT`)
			return s.kept() < 1<<20
		})
	}
	c.signal(terminate)
	if code := c.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	used.end()
	// One segment on its way and one that fills, and what a transaction may add to either; what fits into memory is no file.
	if most, files := 2*(fillLimit*flush+1<<20), used.files.Load(); files > most {
		t.Errorf("the capture's files took %s, more than %s", mib(files), mib(most))
	}
	if memory := used.memory.Load(); memory > 256<<20 {
		t.Errorf("the capture's memory was %s", mib(memory))
	}
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil {
		t.Errorf("gap %+v: %v", gap, err)
	}
	work.onRecord(s.place, based)
	s.must("verify")
}

// kept is how much log the source has that the archive may lack; of MySQL and MariaDB all that there is.
func (l *loaded) kept() int64 {
	l.t.Helper()
	if l.pg != nil {
		return number(l.t, l.pg.value(`SELECT COALESCE(max(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn))::bigint, 0) FROM pg_replication_slots`))
	}
	var sum int64
	for _, row := range l.my.my.MustQuery(l.t, "", "show binary logs") {
		sum += number(l.t, row[1])
	}
	return sum
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// usage is the most that a process has taken.
type usage struct {
	memory atomic.Int64 // resident
	files  atomic.Int64 // temporary ones
	stop   chan struct{}
	joined sync.WaitGroup
}

// watchUsage looks at a process until end, or its end.
func watchUsage(t *testing.T, p *process) *usage {
	u := &usage{stop: make(chan struct{})}
	u.joined.Go(func() { // joined by end
		for {
			u.memory.Store(max(u.memory.Load(), p.peakRSS()))
			u.files.Store(max(u.files.Load(), unlinked(p.cmd.Process.Pid)))
			select {
			case <-u.stop:
				return
			case <-p.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(u.end)
	return u
}

func (u *usage) end() {
	select {
	case <-u.stop:
	default:
		close(u.stop)
	}
	u.joined.Wait()
}

// unlinked is the size of the files that only a process still has: temporary ones.
func unlinked(pid int) int64 {
	var sum int64
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // fails only on a bad pattern
	for _, link := range links {
		name, err := os.Readlink(link)
		if err != nil || !strings.HasSuffix(name, " (deleted)") {
			continue
		}
		if info, err := os.Stat(link); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
	}
	return sum
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
