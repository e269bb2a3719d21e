package mysql

import (
	"errors"
	"fmt"
	"strings"

	"txreel/capture"
	"txreel/sources/mysql/gtid"
)

// unreachable wraps an error of a connection that is lost.
func unreachable(err error) error { return fmt.Errorf("%w: %w", capture.ErrUnreachable, err) }

// ErrAwaited says that the source cannot be recorded before COMMITs that wait for a semi-synchronous replica are done. They
// may wait for a capture that was killed, and the server lets them go by itself.
var ErrAwaited = errors.New("transactions that are on record wait for a semi-synchronous replica there")

// goesAway reports whether an answer means that the connection is gone or will be,
// and not that a statement was refused.
func goesAway(e *ServerError) bool {
	switch e.Code {
	case 1053, 1077, 1078, 1079, 1080, // shutdown
		1042, 1043, 1152, 1153, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, // the network
		1184, 1927, 2006, 2013, 3169, 4031: // aborted, killed, lost, idle too long
		return true
	}
	return false
}

// wrapSQL names what was being done in an error.
func wrapSQL(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// explainSQL is wrapSQL for statements that need a privilege, which it names.
func (c *Conn) explainSQL(doing string, err error) error {
	if err == nil {
		return nil
	}
	var refused *ServerError
	if !errors.As(err, &refused) || refused.Code != 1227 && refused.Code != 1044 && refused.Code != 1045 && refused.Code != 1142 {
		return wrapSQL(doing, err)
	}
	grant := "REPLICATION SLAVE, REPLICATION CLIENT"
	if c.Flavor == gtid.MariaDB {
		grant = "REPLICATION SLAVE, BINLOG MONITOR"
	}
	return fmt.Errorf("%s: the user may not (%w): run GRANT %s ON *.* TO %s there", doing, err, grant, c.account())
}

// account names the user for GRANT.
func (c *Conn) account() string { return quoteLiteral(c.cfg.User) + "@'…'" }

// errAnonymous is the gap that transactions without GTIDs make.
func errAnonymous() error {
	return fmt.Errorf("%w: the source commits transactions without GTIDs, which cannot be told from one another: SET GLOBAL gtid_mode = ON there (by way of OFF_PERMISSIVE and ON_PERMISSIVE), then run capture with --new-epoch", capture.ErrGap)
}

// newEpoch is what every gap leads to.
const newEpoch = "run capture with --new-epoch to go on behind the gap"

// explainStream turns an error of the stream into one that says what it means for the
// record. The servers have one number for most of them, 1236, and tell more in their
// texts, which are in English for our sessions.
func (s *Source) explainStream(err error) error {
	var answer *ServerError
	if !errors.As(err, &answer) {
		return wrapSQL("stream from the source", err)
	}
	text := answer.Message
	has := func(part string) bool { return strings.Contains(strings.ToLower(text), part) }
	switch {
	case has("same server_uuid/server_id"):
		return fmt.Errorf("%w: another client with server id %d began to read the source's log, which ended our stream: stop the other capture, or give it an archive of its own", capture.ErrOtherCapture, s.opts.ServerID)
	case answer.Code == 1227 || answer.Code == 1045 || answer.Code == 1044:
		return s.dump.explainSQL("stream from the source", err)
	case has("anonymous transaction"):
		return errAnonymous()
	case answer.Code == 1789, has("purged"), has("first log file name"):
		return fmt.Errorf("%w: the source has purged what comes next in the record (%s): %s, and let it keep its log longer", capture.ErrGap, text, newEpoch)
	case has("more gtids than"), has("diverged"), has("not in the master's binlog"), has("gtid state not found in binlog"), has("missing the gtid"):
		return fmt.Errorf("%w: the source does not have the end of the record (%s): it was reset, restored or lost it, or another server took its place; run capture with --new-epoch to record from here on", capture.ErrDiverged, text)
	case has("truncated in the middle"):
		return &truncatedError{text}
	case has("bogus data"), has("impossible position"):
		return fmt.Errorf("%w: the source cannot read its own log (%s): %s", capture.ErrGap, text, newEpoch)
	case has("max_allowed_packet"):
		return fmt.Errorf("stream from the source: %w: SET GLOBAL max_allowed_packet = 1073741824 there", err)
	case goesAway(answer), has("shutdown"), has("could not find next log"): // opened anew, the stream says what it means
		return fmt.Errorf("stream from the source: %w", unreachable(err))
	}
	return wrapSQL("stream from the source", err)
}

// truncatedError says that a file of the log ends in the middle of an event, as those of a
// MariaDB do that crashed while it wrote. What was cut off was never committed, and a stream
// that has all before it is begun with the next file.
type truncatedError struct{ text string }

func (e *truncatedError) Error() string {
	return "the source's log was cut off by a crash (" + e.text + ")"
}

// explain says what it means to a stream that has, or has not, come on before.
func (e *truncatedError) explain(cameOn bool) error {
	if cameOn {
		return unreachable(e)
	}
	return fmt.Errorf("%w: %w: %s", capture.ErrGap, e, newEpoch)
}
