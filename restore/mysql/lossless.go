package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// checkLossless refuses a server whose settings make a replica leave out or change what it is sent, without a word.
func (t *Target) checkLossless(ctx context.Context) error {
	if err := t.checkFilters(ctx); err != nil {
		return err
	}
	skip := t.version.replica("skip_errors")
	for _, s := range []struct{ name, want, remedy string }{
		{skip, "OFF", "start it without " + skip},
		{"sql_" + t.version.replica("skip_counter"), "0", "SET GLOBAL sql_" + t.version.replica("skip_counter") + " = 0"},
		{"replicate_events_marked_for_skip", "REPLICATE", "SET GLOBAL replicate_events_marked_for_skip = REPLICATE"},
		{"default_storage_engine", "InnoDB", "SET GLOBAL default_storage_engine = InnoDB"},
		{"enforce_storage_engine", "InnoDB", "SET GLOBAL enforce_storage_engine = NULL"},
	} {
		have, err := t.global(ctx, s.name)
		if err != nil {
			return err
		}
		if have != "" && !strings.EqualFold(have, s.want) {
			return fmt.Errorf("the target has %s=%s, with which it would not become what the source was: %s, and take the setting out of its configuration", s.name, clip(have), s.remedy)
		}
	}
	if on, err := t.global(ctx, "log_bin"); err != nil {
		return err
	} else if t.version.mariadb() && !sameSetting(on, "1") {
		return errors.New("the target has log_bin=OFF, without which it does not forget what it has executed: start it with log_bin")
	}
	return nil
}

// checkFilters refuses a server with replication filters.
func (t *Target) checkFilters(ctx context.Context) error {
	const refusal = "the target has the replication filter %s=%s, which would leave out or change transactions: %s, and take it out of its configuration"
	if t.version.mariadb() {
		for _, name := range []string{
			"replicate_do_db", "replicate_do_table", "replicate_ignore_db", "replicate_ignore_table",
			"replicate_wild_do_table", "replicate_wild_ignore_table", "replicate_rewrite_db",
		} {
			have, err := t.global(ctx, name)
			if err != nil {
				return err
			}
			if have != "" {
				return fmt.Errorf(refusal, name, clip(have), "SET GLOBAL "+name+" = ''")
			}
		}
		return nil
	}
	if on, err := t.global(ctx, "performance_schema"); err != nil {
		return err
	} else if !sameSetting(on, "1") {
		return errors.New("the target has performance_schema=OFF, and then does not say whether it has replication filters, which would leave out transactions: " +
			"start it with performance_schema=ON")
	}
	// One that was cleared stays listed, without a rule.
	rows, err := t.control.query(ctx, "SELECT filter_name, filter_rule, NULL FROM performance_schema.replication_applier_global_filters WHERE filter_rule <> '' "+
		"UNION ALL SELECT filter_name, filter_rule, channel_name FROM performance_schema.replication_applier_filters WHERE filter_rule <> '' LIMIT 1")
	if err != nil {
		return fmt.Errorf("look for replication filters of the target: %w", err)
	}
	if len(rows) == 0 {
		return nil
	}
	name := strings.ToUpper(rows[0].text(0))
	remedy := "CHANGE REPLICATION FILTER " + name + " = ()"
	if rows[0][2] != nil {
		remedy += " FOR CHANNEL " + literal(rows[0].text(2))
	}
	return fmt.Errorf(refusal, name, clip(rows[0].text(1)), remedy)
}

// global reads a variable; "" where this version has none of that name.
func (t *Target) global(ctx context.Context, name string) (string, error) {
	value, err := t.control.value(ctx, "SELECT @@GLOBAL."+name)
	if err != nil && !isError(err, mysql.ER_UNKNOWN_SYSTEM_VARIABLE) {
		return "", fmt.Errorf("read setting %s of the target: %w", name, err)
	}
	return value, nil
}
