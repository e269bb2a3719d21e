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
	return running(t, flavor, dbtest.MySQLOptions{Flavor: flavor})
}

// rough returns the server of a flavor for tests that kill it, or change its settings or its
// binlogs: without databases, and with an empty log.
func rough(t *testing.T, flavor string) *dbtest.MySQL {
	t.Helper()
	server := running(t, "rough "+flavor, dbtest.MySQLOptions{Flavor: flavor, TLS: dbtest.TLSOn, Settings: map[string]string{"max_allowed_packet": "67108864"}})
	for _, row := range server.MustQuery(t, "", "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')") {
		server.MustExec(t, "", "DROP DATABASE "+quoteIdent(row[0]))
	}
	server.MustExec(t, "", resetLog(server))
	return server
}

// resetLog is how a server forgets all it logged.
func resetLog(server *dbtest.MySQL) string {
	if server.Flavor == "mysql" {
		return "RESET BINARY LOGS AND GTIDS"
	}
	return "RESET MASTER"
}

func running(t *testing.T, name string, opts dbtest.MySQLOptions) *dbtest.MySQL {
	t.Helper()
	servers.Lock()
	defer servers.Unlock()
	if server := servers.running[name]; server != nil {
		return server
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	server, err := dbtest.StartMySQL(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	if servers.running == nil {
		servers.running = make(map[string]*dbtest.MySQL)
	}
	servers.running[name] = server
	return server
}

// onBoth runs a test on a shared server of each flavor.
func onBoth(t *testing.T, run func(t *testing.T, server *dbtest.MySQL)) {
	t.Helper()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) { run(t, shared(t, flavor)) })
	}
}

// onRough runs a test on a rough server of each flavor.
func onRough(t *testing.T, run func(t *testing.T, server *dbtest.MySQL)) {
	t.Helper()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) { run(t, rough(t, flavor)) })
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
