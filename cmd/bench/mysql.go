package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/gtid"
)

// mysqlBench measures MySQL or MariaDB. Every measurement has a source of its own.
type mysqlBench struct {
	*bench
	flavor string
	source *dbtest.MySQL
	want   *dbtest.MySQLDump // what the source holds, once it was asked for
}

func (b *mysqlBench) run(ctx context.Context, steps []string) error {
	known := map[string]func(context.Context) error{"base": b.base, "dump": b.dumps, "catchup": b.catchUp, "replay": b.replay, "points": b.points}
	for _, name := range steps {
		step, ok := known[name]
		if !ok {
			continue // another engine's
		}
		source, err := b.server(ctx)
		if err != nil {
			return err
		}
		b.source, b.want = source, nil
		fmt.Printf("%s: the source is %s\n", b.flavor, source.Version)
		err = source.Exec(ctx, "", "CREATE DATABASE "+db)
		if err == nil {
			err = step(ctx)
		}
		if err := errors.Join(err, source.Close()); err != nil {
			return fmt.Errorf("%s: %s: %w", b.flavor, name, err)
		}
	}
	return nil
}

// server starts a server. Source, target and the peers' targets are alike, and none waits
// for the disk; nor do connections cost encryption, which the peers come without.
func (b *mysqlBench) server(ctx context.Context) (*dbtest.MySQL, error) {
	settings := map[string]string{"innodb_buffer_pool_size": "512M", "sync_binlog": "0", "innodb_flush_log_at_trx_commit": "2",
		"max_binlog_size": "134217728", "max_allowed_packet": "256M", "event_scheduler": "OFF"}
	if b.flavor == "mysql" {
		settings["innodb_redo_log_capacity"] = "1G"
	} else {
		settings["innodb_log_file_size"] = "1G"
	}
	return dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: b.flavor, Settings: settings, TLS: dbtest.TLSOff})
}

// workers is how many sessions and applier threads txreel and its peers use.
const workers = "2"

// relax gives a target that a peer fills the settings that a restore gives its own.
func (b *mysqlBench) relax(ctx context.Context, target *dbtest.MySQL) error {
	sql := "SET GLOBAL replica_parallel_workers = " + workers
	if b.flavor == "mariadb" {
		sql = "SET GLOBAL slave_parallel_threads = " + workers + "; SET GLOBAL slave_parallel_mode = optimistic"
	}
	return target.Exec(ctx, "", sql)
}

func (b *mysqlBench) archive(name string) string { return filepath.Join(b.dir, b.flavor+"-"+name) }

// env tells txreel which source to read.
func (b *mysqlBench) env() []string { return []string{"TXREEL_SOURCE=" + b.source.URL("")} }

// begin makes an archive that holds a base of the source as it stands, and nothing else.
func (b *mysqlBench) begin(ctx context.Context, archive string) error {
	c, err := b.startCapture(ctx, b.env(), nil, "--archive", archive)
	if err != nil {
		return err
	}
	return errors.Join(hasBase(ctx, archive), c.stop())
}

// executed is what the source has in its log.
func (b *mysqlBench) executed(ctx context.Context) (*gtid.Set, error) {
	query, flavor := "SELECT @@GLOBAL.gtid_executed", gtid.MySQL
	if b.flavor == "mariadb" {
		query, flavor = "SELECT @@GLOBAL.gtid_binlog_pos", gtid.MariaDB
	}
	rows, err := b.source.Query(ctx, "", query)
	if err != nil {
		return nil, err
	}
	return gtid.Parse(flavor, rows[0][0])
}

// logged does something between two changes of the log's file, and returns the files that
// hold what it committed.
func (b *mysqlBench) logged(ctx context.Context, do func() error) ([]string, error) {
	if err := b.source.Exec(ctx, "", "FLUSH BINARY LOGS"); err != nil {
		return nil, err
	}
	before, err := b.source.Query(ctx, "", "SHOW BINARY LOGS")
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	if err := b.source.Exec(ctx, "", "FLUSH BINARY LOGS"); err != nil {
		return nil, err
	}
	after, err := b.source.Query(ctx, "", "SHOW BINARY LOGS")
	if err != nil {
		return nil, err
	}
	var files []string
	for _, row := range after[len(before)-1 : len(after)-1] {
		files = append(files, row[0])
	}
	return files, nil
}

// logFiles are the paths of files of the source's log, and their size.
func (b *mysqlBench) logFiles(names []string) (paths []string, size int64, err error) {
	for _, name := range names {
		path := filepath.Join(b.source.DataDir(), name)
		info, err := os.Stat(path)
		if err != nil {
			return nil, 0, err
		}
		paths, size = append(paths, path), size+info.Size()
	}
	return paths, size, nil
}

// lastBase reads the manifest of an archive's last base.
func lastBase(dir string) (*archive.Base, error) {
	found, err := filepath.Glob(filepath.Join(dir, "epochs/*/bases/*/manifest.json"))
	if err != nil || len(found) == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s has no base", dir))
	}
	text, err := os.ReadFile(slices.Max(found))
	if err != nil {
		return nil, err
	}
	base := &archive.Base{}
	return base, json.Unmarshal(text, base)
}

// equal compares what a target holds with the source, which stays as it is once it has been
// asked for.
func (b *mysqlBench) equal(ctx context.Context, who string, target *dbtest.MySQL) error {
	opts := dbtest.MySQLDumpOptions{IgnoreAccounts: true} // mysqldump brings none
	if b.want == nil {
		want, err := dbtest.DumpMySQL(ctx, b.source.URL(""), opts)
		if err != nil {
			return err
		}
		b.want = &want
	}
	got, err := dbtest.DumpMySQL(ctx, target.URL(""), opts)
	if err != nil {
		return err
	}
	if diff := dbtest.DiffMySQL(*b.want, got); diff != "" {
		return fmt.Errorf("what %s filled differs from the source:\n%s", who, diff)
	}
	return nil
}
