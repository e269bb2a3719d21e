package mysql

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"strings"

	"txreel/sources"
)

// accountFacts is what matters of an account that captures.
type accountFacts struct {
	exists, tls, locked bool
	grants              *grants
}

// readAccount looks at an account, quoted as in SQL, which need not exist.
func readAccount(ctx context.Context, conn *Conn, account string) (accountFacts, error) {
	var a accountFacts
	r, err := conn.Query(ctx, "SHOW CREATE USER "+account)
	var refused *ServerError
	if errors.As(err, &refused) && (refused.Code == 1133 || refused.Code == 1141 || refused.Code == 1396 || refused.Code == 3162) {
		return a, nil // no such account, in the words of one version or another
	}
	if err != nil {
		return a, fmt.Errorf("look at user %s: %w", account, err)
	}
	a.exists = true
	a.tls, a.locked = parseCreateUser(r.Rows[0][0].String())
	a.grants, err = readGrants(ctx, conn, account)
	if err != nil {
		return a, fmt.Errorf("look at the privileges of user %s: %w", account, err)
	}
	return a, nil
}

// parseCreateUser reads what SHOW CREATE USER says beside names, hashes and comments, which are in quotes.
func parseCreateUser(text string) (tls, locked bool) {
	_, tail, required := cutOutside(text, " REQUIRE ")
	_, _, locked = cutOutside(text, " ACCOUNT LOCK")
	return required && !strings.HasPrefix(tail, "NONE"), locked
}

// needs are the privileges the account shall have.
func (v *visit) needs() []need {
	needs := captureNeeds(v.mariadb)
	if v.CaptureOnly {
		return needs
	}
	needs = append(needs, baseNeeds(v.mariadb)...)
	if v.AllowLock {
		needs = append(needs, lockNeeds()...)
	}
	return needs
}

// planUser gives the account what capture needs and nothing more.
func (v *visit) planUser(ctx context.Context) ([]step, error) {
	if v.User == "" {
		return nil, nil
	}
	a, err := readAccount(ctx, v.conn, v.account)
	if err != nil {
		return nil, err
	}
	tls := !v.NoTLS && !v.local()
	if tls && !v.offersTLS() {
		return nil, fmt.Errorf("the server offers no TLS, so that user %s could never log in with it: configure ssl_ca, ssl_cert and ssl_key on the server, "+
			"or choose --no-tls if nobody can listen on the way", v.account)
	}
	var steps []step
	needs := v.needs()
	if !a.exists {
		steps = append(steps, v.createUser(tls))
		a.grants, a.locked = &grants{}, v.mariadb
	} else if tls && !a.tls {
		steps = append(steps, step{Statement: sources.Statement{SQL: "ALTER USER " + v.account + " REQUIRE SSL", Why: "What this user reads is everything: not in the clear."}})
	}
	give, cannot := v.grantable(a.grants.missing(needs))
	if len(give) > 0 {
		why := "What the stream needs: to be sent the binlog, and to see where it ends and what is kept of it."
		if !v.CaptureOnly {
			why += " And what a base needs: to read all data, definitions and accounts, without a privilege to change any. (TRIGGER and EVENT also let it make such objects, which act with its own rights: there is no other way to see them.)"
		}
		steps = append(steps, step{Statement: sources.Statement{SQL: grantSQL(give, v.account), Why: why}})
	}
	for _, n := range cannot {
		steps = append(steps, step{Statement: sources.Statement{Why: fmt.Sprintf("You may not grant %s: without it %s.", n.privilege, n.purpose)}})
	}
	if v.CaptureOnly && (v.set.host == onRDS || v.set.host == onAurora) {
		steps = append(steps, step{Statement: sources.Statement{SQL: "GRANT SELECT ON mysql.rds_configuration TO " + v.account, Why: "There it says for how long the binlog is kept."}})
	}
	if a.locked {
		steps = append(steps, v.unlock())
	}
	return steps, nil
}

// offersTLS reports whether clients can encrypt their connections.
func (v *visit) offersTLS() bool {
	if have, has := v.vars["have_ssl"]; has {
		return switchedOn(have)
	}
	return v.vars["tls_version"] != "" && v.vars["ssl_cert"] != ""
}

// grantable splits privileges by whether whoever sets up may pass them on. Services keep some to themselves.
func (v *visit) grantable(needs []need) (can, cannot []need) {
	if v.set.host == selfHosted {
		return needs, nil // the server says what is missing
	}
	for _, n := range needs {
		if v.mine.has(n.privilege) {
			can = append(can, n)
		} else {
			cannot = append(cannot, n)
		}
	}
	return can, cannot
}

// createUser makes the account. In a script MySQL itself makes the password up and prints it; MariaDB cannot, so that the
// account stays locked until it has one.
func (v *visit) createUser(tls bool) step {
	require := ""
	if tls {
		require = " REQUIRE SSL"
	}
	if v.mariadb {
		return step{Statement: sources.Statement{SQL: "CREATE USER " + v.account + require + " ACCOUNT LOCK", Why: "The account that captures, locked until it has a password."}}
	}
	create := "CREATE USER " + v.account + " IDENTIFIED WITH caching_sha2_password BY "
	st := step{Statement: sources.Statement{SQL: create + "RANDOM PASSWORD" + require,
		Why: "The account that captures. The server makes up its password and shows it once, as the result of this statement. Every version has the plugin caching_sha2_password."}}
	if v.Password != "" {
		st.SQL = create + "'…'" + require
		st.Why = "The account that captures. Every version has the plugin caching_sha2_password."
		st.run = func(ctx context.Context) error { return v.conn.Exec(ctx, create+quoteLiteral(v.Password)+require) }
	}
	return st
}

// unlock gives a locked account its password. MariaDB writes what follows IDENTIFIED BY to its binlog as it is, so we
// send the hash: of the plugin that every version and every client has. It is not salted, which costs nothing with a
// password of our making.
func (v *visit) unlock() step {
	if v.Password == "" {
		give := "SET PASSWORD FOR " + v.account + " = PASSWORD('…'); ALTER USER " + v.account + " ACCOUNT UNLOCK;"
		if !v.mariadb {
			give = "ALTER USER " + v.account + " IDENTIFIED BY '…' ACCOUNT UNLOCK;"
		}
		return step{Statement: sources.Statement{Why: "User " + v.account + " is locked. Give it a password, in a client that keeps no history of it, and unlock it: " + give}}
	}
	alter := "ALTER USER " + v.account + " IDENTIFIED WITH caching_sha2_password BY "
	secret := quoteLiteral(v.Password)
	if v.mariadb {
		alter = "ALTER USER " + v.account + " IDENTIFIED VIA mysql_native_password USING "
		secret = quoteLiteral(nativeHash(v.Password))
	}
	return step{
		Statement: sources.Statement{SQL: alter + "'…' ACCOUNT UNLOCK", Why: "Its password, and the account may be used."},
		run:       func(ctx context.Context) error { return v.conn.Exec(ctx, alter+secret+" ACCOUNT UNLOCK") },
	}
}

// nativeHash is the text by which mysql_native_password knows a password.
func nativeHash(password string) string {
	first := sha1.Sum([]byte(password))
	return fmt.Sprintf("*%X", sha1.Sum(first[:]))
}

// newPassword makes one that passes the usual rules, and needs no quoting in a shell or a URL.
func newPassword() string { return "Tx1-" + strings.ToLower(rand.Text()) }
