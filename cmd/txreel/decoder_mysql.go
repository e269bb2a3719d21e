package main

import (
	"context"
	"encoding/json"
	"fmt"

	"txreel/archive"
	"txreel/change"
	"txreel/sources/mysql/mybase"
	"txreel/sources/mysql/rowlog"
)

// newMySQLDecoder returns a decoder for the transactions of an epoch from from on. Where
// the log does not name columns, a base does, unless statements between the two may have
// changed them.
func newMySQLDecoder(ctx context.Context, a *archive.Archive, epoch uint64, from change.Seq) (*rowlog.Decoder, error) {
	bases, err := a.Bases(ctx, epoch)
	if err != nil {
		return nil, err
	}
	var near *archive.Base // the one with the fewest transactions in between
	distance := func(b *archive.Base) change.Seq { return max(b.Seq+1, from) - min(b.Seq+1, from) }
	for i := range bases {
		if b := &bases[i]; near == nil || distance(b) < distance(near) {
			near = b
		}
	}
	if near == nil {
		return rowlog.NewDecoder(nil), nil
	}
	same, err := unaltered(ctx, a, epoch, min(near.Seq+1, from), max(near.Seq+1, from))
	if err != nil || !same {
		return rowlog.NewDecoder(nil), err
	}
	columns := make(map[[2]string][]rowlog.Column)
	for i := range near.Tables {
		t := &near.Tables[i]
		var engine mybase.Table
		if err := json.Unmarshal(t.Engine, &engine); err != nil {
			return nil, fmt.Errorf("%w: base %s, table %s.%s: %w", archive.ErrCorrupt, near.ID, t.Schema, t.Name, err)
		}
		var list []rowlog.Column
		for _, c := range engine.Columns {
			list = append(list, rowlog.Column{Name: c.Name, Type: c.Type, Charset: c.Charset, Key: c.Key == "PRI"})
		}
		columns[[2]string{t.Schema, t.Name}] = list
	}
	return rowlog.NewDecoder(func(schema, table string) ([]rowlog.Column, bool) {
		list, ok := columns[[2]string{schema, table}]
		return list, ok
	}), nil
}

// unaltered reports whether no transaction from from up to, and without, to says that it
// is more than changes of rows.
func unaltered(ctx context.Context, a *archive.Archive, epoch uint64, from, to change.Seq) (bool, error) {
	if from >= to {
		return true, nil
	}
	for x, err := range a.Segments(ctx, epoch, max(from, 1)) {
		if err != nil {
			return false, err
		}
		if x.First() >= to {
			break
		}
		for i := range x.Txns {
			if t := &x.Txns[i]; t.Seq >= from && t.Seq < to && t.Note != "" {
				return false, nil
			}
		}
	}
	return true, nil
}
