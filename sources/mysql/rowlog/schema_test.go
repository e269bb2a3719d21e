package rowlog

import (
	"testing"

	"txreel/sources/mysql/binlog"
)

// TestFits lets a declared type stand only where the log says nothing else.
func TestFits(t *testing.T) {
	t.Parallel()
	typed := func(typ binlog.ColumnType, meta uint16) binlog.Column { return binlog.Column{Type: typ, Meta: meta} }
	for _, c := range []struct {
		log  binlog.Column
		typ  string
		set  string
		fits bool
	}{
		{typed(binlog.ColumnLong, 0), "int(11)", "", true},
		{typed(binlog.ColumnLong, 0), "bigint(20)", "", false},
		{typed(binlog.ColumnLong, 0), "", "", false},
		{typed(binlog.ColumnLong, 0), "int(", "", false},
		{typed(binlog.ColumnNewDecimal, 10<<8|2), "decimal(10,2)", "", true},
		{typed(binlog.ColumnNewDecimal, 10<<8|2), "decimal(10,3)", "", false},
		{typed(binlog.ColumnBit, 1<<8|1), "bit(9)", "", true},
		{typed(binlog.ColumnBit, 1<<8|1), "bit(8)", "", false},
		{typed(binlog.ColumnTime2, 3), "time(3)", "", true},
		{typed(binlog.ColumnTime2, 3), "time", "", false},
		{typed(binlog.ColumnTime, 0), "time(3)", "", true},
		{typed(binlog.ColumnTime, 0), "time(7)", "", false},
		{typed(binlog.ColumnDatetime, 0), "time", "", false},
		{typed(binlog.ColumnVarchar, 80), "varchar(20)", "utf8mb4", true},
		{typed(binlog.ColumnVarchar, 80), "varchar(80)", "latin1", true},
		{typed(binlog.ColumnVarchar, 80), "varchar(20)", "latin1", false},
		{typed(binlog.ColumnVarchar, 80), "varchar(20)", "", false},
		{typed(binlog.ColumnVarchar, 80), "varbinary(80)", "", true},
		{typed(binlog.ColumnVarchar, 80), "varbinary(20)", "", false},
		{typed(binlog.ColumnVarchar, 12), "vector(3)", "", true},
		{typed(binlog.ColumnVarcharCompressed, 51), "varchar(50) /*M!100301 COMPRESSED*/", "latin1", true},
		{typed(binlog.ColumnString, 0xfe10), "uuid", "", true},
		{typed(binlog.ColumnString, 0xfe10), "inet4", "", false},
		{typed(binlog.ColumnString, 0xfe10), "binary(16)", "", true},
		{typed(binlog.ColumnString, 0xfe10), "enum('a')", "latin1", false},
		{typed(binlog.ColumnString, 0xf701), "enum('a')", "latin1", true},
		{typed(binlog.ColumnString, 0xf701), "set('a')", "latin1", false},
		{typed(binlog.ColumnBlob, 2), "text", "latin1", true},
		{typed(binlog.ColumnBlob, 2), "longtext", "latin1", false},
		{typed(binlog.ColumnBlob, 4), "json", "utf8mb4", true},
		{typed(binlog.ColumnJSON, 4), "json", "", true},
		{typed(binlog.ColumnGeometry, 4), "point", "", true},
		{typed(binlog.ColumnVector, 4), "point", "", false},
	} {
		column := newColumn(c.log)
		d := NewDecoder(nil)
		if got := column.fits(Column{Type: c.typ, Charset: c.set}, d.charset); got != c.fits {
			t.Errorf("%+v and %q of %q: fits is %v", c.log, c.typ, c.set, got)
		}
		if c.fits && column.name() != c.typ {
			t.Errorf("%q is called %q", c.typ, column.name())
		}
	}
	column := newColumn(typed(binlog.ColumnLong, 0))
	column.signKnown = true
	if column.fits(Column{Type: "int unsigned"}, nil) {
		t.Error("an INT that the log calls signed is taken for one that is not")
	}
}
