package mysql

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// servers are started once for all tests that only need one to look at, or a database
// of their own in it.
var servers struct {
	sync.Mutex
	running map[string]*dbtest.MySQL
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, server := range servers.running {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// shared returns the server of a flavor that tests share. They leave its settings and
// its binlogs alone.
func shared(t *testing.T, flavor string) *dbtest.MySQL {
	t.Helper()
	servers.Lock()
	defer servers.Unlock()
	if server := servers.running[flavor]; server != nil {
		return server
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	server, err := dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: flavor})
	if err != nil {
		t.Fatal(err)
	}
	if servers.running == nil {
		servers.running = make(map[string]*dbtest.MySQL)
	}
	servers.running[flavor] = server
	return server
}

// onBoth runs a test on a shared server of each flavor.
func onBoth(t *testing.T, run func(t *testing.T, server *dbtest.MySQL)) {
	t.Helper()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) { run(t, shared(t, flavor)) })
	}
}

// connect opens a session that ends with the test.
func connect(t *testing.T, url string) *Conn {
	t.Helper()
	conn, err := Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}
