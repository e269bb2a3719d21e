package mysql

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"txreel/sources/mysql/gtid"
)

const (
	comBinlogDump     = 0x12
	comRegisterSlave  = 0x15
	comBinlogDumpGTID = 0x1e

	flagHeartbeatV2 = 0x02 // MySQL: heartbeats with positions of 64 bits
	flagThroughGTID = 0x04 // MySQL: a set of GTIDs says where to begin
	flagAnnotate    = 0x02 // MariaDB: statements beside the rows they changed

	// capabilityGTID tells MariaDB that we understand all of its events.
	capabilityGTID = 4

	binlogStart = 4 // behind a file's magic
)

// extent says how far a stream goes.
type extent uint16

const (
	// onward is a stream that goes on with the log.
	onward extent = 0
	// toEnd is one that ends with the log, and begins behind a place of MariaDB also where the log has
	// later transactions and not that one itself.
	toEnd extent = flagNonBlock
)

// request asks the server for everything that is not in held, on a session of its own that
// afterwards carries nothing but the answer. The server tells clients apart by
// server id and uuid: it ends the connection of the same client that it may still have.
func (c *Conn) request(ctx context.Context, held *gtid.Set, opts *SourceOptions, far extent) error {
	// The checksum of the events is that of the log in any case; what is said here is
	// how the sender ends its own events before it has read the log's format.
	settings := []string{
		"@master_binlog_checksum = @@global.binlog_checksum",
		fmt.Sprintf("@master_heartbeat_period = %d", opts.heartbeat.Nanoseconds()),
	}
	if c.Flavor == gtid.MySQL {
		settings = append(settings, "@source_binlog_checksum = @@global.binlog_checksum",
			fmt.Sprintf("@source_heartbeat_period = %d", opts.heartbeat.Nanoseconds()))
		if opts.ReplicaUUID != "" {
			uuid := quoteLiteral(opts.ReplicaUUID)
			settings = append(settings, "@slave_uuid = "+uuid, "@replica_uuid = "+uuid)
		}
	} else {
		strict := "@slave_gtid_strict_mode = 1"
		if far == toEnd {
			strict = "@slave_gtid_strict_mode = 0"
		}
		settings = append(settings, fmt.Sprintf("@mariadb_slave_capability = %d", capabilityGTID),
			"@slave_connect_state = "+quoteLiteral(held.String()), strict, "@slave_gtid_ignore_duplicates = 0")
	}
	if opts.Sync != 0 && far == onward {
		settings = append(settings, "@rpl_semi_sync_replica = 1", "@rpl_semi_sync_slave = 1")
	}
	for _, setting := range settings {
		if err := c.Exec(ctx, "SET "+setting); err != nil {
			return wrapSQL("prepare the stream", err)
		}
	}
	if err := c.register(ctx, opts.ServerID); err != nil {
		return err
	}
	_ = c.wire.conn.SetWriteDeadline(time.Now().Add(opts.silence)) // a socket that cannot take one fails below
	var err error
	if c.Flavor == gtid.MySQL {
		err = c.wire.command(comBinlogDumpGTID, dumpGTID(held, uint16(far), opts.ServerID))
	} else {
		err = c.wire.command(comBinlogDump, dump("", binlogStart, flagAnnotate|uint16(far), opts.ServerID))
	}
	if err == nil {
		err = c.wire.conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("ask the source for its log: %w", unreachable(err))
	}
	return nil
}

// register makes the stream appear in SHOW REPLICAS of the server.
func (c *Conn) register(ctx context.Context, serverID uint32) error {
	const host = "txreel"
	b := binary.LittleEndian.AppendUint32(nil, serverID)
	b = append(append(b, byte(len(host))), host...)
	b = append(b, 0, 0)                        // user, password
	b = binary.LittleEndian.AppendUint16(b, 0) // port
	b = binary.LittleEndian.AppendUint32(b, 0) // rank, unused by all servers
	b = binary.LittleEndian.AppendUint32(b, 0) // the source's id, which it fills in
	return c.explainSQL("register with the source", c.simple(ctx, comRegisterSlave, b))
}

func dumpGTID(held *gtid.Set, flags uint16, serverID uint32) []byte {
	set := held.EncodeMySQL()
	b := binary.LittleEndian.AppendUint16(nil, flagHeartbeatV2|flagThroughGTID|flags)
	b = binary.LittleEndian.AppendUint32(b, serverID)
	b = binary.LittleEndian.AppendUint32(b, 0) // length of the file's name: the server finds the file
	b = binary.LittleEndian.AppendUint64(b, binlogStart)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(set)))
	return append(b, set...)
}

func dump(file string, pos uint32, flags uint16, serverID uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, pos)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, serverID)
	return append(b, file...)
}
