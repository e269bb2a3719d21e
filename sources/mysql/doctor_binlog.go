package mysql

import (
	"context"
	"strings"

	"txreel/sources"
)

func (d *doctor) checkLogBin(context.Context) error {
	const check = "log_bin"
	switch {
	case !d.on("log_bin"):
		d.add(check, sources.SeverityProblem, d.set.binlogOn(), "the server writes no binlog: there is nothing to capture")
	case strings.EqualFold(d.vars["binlog_storage_engine"], "innodb"):
		d.add(check, sources.SeverityProblem, d.set.static("binlog_storage_engine", "''"), "the binlog is kept inside InnoDB, in a format of its own that txreel does not read")
	default:
		d.add(check, sources.SeverityOK, "", "the server writes a binlog")
	}
	return nil
}

// checkFilters looks for databases whose changes the server does not log.
func (d *doctor) checkFilters(ctx context.Context) error {
	const check = "binlog filters"
	r, err := d.binlogStatus(ctx)
	if err != nil {
		var missing bool
		if missing = len(d.grants.missing(captureNeeds(d.mariadb))) > 0; missing {
			d.add(check, sources.SeverityWarning, "", "could not be checked without the privileges of capture")
			return nil
		}
		return err
	}
	if len(r.Rows) == 0 { // log_bin is off
		return nil
	}
	var lines []string
	for _, name := range []string{"Binlog_Do_DB", "Binlog_Ignore_DB"} {
		if value := r.Value(0, name).String(); value != "" {
			lines = append(lines, strings.ToLower(name)+" = "+value)
		}
	}
	if len(lines) > 0 {
		d.add(check, sources.SeverityProblem, "remove from my.cnf: "+strings.Join(lines, ", ")+"; then restart the server",
			"the server leaves databases out of its binlog (%s): their changes are recorded nowhere", strings.Join(lines, ", "))
		return nil
	}
	d.add(check, sources.SeverityOK, "", "no database is left out of the binlog")
	return nil
}

// binlogStatus asks where the binlog ends, by the name that this version has for the question.
func (d *doctor) binlogStatus(ctx context.Context) (*Result, error) {
	if !d.mariadb && d.conn.Number >= 80200 {
		return d.conn.Query(ctx, "SHOW BINARY LOG STATUS")
	}
	return d.conn.Query(ctx, "SHOW MASTER STATUS")
}

func (d *doctor) checkFormat(context.Context) error {
	const name = "binlog_format"
	if format := d.vars[name]; format != "ROW" {
		d.add(name, sources.SeverityProblem, d.set.dynamic(name, "ROW"), "binlog_format is %s: statements are logged instead of rows. They are captured as they are, "+
			"but a replay may compute other rows from them, and an audit sees no rows at all. Sessions that are open keep the old value until they end", format)
		return nil
	}
	d.add(name, sources.SeverityOK, "", "rows are logged")
	return nil
}

func (d *doctor) checkRowImage(context.Context) error {
	const name = "binlog_row_image"
	if image := d.vars[name]; image != "FULL" {
		d.add(name, sources.SeverityWarning, d.set.dynamic(name, "FULL"), "binlog_row_image is %s: a restore is exact all the same, but what an audit would show as the row before and after is not in the log", image)
		return nil
	}
	d.add(name, sources.SeverityOK, "", "whole rows are logged, before and after")
	return nil
}

func (d *doctor) checkMetadata(context.Context) error {
	const name = "binlog_row_metadata"
	value, has := d.vars[name]
	if has && value == "FULL" {
		d.add(name, sources.SeverityOK, "", "the names and types of columns are logged")
		return nil
	}
	fix := ""
	if has {
		fix = d.set.dynamic(name, "FULL")
	}
	d.add(name, sources.SeverityWarning, fix, "binlog_row_metadata is %s: the names, character sets and members of columns are not in the log, and an audit has to take them from the last base", orNone(value))
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "not there"
	}
	return s
}

func (d *doctor) checkChecksum(context.Context) error {
	const name = "binlog_checksum"
	if value := d.vars[name]; value != "CRC32" {
		d.add(name, sources.SeverityWarning, d.set.dynamic(name, "CRC32"), "binlog_checksum is %s: damage between the server's memory and its binlog, or on its disk, cannot be noticed", value)
		return nil
	}
	d.add(name, sources.SeverityOK, "", "every event carries a checksum")
	return nil
}

// checkContents names what changes the shape of the record without harming it.
func (d *doctor) checkContents(context.Context) error {
	if v := d.vars["binlog_row_value_options"]; strings.Contains(v, "PARTIAL_JSON") {
		d.add("binlog_row_value_options", sources.SeverityNote, d.set.dynamic("binlog_row_value_options", "''"),
			"updates of JSON columns are logged as differences: a restore is exact, an audit shows what was set and not the whole document")
	}
	for _, name := range []string{"binlog_transaction_compression", "log_bin_compress"} {
		if d.on(name) {
			d.add(name, sources.SeverityNote, d.set.dynamic(name, "OFF"), "%s is ON: transactions are archived as the server compressed them, which the archive's own compression would do better", name)
		}
	}
	texts := "binlog_rows_query_log_events"
	if d.mariadb {
		texts = "binlog_annotate_row_events"
	}
	if !d.on(texts) {
		d.add(texts, sources.SeverityNote, d.set.dynamic(texts, "ON"), "%s is OFF: an audit shows which rows changed, and not by which statement", texts)
	} else {
		d.add(texts, sources.SeverityOK, "", "statements are logged beside the rows they changed")
	}
	if d.on("binlog_alter_two_phase") {
		d.add("binlog_alter_two_phase", sources.SeverityNote, d.set.dynamic("binlog_alter_two_phase", "OFF"),
			"binlog_alter_two_phase is ON: an ALTER TABLE is logged when it starts and when it ends; a restore to a point between them leaves it undone")
	}
	return nil
}
