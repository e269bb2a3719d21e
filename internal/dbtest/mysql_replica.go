package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// ReplicaOf starts a replica of a server of the same vendor. It gets everything from the primary's binary logs,
// which must therefore be whole. Flavor and Root are the primary's, whatever the options say.
func ReplicaOf(ctx context.Context, primary *MySQL, opts MySQLOptions) (*MySQL, error) {
	opts.Flavor, opts.Root = primary.Flavor, primary.Root
	replica, err := StartMySQL(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := replica.Follow(ctx, primary); err != nil {
		return nil, errors.Join(err, replica.Close())
	}
	return replica, nil
}

// Follow makes the server a replica of another one by GTID, from where it stands; also one that was a primary until
// now.
func (m *MySQL) Follow(ctx context.Context, primary *MySQL) error {
	to := fmt.Sprintf("STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = %d, SOURCE_USER = 'root', "+
		"SOURCE_PASSWORD = '%s', SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 0, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 1, "+
		"SOURCE_RETRY_COUNT = 86400; START REPLICA", primary.Port, primary.password)
	if m.Flavor == "mariadb" {
		// Where it stands includes what it wrote itself.
		to = fmt.Sprintf("STOP SLAVE; SET GLOBAL gtid_slave_pos = @@gtid_current_pos; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', "+
			"MASTER_PORT = %d, MASTER_USER = 'root', MASTER_PASSWORD = '%s', MASTER_USE_GTID = slave_pos, MASTER_SSL = 0, "+
			"MASTER_SSL_VERIFY_SERVER_CERT = 0, MASTER_CONNECT_RETRY = 1; START SLAVE", primary.Port, primary.password)
	}
	if err := m.Exec(ctx, "", to); err != nil {
		return errors.New("make a replica: " + redact(err.Error(), primary.password))
	}
	return nil
}

// CatchUp waits until a replica holds all that the primary holds now. What stops replication is an error.
func (m *MySQL) CatchUp(ctx context.Context, primary *MySQL) error {
	ask, held := "SELECT @@GLOBAL.gtid_executed", "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)"
	if m.Flavor == "mariadb" {
		ask, held = "SELECT @@GLOBAL.gtid_binlog_pos", "SELECT MASTER_GTID_WAIT(%s, 0) = 0"
	}
	goal, err := primary.Query(ctx, "", ask)
	if err != nil {
		return err
	}
	s, err := m.Session(ctx, "")
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // it only asked
	held = fmt.Sprintf(held, quoteText(goal[0][0]))
	return poll(ctx, "the replica to catch up", func() (bool, error) {
		rows, err := s.Query(ctx, held)
		if err != nil || rows[0][0] == "1" {
			return true, err
		}
		status, err := m.ReplicaStatus(ctx)
		if err != nil {
			return false, err
		}
		for _, name := range []string{"Last_IO_Error", "Last_SQL_Error"} {
			if status[name] != "" {
				return false, fmt.Errorf("the replica stopped: %s%s", redact(status[name], primary.password), m.workerErrors(ctx))
			}
		}
		return false, nil
	})
}

// workerErrors are what the coordinator's error refers to on MySQL.
func (m *MySQL) workerErrors(ctx context.Context) string {
	if m.Flavor == "mariadb" {
		return ""
	}
	rows, err := m.Query(ctx, "", `SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker
		WHERE LAST_ERROR_NUMBER <> 0`)
	if err != nil {
		return ""
	}
	var all strings.Builder
	for _, row := range rows {
		all.WriteString("\n" + row[0])
	}
	return all.String()
}

// Promote ends the server's life as a replica: it keeps what it holds.
func (m *MySQL) Promote(ctx context.Context) error {
	if m.Flavor == "mariadb" {
		return m.Exec(ctx, "", "STOP SLAVE; RESET SLAVE ALL")
	}
	return m.Exec(ctx, "", "STOP REPLICA; RESET REPLICA ALL")
}

// ReplicaStatus is the row of SHOW REPLICA STATUS by column, empty on what is no replica.
func (m *MySQL) ReplicaStatus(ctx context.Context) (map[string]string, error) {
	s, err := m.Session(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // it only asked
	rows, err := namedRows(ctx, s.Conn, "SHOW REPLICA STATUS")
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for _, row := range rows { // one, as long as nobody makes a second channel
		maps.Copy(status, row)
	}
	return status, nil
}

// namedRows returns the rows of a statement by column name, NULL as Null.
func namedRows(ctx context.Context, conn *sql.Conn, statement string) ([]map[string]string, error) {
	rows, err := conn.QueryContext(ctx, statement)
	if err != nil {
		return nil, fmt.Errorf("run %.200q: %w", statement, err)
	}
	defer func() { _ = rows.Close() }() // a second time
	names, err := rows.Columns()
	if err != nil {
		return nil, fmt.Errorf("run %.200q: %w", statement, err)
	}
	values, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	var found []map[string]string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("run %.200q: %w", statement, err)
		}
		row := make(map[string]string, len(names))
		for i, v := range values {
			if row[names[i]] = v.String; !v.Valid {
				row[names[i]] = Null
			}
		}
		found = append(found, row)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("run %.200q: %w", statement, err)
	}
	return found, nil
}
