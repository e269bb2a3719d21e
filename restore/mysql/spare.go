package mysql

import (
	"context"
	"fmt"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// What is replayed may change the very account that the restore uses: its password, its privileges, its
// existence. A session that is open keeps its place, and on both servers the global privileges that it came with, but
// for MySQL's dynamic ones. So all sessions that are needed behind the replay are opened before it.

// openSpares opens the sessions that the replay, the finish and the look at the result need, and notes what
// the account is.
func (t *Target) openSpares(ctx context.Context) error {
	const others = 1 // it gives EVENT objects their states, and is spoilt by that
	for len(t.spares) < t.job.Workers+others {
		c, err := t.cfg.connect(ctx)
		if err != nil {
			return err
		}
		t.spares = append(t.spares, c)
	}
	t.accountWas = t.describeAccount(ctx)
	return nil
}

// spare takes a session that was opened before the replay. Where there is none left, or it has died, it opens
// one. The caller closes it, or puts it back as it was.
func (t *Target) spare(ctx context.Context) (*conn, error) {
	for {
		c := t.popSpare()
		if c == nil {
			c, err := t.cfg.connect(ctx)
			return c, t.explainAccount(err)
		}
		err := c.exec(ctx, "DO 1")
		if err == nil {
			return c, nil
		}
		c.close()
		if ctx.Err() != nil {
			return nil, err
		}
	}
}

func (t *Target) popSpare() *conn {
	t.sparesMu.Lock()
	defer t.sparesMu.Unlock()
	n := len(t.spares)
	if n == 0 {
		return nil
	}
	c := t.spares[n-1]
	t.spares = t.spares[:n-1]
	return c
}

// returnSpare returns a session to the spare ones.
func (t *Target) returnSpare(c *conn) {
	t.sparesMu.Lock()
	defer t.sparesMu.Unlock()
	t.spares = append(t.spares, c)
}

func (t *Target) closeSpares() {
	for c := t.popSpare(); c != nil; c = t.popSpare() {
		c.close()
	}
}

// describeAccount returns what the server says of the restore's own account: the same text as long as nobody
// changes it. It is shown to nobody.
func (t *Target) describeAccount(ctx context.Context) string {
	text := ""
	for _, sql := range []string{"SHOW CREATE USER CURRENT_USER()", "SHOW GRANTS"} {
		rows, err := t.control.query(ctx, sql)
		if err != nil {
			text += err.Error()
		}
		for _, r := range rows {
			text += r.text(0) + "\n"
		}
	}
	return text
}

// checkAccount warns when the account of the restore is not what it was before the replay.
func (t *Target) checkAccount(ctx context.Context) {
	if now := t.describeAccount(ctx); t.accountWas != "" && now != t.accountWas {
		t.warn("the source has changed the account %s, and so it is changed in the target, where this restore has used it", t.account)
	}
}

// explainAccount adds to a server's refusal why it may refuse what it has allowed before.
func (t *Target) explainAccount(err error) error {
	const locked, lockedMariaDB, mustChange, expired, noAuth = 3118, 4151, 1820, 1862, 1698
	if !isError(err, mysql.ER_ACCESS_DENIED_ERROR, mysql.ER_DBACCESS_DENIED_ERROR, mysql.ER_TABLEACCESS_DENIED_ERROR, mysql.ER_COLUMNACCESS_DENIED_ERROR,
		mysql.ER_SPECIFIC_ACCESS_DENIED_ERROR, mysql.ER_PROCACCESS_DENIED_ERROR, locked, lockedMariaDB, mustChange, expired, noAuth,
		errXARefused) {
		return err
	}
	return fmt.Errorf("%w; the replayed history may have changed the account %s, with which the restore works, as it was changed in the source: "+
		"run the same restore again with another account, it continues", err, t.account)
}

// errXARefused is MySQL's answer to XA RECOVER without the privilege for it.
const errXARefused = 1401
