package mysql

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"txreel/internal/dbtest"
	"txreel/restore"
)

// TestOverwrittenTwoPhases changes rows between the two parts of an ALTER TABLE that MariaDB logs in two.
func TestOverwrittenTwoPhases(t *testing.T) {
	for _, exact := range []bool{true, false} {
		t.Run(fmt.Sprintf("exact %v", exact), func(t *testing.T) {
			source, target := servers(t, "mariadb")
			ctx := context.Background()
			r := record(t, source)
			r.perSeg, r.impatient = 40, true
			session := func() *dbtest.Session {
				s, err := source.Session(ctx, "")
				r.check(err)
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			s, alter := session(), session()
			r.check(s.Exec(ctx, "CREATE DATABASE o; USE o; CREATE TABLE x (id INT PRIMARY KEY, w INT, v VARCHAR(200)) ENGINE=InnoDB; "+
				"INSERT INTO x SELECT seq, seq * 10, REPEAT('v', 200) FROM seq_1_to_200000"))
			ended := make(chan error, 1)
			go func() {
				ended <- alter.Exec(ctx, "SET binlog_alter_two_phase = ON; ALTER TABLE o.x ADD UNIQUE KEY w (w), ALGORITHM=INPLACE, LOCK=NONE")
			}()
			for source.MustQuery(t, "", "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'altering table%'")[0][0] == "0" {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			for n := range 30 { // no two rows are ever the same
				i, j := 2*n+1, 2*n+2
				r.check(s.Exec(ctx, fmt.Sprintf("UPDATE x SET w = -%[1]d WHERE id = %[1]d; UPDATE x SET w = %[1]d0 WHERE id = %[2]d; UPDATE x SET w = -%[1]d000 WHERE id = %[1]d", i, j)))
			}
			r.check(<-ended)
			r.capture()
			p, err := r.plan(restore.Goal{})
			r.check(err)
			c2, cancel := context.WithTimeout(ctx, 90*time.Second)
			defer cancel()
			to, err := Open(c2, target.URL(""), Options{Exact: exact})
			r.check(err)
			defer to.Close()
			to.patience = 0
			_, err = restore.Run(c2, r.archive, p, to, restore.Options{Jobs: 4, SpillDir: r.dir})
			r.check(err)
			same(t, "end", content(t, source), content(t, target))
		})
	}
}

// TestOverwrittenTwoPhasesKinds replays ALTERs in two parts with one worker and with several, while the catalog is read after each part.
func TestOverwrittenTwoPhasesKinds(t *testing.T) {
	source, target := servers(t, "mariadb")
	ctx := context.Background()
	r := record(t, source)
	r.perSeg, r.impatient = 40, true
	session := func() *dbtest.Session {
		s, err := source.Session(ctx, "")
		r.check(err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s, alter := session(), session()
	r.check(s.Exec(ctx, "CREATE DATABASE o; USE o; CREATE TABLE x (id INT PRIMARY KEY, w INT, v VARCHAR(200)) ENGINE=InnoDB; CREATE TABLE y LIKE x; INSERT INTO y VALUES (1,1,''); "+
		"INSERT INTO x SELECT seq, seq * 10, REPEAT('v', 200) FROM seq_1_to_20000"))
	r.check(alter.Exec(ctx, "SET binlog_alter_two_phase = ON"))
	for i, sql := range []string{"ADD COLUMN c INT", "ENGINE=InnoDB, ALGORITHM=COPY", "ADD UNIQUE KEY w (w)", "DROP KEY w", "ADD KEY q (v)", "DROP COLUMN c, ALGORITHM=COPY",
		"COMMENT 'x'", "RENAME TO o.x, FORCE", "ADD FULLTEXT KEY f (v)", "ADD UNIQUE KEY bad (v)"} {
		ended := make(chan error, 1)
		go func() { ended <- alter.Exec(ctx, "ALTER TABLE o.x "+sql) }()
		for n := range 20 {
			r.check(s.Exec(ctx, fmt.Sprintf("UPDATE y SET w = w + 1; UPDATE x SET w = -%d WHERE id = 3", i*1000+n)))
		}
		if err := <-ended; (err != nil) != strings.Contains(sql, "bad") {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	r.capture()
	for _, jobs := range []int{1, 2, 4} {
		for _, exact := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d workers, exact %v", jobs, exact), func(t *testing.T) {
				empty(t, target)
				p, err := r.plan(restore.Goal{})
				r.check(err)
				c2, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				to, err := Open(c2, target.URL(""), Options{Exact: exact})
				r.check(err)
				defer to.Close()
				to.patience = 0
				_, err = restore.Run(c2, r.archive, p, to, restore.Options{Jobs: jobs, SpillDir: r.dir})
				r.check(err)
				same(t, "end", content(t, source), content(t, target))
			})
		}
	}
}
