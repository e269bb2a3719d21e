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

	"txreel/internal/faults"
)

const (
	bankAccounts = 40
	bankBalance  = 1000 // of each account, at first
	bankLists    = 6
	ghostMoney   = 1_000_000 // moved by what is rolled back
)

// bankSchema is SQL that every engine takes: accounts whose sum never changes, lists that only grow, and an entry for
// each transaction, which says what else the transaction did.
func bankSchema() string {
	var b strings.Builder
	b.WriteString(`CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
		CREATE TABLE heads (id int PRIMARY KEY, len int NOT NULL);
		CREATE TABLE items (list int, pos int, client int, n int, PRIMARY KEY (list, pos));
		CREATE TABLE entries (client int, n int, src int, dst int, amount int, list int, notes int, PRIMARY KEY (client, n));
		CREATE TABLE notes (client int, n int, part int, note varchar(250), PRIMARY KEY (client, n, part));`)
	for id := range bankAccounts {
		fmt.Fprintf(&b, "INSERT INTO accounts VALUES (%d, %d);", id, bankBalance)
	}
	for id := range bankLists {
		fmt.Fprintf(&b, "INSERT INTO heads VALUES (%d, 0);", id)
	}
	return b.String()
}

// deed is what a transaction of the bank does. Its entry says the same.
type deed struct {
	entry
	src, dst int // accounts, src < dst; both -1 when it moves nothing
	amount   int
	list     int // the list it appends to, -1 for none
	notes    int
}

// memory is what a client knows of a transaction besides.
type memory struct {
	deed
	began, acked int64 // tickets; acked is zero when no answer came
	rolledBack   bool  // it was, or the server refused it
	from, to     int64 // when it began and was acknowledged, by the source's clock; zero when that was moved meanwhile
}

// teller is a session of a client of the bank.
type teller interface {
	// exec runs statements. When the server refused one of them and nothing is committed for certain, the error is
	// errRefused.
	exec(ctx context.Context, sql string) error
	close()
}

var errRefused = errors.New("refused, and nothing is committed")

// bank is a workload that knows what every record and every restore of it must hold.
type bank struct {
	connect func(ctx context.Context, client int) (teller, error)
	pace    time.Duration
	clock   *faults.Clock
	ticket  atomic.Int64 // orders begins and acknowledgements
	acked   atomic.Int64 // commits that were acknowledged
	failed  atomic.Int64 // transactions that were refused, or of which nobody knows
	stop    context.CancelFunc
	joined  sync.WaitGroup
	begun   time.Time
	took    time.Duration

	mu    sync.Mutex
	txns  map[entry]*memory
	wrong error
}

// open lets clients work until close.
func (b *bank) open(t *testing.T, seed uint64, clients int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b.stop, b.txns, b.begun = cancel, make(map[entry]*memory), time.Now()
	for client := range clients {
		b.joined.Go(func() { b.client(ctx, client, rand.New(rand.NewPCG(seed, uint64(client)))) })
	}
	t.Cleanup(func() {
		cancel()
		b.joined.Wait()
	})
}

// close stops the clients, each behind the transaction it is in.
func (b *bank) close(t *testing.T) {
	t.Helper()
	b.stop()
	b.joined.Wait()
	b.took = time.Since(b.begun)
	if b.wrong != nil {
		t.Fatal(b.wrong)
	}
}

// acknowledged returns the transactions that began behind a ticket and were acknowledged up to another.
func (b *bank) acknowledged(behind, upTo int64) []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []entry
	for e, m := range b.txns {
		if m.began > behind && 0 < m.acked && m.acked <= upTo && !m.rolledBack {
			all = append(all, e)
		}
	}
	return all
}

// client works over as many sessions as it takes.
func (b *bank) client(stop context.Context, client int, random *rand.Rand) {
	ctx := context.WithoutCancel(stop) // a transaction is never cut short by us
	pace := time.NewTicker(b.pace)
	defer pace.Stop()
	n := 0
	for stop.Err() == nil {
		session, err := b.connect(ctx, client)
		if err != nil {
			time.Sleep(20 * time.Millisecond) // the server is down; it comes back
			continue
		}
		for stop.Err() == nil && err == nil {
			<-pace.C
			n++
			err = b.serve(ctx, session, entry{client, n}, random)
		}
		session.close()
	}
}

// serve runs one transaction. An error ends the session, not the client.
func (b *bank) serve(ctx context.Context, session teller, e entry, random *rand.Rand) error {
	m := &memory{deed: deed{entry: e, src: -1, dst: -1, list: -1}, began: b.ticket.Add(1)}
	if random.IntN(10) < 6 {
		m.src = random.IntN(bankAccounts - 1)
		m.dst = m.src + 1 + random.IntN(bankAccounts-1-m.src)
		m.amount = random.IntN(201) - 100
	}
	if m.src < 0 || random.IntN(10) < 6 {
		m.list = random.IntN(bankLists)
	}
	switch {
	case random.IntN(times(50, 1000)) == 0:
		m.notes = 400 // more than a source keeps in memory
	case random.IntN(10) == 0:
		m.notes = 1 + random.IntN(5)
	}
	rollback := random.IntN(8) == 0
	b.mu.Lock()
	b.txns[e] = m
	b.mu.Unlock()

	from, before := b.clock.Now()
	err := session.exec(ctx, m.sql(random, rollback))
	to, after := b.clock.Now()
	if err != nil {
		b.failed.Add(1)
	}
	if err != nil && !errors.Is(err, errRefused) {
		return err // nobody knows
	}
	b.mu.Lock()
	m.rolledBack, m.acked = rollback || err != nil, b.ticket.Add(1)
	if before == after {
		m.from, m.to = from.UnixMicro(), to.UnixMicro()
	}
	b.mu.Unlock()
	if !m.rolledBack {
		b.acked.Add(1)
	}
	return nil
}

// sql is the whole transaction. Rows are locked in one order, so that none waits for another in a circle.
func (d *deed) sql(random *rand.Rand, rollback bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "BEGIN;INSERT INTO entries VALUES (%d, %d, %d, %d, %d, %d, %d);", d.client, d.n, d.src, d.dst, d.amount, d.list, d.notes)
	d.writeNotes(&b, 1, d.notes)
	if random.IntN(5) == 0 { // a part that never was
		fmt.Fprintf(&b, "SAVEPOINT s;INSERT INTO entries VALUES (%d, %d, -1, -1, 0, -1, 0);", d.client, -d.n)
		d.writeNotes(&b, 1001, 1000+d.notes)
		fmt.Fprintf(&b, "UPDATE accounts SET balance = balance + %d WHERE id = %d;ROLLBACK TO SAVEPOINT s;", ghostMoney, max(d.src, 0))
	}
	if d.src >= 0 {
		fmt.Fprintf(&b, "UPDATE accounts SET balance = balance - (%d) WHERE id = %d;", d.amount, d.src)
		fmt.Fprintf(&b, "UPDATE accounts SET balance = balance + (%d) WHERE id = %d;", d.amount, d.dst)
	}
	if d.list >= 0 {
		fmt.Fprintf(&b, "UPDATE heads SET len = len + 1 WHERE id = %d;", d.list)
		fmt.Fprintf(&b, "INSERT INTO items SELECT id, len, %d, %d FROM heads WHERE id = %d;", d.client, d.n, d.list)
	}
	if rollback {
		b.WriteString("ROLLBACK")
	} else {
		b.WriteString("COMMIT")
	}
	return b.String()
}

func (d *deed) writeNotes(b *strings.Builder, from, to int) {
	for part := from; part <= to; part++ {
		if part == from {
			b.WriteString("INSERT INTO notes VALUES ")
		} else {
			b.WriteString(",")
		}
		fmt.Fprintf(b, "(%d, %d, %d, '%0200d')", d.client, d.n, part, part)
	}
	if to >= from {
		b.WriteString(";")
	}
}
