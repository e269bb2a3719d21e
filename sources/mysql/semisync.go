package mysql

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/sources/mysql/gtid"
)

// semiSyncMagic begins what a semi-synchronous server puts in front of every event, and what it is answered
// (server documentation, Semisynchronous Replication; the packets are described nowhere but in its source).
const (
	semiSyncMagic  = 0xef
	semiSyncPrefix = 2 // the magic, and whether the server waits for the event
)

// commits tells the server which of its commits need not wait any longer. Acknowledgements are by place, and count
// for everything in front of it; the record knows sets. So each end of the record that was offered is kept with its place
// until it is acknowledged.
type commits struct {
	nudge chan struct{} // asks release to write

	mu      sync.Mutex
	offered []offer
	durable change.Position // the last that was acknowledged, or where the stream began
	place   place           // to acknowledge

	conn     *Conn // of Protect and Exposed
	unwaited int64 // commits that had not waited when Protect returned
}

type offer struct {
	position change.Position
	at       place
}

func (c *commits) offer(position change.Position, at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.offered); n > 0 && c.offered[n-1].position == position {
		return
	}
	c.offered = append(c.offered, offer{position, at})
}

// ack is called with what was offered, in order.
func (c *commits) ack(position change.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.offered, func(o offer) bool { return o.position == position })
	if i < 0 {
		return
	}
	c.durable = position
	c.reach(c.offered[i].at)
	c.offered = slices.Delete(c.offered, 0, i+1)
}

// passed notes a place that the stream has come past, with all of position in front of it. If that is durable, commits
// may be waiting that a capture before us recorded and did not acknowledge; and a server that has
// stopped to wait begins again only with the acknowledgement of all it has.
func (c *commits) passed(at place, position change.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if position == c.durable {
		c.reach(at)
	}
}

// reach is called with mu held.
func (c *commits) reach(at place) {
	if at.file == "" || at == c.place {
		return
	}
	c.place = at
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// release writes acknowledgements until the stream ends. It owns the writing side of the connection.
func (s *Source) release(ctx context.Context) {
	var packet []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.failed:
			return
		case <-s.waits.nudge:
		}
		s.waits.mu.Lock()
		at := s.waits.place
		s.waits.mu.Unlock()
		n := 1 + 8 + len(at.file)
		packet = append(packet[:0], byte(n), byte(n>>8), byte(n>>16), 0, semiSyncMagic)
		packet = append(binary.LittleEndian.AppendUint64(packet, at.pos), at.file...)
		_ = s.dump.wire.conn.SetWriteDeadline(time.Now().Add(s.opts.silence)) // a socket that cannot take one fails below
		failpoint.Hit(failpoint.SourceAcking)
		if _, err := s.dump.wire.conn.Write(packet); err != nil {
			s.fail(fmt.Errorf("acknowledge to the source: %w", unreachable(err)))
			return
		}
		failpoint.Hit(failpoint.SourceAcked)
	}
}

// semiSync checks that the server's commits will wait for us, and not for longer than they may, before the stream is
// asked for. A server that is not set up so would not say a word about it.
func (s *Source) semiSync(ctx context.Context) error {
	values, err := s.control.semiSyncSettings(ctx)
	if err != nil {
		return err
	}
	_, modern := values["rpl_semi_sync_source_enabled"]
	_, old := values["rpl_semi_sync_master_enabled"]
	persist, plugin, who := "SET PERSIST ", "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'", "rpl_semi_sync_source_"
	switch {
	case s.control.Flavor == gtid.MariaDB:
		persist, who = "SET GLOBAL ", "rpl_semi_sync_master_"
	case !modern && !old:
		return fmt.Errorf("the server has no semi-synchronous replication, which zero-loss mode works by: %s, and SET PERSIST rpl_semi_sync_source_enabled = ON", plugin)
	case !modern:
		who = "rpl_semi_sync_master_"
	}
	kept := ""
	if s.control.Flavor == gtid.MariaDB {
		kept = ", and the same in its configuration file"
	}
	limit := s.opts.Sync.Milliseconds()
	switch timeout, err := values[who+"timeout"].Int(); {
	case values[who+"enabled"].String() != "ON":
		return fmt.Errorf("COMMIT waits for nobody there: %s%senabled = ON%s", persist, who, kept)
	case err != nil:
		return fmt.Errorf("read %stimeout: %w", who, err)
	case timeout > limit:
		return fmt.Errorf("COMMIT would wait for up to %d ms there, which is longer than --sync-timeout says: %s%stimeout = %d%s", timeout, persist, who, limit, kept)
	case values[who+"wait_point"].String() != "AFTER_SYNC":
		return fmt.Errorf("others could see a transaction there before it is safe: %s%swait_point = AFTER_SYNC%s", persist, who, kept)
	}
	if s.waits.conn, err = Connect(ctx, s.opts.URL); err != nil {
		return err
	}
	s.framer.semi = true
	return nil
}

func (c *Conn) semiSyncSettings(ctx context.Context) (map[string]Value, error) {
	return c.named(ctx, "SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%'")
}

// named reads names and values.
func (c *Conn) named(ctx context.Context, sql string) (map[string]Value, error) {
	r, err := c.Query(ctx, sql)
	if err != nil {
		return nil, wrapSQL("look at semi-synchronous replication", err)
	}
	values := make(map[string]Value, len(r.Rows))
	for _, row := range r.Rows {
		if len(row) == 2 {
			values[strings.ToLower(row[0].String())] = row[1]
		}
	}
	return values, nil
}

// waiting says whether COMMIT waits for us: "" or why it may not. Unwaited counts the commits that did not.
func (c *Conn) waiting(ctx context.Context) (reason string, unwaited int64, err error) {
	values, err := c.semiSyncSettings(ctx)
	if err != nil {
		return "", 0, err
	}
	status, err := c.named(ctx, "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%'")
	if err != nil {
		return "", 0, err
	}
	who := "rpl_semi_sync_master_"
	if _, ok := status["rpl_semi_sync_source_status"]; ok {
		who = "rpl_semi_sync_source_"
	}
	if unwaited, err = status[who+"no_tx"].Int(); err != nil {
		return "", 0, fmt.Errorf("read %sno_tx: %w", who, err)
	}
	clients, err := status[who+"clients"].Int()
	if err != nil {
		return "", 0, fmt.Errorf("read %sclients: %w", who, err)
	}
	needed := int64(1) // on MariaDB, always
	for _, name := range []string{"rpl_semi_sync_source_wait_for_replica_count", "rpl_semi_sync_master_wait_for_slave_count"} {
		if n, err := values[name].Int(); err == nil {
			needed = n
		}
	}
	switch {
	case status[who+"status"].String() != "ON":
		reason = "the server has gone over to asynchronous replication: an acknowledgement was late, or the capture away"
	case clients > needed:
		reason = fmt.Sprintf("%d semi-synchronous replicas are connected, and COMMIT waits for any %d of them", clients, needed)
	}
	return reason, unwaited, nil
}

// protectLimit is how long Protect waits for the server, which has COMMIT wait from the moment that it has nothing
// unacknowledged.
const protectLimit = 10 * time.Second

// Protect waits until COMMIT on the server waits until its transaction was acknowledged, and returns a position: what
// is not in it, and commits from then on, waits. It is one goroutine's with Expose and Exposed.
func (s *Source) Protect(ctx context.Context) (change.Position, error) {
	for deadline := time.Now().Add(protectLimit); ; {
		reason, unwaited, err := s.waits.conn.waiting(ctx)
		if err != nil {
			return "", err
		}
		if reason == "" {
			s.waits.unwaited = unwaited
			return ReadPosition(ctx, s.waits.conn)
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%w: %s", capture.ErrUnprotected, reason)
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Expose does nothing: the server itself stops to wait when its time is over.
func (s *Source) Expose(context.Context) error { return nil }

// Exposed says why COMMIT may have returned without waiting since Protect, or "".
func (s *Source) Exposed(ctx context.Context) (string, error) {
	reason, unwaited, err := s.waits.conn.waiting(ctx)
	if err == nil && reason == "" && unwaited != s.waits.unwaited {
		reason = fmt.Sprintf("%d commits did not wait until they were acknowledged", unwaited-s.waits.unwaited)
	}
	return reason, err
}

// Holds reports whether a record that ends at end holds all of position.
func (s *Source) Holds(end, position change.Position) (bool, error) {
	e, err := gtid.Parse(s.control.Flavor, string(end))
	if err != nil {
		return false, err
	}
	p, err := gtid.Parse(s.control.Flavor, string(position))
	return err == nil && e.Contains(p), err
}
