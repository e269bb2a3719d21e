package mysql

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/restore"
	source "txreel/sources/mysql"
)

// corpus fills a server with every kind of value and object.
func corpus(t testing.TB, my *dbtest.MySQL) {
	t.Helper()
	for _, name := range []string{"corpus.sql", "corpus-" + my.Flavor + ".sql"} {
		script, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := my.Client(context.Background(), "", string(script), "--default-character-set=utf8mb4"); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

// takeBase takes a base of the recorder's source and commits it.
func (r *recorder) takeBase(o source.BaseOptions) *archive.Base {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	o.URL, o.Reason, o.SpillDir = r.my.URL(""), "test", r.dir
	b, err := source.TakeBase(ctx, r.archive, 1, o)
	r.check(err)
	r.check(source.FinishBase(ctx, r.archive, b, func() {
		r.capture()
		r.heartbeat()
	}))
	return b
}

// TestBaseEqual loads a base that holds every kind of value and object.
func TestBaseEqual(t *testing.T) {
	both(t, func(t *testing.T, from, to *dbtest.MySQL) {
		r := record(t, from)
		r.heartbeat()
		corpus(t, from)
		b := r.takeBase(source.BaseOptions{})
		for _, c := range b.Coverage {
			t.Logf("%s: %s: %s", c.Class, c.What, c.Detail)
		}
		report := r.mustRestore(to, restore.Goal{})
		if report.Base.ID != b.ID {
			t.Errorf("restored from base %s, want %s", report.Base.ID, b.ID)
		}
		for _, w := range report.Warnings {
			t.Log(w)
		}
		same(t, "corpus", content(t, from), content(t, to))
	})
}
