package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"txreel/sources"
	"txreel/sources/mysql/gtid"
)

// Setup is what a source server needs before its first capture: settings that make the binlog complete, and a user to
// read with. There is nothing like a slot to make: the server keeps its binlog for a time, whoever reads it.
type Setup struct {
	// User is the account that captures, and takes bases; at most 32 characters. Empty means that no account is touched.
	User string
	// Host is where it may come from, as in 'user'@'host'. Empty means anywhere.
	Host string
	// CaptureOnly gives it what the stream needs, and not what bases read with.
	CaptureOnly bool
	// AllowLock also gives it what a base uses with --allow-lock.
	AllowLock bool
	// NoTLS lets it log in without TLS. An account for this machine's own addresses always may.
	NoTLS bool
	// Password is for an account that has none yet. Empty means that Apply makes one and returns it.
	Password string
	// GTID lets Apply switch GTIDs on while the server runs, as far as it is safe to go in one run.
	GTID bool
	// MinRetention is how long the server should keep its binlog. Zero means three days.
	MinRetention time.Duration
	// Sync also has COMMIT wait for a capture, for so long at most. Zero has it not.
	Sync time.Duration
}

// visit is what the parts of a plan share.
type visit struct {
	Setup
	conn    *Conn
	mariadb bool
	vars    map[string]string
	set     setter
	keep    time.Duration // for which the binlog is kept; 0 for ever
	mine    *grants       // of whoever sets up
	account string        // quoted, of User
}

// step is a statement of a plan and how to run it, where that is more than its SQL.
type step struct {
	sources.Statement
	run func(context.Context) error
}

func (s Setup) validate() error {
	switch {
	case utf8.RuneCountInString(s.User) > 32:
		return fmt.Errorf("user name %q: want at most 32 characters", s.User)
	case len(s.Host) > 255:
		return errors.New("the user's host: want at most 255 characters")
	case strings.ContainsRune(s.User+s.Host, 0):
		return errors.New("a name holds a zero byte")
	case !utf8.ValidString(s.User + s.Host):
		return errors.New("a name is not valid UTF-8")
	}
	return nil
}

// local reports whether the account is for this machine's own addresses only.
func (s Setup) local() bool {
	ip := net.ParseIP(s.Host)
	return strings.EqualFold(s.Host, "localhost") || ip != nil && ip.IsLoopback()
}

// visit reads what a plan is made from.
func (s Setup) visit(ctx context.Context, conn *Conn) (*visit, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	if s.Host == "" {
		s.Host = "%"
	}
	if s.MinRetention == 0 {
		s.MinRetention = defaultRetention
	}
	v := &visit{Setup: s, conn: conn, mariadb: conn.Flavor == gtid.MariaDB, account: quoteAccount(s.User, s.Host)}
	var err error
	if v.vars, err = readVariables(ctx, conn); err != nil {
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	var h Health
	if err := conn.readExpiry(ctx, &h); err != nil {
		return nil, err
	}
	v.keep = h.ExpireAfter
	v.set = setter{host: detectPlatform(v.vars, conn.cfg.Host), mariadb: v.mariadb}
	if v.mine, err = readGrants(ctx, conn, ""); err != nil {
		return nil, fmt.Errorf("look at the privileges of this user: %w", err)
	}
	return v, nil
}

// Plan says what is missing, as statements in the order to run them. It changes nothing. Running the statements, and
// planning again, leaves only what no statement can do: settings that need a restart, and choices.
func (s Setup) Plan(ctx context.Context, conn *Conn) ([]sources.Statement, error) {
	v, err := s.visit(ctx, conn)
	if err != nil {
		return nil, err
	}
	steps, err := v.plan(ctx)
	if err != nil {
		return nil, err
	}
	plan := make([]sources.Statement, len(steps))
	for i, st := range steps {
		plan[i] = st.Statement
	}
	return plan, nil
}

// plan collects the parts. Apply sets a password where Plan shows how.
func (v *visit) plan(ctx context.Context) ([]step, error) {
	steps := v.planSettings()
	if !v.mariadb {
		steps = append(steps, v.planGTID()...)
	}
	keyless, err := keylessTables(ctx, v.conn)
	if err != nil {
		return nil, err
	}
	if len(keyless) > 0 {
		steps = append(steps, planKeys(keyless))
	}
	sync, err := v.planSync()
	if err != nil {
		return nil, err
	}
	user, err := v.planUser(ctx)
	return append(append(steps, user...), sync...), err
}

// planKeys shows how to give tables a key, and never does it: an ALTER TABLE of a large one is its owner's business.
func planKeys(keyless []keylessTable) step {
	var b strings.Builder
	fmt.Fprintf(&b, "%d tables have no key that tells their rows apart, and a replay of their changes is slow. Give them one by hand, %s:", len(keyless), numbering)
	for _, k := range keyless {
		sql := k.fix()
		if sql == "" {
			sql = printable("ALTER TABLE " + k.quoted() + " ADD PRIMARY KEY (…), with the partitioning columns in it if it has partitions")
		}
		b.WriteString("\n" + sql + ";")
	}
	return step{Statement: sources.Statement{Why: b.String()}}
}
