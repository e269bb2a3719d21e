package mysql

import (
	"bytes"
	"context"
	"fmt"
)

// numbersRows reports whether a statement makes the server number the rows of a table that has some, and the
// table's name as it stands there.
func numbersRows(text []byte) (table string, ok bool) {
	const shortest, look = len("ALTER TABLE t ADD i INT AUTO_INCREMENT"), 64 << 10
	if len(text) < shortest {
		return "", false
	}
	head := bytes.ToUpper(text[:min(len(text), look)])
	if !bytes.Contains(head, []byte("AUTO_INCREMENT")) || !bytes.Contains(head, []byte("ALTER")) {
		return "", false
	}
	l := lexer{text: string(text)}
	if l.word() != "ALTER" {
		return "", false
	}
	for l.accept("ONLINE") || l.accept("IGNORE") {
	}
	if !l.accept("TABLE") {
		return "", false
	}
	l.accept("IF", "EXISTS")
	schema, name := l.qualified()
	if table = quote(name); schema != "" {
		table = quote(schema, name)
	}
	for l.text != "" {
		if !l.accept("AUTO_INCREMENT") {
			l.next()
			continue
		}
		if l.peek() != "=" { // else it sets the next number only
			return table, name != ""
		}
	}
	return "", false
}

// noteNumbers puts on record that the target numbers the rows of a table by itself.
func (e *events) noteNumbers(ctx context.Context, schema, table string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.openBook(ctx); err != nil {
		return err
	}
	if schema != "" {
		table += " (in " + quote(schema) + ")"
	}
	return e.book.exec(ctx, "INSERT IGNORE INTO txreel_restore.warnings VALUES (LEFT("+literal(table)+", 200))")
}

// warnNumbers says which tables the target has numbered: no binary log says how the source has done it.
func (t *Target) warnNumbers(ctx context.Context) error {
	rows, err := t.control.query(ctx, "SELECT id FROM txreel_restore.warnings ORDER BY id")
	if err != nil {
		return fmt.Errorf("read which tables were numbered: %w", err)
	}
	for _, r := range rows {
		t.warn("the source has changed an AUTO_INCREMENT column of table %s by ALTER TABLE: if it had rows and no primary key, the target has numbered them in the order "+
			"in which they lie there, which may not be the source's, and later changes may have found other rows: compare the table, or restore to before the statement", r.text(0))
	}
	return nil
}
