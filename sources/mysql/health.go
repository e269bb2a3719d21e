package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// Health is what the server says of its log, and of how long it keeps it. There are no slots: a file of the log goes
// when its time has come, whoever still needs it.
type Health struct {
	At time.Time
	// OldestFile is the oldest file the server has, NeededFile the oldest one with something that is not on record.
	OldestFile, NeededFile string
	// ExpireAfter is how long a file is kept after it was closed; zero means for ever.
	ExpireAfter time.Duration
	// AtOnce means that files go as soon as the service has copied them: RDS without its retention hours.
	AtOnce bool
	// SizeLimit is how many bytes of log the server keeps at most; zero means any number.
	SizeLimit int64
	// TimeToPurge is how long NeededFile will still be there, as far as time decides. While it is the file that is
	// written it is ExpireAfter. It means nothing if ExpireAfter is zero.
	TimeToPurge time.Duration
	// BytesBehind is how much log there is from NeededFile on, at most what is not on record; BytesKept is all of it.
	BytesBehind, BytesKept int64
}

// ReadHealth asks the server how much of its log is not in held, and how long it will be there.
func ReadHealth(ctx context.Context, conn *Conn, held change.Position) (*Health, error) {
	set, err := gtid.Parse(conn.Flavor, string(held))
	if err != nil {
		return nil, err
	}
	h := &Health{At: time.Now()}
	if err := conn.readExpiry(ctx, h); err != nil {
		return nil, err
	}
	files, err := conn.logFiles(ctx)
	if err != nil {
		return nil, err
	}
	needed, err := conn.neededFile(ctx, files, set)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		h.BytesKept += f.size
		if i >= needed {
			h.BytesBehind += f.size
		}
	}
	h.OldestFile, h.NeededFile = files[0].name, files[needed].name
	if needed == len(files)-1 {
		end, err := conn.logEnd(ctx)
		if err != nil {
			return nil, err
		}
		executed, err := conn.executed(ctx)
		if err != nil {
			return nil, err
		}
		if end.file == h.NeededFile && set.Contains(executed) {
			h.BytesBehind = 0
		}
		h.TimeToPurge = h.ExpireAfter
		return h, nil
	}
	if h.ExpireAfter > 0 {
		closed, err := conn.fileTime(ctx, files[needed+1].name) // the next file began when this one ended
		if err != nil {
			return nil, err
		}
		now, err := Clock(ctx, conn)
		if err != nil {
			return nil, err
		}
		h.TimeToPurge = max(0, h.ExpireAfter-time.Duration(now-closed)*time.Microsecond)
	}
	return h, nil
}

// logFile is a line of SHOW BINARY LOGS.
type logFile struct {
	name string
	size int64
}

// logFiles lists the server's binlog files, the oldest first.
func (c *Conn) logFiles(ctx context.Context) ([]logFile, error) {
	r, err := c.Query(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return nil, c.explainSQL("list the source's binlogs", err)
	}
	files := make([]logFile, 0, len(r.Rows))
	for i := range r.Rows {
		size, err := r.Value(i, "File_size").Int()
		if err != nil {
			return nil, wrapSQL("list the source's binlogs", err)
		}
		files = append(files, logFile{r.Value(i, "Log_name").String(), size})
	}
	if len(files) == 0 {
		return nil, errors.New("the source has no binlog")
	}
	return files, nil
}

// logEnd returns where the server's log ends now.
func (c *Conn) logEnd(ctx context.Context) (place, error) {
	statement := "SHOW MASTER STATUS"
	if c.Flavor == gtid.MySQL && c.Number >= 80200 {
		statement = "SHOW BINARY LOG STATUS"
	}
	r, err := c.Query(ctx, statement)
	if err != nil {
		return place{}, c.explainSQL("look at the end of the source's binlog", err)
	}
	if len(r.Rows) == 0 {
		return place{}, errors.New("the source writes no binlog")
	}
	pos, err := r.Value(0, "Position").Uint()
	return place{r.Value(0, "File").String(), pos}, wrapSQL("look at the end of the source's binlog", err)
}

// neededFile returns the index of the first file that may have something that is not in
// held: the last one before which everything is. Every file says what came before it, and each says
// more than the one before.
func (c *Conn) neededFile(ctx context.Context, files []logFile, held *gtid.Set) (int, error) {
	low, high := 0, len(files)-1 // what came before files[low] is held, or purged
	for at := high; low < high; at = (low + high + 1) / 2 {
		before, err := c.previousOf(ctx, files[at].name)
		if err != nil {
			return 0, err
		}
		if held.Contains(before) {
			low = at
		} else {
			high = at - 1
		}
	}
	return low, nil
}

// previousOf reads what a file says came before it. A file that is gone says nothing.
func (c *Conn) previousOf(ctx context.Context, file string) (*gtid.Set, error) {
	r, err := c.Query(ctx, "SHOW BINLOG EVENTS IN "+quoteLiteral(file)+" LIMIT 4")
	if err != nil {
		return nil, c.explainSQL("look into the source's binlog "+file, err)
	}
	for i := range r.Rows {
		info := r.Value(i, "Info").String()
		switch r.Value(i, "Event_type").String() {
		case "Previous_gtids":
			set, err := gtid.Parse(c.Flavor, info)
			return set, wrapSQL("look into the source's binlog "+file, err)
		case "Gtid_list":
			list := gtidList(trimBrackets(info))
			return gtid.FromList(list), nil
		}
	}
	return gtid.New(c.Flavor), nil
}

func trimBrackets(text string) string {
	if len(text) >= 2 && text[0] == '[' && text[len(text)-1] == ']' {
		return text[1 : len(text)-1]
	}
	return text
}

// readExpiry reads how long the server keeps its log.
func (c *Conn) readExpiry(ctx context.Context, h *Health) error {
	v, err := c.variables(ctx, "binlog_expire_logs_seconds", "expire_logs_days", "binlog_expire_logs_auto_purge",
		"max_binlog_total_size", "binlog_space_limit")
	if err != nil {
		return err
	}
	if seconds, err := strconv.ParseInt(v["binlog_expire_logs_seconds"], 10, 40); err == nil {
		h.ExpireAfter = time.Duration(seconds) * time.Second
	}
	if days, err := strconv.ParseFloat(v["expire_logs_days"], 64); err == nil && h.ExpireAfter == 0 && days > 0 {
		h.ExpireAfter = time.Duration(days * 24 * float64(time.Hour))
	}
	if auto, ok := v["binlog_expire_logs_auto_purge"]; ok && !isOn(auto) {
		h.ExpireAfter = 0
	}
	for _, name := range []string{"max_binlog_total_size", "binlog_space_limit"} {
		if limit, err := strconv.ParseInt(v[name], 10, 64); err == nil && limit > 0 {
			h.SizeLimit = limit
		}
	}
	return c.readManagedExpiry(ctx, h)
}

// readManagedExpiry reads what RDS and Aurora go by instead. On any other server the table
// does not exist, or nobody may read it.
func (c *Conn) readManagedExpiry(ctx context.Context, h *Health) error {
	row, err := c.QueryRow(ctx, "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'")
	var refused *ServerError
	switch {
	case errors.As(err, &refused), errors.Is(err, ErrNoRows):
		return nil
	case err != nil:
		return wrapSQL("read the retention hours", err)
	}
	if row[0].Null() {
		h.AtOnce, h.ExpireAfter = true, time.Nanosecond
		return nil
	}
	hours, err := strconv.ParseFloat(row[0].String(), 64)
	if err != nil {
		return fmt.Errorf("read the retention hours: %q is no number", row[0])
	}
	h.ExpireAfter = time.Duration(hours * float64(time.Hour))
	return nil
}
