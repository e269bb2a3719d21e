package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/internal/faults"
)

// TestStall lets a capture hang, die and lose its network while clients commit, in both modes. In asynchronous mode that
// is nothing to a COMMIT. In zero-loss mode COMMITs go on after the time that was set, by what the server itself does:
// no other capture is there, and this one does not come back before they do.
func TestStall(t *testing.T) {
	t.Parallel()
	table := &shown{}
	table.print(t, "engine", "mode", "no fault", "capture hung", "killed", "cut off")
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			stall(t, engine, table)
		})
	}
}

func stall(t *testing.T, engine string, table *shown) {
	limit := time.Duration(times(1500, 1000)) * time.Millisecond
	window := time.Duration(times(1, 5)) * time.Second // of what is no fault, or must not be felt as one
	s := stallSite(t, engine, limit)
	work := s.startLoad(0, 4, 5*time.Millisecond, 64)

	watch := func(lasting time.Duration) phase {
		t.Helper()
		begun := time.Now()
		time.Sleep(lasting)
		end := time.Now()
		work.since(end) // what is under way returns, too
		return work.between(begun, end)
	}
	alone := watch(window)
	table.add(engine, "no capture", ms(alone.worst), "", "", "")

	var based time.Time // from then on all is on record
	for _, mode := range []struct {
		name    string
		options []string
		window  time.Duration
	}{
		{"asynchronous", nil, window},
		{fmt.Sprintf("`--sync`, %v", limit), []string{"--sync", "--sync-timeout", limit.String()}, limit + window},
	} {
		c := s.capture(mode.options...)
		a := s.waitArchive()
		if s.waitBases(a, 1, 1); based.IsZero() {
			based = time.Now()
		}
		settled := func() {
			t.Helper()
			if mode.options == nil {
				s.waitAll(a)
				return
			}
			eventually(t, patience(), "COMMIT waits", func() bool { return s.protects() })
		}
		settled()
		cells := []string{engine, mode.name, ms(watch(window).worst)}

		c.signal(syscall.SIGSTOP)
		cells = append(cells, ms(watch(mode.window).worst))
		c.signal(syscall.SIGCONT)
		if mode.options != nil || *long {
			settled()
		}

		c.kill()
		cells = append(cells, ms(watch(mode.window).worst))
		c = s.capture(mode.options...)
		settled()

		if err := s.proxy.Set(faults.Silent); err != nil {
			t.Fatal(err)
		}
		cells = append(cells, ms(watch(mode.window).worst))
		if err := s.proxy.Set(faults.Pass); err != nil {
			t.Fatal(err)
		}
		table.add(cells...)
		c.kill()
		// The server may hold the stream of a capture that it has not seen the end of.
		if s.pg != nil {
			s.pg.exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active`)
		}
	}
	work.end()
	last := s.capture()
	s.waitAll(s.mustOpen())
	last.kill()
	work.onRecord(s.place, based)
}

// stallSite is a source whose COMMITs can wait for a capture, for so long.
func stallSite(t *testing.T, engine string, limit time.Duration) *loaded {
	t.Helper()
	if engine == "postgres" {
		return loadedPG(t, newSite(t, dbtest.PG(t), "stalled", dbtest.S3(t)))
	}
	return loadedMy(t, newMySite(t, engine, dbtest.S3(t), "sync_binlog=1", "innodb_flush_log_at_trx_commit=1"), limit)
}

// protects reports whether COMMIT waits, as the source says it.
func (l *loaded) protects() bool {
	l.t.Helper()
	if l.pg != nil {
		return l.pg.value(`SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'`) == "1"
	}
	rows := l.my.my.MustQuery(l.t, "", "show global status like 'rpl_semi_sync_%_status'")
	for _, row := range rows {
		if (row[0] == "Rpl_semi_sync_source_status" || row[0] == "Rpl_semi_sync_master_status") && row[1] == "ON" {
			return true
		}
	}
	return false
}
