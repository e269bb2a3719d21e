package mysql

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"txreel/internal/failpoint"
	"txreel/sources/mysql/gtid"
)

// errNotReplica is MySQL's answer where no replication is set up: newer than the library's list.
const errNotReplica = 1200

// stopReplica stops the target's replica threads and waits until they have stopped.
func (t *Target) stopReplica(ctx context.Context) error {
	err := t.control.exec(ctx, "STOP "+t.version.word())
	if err != nil && !isError(err, errNotReplica, mysql.ER_SLAVE_WAS_NOT_RUNNING) {
		return fmt.Errorf("stop the target's replica threads: %w", err)
	}
	return nil
}

// dropReplica stops the target's replica threads and makes it forget txreel.
func (t *Target) dropReplica(ctx context.Context) error {
	if err := t.stopReplica(ctx); err != nil {
		return err
	}
	err := t.control.exec(ctx, "RESET "+t.version.word()+" ALL")
	if err != nil && !isError(err, errNotReplica) {
		return fmt.Errorf("make the target forget its primary: %w", err)
	}
	return nil
}

// heartbeatPeriod is how often the target wants to hear of a primary that sends nothing.
const heartbeatPeriod = 2 * time.Second

// startReplica points the target's replica threads at host and port and starts them. ca
// is the path of the certificate by which they know txreel; "" where there is none.
func (t *Target) startReplica(ctx context.Context, host string, port int, cred *credentials, ca string) error {
	if err := t.dropReplica(ctx); err != nil {
		return err
	}
	name, statement, filters := "SOURCE", "CHANGE REPLICATION SOURCE TO ", ""
	if t.version.mariadb() || t.version.number < 80023 {
		name, statement = "MASTER", "CHANGE MASTER TO "
	}
	options := []string{
		"_HOST = " + literal(host), fmt.Sprintf("_PORT = %d", port),
		"_SSL = 1", "_CONNECT_RETRY = 1", fmt.Sprintf("_HEARTBEAT_PERIOD = %d.%03d", t.period/time.Second, t.period%time.Second/time.Millisecond), "_DELAY = 0",
	}
	verify := 0
	if ca != "" {
		verify = 1
	}
	// Said even where there is none: MariaDB's RESET SLAVE ALL keeps what was.
	options = append(options, "_SSL_CA = "+literal(ca), fmt.Sprintf("_SSL_VERIFY_SERVER_CERT = %d", verify))
	if t.version.mariadb() {
		options = append(options, "_USER = "+literal(cred.user), "_PASSWORD = "+literal(cred.password), "_USE_GTID = slave_pos")
		filters = ", IGNORE_SERVER_IDS = (), DO_DOMAIN_IDS = (), IGNORE_DOMAIN_IDS = ()"
	} else {
		options = append(options, "_AUTO_POSITION = 1", "_RETRY_COUNT = 60")
	}
	for i := range options {
		options[i] = name + options[i]
	}
	if err := t.control.exec(ctx, statement+strings.Join(options, ", ")+filters); err != nil {
		return fmt.Errorf("make txreel the target's primary: %w", err)
	}
	if s, err := t.replicaStatus(ctx); err != nil {
		return err
	} else if s.filter != "" { // somebody has set it since it was looked for
		return fmt.Errorf("the target has the replication filter %s, which would leave out or change transactions: remove it, and run the same restore again", clip(s.filter))
	}
	start := "START " + t.version.word()
	if !t.version.mariadb() { // the password is kept nowhere
		start += " USER = " + literal(cred.user) + " PASSWORD = " + literal(cred.password)
	}
	if err := t.control.exec(ctx, start); err != nil {
		return fmt.Errorf("start the target's replica threads: %w", err)
	}
	failpoint.Hit(failpoint.RestoreReplicaStarted)
	return nil
}

// replicaStatus is what the target says of its replica threads.
type replicaStatus struct {
	channel       string // "" is the one that a restore uses
	host, port    string
	receiver      string // Yes, No, Connecting or Preparing
	receiverErrno string
	receiverError string
	applier       bool
	applierState  string
	applierErrno  string
	applierError  string
	filter        string // one that leaves out or changes what is received; "" for none
}

// replicaStatuses returns those of all channels that are set up.
func (t *Target) replicaStatuses(ctx context.Context) ([]replicaStatus, error) {
	statement := "SHOW " + t.version.word() + " STATUS"
	if t.version.mariadb() {
		statement = "SHOW ALL SLAVES STATUS" // without ALL, that of one channel
	}
	rows, names, err := t.control.named(ctx, statement)
	if err != nil {
		return nil, fmt.Errorf("look at the target's replica threads: %w", err)
	}
	var all []replicaStatus
	for _, r := range rows {
		get := func(columns ...string) string {
			for _, c := range columns {
				if i, ok := names[c]; ok {
					return r.text(i)
				}
			}
			return ""
		}
		s := replicaStatus{
			channel: get("channel_name", "connection_name"), host: get("source_host", "master_host"), port: get("source_port", "master_port"),
			receiver:      get("replica_io_running", "slave_io_running"),
			receiverErrno: get("last_io_errno"), receiverError: get("last_io_error"),
			applier:      get("replica_sql_running", "slave_sql_running") == "Yes",
			applierState: get("replica_sql_running_state", "slave_sql_running_state"),
			applierErrno: get("last_sql_errno"), applierError: get("last_sql_error"),
		}
		for name, i := range names {
			if strings.HasPrefix(name, "replicate_") && r.text(i) != "" {
				s.filter = name + "=" + r.text(i)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// replicaStatus returns that of the channel which a restore uses.
func (t *Target) replicaStatus(ctx context.Context) (replicaStatus, error) {
	all, err := t.replicaStatuses(ctx)
	for _, s := range all {
		if s.channel == "" {
			return s, nil
		}
	}
	return replicaStatus{}, err
}

// consequences are errors of a worker, or of who leads them, that another worker has
// caused.
const consequences = "1756, 3030, 3117, 13146"

// inMessage finds the GTID in an applier's message.
var inMessage = regexp.MustCompile(`transaction '([^']+)'|Gtid (\d+-\d+-\d+)`)

// applierFailure completes what the target says of a failed applier: MySQL leaves the
// cause to its workers. It returns the GTID of the transaction, if it says that too.
func (t *Target) applierFailure(ctx context.Context, s replicaStatus) (gtid.GTID, string) {
	text, name := s.applierError, ""
	if !t.version.mariadb() {
		rows, err := t.control.query(ctx, "SELECT last_error_message, applying_transaction FROM performance_schema.replication_applier_status_by_worker "+
			"WHERE last_error_number <> 0 AND last_error_number NOT IN ("+consequences+") ORDER BY last_error_timestamp LIMIT 1")
		if err == nil && len(rows) > 0 {
			text, name = rows[0].text(0), rows[0].text(1)
		}
	}
	if m := inMessage.FindStringSubmatch(text); m != nil {
		name = m[1] + m[2]
	}
	g, err := gtid.ParseGTID(name)
	if err != nil {
		return gtid.GTID{}, text
	}
	return g, text
}
