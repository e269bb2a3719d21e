package mysql

import (
	"testing"

	"txreel/internal/dbtest"
	"txreel/restore"
)

func TestLatest(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		r := record(t, source)
		source.MustExec(t, "", "CREATE DATABASE d; USE d; CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(100)); INSERT INTO a VALUES (1, 'one'), (2, 'two'); "+
			"UPDATE a SET v = 'zwei' WHERE id = 2; DELETE FROM a WHERE id = 1")
		r.capture()
		report := r.mustRestore(target, restore.Goal{})
		t.Logf("%s", report)
		same(t, "latest", content(t, source), content(t, target))
	})
}
