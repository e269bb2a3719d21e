package mysql

import (
	"strings"
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sink/dir"
)

// TestWithoutGTIDs refuses a mark and a base of a server that commits transactions without GTIDs: nothing could tell
// that the record lacks them.
func TestWithoutGTIDs(t *testing.T) {
	server := dbtest.My(t, "mysql", "gtid_mode=ON_PERMISSIVE")
	conn, err := Connect(t.Context(), server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if at, err := ReadPosition(t.Context(), conn); err == nil || !strings.Contains(err.Error(), "SET PERSIST gtid_mode = ON") {
		t.Errorf("a mark at %s, %v", at, err)
	}
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Init(t.Context(), store, archive.Identity{Engine: "mysql", System: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: server.URL("")}); err == nil || !strings.Contains(err.Error(), "SET PERSIST gtid_mode = ON") {
		t.Errorf("a base %+v, %v", b, err)
	}
}
