package mysql

import (
	"context"
	"errors"
	"testing"
	"time"

	"txreel/capture"
	"txreel/internal/dbtest"
)

// TestSemiSyncWait lets a commit wait for a semi-synchronous replica that does not come: the transaction is sent, and
// on record, long before the server counts it among the executed ones. That is no divergence.
func TestSemiSyncWait(t *testing.T) {
	server := dbtest.My(t, "mysql")
	server.MustExec(t, "", "CREATE DATABASE d; CREATE TABLE d.t (n int PRIMARY KEY); INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; SET GLOBAL rpl_semi_sync_source_timeout = 60000")
	src := open(t, SourceOptions{URL: server.URL(""), Tail: executed(t, server), lookEvery: 50 * time.Millisecond})
	server.MustExec(t, "", "SET GLOBAL rpl_semi_sync_source_enabled = 1")
	done := make(chan error, 1)
	go func() { done <- server.Exec(context.Background(), "", "INSERT INTO d.t VALUES (1)") }() // joined below
	got := next(t, src)
	src.Ack(got.held)
	time.Sleep(time.Second) // many looks
	select {
	case <-src.failed:
		t.Errorf("the stream ended: %v", src.failure)
	default:
	}
	src.Close()
	if err := refused(t, SourceOptions{URL: server.URL(""), Tail: got.held}); !errors.Is(err, capture.ErrUnreachable) || errors.Is(err, capture.ErrGap) {
		t.Errorf("opened anew meanwhile: %v", err)
	}
	server.MustExec(t, "", "SET GLOBAL rpl_semi_sync_source_enabled = 0")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	open(t, SourceOptions{URL: server.URL(""), Tail: got.held}).Close()
}

// TestModeWithoutGTIDs opens a record anew on a server that commits without GTIDs by now: what it has committed since
// is lost to the record.
func TestModeWithoutGTIDs(t *testing.T) {
	server := dbtest.My(t, "mysql")
	server.MustExec(t, "", "CREATE DATABASE d")
	tail := executed(t, server)
	server.MustExec(t, "", "SET GLOBAL gtid_mode = ON_PERMISSIVE")
	if err := refused(t, SourceOptions{URL: server.URL(""), Tail: tail}); errors.Is(err, capture.ErrGap) {
		t.Errorf("ON_PERMISSIVE: %v", err)
	}
	server.MustExec(t, "", "SET GLOBAL gtid_mode = OFF_PERMISSIVE")
	if err := refused(t, SourceOptions{URL: server.URL(""), Tail: tail}); !errors.Is(err, capture.ErrGap) {
		t.Errorf("OFF_PERMISSIVE: %v", err)
	}
}
