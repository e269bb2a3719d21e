package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"txreel/capture"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// script makes the events of a simulated log, for what no server does on demand.
type script struct {
	sum    binlog.Checksum
	pos    uint64
	events [][]byte
}

const scriptUUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

// add appends an event that ends pos bytes into the file, or where the last one did plus its size.
func (s *script) add(typ binlog.Type, flags uint16, body []byte) *script {
	size := uint64(binlog.HeaderSize + len(body) + s.sum.Size())
	h := binlog.Header{Timestamp: 1_700_000_000, Type: typ, ServerID: 1, Flags: flags}
	if flags&binlog.FlagArtificial == 0 {
		s.pos += size
		h.LogPos = uint32(s.pos)
	} else {
		h.Timestamp = 0
	}
	s.events = append(s.events, binlog.AppendEvent(nil, h, body, s.sum))
	return s
}

func (s *script) rotate(file string) *script {
	s.pos = binlogStart
	return s.add(binlog.TypeRotate, binlog.FlagArtificial, append(binary.LittleEndian.AppendUint64(nil, binlogStart), file...))
}

// format adds the FORMAT_DESCRIPTION of a MySQL or MariaDB.
func (s *script) format(version string) *script {
	body := make([]byte, 2+50+4+1+42)
	binary.LittleEndian.PutUint16(body, 4)
	copy(body[2:], version)
	body[56] = binlog.HeaderSize
	body = append(body, byte(s.sum))
	h := binlog.Header{Timestamp: 1_700_000_000, Type: binlog.TypeFormatDescription, ServerID: 1}
	s.pos += uint64(binlog.HeaderSize + len(body) + 4)
	h.LogPos = uint32(s.pos)
	s.events = append(s.events, binlog.AppendEvent(nil, h, body, binlog.ChecksumCRC32))
	return s
}

func (s *script) previous(flavor gtid.Flavor, set string) *script {
	held, err := gtid.Parse(flavor, set)
	if err != nil {
		panic(err)
	}
	e := binlog.AppendPrevious(nil, binlog.Header{Timestamp: 1, ServerID: 1}, held, s.sum)
	s.pos += uint64(len(e))
	s.events = append(s.events, e)
	return s
}

// gtid opens a group of MySQL.
func (s *script) gtid(n uint64) *script {
	sid, _ := gtid.ParseUUID(scriptUUID)
	body := append([]byte{0}, sid[:]...)
	body = append(binary.LittleEndian.AppendUint64(body, n), 2)
	return s.add(binlog.TypeGTID, 0, append(body, make([]byte, 16)...))
}

// maria opens a group of MariaDB.
func (s *script) maria(domain uint32, n uint64, flags byte) *script {
	body := binary.LittleEndian.AppendUint64(nil, n)
	body = append(binary.LittleEndian.AppendUint32(body, domain), flags)
	return s.add(binlog.TypeMariaDBGTID, 0, append(body, make([]byte, 6)...))
}

func (s *script) query(text string) *script {
	return s.add(binlog.TypeQuery, 0, append(make([]byte, 13+1), text...))
}

func (s *script) xid() *script { return s.add(binlog.TypeXID, 0, make([]byte, 8)) }

// played is what a parser makes of a log.
type played struct {
	txns []txn
	err  error
	*parser
}

// play feeds a log to a parser, framed as a server does.
func (s *script) play(t *testing.T, flavor gtid.Flavor, held string) played {
	t.Helper()
	set, err := gtid.Parse(flavor, held)
	if err != nil {
		t.Fatal(err)
	}
	return s.playInto(t, &parser{held: set, count: counter{Counter: binlog.NewCounter()}})
}

func (s *script) playInto(t *testing.T, p *parser) played {
	t.Helper()
	out := played{parser: p}
	src := &Source{parser: *p, failed: make(chan struct{})}
	src.parser.received = 1
	var f framer
	var x txn
	for _, raw := range s.events {
		packets := framed(raw)
		whole, err := f.packets(packets, 0)
		if err != nil {
			out.err = err
			break
		}
		if whole != len(packets) {
			t.Fatal("a packet was not taken for whole")
		}
		src.begin(&batch{data: packets, received: 1})
		for src.at < len(packets) && out.err == nil {
			var m *change.Message
			if m, out.err = src.packet(); m == nil {
				continue
			}
			for ; m != nil; m = src.parser.queued() {
				if x.take(m); m.Kind == change.KindCommit {
					out.txns = append(out.txns, x)
				}
			}
		}
		if out.err != nil {
			break
		}
	}
	src.parser.count.CountAbandon()
	out.parser = &src.parser
	return out
}

// framed puts an event into packets as a server does.
func framed(raw []byte) []byte {
	payload := append([]byte{tagOK}, raw...)
	var b []byte
	for {
		n := min(len(payload), maxPayload)
		b = append(b, byte(n), byte(n>>8), byte(n>>16), 9)
		b = append(b, payload[:n]...)
		payload = payload[n:]
		if n < maxPayload {
			return b
		}
	}
}

func mysqlScript() *script {
	s := &script{sum: binlog.ChecksumCRC32}
	return s.rotate("b.000001").format("9.7.4").previous(gtid.MySQL, "")
}

func mariaScript() *script {
	s := &script{sum: binlog.ChecksumCRC32}
	return s.rotate("b.000001").format("10.11.18-MariaDB").previous(gtid.MariaDB, "")
}

func TestSimulatedLogs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		script *script
		flavor gtid.Flavor
		held   string
		txns   string // of XIDs, the part behind the last colon or dash
		kind   error
		says   string
	}{
		{"two transactions", mysqlScript().gtid(1).query("BEGIN").xid().gtid(2).query("CREATE DATABASE d"), gtid.MySQL, "", "1 2", nil, ""},
		{"one that is held", mysqlScript().gtid(1).query("BEGIN").xid().gtid(2).query("CREATE DATABASE d"), gtid.MySQL, scriptUUID + ":1", "2", nil, ""},
		{"without a checksum", (&script{}).rotate("b.1").format("9.7.4").gtid(1).query("BEGIN").xid(), gtid.MySQL, "", "1", nil, ""},
		{"cut off", mysqlScript().gtid(1).query("BEGIN").xid().gtid(2).query("BEGIN"), gtid.MySQL, "", "1", nil, ""},
		{"no GTID", mysqlScript().add(binlog.TypeAnonymousGTID, 0, make([]byte, 42)).query("BEGIN").xid(), gtid.MySQL, "", "", capture.ErrGap, "gtid_mode"},
		{"an incident", mysqlScript().gtid(1).add(binlog.TypeIncident, 0, []byte("\x01\x00\x04lost")), gtid.MySQL, "", "", capture.ErrGap, "lost"},
		{"an incident alone", mariaScript().add(binlog.TypeIncident, 0, []byte("\x01\x00\x04lost")), gtid.MariaDB, "", "", capture.ErrGap, "lost"},
		{"a malformed incident", mariaScript().add(binlog.TypeIncident, 0, nil), gtid.MariaDB, "", "", capture.ErrGap, "lacks something"},
		{"torn by another", mariaScript().maria(0, 1, 0).query("INSERT").maria(0, 2, 1).query("CREATE"), gtid.MariaDB, "", "", capture.ErrUnreachable, "0-1-1 has no end"},
		{"torn by the next file", mariaScript().maria(0, 1, 0).query("INSERT").format("10.11.18-MariaDB"), gtid.MariaDB, "", "", capture.ErrUnreachable, "0-1-1 has no end"},
		{"out of order", mariaScript().maria(0, 5, 1).query("CREATE").maria(1, 1, 1).query("CREATE").maria(0, 4, 1).query("DROP"), gtid.MariaDB, "", "5 1", capture.ErrGap, "gtid_strict_mode"},
		{"sent again", mariaScript().maria(0, 5, 1).query("CREATE").maria(0, 6, 1).query("DROP"), gtid.MariaDB, "0-1-5", "6", nil, ""},
		{"more than was sent", mysqlScript().gtid(1).query("BEGIN").xid().rotate("b.000002").format("9.7.4").previous(gtid.MySQL, scriptUUID+":1-3"), gtid.MySQL, "", "1", capture.ErrGap, scriptUUID + ":2-3"},
		{"all that was sent", mysqlScript().gtid(1).query("BEGIN").xid().rotate("b.000002").format("9.7.4").previous(gtid.MySQL, scriptUUID+":1").gtid(2).query("BEGIN").xid(), gtid.MySQL, "", "1 2", nil, ""},
		{"a domain nobody sent", mariaScript().maria(0, 1, 1).query("CREATE").rotate("b.000002").format("10.11.18-MariaDB").previous(gtid.MariaDB, "0-1-1,7-1-9"), gtid.MariaDB, "", "1", capture.ErrGap, "7-1-9"},
		{"a log of another vendor", mysqlScript(), gtid.MariaDB, "", "", nil, "MySQL"},
		{"a type of tomorrow inside", mysqlScript().gtid(1).query("BEGIN").add(200, 0, []byte("new")).xid(), gtid.MySQL, "", "1", nil, ""},
		{"a GTID nobody can read", mysqlScript().add(binlog.TypeGTID, 0, []byte("short")), gtid.MySQL, "", "", nil, "malformed"},
	} {
		got := c.script.play(t, c.flavor, c.held)
		var xids []string
		for _, x := range got.txns {
			xids = append(xids, x.xid[strings.LastIndexAny(x.xid, ":-")+1:])
		}
		if strings.Join(xids, " ") != c.txns {
			t.Errorf("%s: transactions %q, want %q", c.name, xids, c.txns)
		}
		if (got.err == nil) != (c.kind == nil && c.says == "") {
			t.Errorf("%s: %v", c.name, got.err)
		} else if got.err != nil {
			demand(t, got.err, c.kind, c.says)
		}
	}
}

// An event that belongs to no group, of a type nobody knows, is kept in front of the group behind
// it.
func TestStrays(t *testing.T) {
	t.Parallel()
	s := mysqlScript().gtid(1).query("BEGIN").xid().add(200, binlog.FlagIgnorable, []byte("new")).add(201, 0, nil).gtid(2).query("BEGIN").xid()
	got := s.play(t, gtid.MySQL, "")
	if got.err != nil || len(got.txns) != 2 || len(got.txns[1].messages) != 5 || got.txns[1].messages[0][4] != 200 || got.txns[1].messages[2][4] != byte(binlog.TypeGTID) {
		t.Fatalf("%v, %+v", got.err, got.txns)
	}
	if len(got.txns[1].defs) != 1 {
		t.Error("no definition")
	}
	// It is a part of that group also when the record has it.
	if got := s.play(t, gtid.MySQL, scriptUUID+":2"); got.err != nil || len(got.txns) != 1 || len(got.strays) != 0 {
		t.Fatalf("%v, %+v", got.err, got.txns)
	}
}

// A group without an end is passed over by the next stream, which is told of it.
func TestTornGroup(t *testing.T) {
	t.Parallel()
	s := mariaScript().maria(0, 1, 0).query("INSERT").rotate("b.000002").format("10.11.18-MariaDB").previous(gtid.MariaDB, "0-1-1").maria(0, 2, 1).query("CREATE")
	var torn *TornError
	got := s.play(t, gtid.MariaDB, "")
	if !errors.As(got.err, &torn) || torn.GTID != "0-1-1" || len(got.txns) != 0 {
		t.Fatalf("%v", got.err)
	}
	again := func(s *script) played {
		return s.playInto(t, &parser{held: gtid.New(gtid.MariaDB), torn: torn.GTID, count: counter{Counter: binlog.NewCounter()}})
	}
	if got := again(s); got.err != nil || len(got.txns) != 1 || got.txns[0].xid != "0-1-2" {
		t.Fatalf("%v, %+v", got.err, got.txns)
	}
	// Should it have one after all, nothing is lost.
	if got := again(mariaScript().maria(0, 1, 0).query("INSERT").xid().maria(0, 2, 1).query("CREATE")); !errors.Is(got.err, capture.ErrUnreachable) || !errors.As(got.err, &torn) || torn.GTID != "" || len(got.txns) != 0 {
		t.Fatalf("%v, %+v", got.err, got.txns)
	}
}

// A group of which something could not be counted says so, and the next one does not.
func TestUncounted(t *testing.T) {
	t.Parallel()
	got := mysqlScript().gtid(1).query("BEGIN").add(binlog.TypeWriteRows, 0, make([]byte, 12)).xid().gtid(2).query("BEGIN").xid().play(t, gtid.MySQL, "")
	if got.err != nil || len(got.txns) != 2 || got.txns[0].note != uncounted || got.txns[1].note != "" {
		t.Fatalf("%v, %+v", got.err, got.txns)
	}
}

// Positions go past what 32 bits can say.
func TestPositionsPast4GiB(t *testing.T) {
	t.Parallel()
	s := mysqlScript().gtid(1).query("BEGIN")
	const gap = 3 << 30
	for range 3 {
		s.pos += gap
		s.add(binlog.TypeIntvar, 0, make([]byte, 9))
	}
	s.xid()
	end := s.pos
	s.gtid(2).query("BEGIN").xid()
	got := s.play(t, gtid.MySQL, "")
	if got.err != nil || len(got.txns) != 2 || got.txns[0].position != change.Position((place{"b.000001", end}).String()) || got.txns[1].position != change.Position((place{"b.000001", s.pos}).String()) || end < 9<<30 {
		t.Fatalf("%v, %+v, want the first to end at %d", got.err, got.txns, end)
	}
	// A heartbeat says where the stream has come to over what it left out.
	far := uint64(77 << 32)
	got.events(t, binlog.AppendHeartbeatV2(nil, binlog.Header{Flags: binlog.FlagArtificial}, "b.000001", far, binlog.ChecksumCRC32))
	if got.at.pos != far {
		t.Fatalf("at %v", got.at)
	}
	got.pass(&fence{at: place{"b.000001", far}, time: 1 << 60})
	if m := got.idle(); m.CommitTime != 1<<60 || m.Position != change.Position(scriptUUID+":1-2") {
		t.Fatalf("idle %+v", m)
	}
	got.known = false
	got.pass(&fence{at: place{"b.000001", far + 1}, time: 1 << 61})
	if m := got.idle(); m.CommitTime != 0 || m.Position != "" {
		t.Fatalf("idle %+v in front of a fence", m)
	}
}

// events feeds more events to a parser.
func (p *played) events(t *testing.T, raw ...[]byte) {
	t.Helper()
	for _, b := range raw {
		h, err := binlog.ParseHeader(b)
		if err == nil {
			_, err = p.event(&h, b, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Damage on the way is noticed, in events of one packet and of several, and leads to another
// try.
func TestDamagedEvents(t *testing.T) {
	t.Parallel()
	for _, size := range []int{20, maxPayload - 100, maxPayload - binlog.HeaderSize - 5, maxPayload - binlog.HeaderSize - 4, maxPayload - binlog.HeaderSize, 2*maxPayload - 30, 2*maxPayload - binlog.HeaderSize - 5, 2 * maxPayload} {
		body := make([]byte, size)
		s := mysqlScript().gtid(1).query("BEGIN").add(binlog.TypeAppendBlock, 0, body).xid()
		if got := s.play(t, gtid.MySQL, ""); got.err != nil || len(got.txns) != 1 || len(joined(got.txns[0])) < size {
			t.Fatalf("%d bytes: %v", size, got.err)
		} else if raw := s.events[5]; !strings.Contains(joined(got.txns[0]), string(raw)) {
			t.Fatalf("%d bytes: the event is not what was sent", size)
		}
		raw := s.events[5]
		for _, at := range []int{30, len(raw) - 5, len(raw) - 4} { // the first packet, the last byte of the body, the checksum
			raw[at] ^= 1
			if got := s.play(t, gtid.MySQL, ""); !errors.Is(got.err, capture.ErrUnreachable) || !errors.Is(got.err, binlog.ErrChecksum) || len(got.txns) != 0 {
				t.Errorf("%d bytes, damaged at %d: %v", size, at, got.err)
			}
			raw[at] ^= 1
		}
	}
	for name, packets := range map[string][]byte{
		"empty":        {0, 0, 0, 0},
		"short":        {2, 0, 0, 0, 0, 1},
		"unknown":      {2, 0, 0, 0, 7, 1},
		"end":          {5, 0, 0, 0, 0xfe, 0, 0, 2, 0},
		"error":        append([]byte{8, 0, 0, 0, 0xff, 0xd4, 4}, "#HY00"...),
		"wrong length": framed(mysqlScript().xid().events[3][:25]),
	} {
		var f framer
		if _, err := f.packets(packets, 0); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Events of 16 MiB and more come in pieces, and are recorded as they come.
func TestLargeEvents(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		server.MustExec(t, "", "CREATE DATABASE d")
		server.MustExec(t, "", "CREATE TABLE d.t (n int primary key, v longblob)")
		tail, skip := executed(t, server), len(logged(t, server))
		src := open(t, SourceOptions{URL: server.URL(""), Tail: tail})
		server.MustExec(t, "", "INSERT INTO d.t VALUES (1, REPEAT('a', 20000000)), (2, REPEAT('b', 10)), (3, REPEAT('c', 40000000))")
		server.MustExec(t, "", "UPDATE d.t SET v = CONCAT(v, 'x') WHERE n = 1")
		server.MustExec(t, "", "DELETE FROM d.t")
		got := until(t, src, executed(t, server))
		same(t, got, logged(t, server)[skip:])
		for i, want := range []string{"insert d.t", "update d.t", "delete d.t"} {
			if n := []uint64{3, 1, 3}[i]; len(got[i].rows) != 1 || got[i].rows[want] != n {
				t.Errorf("transaction %d changed %v, want %d of %s", i, got[i].rows, n, want)
			}
			for _, m := range got[i].messages {
				if len(m) > maxPayload {
					t.Errorf("a message of %d bytes", len(m))
				}
			}
		}
	})
}

// A log without checksums, and one that gets them.
func TestChecksums(t *testing.T) {
	onRough(t, func(t *testing.T, server *dbtest.MySQL) {
		server.MustExec(t, "", "SET GLOBAL binlog_checksum = 'NONE'")
		tail, skip := executed(t, server), len(logged(t, server))
		src := open(t, SourceOptions{URL: server.URL(""), Tail: tail, heartbeat: 50_000_000})
		server.MustExec(t, "", "CREATE DATABASE d1")
		first := next(t, src)
		idleUntil(t, src, "a word", func(*change.Message) bool { return true })
		server.MustExec(t, "", "SET GLOBAL binlog_checksum = 'CRC32'")
		server.MustExec(t, "", "CREATE DATABASE d2")
		got := append([]txn{first}, until(t, src, executed(t, server))...)
		same(t, got, logged(t, server)[skip:])
		if bytes.Equal(got[0].defs[0].Messages[0], got[1].defs[0].Messages[0]) {
			t.Error("both files have the same format")
		}
	})
}
