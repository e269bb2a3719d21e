package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"txreel/change"
)

// A pattern says which form of UPDATE or DELETE a change needs: the verb and a mark
// per column. Changes with the same pattern share a prepared statement.
const (
	markSet     = 1 << iota // written
	markNull                // NULL in the old row
	markEmpty               // empty text in the old row: NULL must not pass for it
	markIgnored             // not known of the old row
)

// appendPattern works the pattern out. set tells whether New is written to a column.
func (h *heap) appendPattern(dst []byte, ev *change.Event, old []change.Value) []byte {
	dst = append(dst, byte(ev.Op))
	for i := range h.columns {
		var m byte
		if ev.Op == change.OpUpdate && h.sets(ev, i) {
			m |= markSet
		}
		if h.byRow && !h.columns[i].generated {
			switch v := &old[i]; {
			case v.State == change.Null:
				m |= markNull
			case v.State != change.Text:
				m |= markIgnored
			case len(v.Bytes) == 0:
				m |= markEmpty
			}
		}
		dst = append(dst, m)
	}
	return dst
}

// sets reports whether an update writes column i. A key that has not changed is not
// written.
func (h *heap) sets(ev *change.Event, i int) bool {
	if h.columns[i].generated || ev.New[i].State == change.Unchanged {
		return false
	}
	return ev.Old != nil || !h.isKey[i]
}

// changeSQL writes the statement of a pattern. Its parameters are, in order: the values
// written, the values of the key columns, those that the hash is made of, and when rows
// are compared whole, all values of the old row. NULLs are none of them.
func (h *heap) changeSQL(pattern []byte) string {
	var b strings.Builder
	n := 0
	param := func() string { n++; return "$" + strconv.Itoa(n) }
	marks := pattern[1:]
	if change.Op(pattern[0]) == change.OpUpdate {
		b.WriteString("UPDATE " + h.only + h.quoted + " SET ")
		sep := ""
		for i, m := range marks {
			if m&markSet != 0 {
				b.WriteString(sep + h.columns[i].quoted + " = " + param())
				sep = ", "
			}
		}
		if sep == "" {
			b.WriteString(h.idle())
		}
	} else {
		b.WriteString("DELETE FROM " + h.only + h.quoted)
	}
	b.WriteString(" WHERE ")
	var conds []string
	for _, i := range h.key {
		c := &h.columns[i]
		switch {
		case marks[i]&markNull != 0:
			conds = append(conds, c.quoted+" IS NULL")
		case marks[i]&markIgnored == 0:
			conds = append(conds, fmt.Sprintf("%s %s %s%s", c.quoted, c.equal, param(), c.cast))
		}
	}
	if !h.byRow {
		b.WriteString(strings.Join(conds, " AND "))
		return b.String()
	}
	if h.helper != nil {
		var texts []string
		for _, i := range h.hash {
			if marks[i]&(markNull|markIgnored) != 0 {
				texts = append(texts, "''")
			} else {
				texts = append(texts, param()+"::pg_catalog.text")
			}
		}
		conds = append(conds, h.helper.call()+" = "+hashSQL(texts))
	}
	for i, m := range marks {
		c := &h.columns[i]
		if c.generated || m&markIgnored != 0 {
			continue
		}
		// num_nulls tells a NULL from a row of NULLs; concat gives a value's text as the
		// record has it, for types without an equality too.
		if m&markNull != 0 {
			conds = append(conds, "pg_catalog.num_nulls("+c.quoted+") = 1")
			continue
		}
		conds = append(conds, fmt.Sprintf(`pg_catalog.concat(%s) = %s::pg_catalog.text COLLATE "C"`, c.quoted, param()))
		if m&markEmpty != 0 {
			conds = append(conds, "pg_catalog.num_nulls("+c.quoted+") = 0")
		}
	}
	where := ""
	if len(conds) > 0 {
		where = " WHERE " + strings.Join(conds, " AND ")
	}
	// One row of several that are the same, whichever.
	fmt.Fprintf(&b, "ctid = (SELECT ctid FROM %s%s%s LIMIT 1)", h.only, h.quoted, where)
	return b.String()
}

// idle is an assignment that changes nothing, for an update that writes no column: the row has to be there all the same.
func (h *heap) idle() string {
	for _, c := range h.columns {
		if !c.generated {
			return c.quoted + " = " + c.quoted
		}
	}
	return h.columns[0].quoted + " = DEFAULT" // generated, like all the others
}

// appendParams gathers the parameters of changeSQL.
func (h *heap) appendParams(dst [][]byte, ev *change.Event, old []change.Value) [][]byte {
	if ev.Op == change.OpUpdate {
		for i := range h.columns {
			if h.sets(ev, i) {
				dst = append(dst, param(&ev.New[i]))
			}
		}
	}
	for _, i := range h.key {
		if v := &old[i]; v.State == change.Text {
			dst = append(dst, param(v))
		}
	}
	for _, i := range h.hash {
		if v := &old[i]; v.State == change.Text {
			dst = append(dst, param(v))
		}
	}
	if h.byRow {
		for i := range h.columns {
			if v := &old[i]; v.State == change.Text && !h.columns[i].generated {
				dst = append(dst, param(v))
			}
		}
	}
	return dst
}

// param returns a value as Bind takes it: nil is NULL.
func param(v *change.Value) []byte {
	if v.State == change.Null {
		return nil
	}
	if v.Bytes == nil {
		return []byte{}
	}
	return v.Bytes
}
