package mysql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// overwritten are tables whose updates may be left out, each with something that limits which, and some of which none may.
const overwritten = `CREATE DATABASE o; USE o;
	CREATE TABLE u (id INT PRIMARY KEY, u INT UNIQUE, v VARCHAR(300), w INT, b TEXT, KEY (w));
	CREATE TABLE c (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT, d DECIMAL(20, 4), g INT AS (n + 1) STORED, KEY (g));
	CREATE TABLE p (a INT, b INT, r INT, w INT, PRIMARY KEY (b, a), %UNIQUE% (r)) ENGINE=InnoDB;
	CREATE TABLE f (id BIGINT AUTO_INCREMENT PRIMARY KEY, r INT, w INT, FOREIGN KEY (r) REFERENCES p (r)) ENGINE=InnoDB;
	CREATE TABLE e (id INT PRIMARY KEY, n INT, g INT AS (n % 50) %KEPT%, UNIQUE (g));
	CREATE TABLE x (id INT PRIMARY KEY, k INT, w INT);
	CREATE TABLE z (id INT PRIMARY KEY, u INT UNIQUE, w INT); CREATE TABLE Z (w INT, id INT PRIMARY KEY, u INT UNIQUE);
	CREATE TABLE h (id INT, w INT);
	CREATE TABLE m (id INT PRIMARY KEY, w INT) ENGINE=MyISAM;`

// chance draws statements.
type chance struct {
	*rand.Rand
	mariadb   bool
	crashSafe bool // all that it changes survives the server's death
	twoPhase  bool // MariaDB: an ALTER is two transactions
}

func newChance(t *testing.T, my *dbtest.MySQL) chance {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return chance{Rand: rand.New(rand.NewPCG(seed, 1)), mariadb: my.Flavor == "mariadb"}
}

func (c chance) n(most int) int { return 1 + c.IntN(most) }

// statement returns a statement that changes rows, or may fail for what other rows hold.
func (c chance) statement() string {
	id := c.n(12)
	switch c.IntN(44) {
	case 0:
		return fmt.Sprintf("INSERT INTO u VALUES (%d, %d, REPEAT('v', %d), %d, NULL)", id, c.n(15), c.n(250), c.n(99))
	case 1:
		return fmt.Sprintf("DELETE FROM u WHERE id = %d", id)
	case 2, 24, 25, 26:
		return fmt.Sprintf("UPDATE u SET u = %d WHERE id = %d", c.n(15), id)
	case 3:
		return fmt.Sprintf("UPDATE u SET id = %d WHERE id = %d", c.n(12), id)
	case 4:
		return fmt.Sprintf("UPDATE u SET u = NULL, w = w + 1 WHERE w < %d", c.n(99))
	case 5, 6, 7, 8:
		return fmt.Sprintf("UPDATE u SET w = %d, b = REPEAT('long', %d) WHERE id IN (%d, %d, %d)", c.n(99), c.n(200), id, c.n(12), c.n(12))
	case 9:
		return fmt.Sprintf("REPLACE INTO c (k, n, d) VALUES ('%c', %d, %d.5)", "aAbBcC"[c.IntN(6)], c.n(99), c.n(99))
	case 10, 11:
		return fmt.Sprintf("UPDATE c SET n = n + %d, k = '%c' WHERE k = '%c'", c.n(9), "aAbBcC"[c.IntN(6)], "abc"[c.IntN(3)])
	case 12, 32:
		return fmt.Sprintf("INSERT INTO p VALUES (%d, %d, %d, 1)", c.n(4), c.n(3), c.n(6))
	case 13, 33, 34:
		return fmt.Sprintf("UPDATE p SET w = w + 1, r = %d WHERE a = %d", c.n(6), c.n(4))
	case 14:
		return fmt.Sprintf("UPDATE p SET w = w + 1 WHERE a = %d", c.n(4))
	case 15:
		return fmt.Sprintf("DELETE FROM p WHERE a = %d AND b = %d", c.n(4), c.n(3))
	case 16, 35:
		return fmt.Sprintf("INSERT INTO f (r, w) SELECT r, %d FROM p ORDER BY a, b LIMIT 1", c.n(99))
	case 17, 36, 37:
		return fmt.Sprintf("UPDATE f SET w = w + 1, r = (SELECT r FROM p WHERE a = %d ORDER BY b LIMIT 1) WHERE id %% 3 = %d", c.n(4), c.IntN(3))
	case 18:
		return fmt.Sprintf("UPDATE f SET w = w + %d WHERE id %% 4 = %d", c.n(9), c.IntN(4))
	case 19:
		return fmt.Sprintf("UPDATE e SET n = %d WHERE id = %d", c.n(200), id)
	case 20:
		return fmt.Sprintf("INSERT INTO e (id, n) VALUES (%d, %d)", id, c.n(200))
	case 21:
		return fmt.Sprintf("INSERT INTO h VALUES (%d, 1), (%d, 1)", id, c.n(12))
	case 27, 28, 29, 30:
		return fmt.Sprintf("UPDATE x SET k = %d, w = w + 1 WHERE id = %d", c.n(10), c.n(6))
	case 38, 39, 40, 41, 42:
		return fmt.Sprintf("UPDATE %c SET u = %d, w = w + 1 WHERE id = %d", "zZ"[c.IntN(2)], c.n(10), c.n(6))
	case 43:
		return fmt.Sprintf("INSERT INTO %c (id, u, w) VALUES (%d, %d, 0)", "zZ"[c.IntN(2)], c.n(6), c.n(10))
	case 31:
		return fmt.Sprintf("REPLACE INTO x VALUES (%d, %d, 0)", c.n(6), c.n(10))
	case 22:
		return fmt.Sprintf("UPDATE h SET w = w + 1 WHERE id = %d LIMIT 1", id)
	}
	if c.crashSafe {
		return fmt.Sprintf("DELETE FROM x WHERE id = %d", id)
	}
	return fmt.Sprintf("INSERT INTO m VALUES (%d, 1) ON DUPLICATE KEY UPDATE w = w + 1", id)
}

// definition returns a statement that alters a table.
func (c chance) definition() string {
	return []string{
		"ALTER TABLE x DROP KEY k", "DELETE FROM x WHERE k > 0; ALTER TABLE x ADD UNIQUE KEY k (k)", "ALTER TABLE u DROP KEY w", "ALTER TABLE u ADD UNIQUE KEY w (w, u)",
		fmt.Sprintf("ALTER TABLE u ADD COLUMN n%d INT DEFAULT 5 FIRST", c.n(1_000_000)), "ALTER TABLE u DROP PRIMARY KEY, ADD PRIMARY KEY (id, v(50))",
		"ALTER TABLE u DROP PRIMARY KEY, ADD PRIMARY KEY (id)", "ALTER TABLE m ENGINE=InnoDB", "ALTER TABLE m ENGINE=MyISAM",
		"TRUNCATE TABLE h", "TRUNCATE TABLE c", "UPDATE u SET w = id",
	}[c.IntN(12)]
}

// transaction returns the statements of a transaction.
func (c chance) transaction() []string {
	var list []string
	some := func(n int) {
		for range n {
			list = append(list, c.statement())
		}
	}
	switch c.IntN(40) {
	case 0:
		return []string{c.definition()}
	case 1:
		list = append(list, "SET SESSION binlog_format = 'STATEMENT'", fmt.Sprintf("UPDATE u SET w = w * 2 %% 1000 WHERE id < %d", c.n(12)), "SET SESSION binlog_format = 'ROW'")
	case 2:
		list = append(list, "BEGIN")
		some(2)
		list = append(list, "SAVEPOINT s")
		some(2)
		list = append(list, "ROLLBACK TO s")
		some(1)
		list = append(list, "COMMIT")
	case 3:
		list = append(list, "BEGIN")
		some(3)
		list = append(list, "ROLLBACK")
	case 4:
		list = append(list, "XA START 'x'")
		for range 3 {
			list = append(list, fmt.Sprintf("UPDATE u SET w = %d WHERE id = %d", c.n(99), c.n(12)))
		}
		end := []string{"XA COMMIT 'x'", "XA ROLLBACK 'x'"}[c.IntN(2)]
		list = append(list, "XA END 'x'", "XA PREPARE 'x'", end)
	case 5:
		list = append(list, "SET SESSION binlog_row_image = 'MINIMAL'")
		some(2)
		list = append(list, "SET SESSION binlog_row_image = 'FULL'")
	default:
		list = append(list, "BEGIN")
		some(c.n(5))
		list = append(list, "COMMIT")
	}
	return list
}

// source makes the tables and returns the session of the application.
func (c chance) source(t *testing.T, r *recorder) *dbtest.Session {
	t.Helper()
	s, err := r.my.Session(context.Background(), "")
	r.check(err)
	t.Cleanup(func() { _ = s.Close() })
	t.Cleanup(func() { r.my.MustExec(t, "", "SET GLOBAL binlog_checksum = CRC32") })
	sql := strings.NewReplacer("%UNIQUE%", "UNIQUE KEY", "%KEPT%", "VIRTUAL").Replace(overwritten)
	if c.mariadb { // it lets foreign keys refer to what is not unique; its CHECKSUM TABLE depends on more than the rows where a column is virtual
		if c.twoPhase {
			r.check(s.Exec(context.Background(), "SET SESSION binlog_alter_two_phase = 1"))
		}
		sql = strings.NewReplacer("%UNIQUE%", "KEY", "%KEPT%", "STORED").Replace(overwritten) + "CREATE TABLE v (id INT PRIMARY KEY, w INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, " +
			"e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING; INSERT INTO v (id, w) VALUES (1, 1)"
	}
	r.check(s.Exec(context.Background(), sql))
	return s
}

// run commits n transactions.
func (c chance) run(r *recorder, s *dbtest.Session, n int) {
	ctx := context.Background()
	for i := range n {
		for _, sql := range c.transaction() {
			_ = s.Exec(ctx, sql) // it fails for what other rows hold, as an application's does
		}
		if c.mariadb && i%10 == 0 {
			r.check(s.Exec(ctx, "UPDATE v SET w = w + 1"))
		}
	}
	r.capture()
}

// TestOverwritten runs random transactions on a source and restores to moments in between: where updates are left out the target
// holds what the source held, in every table.
func TestOverwritten(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		c := newChance(t, source)
		c.twoPhase = true
		r := record(t, source)
		r.perSeg, r.impatient = 40, true
		s := c.source(t, r)
		var moments []moment
		for _, checksum := range []string{"CRC32", "NONE", "CRC32"} {
			r.check(s.Exec(context.Background(), "SET GLOBAL binlog_checksum = "+checksum))
			c.run(r, s, 300)
			moments = append(moments, moment{xid: r.xids[len(r.xids)-1], dump: content(t, source)})
		}
		var left int64
		for i, m := range moments {
			report := r.mustRestore(target, restore.Goal{Kind: restore.AtXID, Text: m.xid})
			same(t, m.xid, m.dump, content(t, target))
			left += report.Overwritten
			if c.mariadb && i == len(moments)-1 {
				const versions = "SELECT COUNT(*) FROM o.v FOR SYSTEM_TIME ALL"
				if want, got := source.MustQuery(t, "", versions)[0][0], target.MustQuery(t, "", versions)[0][0]; want != got {
					t.Errorf("the source has %s versions of rows, the target %s", want, got)
				}
			}
			empty(t, target)
		}
		if left < 100 {
			t.Errorf("%d updates were left out", left)
		}
	})
}

// TestOverwrittenKilled kills the target and interrupts the restore in the middle of a replay that leaves updates out, and breaks the connection
// of another one again and again.
func TestOverwrittenKilled(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		c := newChance(t, source)
		c.crashSafe = true
		r := record(t, source)
		r.perSeg = 40
		c.run(r, c.source(t, r), 1500)
		p, err := r.plan(restore.Goal{})
		r.check(err)
		left := int64(0)
		for n := range 4 {
			left += c.interrupt(r, p, target, n)
		}
		want := content(t, source)
		left += r.mustRestore(target, restore.Goal{}).Overwritten
		same(t, "interrupted", want, content(t, target))
		settled(t, target)
		empty(t, target)
		left += c.cut(r, p, target)
		same(t, "cut", want, content(t, target))
		if left == 0 {
			t.Error("no update was left out")
		}
	})
}

// interrupt runs a restore that ends before it is over, later the larger n is, and returns how many updates it has left out.
func (c chance) interrupt(r *recorder, p *restore.Plan, target *dbtest.MySQL, n int) (left int64) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	to, err := Open(ctx, target.URL(""), Options{})
	r.check(err)
	defer to.Close()
	to.patience = 0
	end := func() error { cancel(); return nil }
	kill := n%2 == 0
	if kill {
		end = func() error { return target.Kill(context.Background()) }
	}
	replays, over := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() { // joined below
		select { // MySQL does not start again where it died while it forgot its log, in front of the replay
		case <-replays:
			time.Sleep(time.Duration(c.IntN(100+100*n)) * time.Millisecond)
		case <-over:
		}
		ended <- end()
	}()
	var once sync.Once
	_, err = restore.Run(ctx, r.archive, p, to, restore.Options{Jobs: 4, SpillDir: r.dir, Progress: func(phase restore.Phase, _, _ int64, _ string) {
		if phase == restore.PhaseReplay {
			once.Do(func() { close(replays) })
		}
	}})
	close(over)
	r.check(<-ended)
	if kill {
		r.check(target.Start(context.Background()))
	}
	if err == nil {
		r.t.Log("the restore was over before it was interrupted")
		empty(r.t, target)
	}
	return to.leftOut.Load()
}

// cut restores over connections that break, each a little later than the one before.
func (c chance) cut(r *recorder, p *restore.Plan, target *dbtest.MySQL) (left int64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	to, err := Open(ctx, target.URL(""), Options{})
	r.check(err)
	defer to.Close()
	to.patience = 0
	var links atomic.Int64
	to.link = func(link net.Conn) net.Conn {
		left := &atomic.Int64{}
		left.Store(links.Add(1) * int64(10_000+c.IntN(40_000)))
		return cutLink{link, left}
	}
	_, err = restore.Run(ctx, r.archive, p, to, restore.Options{Jobs: 4, SpillDir: r.dir})
	r.check(err)
	if links.Load() < 2 {
		r.t.Error("no connection broke")
	}
	return to.leftOut.Load()
}
