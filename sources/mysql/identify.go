package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// Incarnation says which server a source is.
type Incarnation struct {
	Flavor  gtid.Flavor
	Version string
	Number  int // of the version, as in Conn
	// System tells servers apart. For MySQL it is the server_uuid. MariaDB has none: its server_uid, which is made of
	// the machine's network address and the port, where the version has it (10.11.9 and later), else server_id, host
	// name and port. After a failover another server answers, with another System and the same GTIDs.
	System   string
	ServerID uint32
	Host     string          // as the server calls itself, and its port
	Executed change.Position // the GTIDs of all that was committed, as the server's log has them
}

// Identify asks the source who it is. Every user that may capture may ask.
func Identify(ctx context.Context, url string) (Incarnation, error) {
	conn, err := Connect(ctx, url)
	if err != nil {
		return Incarnation{}, err
	}
	defer conn.Close()
	return conn.identify(ctx)
}

func (c *Conn) identify(ctx context.Context) (Incarnation, error) {
	id := Incarnation{Flavor: c.Flavor, Version: c.Version, Number: c.Number}
	row, err := c.QueryRow(ctx, "SELECT @@global.server_id, @@global.hostname, @@global.port")
	if err != nil {
		return id, wrapSQL("identify the source", err)
	}
	server, err := strconv.ParseUint(row[0].String(), 10, 32)
	if err != nil {
		return id, fmt.Errorf("identify the source: its server_id is %q", row[0])
	}
	id.ServerID, id.Host = uint32(server), net.JoinHostPort(row[1].String(), row[2].String())
	switch c.Flavor {
	case gtid.MySQL:
		row, err = c.QueryRow(ctx, "SELECT @@global.server_uuid")
	default:
		row, err = c.QueryRow(ctx, "SELECT @@global.server_uid")
		var refused *ServerError
		if errors.As(err, &refused) && refused.Code == 1193 { // no such variable
			row, err = []Value{Value(fmt.Sprintf("%d@%s", id.ServerID, id.Host))}, nil
		}
	}
	if err != nil {
		return id, wrapSQL("identify the source", err)
	}
	id.System = row[0].String()
	executed, err := c.executed(ctx)
	if err == nil {
		id.Executed = position(executed)
	}
	return id, err
}

// sameAs refuses a session that a name with several servers behind it led elsewhere: what
// one says of its log, or shows of its rows, is not true of another.
func (c *Conn) sameAs(ctx context.Context, other *Conn) error {
	mine, err := c.identify(ctx)
	if err != nil {
		return err
	}
	its, err := other.identify(ctx)
	if err == nil && (mine.System != its.System || mine.Host != its.Host) {
		err = unreachable(fmt.Errorf("its name led one session to %s and the next to %s: give the address of one server", its.Host, mine.Host))
	}
	return err
}

// executed reads what ReadPosition returns. For MariaDB it is what its binlog holds, unlike gtid_current_pos, which
// names what came from elsewhere and was never logged here.
func (c *Conn) executed(ctx context.Context) (*gtid.Set, error) {
	if c.Flavor == gtid.MariaDB {
		return c.readSet(ctx, "@@global.gtid_binlog_pos")
	}
	return c.readSet(ctx, "@@global.gtid_executed")
}

// readSet reads a variable that holds a set of GTIDs.
func (c *Conn) readSet(ctx context.Context, variable string) (*gtid.Set, error) {
	row, err := c.QueryRow(ctx, "SELECT "+variable)
	if err != nil {
		return nil, wrapSQL("read "+variable, err)
	}
	set, err := gtid.Parse(c.Flavor, row[0].String())
	return set, wrapSQL("read "+variable, err)
}

// Clock returns the source's clock.
func Clock(ctx context.Context, conn *Conn) (change.Time, error) {
	row, err := conn.QueryRow(ctx, "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)")
	if err != nil {
		return 0, wrapSQL("read the source's clock", err)
	}
	us, err := row[0].Int()
	return change.Time(us), wrapSQL("read the source's clock", err)
}
