package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/segment"
	"txreel/sink/dir"
)

// TestKeeperCompares shows the keeper segments with tables the last base knows, does
// not know, or knows with another definition.
func TestKeeperCompares(t *testing.T) {
	same, changed, fresh := change.Table{Schema: "s", Name: "a", Version: 1}, change.Table{Schema: "s", Name: "a", Version: 2}, change.Table{Schema: "s", Name: "new", Version: 9}
	index := func(first change.Seq, tables ...change.Table) *segment.Index {
		x := &segment.Index{Tables: tables}
		for i := range tables {
			x.Txns = append(x.Txns, segment.Entry{Txn: change.Txn{Seq: first + change.Seq(i), Tables: []change.TableCount{{Table: &x.Tables[i]}}}})
		}
		return x
	}
	for _, c := range []struct {
		name  string
		index *segment.Index
		want  string
		ahead []change.Seq
	}{
		{"known", index(11, same, same), "", nil},
		{"changed", index(11, same, changed), "s.a", nil},
		{"created", index(11, fresh), "s.new", nil},
		{"changed before the base", index(9, changed, same), "", nil},
		{"changed in the base's last transaction and then back", index(10, changed, same), "", nil},
		{"changed right behind the base", index(10, same, changed), "s.a", nil},
		{"changed in what the base holds ahead of another, and then back", index(11, same, changed, same), "", []change.Seq{12}},
		{"changed in what it does not hold", index(11, changed, same), "s.a", []change.Seq{12}},
	} {
		k := &baseKeeper{base: &archive.Base{Seq: 10, Ahead: c.ahead}, versions: map[string]uint64{"s.a": 1}}
		if k.compare(c.index); k.changed != c.want {
			t.Errorf("%s: %q, want %q", c.name, k.changed, c.want)
		}
	}
}

// TestKeeperSparesIndexes has a base of a source that does not tell definitions apart: no
// segment can change that, and none is decoded. Without it, each is.
func TestKeeperSparesIndexes(t *testing.T) {
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: "mysql", System: "1"})
	if err != nil {
		t.Fatal(err)
	}
	k := newBaseKeeper(a, 1, &mysqlDatabase{}, keeperTimes{}, zerolog.Nop())
	if err := k.adopt(t.Context(), &archive.Base{Epoch: 1, Tables: []archive.BaseTable{{Schema: "s", Name: "a"}}}); err != nil {
		t.Error(err)
	}
	k.shipped(nil) // which it does not open
}

// TestKeeperRests gives a source that was just read for an hour the rest it is due,
// also when another process did the reading.
func TestKeeperRests(t *testing.T) {
	pg := dbtest.PG(t)
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a, err := archive.Init(ctx, store, archive.Identity{Engine: "postgres", System: "1", Database: "postgres"})
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := a.StartEpoch(ctx, nil, archive.CauseFirst, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	base, err := archive.NewBase(epoch.Number, "test")
	if err != nil {
		t.Fatal(err)
	}
	base.Started = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	if err := a.CommitBase(ctx, base); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, "postgres", "create table made_since (id int primary key)")

	var log lockedBuffer
	k := newBaseKeeper(a, epoch.Number, (&databaseFlags{sourceFlag: sourceFlag{Source: pg.URL("postgres")}}).database(), keeperTimes{}, zerolog.New(&log))
	done := make(chan struct{})
	go func() { defer close(done); k.run(ctx) }()
	for !strings.Contains(log.String(), "base put off") {
		select {
		case <-t.Context().Done():
			t.Fatal("the keeper says nothing")
		case <-time.After(10 * time.Millisecond):
		}
		if strings.Contains(log.String(), "base started") {
			t.Fatalf("the keeper read the source again at once:\n%s", log.String())
		}
	}
	cancel()
	<-done
	if left := time.Until(k.rest); left < 2*time.Hour || left > 4*time.Hour {
		t.Errorf("after an hour of reading it rests for %s", left)
	}
	if !bytes.Contains([]byte(log.String()), []byte("made_since was created")) {
		t.Errorf("it does not say why: %s", log.String())
	}
}
