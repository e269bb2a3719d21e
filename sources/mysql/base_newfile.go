package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// When MariaDB goes on to a new file of its log, it says at once that commits stand at the beginning of that file, also when
// the last transactions of the file before are in the log and not yet in the tables: a semi-synchronous COMMIT may wait
// in between for as long as its time-out. A view that is taken then lacks what its place says that it holds. InnoDB has
// those transactions prepared until they are in the tables, and shows them.

// errNewFile says that a view stands at the beginning of a file, and that it is not known to hold all of the one before.
var errNewFile = fmt.Errorf("%w: the log went on to a new file", errMoved)

// errNewFileUnseen is errNewFile where nobody may look.
var errNewFileUnseen = fmt.Errorf("%w, and without PROCESS nobody can see whether all commits of the one before are done", errNewFile)

// newFile is a place at the beginning of a file, if commits stand at one, and whether all commits of the files before
// were done after they stood there.
type newFile struct {
	place place
	done  error // nil if they were
}

// atNewFile looks before a view is taken.
func (b *baseRun) atNewFile(ctx context.Context) (newFile, error) {
	at, err := snapshotPlace(ctx, b.control) // of no view: where commits stand now
	if err != nil {
		return newFile{}, err
	}
	opens, err := opensFile(ctx, b.control, at.place)
	if err != nil || !opens {
		return newFile{}, err
	}
	done, err := nonePrepared(ctx, b.control)
	switch {
	case denied(err):
		return newFile{at.place, errNewFileUnseen}, nil
	case err != nil:
		return newFile{}, err
	case !done:
		return newFile{at.place, errNewFile}, nil
	}
	return newFile{place: at.place}, nil
}

// proves refuses a view's place at the beginning of a file, unless all commits of the files before were done when n was
// looked at. What entered the log later stands behind that place.
func (b *baseRun) proves(ctx context.Context, n newFile, at place) error {
	if at == n.place {
		return n.done
	}
	opens, err := opensFile(ctx, b.control, at)
	if err == nil && opens {
		err = errNewFile
	}
	return err
}

// headerEvents is more than a file begins with before its first transaction.
const headerEvents = 32

// opensFile reports whether no transaction stands before a place in its file.
func opensFile(ctx context.Context, c *Conn, at place) (bool, error) {
	r, err := c.Query(ctx, fmt.Sprintf("SHOW BINLOG EVENTS IN %s LIMIT %d", quoteLiteral(at.file), headerEvents))
	if err != nil {
		return false, fmt.Errorf("look into the log at %s: %w", at, err)
	}
	for i := range r.Rows {
		pos, err := r.Value(i, "Pos").Uint()
		if err != nil {
			return false, fmt.Errorf("SHOW BINLOG EVENTS: %w", err)
		}
		switch r.Value(i, "Event_type").String() {
		case "Format_desc", "Start_encryption", "Gtid_list", "Binlog_checkpoint":
			continue
		}
		return pos >= at.pos, nil
	}
	return true, nil
}

// nonePrepared reports whether no transaction is between its place in the log and the tables. The list of InnoDB's monitor
// is of this moment, where information_schema.INNODB_TRX may be of an earlier one; one that was cut short says nothing.
func nonePrepared(ctx context.Context, c *Conn) (bool, error) {
	row, err := c.QueryRow(ctx, "SHOW ENGINE INNODB STATUS")
	if err != nil {
		return false, err
	}
	if len(row) != 3 {
		return false, errors.New("SHOW ENGINE INNODB STATUS: not the columns that are known")
	}
	text := row[2].String()
	whole := strings.Contains(text, "LIST OF TRANSACTIONS") && strings.Contains(text, "END OF INNODB MONITOR OUTPUT") && !strings.Contains(text, "... truncated...")
	return whole && !strings.Contains(text, "(PREPARED)"), nil
}
