package rowlog

import (
	"errors"
	"fmt"
	"math/bits"

	"txreel/change"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/rowlog/jsonb"
	"txreel/sources/mysql/rowlog/sqltext"
)

// errRow is wrapped when a row contradicts the description of its table.
var errRow = errors.New("malformed row")

// rows is a row event of which Next gives one row after the other.
type rows struct {
	binlog.Rows
	table           *table
	rest            []byte // of Data, behind the rows given
	nBefore, nAfter int    // columns in the images
}

// dummyTable is the table id of a row event that only ends a statement.
const dummyTable = 0xffffff

// openRows begins a row event.
func (d *Decoder) openRows(e *binlog.Event) error {
	r, err := binlog.ParseRows(e, d.format)
	if err != nil {
		return err
	}
	if r.TableID == dummyTable {
		return nil
	}
	t := d.tables[r.TableID]
	switch {
	case t == nil:
		return fmt.Errorf("%w: rows of table %d, which no TABLE_MAP event describes", errRow, r.TableID)
	case r.Width != len(t.columns):
		return fmt.Errorf("%w: rows of %d columns, and %s has %d", errRow, r.Width, t.rel, len(t.columns))
	}
	if r.Compressed {
		if r.Data, err = d.inflateRows(r.Data); err != nil {
			return err
		}
	}
	d.rows = rows{Rows: r, table: t, rest: r.Data, nBefore: present(r.Before, r.Width), nAfter: present(r.After, r.Width)}
	d.state = yieldRows
	return nil
}

// present counts the columns an image holds.
func present(bitmap []byte, width int) (n int) {
	for i, b := range bitmap {
		if rest := width - 8*i; rest < 8 {
			b &= 1<<max(rest, 0) - 1
		}
		n += bits.OnesCount8(b)
	}
	return n
}

func bit(bitmap []byte, i int) bool { return bitmap[i>>3]&(1<<(i&7)) != 0 }

// row reads the next row.
func (d *Decoder) row(ev *change.Event) (bool, error) {
	r := &d.rows
	if len(r.rest) == 0 {
		return false, nil
	}
	d.text, d.columns.buf = d.text[:0], d.columns.buf[:0]
	ev.Op, ev.Relation = r.Op, r.table.rel
	start := len(r.rest)
	if r.Before != nil {
		if err := d.before(); err != nil {
			return false, err
		}
		ev.Old = d.old
	}
	if r.After != nil {
		if err := d.after(); err != nil {
			return false, err
		}
		ev.New = d.new
	}
	if len(r.rest) == start {
		return false, fmt.Errorf("%w: one of %s takes no bytes", errRow, r.table.rel)
	}
	return true, nil
}

// before reads an image before a change, and keeps what diffs of JSON will apply to.
func (d *Decoder) before() (err error) {
	r := &d.rows
	if r.Partial {
		d.docs = d.docs[:0]
	}
	d.old, err = d.image(d.old[:0], r.Before, r.nBefore, nil)
	return err
}

// after reads an image after a change.
func (d *Decoder) after() (err error) {
	r := &d.rows
	var partial []byte
	if r.Partial {
		if partial, err = r.partialBits(); err != nil {
			return err
		}
	}
	d.new, err = d.image(d.new[:0], r.After, r.nAfter, partial)
	return err
}

// partialJSON is the option that columns of JSON may hold diffs.
const partialJSON = 1

// partialBits takes what an image of a partial update begins with: for each column of
// JSON in the table whether it holds diffs. Without any it is empty.
func (r *rows) partialBits() ([]byte, error) {
	if len(r.rest) == 0 || r.rest[0] > 250 {
		return nil, fmt.Errorf("%w: of %s, without the options of a partial update", errRow, r.table.rel)
	}
	options := r.rest[0]
	r.rest = r.rest[1:]
	if options&partialJSON == 0 {
		return nil, nil
	}
	n := (r.table.json + 7) / 8
	if n > len(r.rest) {
		return nil, fmt.Errorf("%w: of %s, cut within the options of a partial update", errRow, r.table.rel)
	}
	partial := r.rest[:n]
	r.rest = r.rest[n:]
	return partial, nil
}

// image reads an image of the columns in holds, n of them. What it lacks is not logged,
// never NULL (Invariant 7).
func (d *Decoder) image(row []change.Value, holds []byte, n int, partial []byte) ([]change.Value, error) {
	r := &d.rows
	size := (n + 7) / 8
	if size > len(r.rest) {
		return row, fmt.Errorf("%w: of %s, cut within what is NULL", errRow, r.table.rel)
	}
	nulls, b := r.rest[:size], r.rest[size:]
	seen, docs := 0, 0
	for i := range r.table.columns {
		c := &r.table.columns[i]
		isJSON := c.kind == kindJSON && r.Partial
		isDiff := isJSON && partial != nil && bit(partial, docs)
		doc := document{}
		var v change.Value
		if bit(holds, i) {
			isNull := bit(nulls, seen)
			seen++
			if isNull {
				v.State = change.Null
			} else {
				raw, rest, ok := c.take(b)
				if !ok && c.kind == kindUnknown {
					return row, fmt.Errorf("%w: this build cannot decode column %d of %s, of %s", errRow, i+1, r.table.rel, c.name())
				}
				if !ok {
					return row, fmt.Errorf("%w: of %s, cut within column %d of type %s", errRow, r.table.rel, i+1, c.name())
				}
				b = rest
				var err error
				if isDiff {
					v, err = d.patched(raw, docs)
				} else {
					v, err = d.value(c, raw)
				}
				if err != nil {
					return row, fmt.Errorf("column %d of %s: %w", i+1, r.table.rel, err)
				}
				doc = document{raw, true}
			}
		}
		if isJSON {
			docs++
			if partial == nil {
				d.docs = append(d.docs, doc)
			}
		}
		row = append(row, v)
	}
	r.rest = b
	return row, nil
}

// document is a value of binary JSON before an update, if it is known.
type document struct {
	raw   []byte
	known bool
}

// patched gives the value that diffs make of the n-th JSON document before the update.
// Where the log does not hold that, it does not hold the value.
func (d *Decoder) patched(diffs []byte, n int) (change.Value, error) {
	if n >= len(d.docs) || !d.docs[n].known {
		if !jsonb.CheckDiffs(diffs) {
			return change.Value{}, fmt.Errorf("%w: %d bytes are no changes of JSON", errRow, len(diffs))
		}
		return change.Value{State: change.NotLogged}, nil
	}
	start := len(d.text)
	text, err := d.patch.Append(d.text, d.docs[n].raw, diffs)
	if err != nil {
		return change.Value{}, err
	}
	d.text = text
	return d.since(start), nil
}

// network writes an address or UUID of MariaDB, from which the server cuts zeros off the
// end.
func (d *Decoder) network(k kind, v []byte) bool {
	var full [16]byte
	size := 16
	if k == kindInet4 {
		size = 4
	}
	if copy(full[:size], v) != len(v) {
		return false
	}
	switch k {
	case kindUUID:
		d.text = sqltext.AppendUUID(d.text, full)
	case kindInet6:
		d.text = sqltext.AppendInet6(d.text, full)
	default:
		d.text = sqltext.AppendInet4(d.text, full[:4])
	}
	return true
}
