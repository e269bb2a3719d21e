package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"txreel/archive"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// systemSchemas are those that every server has, for IN.
const systemSchemas = "('mysql', 'information_schema', 'performance_schema', 'sys')"

// Check implements restore.Target.
func (t *Target) Check(ctx context.Context, j *restore.Job) (bool, error) {
	t.job = j
	if err := t.readManifest(); err != nil {
		return false, err
	}
	if err := t.checkVersion(); err != nil {
		return false, err
	}
	if err := t.checkPrivileges(ctx); err != nil {
		return false, err
	}
	if err := t.checkServer(ctx); err != nil {
		return false, err
	}
	if err := t.lock(ctx); err != nil {
		return false, err
	}
	var err error
	if t.phase, err = t.checkProgress(ctx); err != nil {
		return false, err
	}
	t.resumed = t.phase != phaseNone
	if t.resumed {
		return true, nil
	}
	return false, t.checkEmpty(ctx)
}

func (t *Target) readManifest() error {
	p, b := t.job.Plan, t.job.Plan.Base
	if p.Engine != "mysql" && p.Engine != "mariadb" {
		return fmt.Errorf("the archive records a %s database, the target is %s", p.Engine, t.version.flavor)
	}
	damaged := func(what string, err error) error {
		return fmt.Errorf("%w: manifest of base %s: %s: %w", archive.ErrCorrupt, b.ID, what, err)
	}
	t.engine = mybase.Engine{}
	if err := json.Unmarshal(b.Engine, &t.engine); err != nil {
		return damaged("engine", err)
	}
	if t.engine.Flavor != p.Engine {
		return damaged("engine", fmt.Errorf("flavor %q in an archive of %s", t.engine.Flavor, p.Engine))
	}
	if flavor := (map[string]gtid.Flavor{"mysql": gtid.MySQL, "mariadb": gtid.MariaDB})[p.Engine]; flavor != t.version.flavor {
		return fmt.Errorf("the archive records %s, the target is %s: neither reads the other's binary log", flavor, t.version)
	}
	var err error
	if t.base, err = gtid.Parse(t.version.flavor, string(b.Position)); err != nil {
		return damaged("position", err)
	}
	return nil
}

// checkVersion refuses a server that is older than the base's.
func (t *Target) checkVersion() error {
	v, number := t.version, t.engine.Number
	base := fmt.Sprintf("%d.%d", number/10000, number/100%100)
	switch {
	case v.mariadb() && v.number < 101000, !v.mariadb() && v.number < 80000:
		return fmt.Errorf("the target is %s: txreel restores into MySQL 8.0 or newer, and MariaDB 10.10 or newer", v)
	case v.number/100 < number/100:
		return fmt.Errorf("the target is %s, the base comes from %s: restore into the same series (%s) or a newer one", v, t.engine.Version, base)
	}
	if v.series() != base {
		t.warn("the base comes from %s %s, the target is %s: a replica of another series is supported by the vendor for the next one only", v.flavor, t.engine.Version, v)
	}
	return nil
}

// checkServer refuses a server with settings under which it cannot become what the
// source was, and the source itself.
func (t *Target) checkServer(ctx context.Context) error {
	get := func(name string) string {
		text, err := t.control.value(ctx, "SELECT @@GLOBAL."+name)
		if err != nil {
			return ""
		}
		return text
	}
	if !t.version.mariadb() {
		if get("server_uuid") == t.job.Plan.System {
			return fmt.Errorf("%w: it is the recorded server itself: restore into a fresh server, and move over when it is good", restore.ErrNotEmpty)
		}
		if mode := get("gtid_mode"); !strings.EqualFold(mode, "ON") {
			return fmt.Errorf("the target has gtid_mode=%s: start it with gtid_mode=ON and enforce_gtid_consistency=ON", mode)
		}
	}
	if have, want := get("lower_case_table_names"), fmt.Sprint(t.engine.LowerCaseTableNames); have != want {
		return fmt.Errorf("the target has lower_case_table_names=%s, the source %s: initialise a fresh server with lower_case_table_names=%s", have, want, want)
	}
	if have, want := get("innodb_page_size"), fmt.Sprint(t.engine.PageSize); t.engine.PageSize != 0 && have != want {
		return fmt.Errorf("the target has innodb_page_size=%s, the source %s: initialise a fresh server with innodb_page_size=%s", have, want, want)
	}
	if id := get("server_id"); id == "0" {
		return errors.New("the target has server_id=0, with which no server replicates: SET GLOBAL server_id to a number that no other server has")
	}
	if get("read_only") != "0" { // where super_read_only is on, this is
		return errors.New("the target has read_only=ON: SET GLOBAL read_only = OFF")
	}
	if err := t.checkLossless(ctx); err != nil {
		return err
	}
	if t.cfg.local() || t.opts.Serve != "" {
		return nil
	}
	return errors.New("the target is on another machine: say with --serve at which address and port of this one it reaches txreel, which serves the replay to it")
}

// checkPrivileges refuses a user who could not finish a restore.
func (t *Target) checkPrivileges(ctx context.Context) error {
	rows, err := t.control.query(ctx, "SHOW GRANTS")
	if err != nil {
		return fmt.Errorf("read the privileges of user %q on the target: %w", t.cfg.user, err)
	}
	if t.account, err = t.control.value(ctx, "SELECT CURRENT_USER()"); err != nil {
		return fmt.Errorf("look at target: %w", err)
	}
	have := make(map[string]bool)
	for _, r := range rows {
		line := strings.ToUpper(r.text(0))
		list, ok := strings.CutPrefix(line, "GRANT ")
		list, on, found := strings.Cut(list, " ON *.* TO ")
		if !ok || !found {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			have[strings.TrimSpace(name)] = true
		}
		if strings.HasSuffix(on, "WITH GRANT OPTION") {
			have["GRANT OPTION"] = true
		}
	}
	if have["ALL PRIVILEGES"] {
		return nil
	}
	need := []string{"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES", "TRIGGER", "EVENT",
		"CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "CREATE USER", "RELOAD", "PROCESS"}
	if t.version.mariadb() {
		need = append(need, "SUPER", "REPLICATION MASTER ADMIN", "REPLICATION SLAVE ADMIN", "BINLOG ADMIN", "SLAVE MONITOR", "SET USER")
	} else {
		definer := "SET_USER_ID"
		if t.version.number >= 80200 {
			definer = "SET_ANY_DEFINER"
		}
		need = append(need, "REPLICATION CLIENT", "REPLICATION_SLAVE_ADMIN", "SYSTEM_VARIABLES_ADMIN", "XA_RECOVER_ADMIN", "ROLE_ADMIN", "SYSTEM_USER", definer)
	}
	var missing []string
	for _, name := range need {
		if !have[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	user, host, _ := cutLast(t.account, "@")
	return fmt.Errorf("the target's user lacks privileges: GRANT %s ON *.* TO %s@%s", strings.Join(missing, ", "), literal(user), literal(host))
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// lockName is what every restore into a server locks.
const lockName = "txreel restore"

// lock makes this the only restore into the server. The server frees the lock of a killed
// one when it notices.
func (t *Target) lock(ctx context.Context) error {
	deadline := time.Now().Add(15 * time.Second)
	for {
		got, err := t.control.value(ctx, "SELECT GET_LOCK("+literal(lockName)+", 1)")
		switch {
		case err != nil:
			return fmt.Errorf("lock target: %w", err)
		case got == "1":
			return nil
		case time.Now().After(deadline):
			return errors.New("another restore into this server is at work: let it end, or stop it")
		}
	}
}

// checkEmpty refuses a server that holds a user's data, or belongs to others.
func (t *Target) checkEmpty(ctx context.Context) error {
	all, err := t.replicaStatuses(ctx)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		s, name, channel := all[0], "", ""
		switch {
		case s.channel == "":
		case t.version.mariadb():
			name = " " + literal(s.channel)
		default:
			channel = " FOR CHANNEL " + literal(s.channel)
		}
		return fmt.Errorf("%w: it replicates from %s:%s; end that with STOP %s%s%s and RESET %s%s ALL%s, or restore into a fresh server", restore.ErrNotEmpty,
			s.host, s.port, t.version.word(), name, channel, t.version.word(), name, channel)
	}
	if t.forget, err = t.executedHere(ctx); err != nil {
		return err
	}
	if t.job.Force {
		return nil
	}
	rows, err := t.control.query(ctx, "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN "+systemSchemas+
		" AND schema_name <> "+literal(bookSchema)+" AND schema_name <> 'test' "+
		"UNION ALL SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema = 'test' LIMIT 5")
	if err != nil {
		return fmt.Errorf("look for databases in the target: %w", err)
	}
	if len(rows) > 0 {
		var names []string
		for _, r := range rows[:min(len(rows), 4)] {
			names = append(names, r.text(0))
		}
		more := ""
		if len(rows) > 4 {
			more = " and more"
		}
		advice := "restore into a fresh server, or add --force"
		if t.scratch {
			advice = "everything in a scratch server would be taken for the source's, and removed: use a fresh one"
		}
		return fmt.Errorf("%w: it has the databases %s%s: %s", restore.ErrNotEmpty, strings.Join(names, ", "), more, advice)
	}
	return t.checkHistory(ctx)
}

// executedHere reads everything the target has executed, by itself or as a replica.
func (t *Target) executedHere(ctx context.Context) (*gtid.Set, error) {
	if !t.version.mariadb() {
		return t.executed(ctx)
	}
	text, err := t.control.value(ctx, "SELECT @@GLOBAL.gtid_current_pos")
	if err != nil {
		return nil, fmt.Errorf("read what the target has executed: %w", err)
	}
	return gtid.Parse(gtid.MariaDB, text)
}

// checkHistory refuses a server that has executed what others committed. What it has
// committed itself, such as the accounts it was set up with, is forgotten with a warning: without a
// database there is nothing else.
func (t *Target) checkHistory(ctx context.Context) error {
	if t.forget.IsEmpty() {
		return nil
	}
	name := "server_uuid"
	if t.version.mariadb() {
		name = "server_id"
	}
	own, err := t.control.value(ctx, "SELECT @@GLOBAL."+name)
	if err != nil {
		return fmt.Errorf("look at target: %w", err)
	}
	for part := range strings.SplitSeq(t.forget.String(), ",") {
		mine := strings.HasPrefix(part, own+":")
		if t.version.mariadb() {
			words := strings.Split(part, "-")
			mine = len(words) == 3 && words[1] == own
		}
		if !mine {
			return fmt.Errorf("%w: it has executed transactions of other servers (%s): restore into a fresh server, or empty this one with %s",
				restore.ErrNotEmpty, part, t.version.forget())
		}
	}
	t.warn("the target's binary log held transactions of its own (%s), from when it was set up: it begins anew", t.forget)
	return nil
}
