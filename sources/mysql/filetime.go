package mysql

import (
	"context"
	"errors"
	"time"

	"txreel/change"
	"txreel/sources/mysql/binlog"
)

const flagNonBlock = 0x01 // the stream ends with the log

// fileTime returns when a binlog file was begun. No statement tells; the first event of the
// file does, which is fetched on a connection of its own.
func (c *Conn) fileTime(ctx context.Context, file string) (change.Time, error) {
	conn, err := c.cfg.Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.Exec(ctx, "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum"); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.wire.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = conn.wire.conn.SetDeadline(time.Now().Add(silenceLimit))
	when, err := conn.formatTime(file)
	conn.end(errors.New("the connection was used up")) // the server may still be sending
	return when, wrapSQL("look into the source's binlog "+file, err)
}

// formatTime asks for a file without a server id, as mysqlbinlog does: no other stream is
// taken for ours.
func (c *Conn) formatTime(file string) (change.Time, error) {
	if err := c.wire.command(comBinlogDump, dump(file, binlogStart, flagNonBlock, 0)); err != nil {
		return 0, unreachable(err)
	}
	for {
		b, err := c.wire.packet()
		if err != nil {
			return 0, unreachable(err)
		}
		switch b[0] {
		case tagErr:
			return 0, parseError(b)
		case tagOK:
		default:
			return 0, errors.New("the file holds no format")
		}
		h, err := binlog.ParseHeader(b[1:])
		if err != nil {
			return 0, err
		}
		if h.Type == binlog.TypeFormatDescription {
			return change.Time(h.Timestamp) * 1_000_000, nil
		}
	}
}
