package e2e

import (
	"fmt"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// mySite is a MySQL or MariaDB source and the place of its archive.
type mySite struct {
	place
	my *dbtest.MySQL
}

// newMySite starts a server of the flavor with a database shop, ready for a capture into an archive of its own.
func newMySite(t *testing.T, flavor string, gateway *dbtest.Gateway, settings ...string) *mySite {
	t.Helper()
	return mySiteOn(t, dbtest.My(t, flavor, settings...), gateway)
}

// mySiteOn is newMySite for a server that runs already.
func mySiteOn(t *testing.T, my *dbtest.MySQL, gateway *dbtest.Gateway) *mySite {
	t.Helper()
	s := &mySite{place: newPlace(t, my.Flavor, gateway), my: my}
	my.MustExec(t, "", "create database if not exists shop")
	s.source = []string{"TXREEL_SOURCE=" + my.URL("")}
	s.hidden = append(s.hidden, my.Password())
	return s
}

// flavor is whose GTIDs the source has.
func (s *mySite) flavor() gtid.Flavor { return flavorOf(s.my) }

func flavorOf(m *dbtest.MySQL) gtid.Flavor {
	if m.Flavor == "mariadb" {
		return gtid.MariaDB
	}
	return gtid.MySQL
}

// exec runs SQL in the database shop.
func (s *mySite) exec(sql string) {
	s.t.Helper()
	s.my.MustExec(s.t, "shop", sql)
}

// here is what the source has committed.
func (s *mySite) here() *gtid.Set { return executed(s.t, s.my) }

// executed is what a server has in its binlog.
func executed(t *testing.T, m *dbtest.MySQL) *gtid.Set {
	t.Helper()
	query := "select @@global.gtid_executed"
	if m.Flavor == "mariadb" {
		query = "select @@global.gtid_binlog_pos"
	}
	set, err := gtid.Parse(flavorOf(m), m.MustQuery(t, "", query)[0][0])
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// waitPast waits until the last epoch of the archive holds a set.
func (s *mySite) waitPast(a *archive.Archive, want *gtid.Set) archive.Tail {
	s.t.Helper()
	var tail archive.Tail
	eventually(s.t, patience(), fmt.Sprintf("the archive holds %s", want), func() bool {
		epochs, err := a.Epochs(s.t.Context())
		if err != nil || len(epochs) == 0 {
			return false
		}
		tail, err = a.Tail(s.t.Context(), epochs[len(epochs)-1].Number)
		if err != nil || tail.Seq == 0 {
			return false
		}
		held, err := gtid.Parse(s.flavor(), string(tail.Position))
		return err == nil && held.Contains(want)
	})
	return tail
}

// target starts an empty server that the site's archive can be restored into.
func (s *mySite) target(settings ...string) *dbtest.MySQL {
	s.t.Helper()
	return dbtest.My(s.t, s.my.Flavor, settings...)
}

// restore restores into a fresh server and returns it.
func (s *mySite) restore(point ...string) *dbtest.MySQL {
	s.t.Helper()
	target := s.target()
	s.hidden = append(s.hidden, target.Password())
	s.must(append([]string{"restore", "--target", target.URL("")}, point...)...)
	return target
}
