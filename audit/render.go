package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// JSONLines returns a function for Log that writes each entry as a line of JSON.
func JSONLines(w io.Writer) func(*Entry) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(e *Entry) error { return enc.Encode(e) }
}

// TextOptions says how Text writes.
type TextOptions struct {
	OneLine bool // leave out the lines with the notes and the tables
}

// shortNote is how many characters of a note stand on a transaction's own line.
const shortNote = 60

// Text returns a function for Log that writes entries for people: a line per
// transaction in aligned columns, and below it its note and a line per table.
func Text(w io.Writer, opts TextOptions) func(*Entry) error {
	t := text{opts: opts, out: w, rows: 6, xid: 10}
	return t.entry
}

type text struct {
	opts  TextOptions
	out   io.Writer
	epoch uint64
	rows  int // width of the columns so far
	xid   int
	line  []byte
}

func (t *text) entry(e *Entry) error {
	b := t.line[:0]
	if e.Epoch != t.epoch {
		t.epoch = e.Epoch
		b = fmt.Appendf(b, "epoch %d\n", e.Epoch)
		b = fmt.Appendf(b, "%-16s  %-27s  %*s  %-*s  %s\n", "SEQ", "COMMIT TIME", t.rows, "ROWS", t.xid, "XID", "POSITION")
	}
	rows, xid := strconv.FormatUint(e.Rows, 10), plain(e.XID)
	switch e.Kind {
	case KindHeartbeat, KindFence:
		rows, xid = "", e.Kind
	case KindGap:
		b = fmt.Appendf(b, "%s  %s  GAP at %s: %s\n", e.Seq, e.CommitTime, plain(string(e.Position)), plain(e.Detail))
	case KindPruned:
		b = fmt.Appendf(b, "%s  %s  PRUNED: %s\n", e.Seq, e.CommitTime, plain(e.Detail))
	}
	if e.Kind != KindGap && e.Kind != KindPruned {
		t.rows, t.xid = max(t.rows, len(rows)), max(t.xid, utf8.RuneCountInString(xid))
		b = fmt.Appendf(b, "%s  %s  %*s  %-*s  %s", e.Seq, e.CommitTime, t.rows, rows, t.xid, xid, plain(string(e.Position)))
		b = t.appendNote(b, e.Note)
	}
	if !t.opts.OneLine {
		b = appendTables(b, e.Tables)
	}
	t.line = b
	_, err := t.out.Write(b)
	return err
}

// appendNote ends a transaction's line with what there is room for of its note, or
// puts the whole note on the next one.
func (t *text) appendNote(b []byte, note string) []byte {
	note = plain(strings.Join(strings.Fields(note), " ")) // statements have lines of their own
	switch {
	case note == "":
		return append(b, '\n')
	case !t.opts.OneLine:
		return fmt.Appendf(b, "\n    %s\n", note)
	case utf8.RuneCountInString(note) > shortNote:
		note = string([]rune(note)[:shortNote-1]) + "…"
	}
	return fmt.Appendf(b, "  %s\n", note)
}

func appendTables(b []byte, tables []Table) []byte {
	width := 0
	names := make([]string, len(tables))
	for i := range tables {
		names[i] = plain(tables[i].Schema + "." + tables[i].Table)
		width = max(width, utf8.RuneCountInString(names[i]))
	}
	for i := range tables {
		c := &tables[i]
		b = fmt.Appendf(b, "    %-*s", width, names[i])
		sep := "  "
		for _, n := range []struct {
			n    uint64
			word string
		}{{c.Inserts, "inserted"}, {c.Updates, "updated"}, {c.Deletes, "deleted"}, {c.Truncates, "truncated"}} {
			switch {
			case n.n == 0:
				continue
			case n.word == "truncated" && n.n == 1:
				b = append(append(b, sep...), n.word...)
			case n.word == "truncated":
				b = fmt.Appendf(b, "%s%s %d times", sep, n.word, n.n)
			default:
				b = fmt.Appendf(b, "%s%d %s", sep, n.n, n.word)
			}
			sep = ", "
		}
		b = append(b, '\n')
	}
	return b
}

// plain returns s as it is when a terminal shows it as it is, else quoted: names
// come from the source and must not steer the reader's terminal.
func plain(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.QuoteToGraphic(s)
}
