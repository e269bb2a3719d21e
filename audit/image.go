package audit

import "txreel/change"

// table is a relation as lines need it: what does not depend on the row is encoded
// once.
type table struct {
	rel    *change.Relation
	wanted bool
	name   []byte   // `"schema":"public","table":"orders"`
	cols   [][]byte // `"column":`
	types  []byte   // `,"types":{…}`, if asked for
	// keyed tells that some columns are the identity and others are not. Where all
	// are, the whole row is, and before and after hold it anyway.
	keyed bool
}

func newTable(rel *change.Relation, wanted, types bool) *table {
	t := &table{rel: rel, wanted: wanted}
	t.name = appendString([]byte(`"schema":`), rel.Schema)
	t.name = appendString(append(t.name, `,"table":`...), rel.Name)
	keys := 0
	for _, c := range rel.Columns {
		t.cols = append(t.cols, append(appendString(nil, c.Name), ':'))
		if c.Key {
			keys++
		}
	}
	t.keyed = keys > 0 && keys < len(rel.Columns)
	if types {
		t.types = append(t.types, `,"types":{`...)
		for i, c := range rel.Columns {
			if i > 0 {
				t.types = append(t.types, ',')
			}
			t.types = appendString(append(t.types, t.cols[i]...), c.Type)
		}
		t.types = append(t.types, '}')
	}
	return t
}

// known reports whether v is a value, NULL included.
func known(v change.Value) bool {
	return v.State == change.Null || v.State == change.Text || v.State == change.Binary
}

// row writes what depends on the row: key, images, the columns the images lack, and
// the evidence.
func (l *lines) row(t *table, ev *change.Event) {
	if t.keyed {
		l.key(t, ev)
	}
	if ev.Old != nil {
		l.image(`,"before":{`, t, ev.Old)
		l.columns(`,"not_logged":[`, t, ev.Old, func(s change.State) bool { return s == change.NotLogged || s == change.Unchanged })
	}
	if ev.New != nil {
		l.image(`,"after":{`, t, ev.New)
		l.columns(`,"unchanged":[`, t, ev.New, func(s change.State) bool { return s == change.Unchanged })
		l.columns(`,"after_not_logged":[`, t, ev.New, func(s change.State) bool { return s == change.NotLogged })
	}
	switch ev.Op {
	case change.OpInsert:
		l.raw(`,"evidence":{"after":"`)
		l.raw(newEvidence(ev))
	case change.OpUpdate:
		l.raw(`,"evidence":{"before":"`)
		l.raw(oldEvidence(t.rel, ev.Old))
		l.raw(`","after":"`)
		l.raw(newEvidence(ev))
	default:
		l.raw(`,"evidence":{"before":"`)
		l.raw(oldEvidence(t.rel, ev.Old))
	}
	l.raw(`"}`)
	l.bytes(t.types)
}

// key writes the identity of the row as it was before the change, or of the new row.
func (l *lines) key(t *table, ev *change.Event) {
	sep := `,"key":{`
	for i := range t.rel.Columns {
		if !t.rel.Columns[i].Key {
			continue
		}
		v := change.Value{}
		if ev.Old != nil {
			v = ev.Old[i]
		}
		if !known(v) && ev.New != nil {
			v = ev.New[i] // no old value: the update left the identity alone
		}
		if known(v) {
			l.raw(sep)
			l.bytes(t.cols[i])
			l.value(v)
			sep = ","
		}
	}
	if sep == "," {
		l.raw("}")
	}
}

// image writes the columns whose values are known.
func (l *lines) image(start string, t *table, row []change.Value) {
	l.raw(start)
	first := true
	for i, v := range row {
		if !known(v) {
			continue
		}
		if !first {
			l.raw(",")
		}
		first = false
		l.bytes(t.cols[i])
		l.value(v)
	}
	l.raw("}")
}

// columns lists the columns in the states that pick names, if there are any.
func (l *lines) columns(start string, t *table, row []change.Value, pick func(change.State) bool) {
	sep := start
	for i, v := range row {
		if pick(v.State) {
			l.raw(sep)
			l.bytes(t.cols[i][:len(t.cols[i])-1])
			sep = ","
		}
	}
	if sep == "," {
		l.raw("]")
	}
}

func (l *lines) value(v change.Value) {
	switch v.State {
	case change.Text:
		l.text(v.Bytes)
	case change.Binary:
		l.object("binary", v.Bytes)
	default:
		l.raw("null")
	}
	if len(l.buf) >= flushAt {
		l.flush()
	}
}

// oldEvidence says how far the log itself shows the row before the change.
func oldEvidence(rel *change.Relation, old []change.Value) string {
	if old == nil {
		return "not logged"
	}
	whole, key := true, true
	for i, v := range old {
		if !known(v) {
			whole = false
		} else if !rel.Columns[i].Key {
			key = false
		}
	}
	switch {
	case whole:
		return "logged"
	case key:
		return "key only"
	}
	return "partly logged"
}

// newEvidence says how far the log itself shows the row after the change. A column
// that was left unchanged is shown when the image before holds it.
func newEvidence(ev *change.Event) string {
	if ev.New == nil {
		return "not logged"
	}
	for i, v := range ev.New {
		if !known(v) && (v.State != change.Unchanged || ev.Old == nil || !known(ev.Old[i])) {
			return "partly logged"
		}
	}
	return "logged"
}
