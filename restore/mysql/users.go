package mysql

import (
	"context"
	"fmt"
	"strings"

	"txreel/sources/mysql/mybase"
)

// accountName is how SQL names an account; a role of MariaDB has no host.
func accountName(a *mybase.Account) string {
	if a.Role && a.Host == "" {
		return quote(a.User)
	}
	return literal(a.User) + "@" + literal(a.Host)
}

// stepAccountsListed is the note behind those of the accounts that the target had.
const stepAccountsListed = "accounts listed"

// own notes which accounts the target had before the restore: they stay as they are.
func (l *loader) own(ctx context.Context, s *conn) error {
	if l.done[stepAccountsListed] {
		return nil
	}
	rows, err := s.query(ctx, "SELECT User, Host FROM mysql.user")
	if err != nil {
		return fmt.Errorf("list the target's accounts: %w", err)
	}
	for _, r := range rows {
		if err := l.note(ctx, "account of the target: "+accountKey(r.text(0), r.text(1))); err != nil {
			return err
		}
	}
	return l.note(ctx, stepAccountsListed)
}

// kept reports whether an account was the target's before.
func (l *loader) kept(a *mybase.Account) bool {
	return l.done["account of the target: "+accountKey(a.User, a.Host)]
}

// createAccounts makes users and roles, in rounds, since one may have another as its
// default role.
func (l *loader) createAccounts(ctx context.Context, s *conn) error {
	if err := l.own(ctx, s); err != nil {
		return err
	}
	if l.accounts.Missing != "" {
		l.warn("the base has no users, roles and privileges: %s", l.accounts.Missing)
	}
	var left []*mybase.Account
	for i := range l.accounts.Accounts {
		a := &l.accounts.Accounts[i]
		switch {
		case l.kept(a) && a.Create != "" && l.scratch: // it is not read from there
		case l.kept(a) && a.Create != "":
			l.warn("account %s was in the target already, and was left as it is", accountName(a))
		case a.Create != "" && !l.done["account: "+accountName(a)]:
			left = append(left, a)
		}
	}
	for len(left) > 0 {
		var again []*mybase.Account
		var errs []error
		for _, a := range left {
			err := s.exec(ctx, a.Create)
			if s.broken != nil || ctx.Err() != nil {
				return err
			}
			if err != nil && !isError(err, 1396) { // it cannot be created: it is there
				again, errs = append(again, a), append(errs, err)
				continue
			}
			if err := l.note(ctx, "account: "+accountName(a)); err != nil {
				return err
			}
		}
		if len(again) == len(left) {
			for i, a := range again {
				l.warn("account %s could not be made: %v", accountName(a), errs[i])
			}
			return nil
		}
		left = again
	}
	return nil
}

// grantAll gives the accounts their privileges, once all is there that they are on.
func (l *loader) grantAll(ctx context.Context, s *conn) error {
	for i := range l.accounts.Accounts {
		a := &l.accounts.Accounts[i]
		if a.Create != "" && (l.kept(a) || !l.done["account: "+accountName(a)]) {
			continue
		}
		for _, g := range a.Grants {
			err := s.exec(ctx, g)
			if s.broken != nil || ctx.Err() != nil {
				return err
			}
			if err != nil {
				what, _, _ := strings.Cut(g, " IDENTIFIED ") // what follows is a password's hash
				l.warn("account %s has not got all its privileges: %s: %v", accountName(a), what, err)
			}
		}
	}
	return nil
}
