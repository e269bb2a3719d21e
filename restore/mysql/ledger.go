package mysql

import (
	"context"
	"sync"

	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// ledger remembers what was sent to the replica and is not known to be executed, so
// that progress can be told in terms of the record, and no more is sent than fits into the
// replica's relay log. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	entries []entry              // in the order sent
	last    map[uint32]gtid.GTID // MariaDB: of each domain, the last one sent
	sent    int64                // bytes on this connection
	done    int64                // of them, known to be executed
	applied change.Seq
	moved   chan struct{} // closed when done has moved
}

// entry is a transaction that was sent, and how much was sent up to it.
type entry struct {
	gtids []gtid.GTID // its own, and on MariaDB the last ones of the other domains, which are executed beside each other
	seq   change.Seq
	sent  int64
	extra bool // it stands within ledgerStep of the one before
}

const (
	// ledgerStep is how many bytes pass between two entries: what is remembered of
	// a full window is small.
	ledgerStep = 32 << 10
	// window is how many bytes a replica is ahead of what it executes at most. They wait in
	// the relay log on its disk.
	window = 1 << 30
)

func newLedger(applied change.Seq) *ledger {
	return &ledger{applied: applied, moved: make(chan struct{})}
}

// restart begins the account of a new connection. What was sent before may wait in the replica's relay log, so
// the domains' last transactions stay.
func (l *ledger) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries, l.sent, l.done = nil, 0, 0
}

// received forgets of the domains' last transactions those that the replica lost with its connection.
func (l *ledger) received(have *gtid.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for domain, g := range l.last {
		if !have.Has(g) {
			delete(l.last, domain)
		}
	}
}

// add notes a transaction of n bytes that was sent. wanted is one that somebody waits for, such as the last one.
func (l *ledger) add(g gtid.GTID, seq change.Seq, n int64, wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent += n
	if g.Flavor == gtid.MariaDB {
		if l.last == nil {
			l.last = make(map[uint32]gtid.GTID)
		}
		l.last[g.Domain] = g
	}
	k := len(l.entries)
	extra := k > 0 && l.sent-l.entries[k-1].sent < ledgerStep
	if extra && !wanted {
		return
	}
	if extra && l.entries[k-1].extra { // whoever waits for that one waits for this one now
		l.entries = l.entries[:k-1]
	}
	all := []gtid.GTID{g}
	for domain, other := range l.last {
		if domain != g.Domain {
			all = append(all, other)
		}
	}
	l.entries = append(l.entries, entry{all, seq, l.sent, extra})
}

// executed takes what the replica has executed.
func (l *ledger) executed(set *gtid.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.entries) && hasAll(set, l.entries[n].gtids) {
		n++
	}
	if n == 0 {
		return
	}
	l.done, l.applied = l.entries[n-1].sent, max(l.applied, l.entries[n-1].seq)
	l.entries = l.entries[n:]
	close(l.moved)
	l.moved = make(chan struct{})
}

func hasAll(set *gtid.Set, gtids []gtid.GTID) bool {
	for _, g := range gtids {
		if !set.Has(g) {
			return false
		}
	}
	return true
}

// at returns the last transaction known to be executed.
func (l *ledger) at() change.Seq {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.applied
}

// wait returns when less than a window is on its way.
func (l *ledger) wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		ahead, moved := l.sent-l.done, l.moved
		l.mu.Unlock()
		if ahead < window {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
