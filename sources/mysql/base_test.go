package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"txreel/archive"
	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/internal/rowsum"
	"txreel/sink/dir"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// baseArchive makes an archive for a server in a folder.
func baseArchive(t testing.TB, my *dbtest.MySQL) *archive.Archive {
	t.Helper()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: my.Flavor, System: "test"})
	if err == nil {
		_, err = a.StartEpoch(t.Context(), nil, archive.CauseFirst, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// recordServer captures a server into an archive until stop is called. beat asks for a
// heartbeat.
func recordServer(t testing.TB, my *dbtest.MySQL, a *archive.Archive) (beat, stop func()) {
	t.Helper()
	src, err := Open(t.Context(), SourceOptions{URL: my.URL(""), ServerID: 4343, ReplicaUUID: "0f5cf5a4-4343-11f0-8000-000000000001"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := a.NewWriter(t.Context(), 1, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	beats := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		err := capture.Run(ctx, src, w, capture.Options{FlushAge: 50 * time.Millisecond, Heartbeat: time.Second, Start: src.Start(), Beat: beats})
		if err != nil && ctx.Err() == nil {
			t.Errorf("capture: %v", err)
		}
		src.Close()
		w.Close()
	})
	stop = func() {
		cancel()
		done.Wait()
	}
	t.Cleanup(stop)
	return func() {
		select {
		case beats <- struct{}{}:
		default:
		}
	}, stop
}

// writers keep a server busy, each with a table of its own in a new database, until
// stop is called.
func writers(t *testing.T, my *dbtest.MySQL, db string, n int, think time.Duration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	my.MustExec(t, "", "CREATE DATABASE "+db)
	var all sync.WaitGroup
	for i := range n {
		my.MustExec(t, db, fmt.Sprintf("CREATE TABLE c%d (n INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO c%d VALUES (0)", i, i))
	}
	for i := range n {
		all.Go(func() {
			s, err := my.Session(ctx, db)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for ctx.Err() == nil {
				if err := s.Exec(context.WithoutCancel(ctx), fmt.Sprintf("UPDATE c%d SET n = n + 1", i)); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(think)
			}
		})
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			all.Wait()
		})
	}
	t.Cleanup(stop)
	return stop
}

// vector reads what the writers' tables hold.
func vector(t *testing.T, c *Conn, db string, n int) []int64 {
	t.Helper()
	var sql []string
	for i := range n {
		sql = append(sql, fmt.Sprintf("(SELECT n FROM %s.c%d)", db, i))
	}
	row, err := c.QueryRow(t.Context(), "SELECT "+strings.Join(sql, ", "))
	if err != nil {
		t.Fatal(err)
	}
	v := make([]int64, n)
	for i := range row {
		if v[i], err = row[i].Int(); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// taken is a snapshot that was accepted.
type taken struct {
	set    *gtid.Set
	vector []int64
}

// logVectors computes, from the server's own log, what each writer had done by the time
// a set was complete.
func logVectors(t *testing.T, my *dbtest.MySQL, db string, n int, snapshots []taken) [][]int64 {
	t.Helper()
	type update struct {
		g      gtid.GTID
		writer int
	}
	var log []update
	for _, file := range my.MustQuery(t, "", "SHOW BINARY LOGS") {
		var g gtid.GTID
		for _, row := range my.MustQuery(t, "", "SHOW BINLOG EVENTS IN '"+file[0]+"'") {
			kind, info := row[2], row[5]
			var err error
			switch kind {
			case "Gtid":
				text := info[strings.LastIndexByte(info, ' ')+1:]
				if my.Flavor == "mysql" {
					text = strings.Trim(info[strings.IndexByte(info, '\''):], "'")
				} else {
					for _, word := range strings.Fields(info) {
						if strings.Count(word, "-") == 2 {
							text = word
						}
					}
				}
				if g, err = gtid.ParseGTID(text); err != nil {
					t.Fatalf("%q: %v", info, err)
				}
			case "Table_map":
				if _, table, ok := strings.Cut(info, "("+db+".c"); ok {
					log = append(log, update{g, int(table[0] - '0')})
				}
			}
		}
	}
	out := make([][]int64, len(snapshots))
	for i, s := range snapshots {
		out[i] = make([]int64, n)
		for _, u := range log {
			if s.set.Has(u.g) {
				out[i][u.writer]++
			}
		}
		for w := range out[i] {
			out[i][w]-- // the INSERT of its row
		}
	}
	return out
}

// TestSnapshotsAreExact takes many snapshots under load, by every rule, and compares what
// every session sees with what the log says the snapshot's GTID set holds.
func TestSnapshotsAreExact(t *testing.T) {
	const n = 8
	for i, c := range []struct {
		flavor, name, user string
		rule               mybase.Rule
		most               int
		think              time.Duration
	}{
		{"mysql", "log_status", "", mybase.RuleLogStatus, 40, 2 * time.Millisecond},
		{"mysql", "gtid bracket", "least", mybase.RuleGTIDBracket, 12, 5 * time.Millisecond},
		{"mysql", "read lock", "", mybase.RuleReadLock, 10, 0},
		{"mariadb", "aligned", "", mybase.RuleAligned, 40, 2 * time.Millisecond},
		{"mariadb", "read lock", "", mybase.RuleReadLock, 10, 0},
	} {
		t.Run(c.flavor+" "+c.name, func(t *testing.T) {
			my, db := baseServer(t, c.flavor), fmt.Sprintf("vec%d", i)
			a := baseArchive(t, my)
			stop := writers(t, my, db, n, c.think)
			o := BaseOptions{URL: my.URL(""), Jobs: 3, AllowLock: true}
			if c.user != "" {
				my.MustExec(t, "", "CREATE USER IF NOT EXISTS least IDENTIFIED BY 'pw'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, REPLICATION CLIENT, XA_RECOVER_ADMIN ON *.* TO least")
				o.URL = my.URLAs(c.user, "pw", "")
				o.AllowLock = false
				beat, _ := recordServer(t, my, a)
				o.Waiting = beat
			}
			o.defaults()
			base, err := archive.NewBase(1, "test")
			if err != nil {
				t.Fatal(err)
			}
			b := &baseRun{BaseOptions: o, archive: a, base: base}
			defer b.close()
			if err := b.open(t.Context()); err != nil {
				t.Fatal(err)
			}
			var all []taken
			for range c.most {
				var at *moment
				if c.rule == mybase.RuleReadLock {
					at, err = b.until(t.Context(), b.Wait, b.locked)
				} else {
					err = b.takeSnapshot(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := b.unlockInstance(t.Context()); err != nil {
					t.Fatal(err)
				}
				if at == nil {
					set, err := gtid.Parse(b.control.Flavor, string(base.Position))
					if err != nil {
						t.Fatal(err)
					}
					at = &moment{set: set}
					if b.engine.Rule != c.rule {
						t.Fatalf("rule %s", b.engine.Rule)
					}
				}
				for _, r := range b.readers {
					all = append(all, taken{at.set, vector(t, r, db, n)})
				}
			}
			stop()
			for i, want := range logVectors(t, my, db, n, all) {
				if !slices.Equal(want, all[i].vector) {
					t.Errorf("snapshot %d at %s shows %v, the log holds %v", i/3, all[i].set, all[i].vector, want)
				}
			}
		})
	}
}

// baseServers are servers of the tests of bases, which prepare transactions and change
// users.
var baseServers = map[string]*dbtest.MySQL{}

func baseServer(t testing.TB, flavor string) *dbtest.MySQL {
	t.Helper()
	servers.Lock()
	defer servers.Unlock()
	if my := baseServers[flavor]; my != nil {
		return my
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	my, err := dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: flavor})
	if err != nil {
		t.Fatal(err)
	}
	baseServers[flavor] = my
	if servers.running == nil {
		servers.running = make(map[string]*dbtest.MySQL)
	}
	servers.running["base "+flavor] = my // ended by TestMain
	return my
}

// onBaseServers runs a test on both.
func onBaseServers(t *testing.T, test func(t *testing.T, my *dbtest.MySQL)) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) { test(t, baseServer(t, flavor)) })
	}
}

// TestBaseUnderLoad commits bases of a server that is written to, and checks them
// against the record: FinishBase compares set and place, this the rows.
func TestBaseUnderLoad(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		const n = 4
		a := baseArchive(t, my)
		beat, _ := recordServer(t, my, a)
		stop := writers(t, my, "busy", n, 2*time.Millisecond)
		for range 3 {
			b, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL("")})
			if err == nil {
				err = FinishBase(t.Context(), a, b, beat)
			}
			if err != nil {
				t.Fatal(err)
			}
			e, ok, err := a.Lookup(t.Context(), 1, b.Seq)
			if err != nil || !ok || e.Kind == change.TxnSource && e.XID == "" {
				t.Errorf("base after %s: %+v, %v", b.Seq, e, err)
			}
		}
		stop()
		bases, err := a.Bases(t.Context(), 1)
		if err != nil || len(bases) != 3 {
			t.Errorf("%d bases, %v", len(bases), err)
		}
	})
}

// TestBaseRefusesUndecided prepares transactions: a base waits, and says what is in its
// way.
func TestBaseRefusesUndecided(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		my.MustExec(t, "", "CREATE DATABASE IF NOT EXISTS xa; CREATE TABLE IF NOT EXISTS xa.t (n INT PRIMARY KEY); DELETE FROM xa.t")
		s, err := my.Session(t.Context(), "xa")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Exec(t.Context(), "XA START 'one'; INSERT INTO t VALUES (1); XA END 'one'; XA PREPARE 'one'"); err != nil {
			t.Fatal(err)
		}
		s.Close()
		a := baseArchive(t, my)
		_, err = TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL(""), Wait: 300 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "XA COMMIT") || !strings.Contains(err.Error(), `"one"`) {
			t.Errorf("%v", err)
		}
		// One that is decided in time is waited for.
		decided := make(chan error, 1)
		go func() {
			time.Sleep(300 * time.Millisecond)
			decided <- my.Exec(context.Background(), "", "XA COMMIT 'one'")
		}()
		b, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL("")})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-decided; err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(b.Tables, func(x archive.BaseTable) bool { return x.Schema == "xa" })
		if i < 0 || b.Tables[i].Rows != 1 {
			t.Errorf("%+v", b.Tables)
		}
	})
}

// TestBaseRestartsWhenDefinitionsChange alters tables between the snapshot and their
// rows. None of it becomes a base with a hole.
func TestBaseRestartsWhenDefinitionsChange(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		for _, c := range []struct{ name, sql string }{
			{"dropped", "DROP TABLE small"},
			{"truncated", "TRUNCATE TABLE small"},
			{"truncated and filled", "TRUNCATE TABLE small; INSERT INTO small SELECT n, 5 FROM large WHERE n <= 10"},
			{"rebuilt", "ALTER TABLE small ENGINE = InnoDB, FORCE"},
			{"column added", "ALTER TABLE small ADD COLUMN w INT DEFAULT 7"},
			{"column dropped", "ALTER TABLE small DROP COLUMN v"},
			{"type changed", "ALTER TABLE small MODIFY v VARCHAR(10)"},
			{"renamed", "RENAME TABLE small TO smaller"},
			{"replaced", "RENAME TABLE small TO old; CREATE TABLE small (n INT PRIMARY KEY, v INT); INSERT INTO small VALUES (1, 1)"},
		} {
			my.MustExec(t, "", "DROP DATABASE IF EXISTS ddl; CREATE DATABASE ddl; USE ddl; CREATE TABLE large (n INT PRIMARY KEY AUTO_INCREMENT, pad CHAR(200)); "+
				"INSERT INTO large (pad) VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g'), ('h'), ('i'), ('j'); "+
				strings.Repeat("INSERT INTO large (pad) SELECT pad FROM large; ", 8)+
				"ANALYZE TABLE large; CREATE TABLE small (n INT PRIMARY KEY, v INT); INSERT INTO small SELECT n, n FROM large ORDER BY n LIMIT 10")
			a := baseArchive(t, my)
			o := BaseOptions{URL: my.URL(""), Jobs: 1}
			tries := 0
			o.hook = func(step string) {
				if step != "definitions" {
					return
				}
				if tries++; tries == 1 {
					my.MustExec(t, "ddl", c.sql)
				}
			}
			b, err := TakeBase(t.Context(), a, 1, o)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if tries != 2 {
				t.Errorf("%s: %d tries", c.name, tries)
			}
			_ = b
			// One that goes on and on is an error that says so.
			o.hook = func(step string) {
				if step == "definitions" {
					my.MustExec(t, "ddl", "ALTER TABLE large ENGINE = InnoDB, FORCE")
				}
			}
			if c.name == "dropped" {
				if _, err := TakeBase(t.Context(), a, 1, o); !errors.Is(err, errChanged) || !strings.Contains(err.Error(), "take another base") {
					t.Errorf("changed each time: %v", err)
				}
			}
		}
	})
}

// stalled is a store that takes no rows while it is told not to: the readers of a base then wait, as for a slow one.
type stalled struct {
	archive.Store
	reached chan struct{} // told of the first object with rows
	release chan struct{} // closed when rows are taken again
}

func (s *stalled) Create(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if strings.Contains(key, "/data/") {
		select {
		case s.reached <- struct{}{}:
		default:
		}
		select {
		case <-s.release:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return s.Store.Create(ctx, key, body, size)
}

// TestBaseGivesWay alters a table without a key to cut it by while it is read: the statement, and whoever waits behind
// it, must not wait for the base.
func TestBaseGivesWay(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		my.MustExec(t, "", "DROP DATABASE IF EXISTS way; CREATE DATABASE way; USE way; CREATE TABLE uncut (n CHAR(36) PRIMARY KEY, pad TEXT); "+
			"INSERT INTO uncut VALUES ('a', REPEAT('x', 4000)); "+strings.Repeat("INSERT INTO uncut SELECT UUID(), pad FROM uncut; ", 13)+
			"CREATE TABLE cut (n INT PRIMARY KEY AUTO_INCREMENT, pad TEXT); INSERT INTO cut (pad) SELECT pad FROM uncut LIMIT 2000; ANALYZE TABLE cut, uncut")
		a := baseArchive(t, my)
		s := &stalled{Store: a.Store, reached: make(chan struct{}, 1), release: make(chan struct{})}
		a.Store = s
		tries := 0
		done := make(chan error, 1)
		go func() {
			_, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL(""), Jobs: 1, ChunkBytes: 1 << 20, hook: func(step string) {
				if step == "snapshot" {
					if tries++; tries == 2 {
						close(s.release)
					}
				}
			}})
			done <- err
		}()
		<-s.reached
		my.MustExec(t, "way", "SET SESSION lock_wait_timeout = 1; ALTER TABLE cut ADD COLUMN w INT") // nobody reads it now
		my.MustExec(t, "way", "ALTER TABLE uncut ADD COLUMN w INT")                                  // returns although no row has been taken
		if err := <-done; err != nil || tries != 2 {
			t.Errorf("%d tries: %v", tries, err)
		}
		my.MustExec(t, "", "DROP DATABASE way")
	})
}

// TestBaseSeesDefinitionsChangeInTheRecord changes definitions while they are read, which
// only the record shows.
func TestBaseSeesDefinitionsChangeInTheRecord(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		my.MustExec(t, "", "DROP DATABASE IF EXISTS rec; CREATE DATABASE rec; CREATE TABLE rec.a (n INT PRIMARY KEY); CREATE TABLE rec.b (n INT PRIMARY KEY); INSERT INTO rec.a VALUES (1)")
		a := baseArchive(t, my)
		beat, _ := recordServer(t, my, a)
		for _, c := range []struct{ name, step, sql, want string }{
			{"created and dropped", "snapshot", "CREATE TABLE rec.x (n INT); DROP TABLE rec.x", "CREATE TABLE"},
			{"granted", "snapshot", "CREATE USER u_new IDENTIFIED BY 'secret'", "CREATE USER"},
			{"swapped", "definitions", "RENAME TABLE rec.a TO rec.c, rec.b TO rec.a, rec.c TO rec.b; RENAME TABLE rec.a TO rec.c, rec.b TO rec.a, rec.c TO rec.b", "RENAME"},
			{"harmless", "definitions", "CREATE TABLE rec.later (n INT); INSERT INTO rec.later VALUES (1); ANALYZE TABLE rec.a", ""},
			{"harmless early", "snapshot", "INSERT INTO rec.a VALUES (2); ANALYZE TABLE rec.a; DELETE FROM rec.a WHERE n = 2", ""},
		} {
			if my.Flavor == "mysql" && c.step == "snapshot" {
				continue // LOCK INSTANCE FOR BACKUP holds them back
			}
			o := BaseOptions{URL: my.URL(""), hook: func(step string) {
				if step == c.step {
					my.MustExec(t, "", c.sql)
				}
			}}
			b, err := TakeBase(t.Context(), a, 1, o)
			if err == nil {
				err = FinishBase(t.Context(), a, b, beat)
			}
			// MariaDB may notice by itself when it comes to read the table.
			told := err != nil && (strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "was altered, truncated or replaced"))
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, errChanged) || !told) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		my.MustExec(t, "", "DROP USER IF EXISTS u_new")
	})
}

// TestInstanceLockHoldsBackDefinitions shows what MySQL's lock for backups is good for,
// and that it is given back when the definitions are read.
func TestInstanceLockHoldsBackDefinitions(t *testing.T) {
	my := baseServer(t, "mysql")
	my.MustExec(t, "", "DROP DATABASE IF EXISTS held; CREATE DATABASE held; CREATE TABLE held.a (n INT PRIMARY KEY)")
	for _, sql := range []string{"CREATE TABLE held.b (n INT)", "DROP TABLE held.a", "TRUNCATE TABLE held.a", "CREATE USER held_user", "GRANT SELECT ON held.* TO least2", "CREATE VIEW held.v AS SELECT 1", "CREATE TRIGGER held.tr BEFORE INSERT ON held.a FOR EACH ROW SET @a = 1"} {
		my.MustExec(t, "", "CREATE USER IF NOT EXISTS least2")
		done := make(chan error, 1)
		tries := 0 // the statement, let go, makes the base start over
		o := BaseOptions{URL: my.URL(""), hook: func(step string) {
			if step == "snapshot" {
				tries++
			}
			if tries > 1 {
				return
			}
			switch step {
			case "snapshot":
				go func() { done <- my.Exec(context.Background(), "", sql) }()
				for { // until it waits, or has come through
					if len(done) > 0 {
						t.Errorf("%s was not held back: %v", sql, <-done)
						return
					}
					if rows := my.MustQuery(t, "", "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for backup lock'"); len(rows) > 0 {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			case "definitions":
				if err := <-done; err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
		}}
		if _, err := TakeBase(t.Context(), baseArchive(t, my), 1, o); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
		my.MustExec(t, "", "DROP USER IF EXISTS held_user, least2; DROP DATABASE held; CREATE DATABASE held; CREATE TABLE held.a (n INT PRIMARY KEY)")
	}
}

// TestBasePrivileges takes away one privilege after the other: what a base needs to see
// everything it asks for by name, and without the rest it says what it lacks.
func TestBasePrivileges(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		my.MustExec(t, "", "CREATE DATABASE IF NOT EXISTS priv; CREATE TABLE IF NOT EXISTS priv.t (n INT)")
		needs := []string{"SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "REPLICATION CLIENT", "XA_RECOVER_ADMIN"}
		extra := "BACKUP_ADMIN, SHOW_ROUTINE"
		if my.Flavor == "mariadb" {
			needs = []string{"SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "BINLOG MONITOR"}
			extra = ""
		}
		take := func(have []string) error {
			my.MustExec(t, "", "DROP USER IF EXISTS p; CREATE USER p IDENTIFIED BY 'pw'; GRANT "+strings.Join(have, ", ")+" ON *.* TO p")
			_, err := TakeBase(t.Context(), baseArchive(t, my), 1, BaseOptions{URL: my.URLAs("p", "pw", "")})
			return err
		}
		for i, p := range needs {
			err := take(slices.Delete(slices.Clone(needs), i, i+1))
			want := "GRANT " + p + " ON *.* TO 'p'@'%'"
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("without %s: %v, want %s", p, err, want)
			}
		}
		have := slices.Clone(needs)
		if extra != "" {
			have = append(have, extra)
		}
		if err := take(have); err != nil {
			t.Error(err)
		}
		my.MustExec(t, "", "DROP USER p")
	})
}

// TestBaseEndsWithoutTrace ends bases in the middle: no session stays, and no lock.
func TestBaseEndsWithoutTrace(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		my.MustExec(t, "", "DROP DATABASE IF EXISTS traces; CREATE DATABASE traces; CREATE TABLE traces.t (n INT PRIMARY KEY); INSERT INTO traces.t VALUES (1)")
		sessions := func() string {
			return my.MustQuery(t, "", "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND NOT IN ('Daemon', 'Binlog Dump', 'Binlog Dump GTID') AND USER = 'root'")[0][0]
		}
		for _, step := range []string{"snapshot", "definitions"} {
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("enough")
			_, err := TakeBase(ctx, baseArchive(t, my), 1, BaseOptions{URL: my.URL(""), BlockDDL: true, hook: func(s string) {
				if s == step {
					cancel(why)
				}
			}})
			if !errors.Is(err, why) {
				t.Errorf("%s: %v", step, err)
			}
			cancel(nil)
			eventually(t, "the base's sessions to end", func() bool { return sessions() == "0" })
			my.MustExec(t, "", "SET lock_wait_timeout = 1; ALTER TABLE traces.t ENGINE = InnoDB, FORCE")
		}
		_, err := TakeBase(t.Context(), baseArchive(t, my), 1, BaseOptions{URL: my.URL(""), Longest: time.Nanosecond})
		if err == nil || !strings.Contains(err.Error(), "when there is less to do") {
			t.Errorf("too long: %v", err)
		}
	})
}

// TestBaseOfLargeValues reads rows of more than a packet, and of exactly a packet, without
// keeping them in memory, and finds every byte again.
func TestBaseOfLargeValues(t *testing.T) {
	my := baseServer(t, "mariadb")
	my.MustExec(t, "", "DROP DATABASE IF EXISTS huge; CREATE DATABASE huge; CREATE TABLE huge.t (n INT PRIMARY KEY, a LONGBLOB, b LONGBLOB)")
	my.MustExec(t, "", "SET GLOBAL max_allowed_packet = 1 << 30")
	sizes := map[int][2]int{1: {1, 1}, 2: {70_000, 3}, 3: {1<<24 - 1 - 1 - 2 - 4, 1}, 4: {1<<24 - 1 - 1 - 2 - 4 + 1, 1}, 5: {200, 40}, 6: {300_000, 200}, 7: {0, 66_000}, 8: {251, 65_536}}
	for n, s := range sizes {
		my.MustExec(t, "", fmt.Sprintf("INSERT INTO huge.t VALUES (%d, REPEAT('\\\\', %d), REPEAT('x', %d))", n, s[0], s[1]))
	}
	my.MustExec(t, "", "INSERT INTO huge.t VALUES (9, NULL, REPEAT('y', 66000)), (10, REPEAT('z', 66000), NULL), (11, NULL, NULL)")
	a := baseArchive(t, my)
	my.MustExec(t, "", "SET GLOBAL sql_select_limit = 5") // of which a base knows nothing
	b, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL(""), Jobs: 1})
	my.MustExec(t, "", "SET GLOBAL sql_select_limit = DEFAULT")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(b.Tables, func(x archive.BaseTable) bool { return x.Schema == "huge" })
	if b.Tables[i].Rows != 11 {
		t.Fatalf("%d rows", b.Tables[i].Rows)
	}
	lines := strings.Split(strings.TrimSuffix(chunkText(t, a, b, &b.Tables[i]), "\n"), "\n")
	if len(lines) != 11 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		f := strings.Split(line, "\t")
		var n int
		if _, err := fmt.Sscan(f[0], &n); err != nil || len(f) != 3 {
			t.Fatalf("a line begins %.20q", line)
		}
		want := [2]string{strings.Repeat(`\\`, sizes[n][0]), strings.Repeat("x", sizes[n][1])}
		switch n {
		case 9:
			want = [2]string{`\N`, strings.Repeat("y", 66000)}
		case 10:
			want = [2]string{strings.Repeat("z", 66000), `\N`}
		case 11:
			want = [2]string{`\N`, `\N`}
		}
		if f[1] != want[0] || f[2] != want[1] {
			t.Errorf("row %d: %d and %d bytes, want %d and %d", n, len(f[1]), len(f[2]), len(want[0]), len(want[1]))
		}
	}
	my.MustExec(t, "", "DROP DATABASE huge")
}

// chunkText reads what the chunks of a table hold, and expects the manifest to say so.
func chunkText(t *testing.T, a *archive.Archive, b *archive.Base, table *archive.BaseTable) string {
	t.Helper()
	var text strings.Builder
	for _, c := range table.Chunks {
		body, _, err := a.Store.Open(t.Context(), b.Key(c.Name), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := zstd.NewReader(body)
		if err == nil {
			_, err = dec.WriteTo(&text)
		}
		if err != nil {
			t.Fatal(err)
		}
		dec.Close()
		body.Close()
	}
	var sum rowsum.Sum
	all := text.String()
	for start, i := 0, 0; i < len(all); i++ {
		switch all[i] {
		case '\\':
			i++
		case '\n':
			sum.Add([]byte(all[start:i]))
			start = i + 1
		}
	}
	if sum.Content() != table.Content || sum.Rows != table.Rows {
		t.Errorf("%s.%s has %d rows of content %s on record, its objects %d of content %s", table.Schema, table.Name, table.Rows, table.Content, sum.Rows, sum.Content())
	}
	return all
}

// TestRangesCutWhereRowsAre cuts tables with keys of every kind: the ranges hold every row
// once.
func TestRangesCutWhereRowsAre(t *testing.T) {
	onBaseServers(t, func(t *testing.T, my *dbtest.MySQL) {
		my.MustExec(t, "", "DROP DATABASE IF EXISTS cut; CREATE DATABASE cut; CREATE TABLE cut.n (i INT PRIMARY KEY AUTO_INCREMENT, pad CHAR(100)); INSERT INTO cut.n (pad) VALUES ('a'), ('b'), ('c'), ('d'); "+
			strings.Repeat("INSERT INTO cut.n (pad) SELECT pad FROM cut.n; ", 10))
		for i, c := range []struct {
			key, values string
			cuts        bool
		}{
			{"k INT, PRIMARY KEY (k)", "i - 2000", true},
			{"k BIGINT UNSIGNED, PRIMARY KEY (k)", "IF(i % 2 = 0, 18446744073709551615 - i, i)", true},
			{"k BIGINT, PRIMARY KEY (k)", "IF(i = 5, 9223372036854775807, IF(i = 6, -9223372036854775808, i * 3))", true},
			{"k SMALLINT, PRIMARY KEY (k, i)", "i % 7", true},
			{"k VARCHAR(20), PRIMARY KEY (k)", "i", false},
			{"k INT, KEY (k)", "i", false},
		} {
			name := fmt.Sprintf("t%d", i)
			my.MustExec(t, "cut", "CREATE TABLE "+name+" (i INT, pad CHAR(200), "+c.key+"); INSERT INTO "+name+" (i, pad, k) SELECT i, pad, "+c.values+" FROM n; ANALYZE TABLE "+name)
			o := BaseOptions{URL: my.URL(""), ChunkBytes: 32 << 10}
			a := baseArchive(t, my)
			b, err := TakeBase(t.Context(), a, 1, o)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(b.Tables, func(x archive.BaseTable) bool { return x.Schema == "cut" && x.Name == name })
			want := my.MustQuery(t, "cut", "SELECT COUNT(*) FROM "+name)[0][0]
			pieces := make(map[string]bool)
			for _, o := range b.Tables[at].Chunks {
				pieces[o.Name[:strings.LastIndexByte(o.Name, '-')]] = true
			}
			seen := make(map[string]bool)
			for line := range strings.Lines(chunkText(t, a, b, &b.Tables[at])) {
				key, _, _ := strings.Cut(line, "\t")
				if seen[key] {
					t.Fatalf("%s: row %s twice", c.key, key)
				}
				seen[key] = true
			}
			if fmt.Sprint(b.Tables[at].Rows) != want || fmt.Sprint(len(seen)) != want || (len(pieces) > 5) != c.cuts {
				t.Errorf("%s: %d rows in %d pieces, the table has %s", c.key, b.Tables[at].Rows, len(pieces), want)
			}
			my.MustExec(t, "cut", "DROP TABLE "+name)
		}
	})
}
