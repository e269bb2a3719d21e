package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/sources/mysql/mybase"
)

// rolePublic is a role that every MariaDB has, and everybody.
const rolePublic = "PUBLIC"

// accounts lists the server's accounts that are not its own.
func (s *Scratch) accounts(ctx context.Context) ([]mybase.Account, error) {
	sql := "SELECT User, Host, 'N' FROM mysql.user WHERE User NOT IN ('mysql.sys', 'mysql.session', 'mysql.infoschema')"
	if s.version.mariadb() {
		sql = "SELECT User, Host, is_role FROM mysql.user WHERE User <> 'mariadb.sys'"
	}
	rows, err := s.control.query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("list the scratch server's accounts: %w", err)
	}
	var all []mybase.Account
	for _, r := range rows {
		all = append(all, mybase.Account{User: r.text(0), Host: r.text(1), Role: r.text(2) == "Y"})
	}
	return all, nil
}

// checkPublic refuses a MariaDB that has granted something to everybody: it would be taken for the source's.
func (s *Scratch) checkPublic(ctx context.Context) error {
	if !s.version.mariadb() {
		return nil
	}
	const none, unknown = 1141, 1064 // grants, and before 10.11 the role
	rows, err := s.control.query(ctx, "SHOW GRANTS FOR PUBLIC")
	if err != nil && !isError(err, none, unknown) {
		return fmt.Errorf("read what the scratch server grants to PUBLIC: %w", err)
	}
	for _, r := range rows {
		if !strings.HasPrefix(r.text(0), "GRANT USAGE ON *.*") {
			return fmt.Errorf("%w: the scratch server grants something to everybody, which would be taken for the source's: REVOKE ALL PRIVILEGES, GRANT OPTION FROM PUBLIC", restore.ErrNotEmpty)
		}
	}
	return nil
}

// readSpan looks through what will be replayed: for the source's place in its log at the cut, and for statements about accounts that the
// scratch server has of its own. What these became in the source nobody could tell there.
func (s *Scratch) readSpan(ctx context.Context) error {
	p := s.job.Plan
	s.File, s.Offset, s.named, s.dropped = s.engine.File, s.engine.Offset, make(map[string]bool), false
	users := make(map[string]bool)
	all, err := s.accounts(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		if s.own[accountKey(a.User, a.Host)] {
			users[strings.ToLower(a.User)] = true
		}
	}
	for x, err := range s.job.Archive.Segments(ctx, p.Epoch, p.Base.Seq+1) {
		if err != nil {
			return err
		}
		if x.First() > p.Seq {
			break
		}
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Seq <= p.Base.Seq || t.Seq > p.Seq || t.Kind != change.TxnSource {
				continue
			}
			at, ok := parsePlace(string(t.Position))
			if !ok {
				return fmt.Errorf("%w: %s: transaction %s ends at %q, which is no place in a binlog", archive.ErrCorrupt, x.Key, t.Seq, clip(string(t.Position)))
			}
			s.File, s.Offset = at.file, at.pos
			if err := s.readStatement(t, users); err != nil {
				return err
			}
		}
	}
	return nil
}

// readStatement looks which accounts a transaction may change, and refuses one of users, which are names in lower case.
func (s *Scratch) readStatement(t *change.Txn, users map[string]bool) error {
	refuse := func(what string) error {
		return fmt.Errorf("%w: transaction %s changes accounts (%s), among them perhaps one that the scratch server has of its own, so that nobody can tell there what the source's became: "+
			"give the scratch server no account but one of a name that the source does not use", ErrOnlySource, t.Seq, what)
	}
	for i := range t.Tables {
		if t.Tables[i].Table.Schema == "mysql" {
			return refuse(t.Tables[i].Table.String())
		}
	}
	verb := aboutAccounts(t.Note)
	if verb == "" {
		return nil
	}
	if strings.HasSuffix(t.Note, "…") { // what is cut off may name any
		return refuse("a long statement")
	}
	s.dropped = s.dropped || verb == "DROP"
	l := lexer{text: t.Note}
	for word := l.next(); word != "" || l.quoted; word = l.next() {
		name := strings.ToLower(word)
		s.named[name] = true
		if users[name] {
			return refuse(literal(name))
		}
	}
	return nil
}

// aboutAccounts returns what a statement does to accounts; "" if it does nothing to any.
func aboutAccounts(note string) string {
	l := lexer{text: note}
	if l.accept("USE") {
		l.next()
		l.next() // ;
	}
	verb, is := l.word(), false
	switch verb {
	case "GRANT", "REVOKE":
		is = true
	case "SET":
		is = l.accept("PASSWORD") || l.accept("DEFAULT", "ROLE")
	case "CREATE", "ALTER", "DROP", "RENAME":
		l.accept("OR", "REPLACE")
		is = l.accept("USER") || l.accept("ROLE")
	}
	if !is {
		return ""
	}
	return verb
}
