package mysql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
)

// lateCut stalls before it breaks, so that what was sent before is known to be executed.
type lateCut struct{ cutLink }

func (c lateCut) Write(b []byte) (int, error) {
	if c.left.Load() < int64(len(b)) {
		time.Sleep(2500 * time.Millisecond)
	}
	return c.cutLink.Write(b)
}

// TestOverwrittenGroupCut breaks the connection within a transaction that a window could not hold whole. MariaDB's receiver asks for it again, and skips as many
// events of it as it has: they must be the same events.
func TestOverwrittenGroupCut(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		r.perSeg = 40
		s, err := source.Session(ctx, "")
		r.check(err)
		defer s.Close()
		r.check(s.Exec(ctx, "CREATE DATABASE o; USE o; CREATE TABLE a (id INT PRIMARY KEY, w INT); CREATE TABLE b (id INT PRIMARY KEY, w INT, v LONGTEXT); CREATE TABLE c (id INT PRIMARY KEY, w INT); "+
			"CREATE TABLE f (id INT PRIMARY KEY, v LONGTEXT); INSERT INTO a VALUES (1, 0); INSERT INTO b VALUES (1, 0, ''); INSERT INTO c VALUES (1, 0)"))
		for i := range 70 {
			r.check(s.Exec(ctx, fmt.Sprintf("INSERT INTO f VALUES (%d, REPEAT('f', 10000))", i)))
		}
		r.check(s.Exec(ctx, "BEGIN; UPDATE a SET w = 1; UPDATE b SET w = 1, v = REPEAT('b', 600000); UPDATE c SET w = 1; COMMIT; UPDATE a SET w = 2"))
		r.capture()
		p, err := r.plan(restore.Goal{})
		r.check(err)
		for _, exact := range []bool{true, false} {
			empty(t, target)
			c2, cancel := context.WithTimeout(ctx, 40*time.Second)
			to, err := Open(c2, target.URL(""), Options{Exact: exact, Memory: 8 << 20})
			r.check(err)
			to.patience = 0
			var links atomic.Int64
			to.link = func(link net.Conn) net.Conn {
				left := &atomic.Int64{}
				left.Store(1 << 40)
				if links.Add(1) == 1 {
					left.Store(1_100_000) // within the update of b
				}
				return lateCut{cutLink{link, left}}
			}
			_, err = restore.Run(c2, r.archive, p, to, restore.Options{Jobs: 4, SpillDir: r.dir})
			to.Close()
			cancel()
			if err != nil {
				t.Error(err)
			} else if d := dbtest.DiffMySQL(content(t, source), content(t, target)); d != "" {
				t.Errorf("exact %v: %s", exact, d)
			}
		}
	})
}

// TestOverwrittenDomainsCut replays two domains, with statements that alter tables, over connections that break.
func TestOverwrittenDomainsCut(t *testing.T) {
	source, target := servers(t, "mariadb")
	ctx := context.Background()
	r := record(t, source)
	r.perSeg = 40
	s, err := source.Session(ctx, "")
	r.check(err)
	defer s.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for d := range 3 {
		r.check(s.Exec(ctx, fmt.Sprintf("SET gtid_domain_id = %d; CREATE DATABASE o%[1]d; USE o%[1]d; CREATE TABLE d%[1]d (id INT PRIMARY KEY, u INT UNIQUE, w INT, b TEXT); INSERT INTO d%[1]d SELECT seq, seq, 0, '' FROM seq_1_to_20", d)))
	}
	for i := range 3000 {
		d := rnd.IntN(3)
		_ = s.Exec(ctx, fmt.Sprintf("SET gtid_domain_id = %d; USE o%[1]d", d))
		switch {
		case i%100 == 50:
			_ = s.Exec(ctx, fmt.Sprintf("ALTER TABLE d%d COMMENT 'c%d'", d, i))
		case rnd.IntN(10) == 0:
			_ = s.Exec(ctx, fmt.Sprintf("UPDATE d%d SET u = %d WHERE id = %d", d, rnd.IntN(30), rnd.IntN(20)))
		default:
			_ = s.Exec(ctx, fmt.Sprintf("UPDATE d%d SET w = w + 1, b = REPEAT('b', %d) WHERE id = %d", d, rnd.IntN(600), rnd.IntN(20)))
		}
	}
	r.capture()
	p, err := r.plan(restore.Goal{})
	r.check(err)
	for _, patience := range []int64{0, 1, 1} {
		empty(t, target)
		c2, cancel := context.WithTimeout(ctx, 50*time.Second)
		to, err := Open(c2, target.URL(""), Options{})
		r.check(err)
		to.patience = patience
		var links atomic.Int64
		to.link = func(link net.Conn) net.Conn {
			left := &atomic.Int64{}
			left.Store(links.Add(1) * int64(20_000+rnd.IntN(200_000)))
			return cutLink{link, left}
		}
		_, err = restore.Run(c2, r.archive, p, to, restore.Options{Jobs: 4, SpillDir: r.dir})
		if err != nil {
			t.Errorf("patience %d, %d connections: %v", patience, links.Load(), err)
		} else if d := dbtest.DiffMySQL(content(t, source), content(t, target)); d != "" {
			t.Error(d)
		}
		to.Close()
		cancel()
	}
}

// TestLedgerLostOfAnotherDomain sends a transaction of another domain over a connection that breaks before the replica has received it. What
// stands before it in the record, and is noted anew on the next connection, must not wait for it: reach would, and what it waits for is sent behind it.
func TestLedgerLostOfAnotherDomain(t *testing.T) {
	parse := func(s string) gtid.GTID {
		g, err := gtid.ParseGTID(s)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	l := newLedger(0)
	l.add(parse("0-1-1"), 1, 100, true)  // alters a table
	l.add(parse("1-1-1"), 2, 100, false) // is lost with the connection
	set, err := gtid.Parse(gtid.MariaDB, "0-1-1")
	if err != nil {
		t.Fatal(err)
	}
	l.restart()
	l.received(set)
	l.add(parse("0-1-1"), 1, 0, true) // the replica has it
	if l.executed(set); l.at() != 1 {
		t.Errorf("the replica has executed %s, the ledger says %d: reach waits for ever", set, l.at())
	}
}
