package mysql

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/server"

	"txreel/sources/mysql/gtid"
)

// session is one connection of the replica. Nothing of it outlives the connection.
type session struct {
	primary *primary
	conn    *server.Conn
	period  time.Duration // of heartbeats; zero means none
	state   string        // MariaDB: what the replica has
}

var _ server.Handler = (*session)(nil)

// What a replica sets. Periods are in nanoseconds.
var (
	setPeriod = regexp.MustCompile(`(?i)@(?:master|source)_heartbeat_period\s*=\s*(\d+)`)
	setState  = regexp.MustCompile(`(?i)@slave_connect_state\s*=\s*'([^']*)'`)
	askSwitch = regexp.MustCompile(`(?i)rpl_semi_sync_(?:master|source)_enabled`)
)

// HandleQuery answers what replica threads ask.
func (s *session) HandleQuery(query string) (*mysql.Result, error) {
	p := s.primary
	text := strings.ToLower(strings.TrimSpace(query))
	if strings.HasPrefix(text, "set") {
		if m := setPeriod.FindStringSubmatch(query); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				return nil, mysql.NewError(mysql.ER_WRONG_VALUE_FOR_VAR, "txreel: heartbeat period "+m[1])
			}
			s.period = time.Duration(n)
		}
		if m := setState.FindStringSubmatch(query); m != nil {
			s.state = strings.Clone(m[1])
		}
		return nil, nil
	}
	switch {
	case strings.Contains(text, "unix_timestamp()"):
		return answer(strconv.FormatInt(time.Now().Unix(), 10))
	case strings.Contains(text, "server_uuid"):
		return answer(p.uuid)
	case strings.Contains(text, "server_id"):
		id := strconv.FormatUint(uint64(p.serverID), 10)
		if strings.HasPrefix(text, "show") {
			return answer("server_id", id)
		}
		return answer(id)
	case strings.Contains(text, "binlog_checksum"):
		// It governs the first artificial event only: behind it stands the FORMAT_DESCRIPTION.
		return answer("CRC32")
	case strings.Contains(text, "gtid_mode"):
		return answer("ON")
	case strings.Contains(text, "gtid_domain_id"):
		return answer("0")
	case askSwitch.MatchString(text):
		if strings.HasPrefix(text, "show") {
			return answer("rpl_semi_sync", "OFF")
		}
		return answer("0")
	case strings.Contains(text, "version()"), strings.Contains(text, "@@version"):
		return answer(p.version)
	}
	p.note("the target's replica threads asked what txreel does not know: " + clip(query))
	return nil, mysql.NewError(mysql.ER_UNKNOWN_COM_ERROR, errUnknown.Error())
}

// answer builds a row.
func answer(values ...string) (*mysql.Result, error) {
	names, row := make([]string, len(values)), make([]any, len(values))
	for i, v := range values {
		names[i], row[i] = "column"+strconv.Itoa(i), v
	}
	r, err := mysql.BuildSimpleTextResultset(names, [][]any{row})
	if err != nil {
		return nil, err
	}
	return mysql.NewResult(r), nil
}

// Commands of the replication protocol.
const (
	comBinlogDump      = 0x12
	comRegisterReplica = 0x15
	comBinlogDumpGTID  = 0x1e
)

// HandleOtherCommand answers the commands that only replicas send.
func (s *session) HandleOtherCommand(cmd byte, data []byte) error {
	switch cmd {
	case comRegisterReplica:
		return nil
	case comBinlogDumpGTID:
		have, flags, replica, err := parseDumpGTID(data)
		if err != nil {
			return s.refuse(err)
		}
		const wantsHeartbeatV2 = 0x2
		return s.dump(have, replica, flags&wantsHeartbeatV2 != 0)
	case comBinlogDump:
		if s.primary.flavor != gtid.MariaDB {
			return s.refuse(fmt.Errorf("the replica asks for a place in a file, not for a set of GTIDs"))
		}
		if len(data) < 4+2+4 { // position, flags, server id
			return s.refuse(fmt.Errorf("malformed COM_BINLOG_DUMP of %d bytes", len(data)))
		}
		have, err := gtid.Parse(gtid.MariaDB, s.state)
		if err != nil {
			return s.refuse(err)
		}
		return s.dump(have, binary.LittleEndian.Uint32(data[6:]), false)
	}
	s.primary.note(fmt.Sprintf("the target's replica threads sent command %#x", cmd))
	return mysql.NewError(mysql.ER_UNKNOWN_COM_ERROR, errUnknown.Error())
}

// refuse ends the restore: what the replica asks for cannot be served, and it would
// ask again.
func (s *session) refuse(err error) error {
	err = fmt.Errorf("serve the target's replica threads: %w", err)
	s.primary.fail(err)
	return fatal(err.Error())
}

// fatal is an error behind which a replica does not connect again.
func fatal(text string) error {
	const most = 400 // what a replica's error message has room for
	return mysql.NewError(mysql.ER_MASTER_FATAL_ERROR_READING_BINLOG, text[:min(len(text), most)])
}

// parseDumpGTID reads COM_BINLOG_DUMP_GTID: flags, server id, file name, position, and
// what the replica has.
func parseDumpGTID(b []byte) (have *gtid.Set, flags uint16, replica uint32, err error) {
	malformed := fmt.Errorf("malformed COM_BINLOG_DUMP_GTID of %d bytes", len(b))
	if len(b) < 2+4+4 {
		return nil, 0, 0, malformed
	}
	flags, replica = binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint32(b[2:])
	name := binary.LittleEndian.Uint32(b[6:])
	b = b[10:]
	if uint64(name)+8+4 > uint64(len(b)) {
		return nil, 0, 0, malformed
	}
	b = b[name+8:]
	size := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(size) > uint64(len(b)) {
		return nil, 0, 0, malformed
	}
	have, err = gtid.DecodeMySQL(b[:size])
	return have, flags, replica, err
}

// UseDB implements server.Handler.
func (*session) UseDB(string) error { return errUnknown }

// HandleFieldList implements server.Handler.
func (*session) HandleFieldList(string, string) ([]*mysql.Field, error) { return nil, errUnknown }

// HandleStmtPrepare implements server.Handler.
func (*session) HandleStmtPrepare(string) (int, int, any, error) { return 0, 0, nil, errUnknown }

// HandleStmtExecute implements server.Handler.
func (*session) HandleStmtExecute(any, string, []any) (*mysql.Result, error) { return nil, errUnknown }

// HandleStmtClose implements server.Handler.
func (*session) HandleStmtClose(any) error { return errUnknown }
