package mysql

import (
	"fmt"

	"txreel/capture"
)

// unreachable wraps an error of a connection that is lost.
func unreachable(err error) error { return fmt.Errorf("%w: %w", capture.ErrUnreachable, err) }

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
