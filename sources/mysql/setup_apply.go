package mysql

import (
	"context"
	"errors"
	"fmt"

	"txreel/sources"
)

// Apply plans and runs the statements one by one, and calls report, unless nil, after each, also for what only has a
// reason. It returns the password that it made for the account, or empty: show it once, and keep it nowhere, also when
// there is an error beside it. What Apply shows of a statement with a password has … in its place. When it fails, what
// was done stays, and applying again goes on from there.
func (s Setup) Apply(ctx context.Context, conn *Conn, report func(sources.Statement, error)) (password string, err error) {
	v, err := s.visit(ctx, conn)
	if err != nil {
		return "", err
	}
	made := ""
	if v.Password == "" && v.User != "" {
		made = newPassword()
		v.Password = made
	}
	steps, err := v.plan(ctx)
	if err != nil {
		return "", err
	}
	// Accounts and settings wait for whoever holds the global lock: an error is better than a queue behind us.
	if err := conn.Exec(ctx, "SET SESSION lock_wait_timeout = 10"); err != nil {
		return "", err
	}
	for _, st := range steps {
		uses := st.run != nil && st.SQL != "" // only a password makes a statement differ from what is shown
		err := st.execute(ctx, conn)
		if uses && err == nil {
			password = made
		}
		if report != nil {
			report(st.Statement, err)
		}
		if err != nil {
			return password, v.explainRun(st, err)
		}
	}
	return password, nil
}

func (st step) execute(ctx context.Context, conn *Conn) error {
	switch {
	case st.run != nil:
		return st.run(ctx)
	case st.SQL != "":
		return conn.Exec(ctx, st.SQL)
	}
	return nil
}

// explainRun says what was being done, and for some answers of the server what to do.
func (v *visit) explainRun(st step, err error) error {
	var refused *ServerError
	if !errors.As(err, &refused) {
		return err
	}
	what := st.SQL
	if what == "" {
		what = "a check"
	}
	// A server that cannot read a statement repeats some of it.
	if v.Password != "" {
		err = errors.New((&Config{Password: v.Password}).redact(err.Error()))
	}
	switch refused.Code {
	case 1227, 1044, 1045, 1142, 1410, 3619:
		return fmt.Errorf("run %s: %w: run setup as an administrator, such as root", what, err)
	case 1819, 1290:
		return fmt.Errorf("run %s: %w: create the account by hand with a password that the server's rules allow, then run setup again for its privileges", what, err)
	case 1205:
		return fmt.Errorf("run %s: %w: somebody holds the server's global lock, probably a backup; run setup again", what, err)
	}
	return fmt.Errorf("run %s: %w", what, err)
}
