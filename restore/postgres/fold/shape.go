package fold

import (
	"encoding/binary"
	"fmt"
	"slices"

	"txreel/sources/postgres/pgoutput"
)

// shape is a table as one Relation message describes it.
type shape struct {
	table   int
	id      uint32 // the record's number of it
	other   bool   // it is none of those asked for
	name    string
	from    []int // the column of the message that each column of the table comes from
	key     []int // columns of the message that make the key, in their order; empty for a multiset
	inKey   []int // of the table's columns, the same
	columns int   // of the message
	err     error // why no change of the table can be folded; a segment also describes tables that only others of its transactions change
}

// ours is the schema that txreel writes to in the source. What stands there is no part of the database.
const ours = "txreel"

// shape reads a Relation message; nil for a table that is not restored.
func (f *Fold) shape(m []byte) (uint32, *shape, error) {
	r, err := pgoutput.ParseRelation(m)
	if err != nil {
		return 0, nil, err
	}
	if r.Schema == ours {
		return r.ID, nil, nil
	}
	s := &shape{name: r.Schema + "." + r.Name, id: r.ID, columns: len(r.Columns)}
	i, ok := f.byID[r.ID]
	if !ok {
		i, ok = f.byName[s.name]
	}
	if !ok && (f.span.Passed != nil || f.span.Only) {
		s.other = true
		return r.ID, s, nil
	}
	if !ok {
		s.err = fmt.Errorf("%w: table %s is not in the base", ErrNotFoldable, s.name)
		return r.ID, s, nil
	}
	t := &f.tables[i]
	s.table, s.from = i, make([]int, len(t.Columns))
	for k := range s.from {
		s.from[k] = -1
	}
	// With FULL every column is marked. Its primary key may be deferrable, and two rows have the same one for a moment.
	whole := r.Identity == 'f' || r.Identity == 'n'
	for k, c := range r.Columns {
		at, known := t.index[c.Name]
		if known {
			s.from[at] = k
		}
		if c.Key && !whole || whole && slices.Contains(t.Key, c.Name) {
			if !known {
				s.err = fmt.Errorf("%w: column %s of the key of table %s is not in the base", ErrNotFoldable, c.Name, s.name)
			}
			s.key, s.inKey = append(s.key, k), append(s.inKey, at)
		}
	}
	if f.merging && (len(s.key) == 0 || whole && len(s.key) < len(t.Key)) {
		s.err = fmt.Errorf("%w: the rows of table %s are not told apart by a key", ErrNotFoldable, s.name)
	}
	if k := slices.Index(s.from, -1); k >= 0 {
		s.err = fmt.Errorf("%w: the record does not have column %s of table %s", ErrNotFoldable, t.Columns[k], s.name)
	}
	return r.ID, s, nil
}

// value is a column of a row in a message.
type value struct {
	bytes []byte // nil for NULL
	kept  bool   // as it was before, and not repeated
}

// image is a row of a message, a value for each column of it.
type image []value

// readImage reads TupleData (documentation, section Logical Replication Message Formats) of n columns.
func readImage(dst image, m []byte, n int) (image, []byte, error) {
	if len(m) < 2 || int(binary.BigEndian.Uint16(m)) != n {
		return dst, nil, fmt.Errorf("%w: a row without its %d columns", pgoutput.ErrMalformed, n)
	}
	m = m[2:]
	for range n {
		if len(m) == 0 {
			return dst, nil, fmt.Errorf("%w: a row breaks off", pgoutput.ErrMalformed)
		}
		kind := m[0]
		m = m[1:]
		switch kind {
		case 'n':
			dst = append(dst, value{})
			continue
		case 'u':
			dst = append(dst, value{kept: true})
			continue
		case 't':
		case 'b':
			return dst, nil, fmt.Errorf("%w: a value in binary notation", ErrNotFoldable)
		default:
			return dst, nil, fmt.Errorf("%w: a value of kind %q", pgoutput.ErrMalformed, kind)
		}
		if len(m) < 4 || uint64(binary.BigEndian.Uint32(m)) > uint64(len(m)-4) {
			return dst, nil, fmt.Errorf("%w: a value breaks off", pgoutput.ErrMalformed)
		}
		end := 4 + int(binary.BigEndian.Uint32(m))
		dst, m = append(dst, value{bytes: m[4:end:end]}), m[end:]
	}
	return dst, m, nil
}

// row is a message that changes a row.
type row struct {
	op       byte // its tag
	old, new image
	full     bool // old is the whole row
}

// read reads an Insert, Update or Delete message of the shape, without its tag and number. The images reuse memory.
func (r *row) read(s *shape, m []byte) (err error) {
	tag := m[0]
	*r = row{op: tag, old: r.old[:0], new: r.new[:0]}
	m = m[5:]
	if len(m) == 0 {
		return fmt.Errorf("%w: a change of table %s breaks off", pgoutput.ErrMalformed, s.name)
	}
	if tag != pgoutput.TagInsert && (m[0] == 'K' || m[0] == 'O') {
		r.full = m[0] == 'O'
		if r.old, m, err = readImage(r.old, m[1:], s.columns); err != nil {
			return err
		}
	}
	if tag == pgoutput.TagDelete {
		if len(m) > 0 || len(r.old) == 0 && s.columns > 0 {
			return fmt.Errorf("%w: a delete from table %s", pgoutput.ErrMalformed, s.name)
		}
		return nil
	}
	if len(m) == 0 || m[0] != 'N' {
		return fmt.Errorf("%w: a change of table %s without the new row", pgoutput.ErrMalformed, s.name)
	}
	r.new, m, err = readImage(r.new, m[1:], s.columns)
	if err == nil && len(m) > 0 {
		err = fmt.Errorf("%w: a change of table %s has bytes too many", pgoutput.ErrMalformed, s.name)
	}
	if err != nil || len(r.old) == 0 {
		return err
	}
	// What the new row does not repeat of the key, the old one has, and with FULL of all.
	for _, i := range s.key {
		if r.new[i].kept {
			r.new[i] = r.old[i]
		}
	}
	if r.full {
		for i := range r.new {
			if r.new[i].kept {
				r.new[i] = r.old[i]
			}
		}
	}
	return nil
}

// keyOf hashes the key in an image; scratch is reused.
func (s *shape) keyOf(v image, seed uint64, scratch *[]byte) (key, error) {
	if len(s.key) == 1 {
		if b := v[s.key[0]].bytes; b != nil {
			return hashKey(b, seed), nil
		}
	}
	b := (*scratch)[:0]
	for _, i := range s.key {
		if v[i].bytes == nil {
			return key{}, fmt.Errorf("%w: a row of table %s without its key", ErrNotFoldable, s.name)
		}
		b = appendKeyPart(b, v[i].bytes)
	}
	*scratch = b
	return hashKey(b, seed), nil
}

// appendKeyPart appends a part of a key of several columns.
func appendKeyPart(dst, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(v))), v...)
}

// appendLine appends the row as a line, without its end. Every value is known.
func (s *shape) appendLine(dst []byte, v image) []byte {
	for i, from := range s.from {
		if i > 0 {
			dst = append(dst, '\t')
		}
		dst = appendField(dst, v[from].bytes)
	}
	return dst
}

// appendKey appends the key in an image as a line, without its end.
func (s *shape) appendKey(dst []byte, v image) []byte {
	for k, i := range s.key {
		if k > 0 {
			dst = append(dst, '\t')
		}
		dst = appendField(dst, v[i].bytes)
	}
	return dst
}

// complete reports whether every value of the table's columns is known.
func (s *shape) complete(v image) bool {
	for _, from := range s.from {
		if v[from].kept {
			return false
		}
	}
	return true
}
