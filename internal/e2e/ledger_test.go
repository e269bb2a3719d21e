package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ledger is a workload that knows what the record of it must hold. Its clients insert rows into a table in
// transactions of their own and remember, of each, when it began and when its commit was acknowledged.
type ledger struct {
	site   *site
	ticket atomic.Int64 // orders begins and acknowledgements
	stop   context.CancelFunc
	joined sync.WaitGroup

	mu   sync.Mutex
	txns map[entry]*fate
	err  error
}

// entry names a transaction of the ledger.
type entry struct{ client, n int }

// fate is what a client knows of its transaction.
type fate struct {
	began, acked int64 // tickets; acked is zero when no acknowledgement came
	rows         int   // rows it leaves when it commits
	rolledBack   bool
	unknown      bool // the connection was lost before the answer
}

// startLedger creates the table and lets clients write until end.
func startLedger(s *site, clients int) *ledger {
	s.t.Helper()
	if s.value(`SELECT to_regclass('ledger') IS NULL`) == "t" { // a command that does nothing would be on record as well
		s.exec(`CREATE TABLE ledger (client int, n int, part int, note text, PRIMARY KEY (client, n, part))`)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &ledger{site: s, stop: cancel, txns: make(map[entry]*fate)}
	for client := range clients {
		l.joined.Go(func() {
			if err := l.client(ctx, client); err != nil {
				l.mu.Lock()
				l.err = errors.Join(l.err, err)
				l.mu.Unlock()
			}
		})
	}
	s.t.Cleanup(func() {
		cancel()
		l.joined.Wait()
	})
	return l
}

// end stops the clients, each after the transaction it is in.
func (l *ledger) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.joined.Wait()
	if l.err != nil {
		t.Fatal(l.err)
	}
}

// committed counts the acknowledged transactions.
func (l *ledger) committed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, f := range l.txns {
		if f.acked > 0 && !f.rolledBack {
			n++
		}
	}
	return n
}

// client runs transactions until stop ends, over as many connections as it takes.
func (l *ledger) client(stop context.Context, client int) error {
	ctx := context.WithoutCancel(stop) // a transaction is never cut short by us
	random := rand.New(rand.NewPCG(1, uint64(client)))
	pace := time.NewTicker(10 * time.Millisecond) // what is tested is not how fast it goes
	defer pace.Stop()
	n := 0
	for stop.Err() == nil {
		conn, err := l.site.pg.Conn(ctx, l.site.db)
		if err != nil { // the server is down; it comes back
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for stop.Err() == nil && err == nil {
			<-pace.C
			n++
			err = l.txn(ctx, conn, entry{client, n}, random)
		}
		_ = conn.Close(ctx) // it may be lost already
		if err != nil && !conn.PgConn().IsClosed() {
			return err
		}
	}
	return nil
}

// txn runs one transaction: one row or several, sometimes with a part that is rolled back, sometimes rolled back as
// a whole.
func (l *ledger) txn(ctx context.Context, conn *pgx.Conn, e entry, random *rand.Rand) error {
	f := &fate{began: l.ticket.Add(1), rows: 1, unknown: true}
	if random.IntN(4) == 0 {
		f.rows = 2 + random.IntN(30)
	}
	f.rolledBack = random.IntN(8) == 0
	l.mu.Lock()
	l.txns[e] = f
	l.mu.Unlock()

	insert := func(from, to int) string {
		return fmt.Sprintf("INSERT INTO ledger SELECT %d, %d, part, repeat('x', %d) FROM generate_series(%d, %d) part;",
			e.client, e.n, random.IntN(200), from, to)
	}
	var sql strings.Builder
	sql.WriteString("BEGIN;" + insert(1, f.rows))
	if random.IntN(5) == 0 {
		sql.WriteString("SAVEPOINT s;" + insert(1000, 1003) + "ROLLBACK TO s;")
	}
	if f.rolledBack {
		sql.WriteString("ROLLBACK")
	} else {
		sql.WriteString("COMMIT")
	}
	err := conn.PgConn().Exec(ctx, sql.String()).Close()
	if err != nil {
		return fmt.Errorf("ledger client %d: %w", e.client, err)
	}
	l.mu.Lock()
	f.unknown, f.acked = false, l.ticket.Add(1)
	l.mu.Unlock()
	return nil
}

// check compares the record with what the clients know and with what the source holds: every acknowledged
// transaction is there whole and once, in an order that agrees with what the clients saw, and nothing else is.
func (l *ledger) check(t *testing.T, txns []recordedTxn) {
	t.Helper()
	inSource := make(map[entry]int)
	for _, row := range l.site.pg.MustQuery(t, l.site.db, `SELECT client, n, count(*) FROM ledger GROUP BY 1, 2`) {
		var e entry
		var rows int
		if _, err := fmt.Sscan(strings.Join(row, " "), &e.client, &e.n, &rows); err != nil {
			t.Fatal(err)
		}
		inSource[e] = rows
	}

	seen := make(map[entry]bool)
	var latest int64 // begin of the transactions recorded so far
	for _, txn := range txns {
		if len(txn.rows["public.ledger"]) == 0 {
			continue
		}
		var of entry
		parts := make(map[int]bool)
		for _, row := range txn.rows["public.ledger"] {
			var e entry
			var part int
			if _, err := fmt.Sscan(strings.Join(row.new[:3], " "), &e.client, &e.n, &part); err != nil || row.op != "insert" {
				t.Fatalf("transaction %s holds %s %q: %v", txn.seq, row.op, row.new, err)
			}
			if of = e; parts[part] {
				t.Errorf("transaction %s holds row %v/%d twice", txn.seq, e, part)
			}
			parts[part] = true
		}
		f := l.txns[of]
		switch {
		case f == nil:
			t.Fatalf("transaction %s holds %v, which no client wrote", txn.seq, of)
		case seen[of]:
			t.Errorf("%v is recorded twice, the second time as %s", of, txn.seq)
		case f.rolledBack:
			t.Errorf("transaction %s holds %v, which was rolled back", txn.seq, of)
		case len(parts) != f.rows || len(txn.rows["public.ledger"]) != f.rows || !parts[1] || !parts[f.rows]:
			t.Errorf("transaction %s holds %d rows of %v, want %d", txn.seq, len(parts), of, f.rows)
		case f.acked > 0 && f.acked < latest:
			t.Errorf("transaction %s (%v) stands behind one that began only after it was acknowledged", txn.seq, of)
		}
		seen[of] = true
		latest = max(latest, f.began)
	}
	for e, f := range l.txns {
		if f.acked > 0 && !f.rolledBack && !seen[e] {
			t.Errorf("%v was acknowledged and is not in the record", e)
		}
	}
	for e := range inSource {
		if !seen[e] {
			t.Errorf("%v is in the source and not in the record", e)
		}
	}
	for e := range seen {
		if inSource[e] == 0 {
			t.Errorf("%v is in the record and not in the source", e)
		}
	}
	t.Logf("%d transactions begun, %d recorded", len(l.txns), len(seen))
}
