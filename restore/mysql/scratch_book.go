package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"txreel/change"
	"txreel/restore"
)

// scratchSQL makes the table by which a book is one of a scratch server, which may be emptied: it holds what is to be removed, once the restore
// is over. It is there before the row of progress is, so that no other restore's book is taken for one.
const scratchSQL = "CREATE TABLE txreel_restore.scratch (kind VARCHAR(16) NOT NULL, name VARCHAR(128) NOT NULL, host VARCHAR(255) NOT NULL, PRIMARY KEY (kind, name, host)) ENGINE=InnoDB"

// The kinds of what is removed.
const (
	madeDatabase = "database"
	madeAccount  = "account"
	madeRole     = "role"
)

// phaseDiscard is that of a scratch server only: what the restore has made is being removed.
const phaseDiscard phase = "discard"

func (t *Target) hasBookTable(ctx context.Context, name string) (bool, error) {
	n, err := t.control.value(ctx, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = "+literal(bookSchema)+" AND table_name = "+literal(name))
	if err != nil {
		return false, fmt.Errorf("look for an interrupted restore: %w", err)
	}
	return n != "0", nil
}

// checkKind refuses to continue a restore as one into a scratch server, whose result is removed, if it was none, and the other way about.
func (t *Target) checkKind(ctx context.Context) error {
	marked, err := t.hasBookTable(ctx, "scratch")
	switch {
	case err != nil:
		return err
	case t.scratch && !marked:
		return fmt.Errorf("%w: a restore into this server was interrupted, which is not for a base: finish it, or name another server", restore.ErrNotEmpty)
	case !t.scratch && marked:
		return fmt.Errorf("%w: it is a scratch server on which a base was being made: run `txreel base --from-history --scratch` with it again, or restore into a fresh server", restore.ErrOtherRestore)
	}
	return nil
}

// readRemains looks for what an interrupted run has left; nil if there is nothing.
func (s *Scratch) readRemains(ctx context.Context, archiveID string) (*remains, error) {
	there, err := s.hasBookTable(ctx, "progress")
	if err != nil || !there {
		return nil, err
	}
	rows, err := s.control.query(ctx, "SELECT archive, epoch, base, cut, phase FROM txreel_restore.progress")
	if err != nil {
		return nil, fmt.Errorf("read the progress of an interrupted restore (schema %s): %w", bookSchema, err)
	}
	if len(rows) == 0 { // it had made nothing else yet
		return nil, nil
	}
	if err := s.checkKind(ctx); err != nil {
		return nil, err
	}
	r := rows[0]
	if r.text(0) != archiveID {
		return nil, fmt.Errorf("%w: a base of archive %s was being made there: finish that with the same server, or name another one", restore.ErrOtherRestore, r.text(0))
	}
	epoch, err1 := strconv.ParseUint(r.text(1), 10, 64)
	cut, err2 := change.ParseSeq(r.text(3))
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("read the progress of an interrupted restore (schema %s): %w", bookSchema, err)
	}
	return &remains{restore.Goal{Kind: restore.AtSeq, Seq: cut, Epoch: epoch, Base: r.text(2)}, phase(r.text(4))}, nil
}

// accountKey is by what the notes know an account.
func accountKey(user, host string) string { return literal(user) + "@" + literal(host) }

// ownAccounts returns the accounts that the server had before the restore.
func (s *Scratch) ownAccounts(ctx context.Context) (map[string]bool, error) {
	l := &loader{control: s.control, done: make(map[string]bool)}
	there, err := s.hasBookTable(ctx, "steps")
	if err == nil && there {
		err = l.readNotes(ctx)
	}
	if err != nil {
		return nil, err
	}
	all, err := s.accounts(ctx)
	if err != nil {
		return nil, err
	}
	own := make(map[string]bool)
	for _, a := range all {
		if a.Role && a.User == rolePublic { // nobody makes it or drops it, and checkPublic has looked
			continue
		}
		if !l.done[stepAccountsListed] || l.kept(&a) {
			own[accountKey(a.User, a.Host)] = true
		}
	}
	return own, nil
}

// noteMade puts on record what the restore has made. Nobody else has made anything: the server was empty, and the caller has looked.
func (s *Scratch) noteMade(ctx context.Context) error {
	note := func(kind, name, host string) error {
		err := s.control.exec(ctx, "INSERT IGNORE INTO txreel_restore.scratch VALUES ("+literal(kind)+", "+literal(name)+", "+literal(host)+")")
		if err != nil {
			return fmt.Errorf("note what the restore has made: %w", err)
		}
		return nil
	}
	rows, err := s.control.query(ctx, "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN "+systemSchemas+" AND schema_name <> "+literal(bookSchema))
	if err != nil {
		return fmt.Errorf("list the scratch server's databases: %w", err)
	}
	for _, r := range rows {
		if err := note(madeDatabase, r.text(0), ""); err != nil {
			return err
		}
	}
	all, err := s.accounts(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		kind := madeAccount
		if a.Role && s.version.mariadb() {
			kind = madeRole
		}
		if s.own[accountKey(a.User, a.Host)] {
			continue
		}
		if err := note(kind, a.User, a.Host); err != nil {
			return err
		}
	}
	return nil
}

// Discard removes what the restore has made, and nothing else. Should it be interrupted, OpenScratch goes on with it.
func (s *Scratch) Discard(ctx context.Context) error {
	if err := s.enter(ctx, phaseDiscard); err != nil {
		return err
	}
	rows, err := s.control.query(ctx, "SELECT kind, name, host FROM txreel_restore.scratch")
	if err != nil {
		return fmt.Errorf("read what is to be removed from the scratch server: %w", err)
	}
	statements := []string{"SET SESSION foreign_key_checks = 0"}
	for _, r := range rows {
		switch r.text(0) {
		case madeDatabase:
			statements = append(statements, "DROP DATABASE IF EXISTS "+quote(r.text(1)))
		case madeRole:
			statements = append(statements, dropRole(r.text(1)))
		default:
			statements = append(statements, "DROP USER IF EXISTS "+accountKey(r.text(1), r.text(2)))
		}
	}
	statements = append(statements, s.version.forget())
	if s.version.mariadb() {
		statements = append(statements, "SET GLOBAL gtid_slave_pos = ''")
	}
	for _, sql := range append(statements, "DROP DATABASE IF EXISTS "+bookSchema) { // the book last: without it nobody would go on
		if err := s.control.exec(ctx, sql); err != nil {
			return fmt.Errorf("remove from the scratch server what was restored (%s): %w; run the same again, or initialise it anew", sql, err)
		}
	}
	s.left, s.phase = nil, phaseNone
	return nil
}

// dropRole removes a role of MariaDB; the one that is everybody's loses its privileges.
func dropRole(name string) string {
	if name == rolePublic {
		return "REVOKE ALL PRIVILEGES, GRANT OPTION FROM PUBLIC"
	}
	return "DROP ROLE IF EXISTS " + quote(name)
}
