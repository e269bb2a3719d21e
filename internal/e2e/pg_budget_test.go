package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestWALBudget lets a source keep more log than its budget: first for a transaction that stays open, then for a store
// that is down. Told to keep the slot the capture warns and loses nothing; told to drop it, the source comes first, the gap
// is on record as a choice, and the record goes on behind it without being asked. Last the capture is dead, and only the
// server's own limit is left. More is written meanwhile than the source's volume could hold, and no statement fails.
func TestWALBudget(t *testing.T) {
	t.Parallel()
	dir, free := volume(t, 256<<20)
	pg := dbtest.PGWith(t, dbtest.PostgresOptions{Dir: dir, Settings: map[string]string{"autovacuum": "off", "max_wal_size": "64MB", "min_wal_size": "32MB"}})
	gateway := dbtest.S3(t)
	s := newSite(t, pg, "budget", gateway).setup()
	s.exec(`CREATE TABLE t (id bigserial PRIMARY KEY, v text)`)
	write := func(megabytes int) { // of log; a row, too
		s.exec(fmt.Sprintf(`INSERT INTO t (v) VALUES ('row'); SELECT pg_logical_emit_message(true, 'load', repeat(md5(i::text), 32768)) IS NULL FROM generate_series(1, %d) i`, megabytes))
	}
	grow := func() { write(27) }
	flood := func() { // more than the volume holds, in transactions of an application's size
		for range 75 {
			write(4)
		}
		t.Logf("another 300 MB of log have been written; the volume had never less than %d MB free", free()>>20)
	}
	slots := func() string {
		return s.value(`SELECT count(*) FROM pg_replication_slots WHERE slot_name = '` + s.slot() + `'`)
	}

	first := s.capture("--wal-budget", "16MiB")
	a := s.waitArchive()
	s.waitBases(a, 1, 1)
	long, err := pg.Conn(t.Context(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close(t.Context())
	if _, err := long.Exec(t.Context(), `SET application_name = 'sleepy'; BEGIN; INSERT INTO t (v) VALUES ('open')`); err != nil {
		t.Fatal(err)
	}
	grow()
	s.waitPast(a, s.here())
	eventually(t, patience(), "the warning", func() bool {
		return contains(first.stderr(), "keeps the slot", `"budget_bytes":16777216`, `"percent":1`)
	})
	if gap, err := a.Gap(t.Context(), 1); err != nil || gap != nil || slots() != "1" {
		t.Fatalf("told to keep the slot: gap %+v, %s slots: %v", gap, slots(), err)
	}
	first.signal(terminate)
	if code := first.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	// The choice of another start holds from then on. The budget is that of the start before.
	second := s.capture("--at-wal-budget", "drop", "--lock-timeout", "500ms")
	eventually(t, patience(), "the slot to go", func() bool { return slots() == "0" })
	eventually(t, patience(), "what holds up the new slot", func() bool { return contains(second.stderr(), `application \"sleepy\"`) })
	if _, err := long.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	s.waitBases(a, 2, 1)
	s.exec(`INSERT INTO t (v) VALUES ('behind')`)
	s.waitPast(a, s.here())
	s.checkBudgetGap(a, 1)

	// The archive cannot be reached: the slot goes all the same, and the gap is on record when it can.
	if err := gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	grow()
	eventually(t, patience(), "the slot to go again", func() bool { return slots() == "0" })
	flood()
	if err := gateway.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := second.result(time.Minute) // another base within the hour would be no answer
	if r.code != 3 {
		t.Fatalf("exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
	}
	s.checkBudgetGap(a, 2)

	third := s.capture() // a person has looked at it
	s.waitBases(a, 3, 1)
	s.exec(`INSERT INTO t (v) VALUES ('at last')`)
	s.waitPast(a, s.here())
	third.signal(terminate)
	if code := third.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	c, err := a.LastChoice(t.Context(), 3)
	if err != nil || c == nil || c.Epoch != 3 || c.Number != 1 || c.AtBudget != archive.AtBudgetDrop || c.Budget != 16<<20 {
		t.Errorf("the choice on record is %+v, %v", c, err)
	}
	if c, err := a.LastChoice(t.Context(), 1); err != nil || c.Number != 2 || c.AtBudget != archive.AtBudgetDrop {
		t.Errorf("the choice of epoch 1 is %+v, %v", c, err)
	}

	// A capture that is dead drops nothing: the server itself bounds what it keeps, and the next capture finds the gap.
	fourth := s.capture("--at-wal-budget", "keep")
	s.exec(`INSERT INTO t (v) VALUES ('before the end')`)
	s.waitPast(a, s.here())
	fourth.kill()
	s.exec(`ALTER SYSTEM SET max_slot_wal_keep_size = '48MB'`)
	s.exec(`SELECT pg_reload_conf()`)
	flood()
	if status := s.value(`SELECT wal_status FROM pg_replication_slots WHERE slot_name = '` + s.slot() + `'`); status != "lost" {
		t.Errorf("the slot is %s", status)
	}
	if r := s.run("capture"); r.code != 3 {
		t.Errorf("behind a slot that was lost: exit code %d, want 3:\n%s", r.code, tail(r.stderr, 5))
	}
	if gap, err := a.Gap(t.Context(), 3); err != nil || gap == nil || gap.Cause != archive.CauseGap {
		t.Errorf("gap %+v, %v", gap, err)
	}
	fifth := s.capture("--new-epoch")
	s.waitBases(a, 4, 1)
	s.exec(`INSERT INTO t (v) VALUES ('behind that')`)
	s.waitPast(a, s.here())
	fifth.kill()
	s.restore("budget_again")
	s.same("budget_again")
	s.must("verify", "--full")
}

// volume makes a small file system for a server, and returns the folder to make there and what says how much of it was
// free when that was least. That needs root; other users get a folder of any size.
func volume(t *testing.T, size int) (dir string, free func() int64) {
	t.Helper()
	mount, err := os.MkdirTemp("", "txvol-") // a server's user must get in, and its socket's path be short
	if err == nil {
		err = os.Chmod(mount, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(mount) })
	if os.Getuid() != 0 {
		t.Log("SKIPPED in part: mounting a small file system needs root")
		return filepath.Join(mount, "pg"), func() int64 { return -1 }
	}
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		t.Logf("SKIPPED in part: this machine does not let us mount: %v", err)
		return filepath.Join(mount, "pg"), func() int64 { return -1 }
	}
	least := int64(size)
	stop, ended := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	go func() { // joined below
		defer close(ended)
		for {
			var fs syscall.Statfs_t
			if err := syscall.Statfs(mount, &fs); err == nil {
				mu.Lock()
				least = min(least, int64(fs.Bavail)*fs.Bsize)
				mu.Unlock()
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(mount, "pg"), func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return least
	}
}

// checkBudgetGap checks that an epoch ends by choice, and that the next, if there is one, says so.
func (s *site) checkBudgetGap(a *archive.Archive, epoch uint64) {
	s.t.Helper()
	gap, err := a.Gap(s.t.Context(), epoch)
	if err != nil || gap == nil || gap.Cause != archive.CauseBudget || !strings.Contains(gap.Detail, "the budget is 16 MiB") {
		s.t.Errorf("gap of epoch %d: %+v, %v", epoch, gap, err)
	}
	epochs, err := a.Epochs(s.t.Context())
	if err != nil || uint64(len(epochs)) > epoch && epochs[epoch].Cause != archive.CauseBudget {
		s.t.Errorf("epochs %+v, %v", epochs, err)
	}
	if r := s.must("status"); !contains(r.stdout, "GAP", fmt.Sprint(epoch)) {
		s.t.Errorf("status says:\n%s", r.stdout)
	}
}
