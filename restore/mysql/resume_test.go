package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sink/dir"
	"txreel/sources/mysql/gtid"
)

// small runs n small transactions on a server, of four sessions' kinds of work.
func small(t testing.TB, my *dbtest.MySQL, n int) {
	t.Helper()
	ctx := context.Background()
	s, err := my.Session(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b strings.Builder
	b.WriteString("CREATE DATABASE s; USE s; CREATE TABLE a (id INT PRIMARY KEY, n INT, v VARCHAR(50)); CREATE TABLE b LIKE a;")
	for i := range n {
		table := []string{"a", "b"}[i%2]
		switch {
		case i%500 == 499:
			fmt.Fprintf(&b, "ALTER TABLE %s ADD COLUMN c%d INT DEFAULT %d;", table, i, i)
		case i%3 == 0:
			fmt.Fprintf(&b, "INSERT INTO %s (id, n, v) VALUES (%d, 1, 'row %d');", table, i, i)
		default:
			fmt.Fprintf(&b, "UPDATE %s SET n = n + 1 WHERE id = %d;", table, i/12*6)
		}
		if b.Len() > 200<<10 || i == n-1 {
			if err := s.Exec(ctx, b.String()); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
}

// executedCount waits until the target has executed some of the replay.
func waitExecuted(t *testing.T, my *dbtest.MySQL, r *recorder, n int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	name := "@@GLOBAL.gtid_executed"
	if my.Flavor == "mariadb" {
		name = "@@GLOBAL.gtid_slave_pos"
	}
	g, err := gtid.ParseGTID(r.xids[n])
	r.check(err)
	for time.Now().Before(deadline) {
		set, err := gtid.Parse(r.flavor, my.MustQuery(t, "", "SELECT "+name)[0][0])
		r.check(err)
		if set.Has(g) {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("the target did not come to %s", g)
}

// TestTargetKilled kills the target in the middle of the replay.
func TestTargetKilled(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		r.perSeg = 100
		small(t, source, 6000)
		r.capture()
		done := make(chan error, 1)
		go func() { // joined below
			_, err := r.restore(ctx, target, restore.Goal{}, restore.Options{Jobs: 4})
			done <- err
		}()
		waitExecuted(t, target, r, 1000)
		r.check(target.Kill(ctx))
		err := <-done
		var partial *restore.PartialError
		if !errors.As(err, &partial) || !errors.Is(err, restore.ErrUnreachable) {
			t.Fatalf("killed: %v", err)
		}
		r.check(target.Start(ctx))
		report := r.mustRestore(target, restore.Goal{})
		if !report.Resumed {
			t.Error("the restore began anew")
		}
		same(t, "resumed", content(t, source), content(t, target))
		settled(t, target)
	})
}

// TestDefinitionRan has a MariaDB that died between running an ALTER and noting that it did: it is not run again, and any other failure of the
// first statement is one.
func TestDefinitionRan(t *testing.T) {
	if !slices.Contains(dbtest.Flavors(), "mariadb") {
		t.Log("MariaDB's alone: MySQL notes what it has done with the statement")
		return
	}
	source, target := servers(t, "mariadb")
	ctx := context.Background()
	r := record(t, source)
	r.perSeg = 50
	s, err := source.Session(ctx, "")
	r.check(err)
	var b strings.Builder
	b.WriteString("CREATE DATABASE s; USE s; CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1);")
	for i := range 400 {
		fmt.Fprintf(&b, "ALTER TABLE a ADD COLUMN c%d INT DEFAULT %d;", i, i)
	}
	r.check(s.Exec(ctx, b.String()))
	r.check(s.Close())
	r.capture()
	interrupted, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { // joined below
		_, err := r.restore(interrupted, target, restore.Goal{}, restore.Options{})
		done <- err
	}()
	waitExecuted(t, target, r, 20)
	cancel()
	if err := <-done; err == nil {
		t.Fatal("the restore was over before it was interrupted")
	}
	r.check(target.Exec(ctx, "", "STOP SLAVE")) // what was under way has ended
	n := target.MustQuery(t, "", "SELECT COUNT(*) - 1 FROM information_schema.columns WHERE table_schema = 's'")[0][0]
	sql := func(sql string) { r.check(target.Exec(ctx, "s", "SET sql_log_bin = 0; "+sql)) }
	sql("RENAME TABLE a TO elsewhere") // the statement fails, and has not run
	if _, err := r.restore(ctx, target, restore.Goal{}, restore.Options{}); err == nil {
		t.Error("a target without the table takes its columns")
	}
	sql("RENAME TABLE elsewhere TO a; ALTER TABLE a ADD COLUMN c" + n + " INT DEFAULT " + n)
	report := r.mustRestore(target, restore.Goal{})
	if !report.Resumed || !slices.ContainsFunc(report.Warnings, func(w string) bool { return strings.Contains(w, "was not run again") }) {
		t.Errorf("resumed: %v, with the warnings %q", report.Resumed, report.Warnings)
	}
	same(t, "resumed", content(t, source), content(t, target))
	settled(t, target)
}

// settled looks for what a restore leaves behind.
func settled(t *testing.T, my *dbtest.MySQL) {
	t.Helper()
	for sql, want := range map[string]string{
		"SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE 'txreel%'": "0",
		"SELECT @@GLOBAL.max_allowed_packet":                                                "268435456",
		"SELECT @@GLOBAL.innodb_flush_log_at_trx_commit":                                    "2",
	} {
		if got := my.MustQuery(t, "", sql)[0][0]; got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	status, err := my.ReplicaStatus(context.Background())
	if err != nil || len(status) > 0 {
		t.Errorf("replica status %v, %v", status, err)
	}
}

// helperVariable makes the test binary a restore and nothing else, to be killed.
const helperVariable = "TXREEL_TEST_RESTORE"

// helper restores everything of an archive, as told by the variable: folder, engine and URL.
func helper(what string) error {
	words := strings.Fields(what)
	ctx := context.Background()
	store, err := dir.Open(words[0])
	if err != nil {
		return err
	}
	a, err := archive.Open(ctx, store)
	if err != nil {
		return err
	}
	flavor, err := archiveFlavor(a)
	if err != nil {
		return err
	}
	p, err := restore.MakePlan(ctx, a, Dialect{flavor}, restore.Goal{})
	if err != nil {
		return err
	}
	target, err := Open(ctx, words[1], Options{})
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = restore.Run(ctx, a, p, target, restore.Options{Jobs: 4})
	return err
}

// TestToolKilled kills the restore at moments spread over all of it, and lets it end.
func TestToolKilled(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		r.perSeg = 50
		live(t, r, []step{history[0], history[3], history[11], history[12]})
		small(t, source, 4000)
		r.capture()
		whole := t.TempDir() // the recorder's spill files are no part of it
		r.check(os.CopyFS(filepath.Join(whole, "a"), os.DirFS(r.dir)))
		run := func(after time.Duration) (killed bool) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), helperVariable+"="+filepath.Join(whole, "a")+" "+target.URL(""))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			r.check(cmd.Start())
			var fired atomic.Bool
			timer := time.AfterFunc(after, func() { fired.Store(true); _ = cmd.Process.Kill() })
			defer timer.Stop()
			err := cmd.Wait()
			switch {
			case err == nil:
				return false
			case strings.Contains(out.String(), restore.ErrNotEmpty.Error()):
				return false // the one before was killed behind its last step
			case !fired.Load():
				t.Fatalf("restore: %v\n%s", err, out.String())
			}
			return true
		}
		kills, after := 0, 30*time.Millisecond
		for run(after) {
			kills++
			after += after/8 + time.Duration(rand.Int64N(int64(40*time.Millisecond))) // a busy machine gets there too
			if kills > 60 {
				t.Fatal("the restore never ends")
			}
		}
		if kills < 3 {
			t.Errorf("killed %d times only", kills)
		}
		same(t, fmt.Sprintf("killed %d times", kills), content(t, source), content(t, target))
		settled(t, target)
	})
}

// cutLink is a connection that breaks after some bytes.
type cutLink struct {
	net.Conn
	left *atomic.Int64
}

func (c cutLink) Write(b []byte) (int, error) {
	if c.left.Add(-int64(len(b))) < 0 {
		_ = c.Close()
		return 0, errors.New("cut")
	}
	return c.Conn.Write(b)
}

// TestConnectionCut breaks the connection to the replica again and again, in the middle of
// transactions and of events.
func TestConnectionCut(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		small(t, source, 400)
		var big step
		for _, s := range history {
			if s.name == "huge" {
				big = s
			}
		}
		live(t, r, []step{history[0], big, history[3]})
		p, err := r.plan(restore.Goal{})
		r.check(err)
		to, err := Open(ctx, target.URL(""), Options{})
		r.check(err)
		defer to.Close()
		var links atomic.Int64
		sizes := []int64{10 << 10, 80 << 10, 5 << 20, 30 << 20}
		to.link = func(link net.Conn) net.Conn {
			n := links.Add(1) - 1
			if int(n) >= len(sizes) {
				return link
			}
			left := &atomic.Int64{}
			left.Store(sizes[n])
			return cutLink{link, left}
		}
		_, err = restore.Run(ctx, r.archive, p, to, restore.Options{Jobs: 2, SpillDir: r.dir})
		r.check(err)
		if links.Load() <= int64(len(sizes)) {
			t.Errorf("%d connections: nothing was cut", links.Load())
		}
		same(t, "cut", content(t, source), content(t, target))
	})
}

// TestDamagedRecord demands that damage ends the restore at once, with what is damaged.
func TestDamagedRecord(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		small(t, source, 100)
		r.capture()
		p, err := r.plan(restore.Goal{})
		r.check(err)
		files, err := filepath.Glob(filepath.Join(r.dir, "epochs", "*", "segments", "*.seg"))
		r.check(err)
		path := files[len(files)/2]
		b, err := os.ReadFile(path)
		r.check(err)
		b[200] ^= 1
		r.check(os.Chmod(path, 0o600))
		r.check(os.WriteFile(path, b, 0o600))
		to, err := Open(ctx, target.URL(""), Options{})
		r.check(err)
		defer to.Close()
		_, err = restore.Run(ctx, r.archive, p, to, restore.Options{SpillDir: r.dir})
		var partial *restore.PartialError
		if !errors.Is(err, archive.ErrCorrupt) || !errors.As(err, &partial) || !strings.Contains(err.Error(), filepath.Base(path)) {
			t.Errorf("damaged: %v", err)
		}
	})
}

// TestConflict demands that a transaction the target cannot apply is named.
func TestConflict(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		small(t, source, 30)
		r.capture()
		if _, err := r.restore(ctx, target, restore.Goal{}, restore.Options{}); err != nil {
			t.Fatal(err)
		}
		_, err := r.restore(ctx, target, restore.Goal{}, restore.Options{})
		if !errors.Is(err, restore.ErrNotEmpty) {
			t.Errorf("over what is there: %v", err)
		}
		_, err = r.restore(ctx, target, restore.Goal{}, restore.Options{Force: true})
		var partial *restore.PartialError
		if !errors.As(err, &partial) || partial.Failed != 1 || !strings.Contains(err.Error(), "database exists") {
			t.Errorf("forced over what is there: %v", err)
		}
	})
}
