package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/sink/spool"
)

// TestSpool takes the object store away under load and kills captures meanwhile: what they have acknowledged is on
// their own disk, and arrives when the store is back.
func TestSpool(t *testing.T) {
	t.Parallel()
	pg, gateway := dbtest.PG(t), dbtest.S3(t)
	folder := filepath.Join(t.TempDir(), "spool")
	s := newSite(t, pg, "spooled", gateway).setup().with("TXREEL_SPOOL="+folder, "TXREEL_SPOOL_LIMIT=64MiB")
	s.racing()
	s.exec(`CREATE TABLE ledger (client int, n int, part int, note text, PRIMARY KEY (client, n, part))`) // the base has it
	first := s.capture()
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	work := startLedger(s, 4)
	s.waitPast(a, s.here())
	acked := func() string { // what the source may forget
		return s.value(`SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '` + s.slot() + `'`)
	}

	if err := gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	away := s.here()
	eventually(t, time.Minute, "the source is told that what came after the store is held", func() bool {
		return s.lsn(`SELECT '`+acked()+`'`) > away
	})
	first.kill()
	if !spool.Holds(folder) {
		t.Fatal("the spool is empty although the store is away")
	}
	second := s.capture() // it waits: what is in the spool has to arrive first
	eventually(t, time.Minute, "a capture waits for the store", func() bool { return second.has("waiting for the store") })
	second.kill()
	other := s.capture()

	if err := gateway.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.waitPast(a, away)
	work.end(t)
	s.waitPast(a, s.here())
	other.signal(terminate)
	if code := other.wait(time.Minute); code != 0 || other.has("spool not empty") || spool.Holds(folder) {
		t.Errorf("the capture ended with %d; the spool is empty: %v", code, !spool.Holds(folder))
	}
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil {
		t.Fatalf("gap %+v: %v", gap, err)
	}
	work.check(t, readRecord(t, a, 1))
	s.must("verify", "--full")
	s.restore("unspooled", "--to", "latest")
	if diff := dbtest.Diff(s.dump(s.db), s.dump("unspooled")); diff != "" {
		t.Errorf("restored:\n%s", diff)
	}
}
