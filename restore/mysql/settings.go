package mysql

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/internal/failpoint"
)

// setting is a global variable and what it is while a restore is at work.
type setting struct{ name, value string }

// When InnoDB writes and flushes its log, and how it does in a restore: written at each commit, flushed once a second.
const (
	flushAtCommit = "innodb_flush_log_at_trx_commit"
	relaxedFlush  = "2"
)

// relaxed returns the variables that a restore changes and puts back. What is executed
// survives the death of the server's process under all of them; that of its machine it may not.
func (t *Target) relaxed() []setting {
	v, workers := t.version, strconv.Itoa(t.job.Workers)
	const packet = "1073741824" // the largest there is: an event may be as large
	list := []setting{
		{"sync_binlog", "0"},
		{"sync_relay_log", "0"}, // what of it is lost is asked for again
		{flushAtCommit, relaxedFlush},
		{"event_scheduler", "OFF"},
		{"max_allowed_packet", packet},
		{v.replica("max_allowed_packet"), packet},
		{v.replica("exec_mode"), "STRICT"},
		{"server_id", strconv.FormatUint(uint64(drawServerID()), 10)},
	}
	if v.mariadb() {
		// A statement that ran before the server died, and was not noted, must be able to run again.
		ddl := "STRICT"
		if t.resumed {
			ddl = "IDEMPOTENT"
		}
		return append(list,
			setting{"slave_parallel_threads", workers},
			setting{"slave_parallel_mode", "optimistic"},
			setting{"slave_domain_parallel_threads", "0"},
			// What a worker has before it, in bytes, as the server has it by itself: an eighth of that lets workers wait, and 16 MiB make all slower.
			setting{"slave_parallel_max_queued", "131072"},
			setting{"slave_run_triggers_for_rbr", "NO"},
			setting{"slave_ddl_exec_mode", ddl},
		)
	}
	return append(list,
		setting{v.replica("parallel_type"), "LOGICAL_CLOCK"},
		setting{v.replica("parallel_workers"), workers},
		setting{v.replica("preserve_commit_order"), "1"},
	)
}

// drawServerID returns a random server id above 2^31, where hardly anybody counts: a replica drops the
// events that carry its own, and without a word. That of the source may be the target's, 1 where nobody has set any.
func drawServerID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint32(b[:])>>1 | 1<<31
}

// relax changes the settings, after their values were noted. Where that has happened
// already the note stands: a server that was started again has its own values back.
func (t *Target) relax(ctx context.Context) error {
	for _, s := range t.relaxed() {
		old, err := t.control.value(ctx, "SELECT @@GLOBAL."+s.name)
		if isError(err, mysql.ER_UNKNOWN_SYSTEM_VARIABLE) {
			continue // another version's
		}
		if err != nil {
			return fmt.Errorf("read setting %s of the target: %w", s.name, err)
		}
		if sameSetting(old, s.value) {
			continue
		}
		if s.name == "event_scheduler" && strings.EqualFold(old, "DISABLED") {
			continue // as good, and for good
		}
		if err := t.control.exec(ctx, "INSERT IGNORE INTO txreel_restore.settings VALUES ("+literal(s.name)+", "+literal(old)+")"); err != nil {
			return fmt.Errorf("note setting %s of the target: %w", s.name, err)
		}
		if err := t.control.exec(ctx, setGlobal(s.name, s.value)); err != nil {
			return fmt.Errorf("change setting %s of the target: %w", s.name, err)
		}
	}
	return nil
}

// putBack restores the settings that relax has changed.
func (t *Target) putBack(ctx context.Context) error {
	rows, err := t.control.query(ctx, "SELECT name, value FROM txreel_restore.settings")
	if err != nil {
		return fmt.Errorf("read the settings the target had: %w", err)
	}
	for _, r := range rows {
		if err := t.control.exec(ctx, setGlobal(r.text(0), r.text(1))); err != nil {
			return fmt.Errorf("put back setting %s of the target, which was %s: %w", r.text(0), r.text(1), err)
		}
		failpoint.Hit(failpoint.RestoreSettingBack)
	}
	return nil
}

func setGlobal(name, value string) string {
	if _, err := strconv.ParseInt(value, 10, 64); err != nil {
		value = literal(value)
	}
	return "SET GLOBAL " + name + " = " + value
}

// sameSetting compares two notations of a variable's value.
func sameSetting(a, b string) bool {
	norm := func(s string) string {
		switch s = strings.ToUpper(s); s {
		case "ON":
			return "1"
		case "OFF":
			return "0"
		}
		return s
	}
	return norm(a) == norm(b)
}
