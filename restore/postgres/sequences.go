package postgres

import (
	"context"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"

	"txreel/restore"
	"txreel/sources/postgres/pgbase"
)

// leastMargin is how many values a sequence is set ahead at least that no sample covers.
const leastMargin = 1000

// sequence is one of the target, as its catalog describes it.
type sequence struct {
	name      pgbase.Name
	increment int64
	low, high int64
	cycle     bool
	owner     *pgbase.Owner // of whole numbers
}

// state is how far a sequence has come.
type state struct {
	last   int64
	called bool
}

// behind reports whether x is before y on the way of the sequence.
func (q *sequence) behind(x, y state) bool {
	if x.last == y.last {
		return !x.called && y.called
	}
	return (x.last < y.last) == (q.increment > 0)
}

// further returns the one of both that is further; either may be nil.
func (q *sequence) further(x, y *state) *state {
	if x == nil || y != nil && q.behind(*x, *y) {
		return y
	}
	return x
}

// setSequences sets every sequence of the target to where the first sample at or behind the cut saw it: never short of a
// value that the source had handed out before the cut. Where there is no such sample, it is set ahead of all that is known.
// Invariant 9: the report says which.
func (t *Target) setSequences(ctx context.Context) error {
	all, err := t.listSequences(ctx)
	if err != nil {
		return err
	}
	t.sequences = &restore.Sequences{}
	if len(all) == 0 {
		return nil
	}
	known, damage, err := readSamples(ctx, t.job.Archive, t.job.Plan)
	if err != nil {
		return fmt.Errorf("read the samples of sequences: %w", err)
	}
	if damage != nil {
		t.warn("what is recorded behind the point cannot be read, and proves no value of a sequence: %v", damage)
	}
	base := make(map[pgbase.Name]*state, len(t.engine.Sequences))
	for i := range t.engine.Sequences {
		s := &t.engine.Sequences[i]
		base[s.Name] = &state{s.Last, s.Called}
	}
	gone := known.last.without(all)
	for i := range all {
		if err := t.setSequence(ctx, &all[i], known, base[all[i].name], gone); err != nil {
			return err
		}
		delete(base, all[i].name)
	}
	for name := range base {
		if name.Schema != ourSchema && len(t.job.Plan.Definitions) == 0 {
			t.warn("sequence %s of the base is not in the target", quote(name.Schema, name.Name))
		}
	}
	return nil
}

// setSequence sets one; gone are the states of those that had been sampled, and go by none of the target's names.
func (t *Target) setSequence(ctx context.Context, q *sequence, known *samples, base *state, gone []state) error {
	first, last := known.first.of(q.name), known.last.of(q.name)
	best, err := t.furthestInColumn(ctx, q)
	if err != nil {
		return err
	}
	// One that went back was set back, and may have come further before that than any sample saw.
	proven := first != nil && (q.cycle || last == nil || !q.behind(*first, *last))
	switch {
	case proven && q.cycle: // it may have begun again: what is further tells nothing
		best = first
	case proven:
		best = q.further(best, first)
	case first != nil:
		best = q.further(best, q.further(first, last))
	default:
		best = q.further(best, q.further(base, last))
		for i := range gone {
			if base == nil && last == nil { // it may be one of them, renamed
				best = q.further(best, &gone[i])
			}
		}
	}
	name := quote(q.name.Schema, q.name.Name)
	if !proven {
		if best == nil {
			if best, err = t.currentState(ctx, name); err != nil {
				return err
			}
		}
		ahead, margin := *best, uint64(0)
		if p := t.job.Plan; p.Seq != p.Base.Seq || p.Base.From != nil { // the base's own are read behind its point
			ahead, margin = q.ahead(*best, last, known.previous.of(q.name))
		}
		best = &ahead
		t.sequences.NotProven = append(t.sequences.NotProven, restore.SequenceMargin{Name: q.name.Schema + "." + q.name.Name, Value: ahead.last, Margin: margin})
	} else {
		t.sequences.Proven++
	}
	if best.last < q.low || best.last > q.high {
		t.warn("sequence %s is left at its start: %d, which it should be set to, is outside its bounds", name, best.last)
		return nil
	}
	if err := run(ctx, t.control, fmt.Sprintf("SELECT pg_catalog.setval(%s, %d, %t)", literal(name), best.last, best.called)); err != nil {
		return fmt.Errorf("set sequence %s: %w", name, err)
	}
	return nil
}

// ahead moves a state on: by twice what was drawn between the last two samples, and at least by leastMargin values, but not
// by more than half of what is left.
func (q *sequence) ahead(from state, last, previous *state) (state, uint64) {
	step, left := uint64(q.increment), uint64(q.high)-uint64(from.last)
	if q.increment < 0 {
		step, left = -step, uint64(from.last)-uint64(q.low)
	}
	if from.last < q.low || from.last > q.high {
		return from, 0
	}
	margin := uint64(math.MaxUint64)
	if step <= math.MaxUint64/leastMargin {
		margin = step * leastMargin
	}
	if last != nil && previous != nil && q.behind(*previous, *last) {
		drawn := uint64(last.last) - uint64(previous.last)
		if q.increment < 0 {
			drawn = -drawn
		}
		if drawn > math.MaxUint64/2 {
			drawn = math.MaxUint64 / 2
		}
		margin = max(margin, 2*drawn)
	}
	margin = min(margin, left/2) / step * step
	if q.increment < 0 {
		return state{int64(uint64(from.last) - margin), true}, margin
	}
	return state{int64(uint64(from.last) + margin), true}, margin
}

// listSequences returns the permanent sequences of the target. Those that belong to a column of anything but numbers, or of a
// table whose rows are elsewhere, count as belonging to none.
func (t *Target) listSequences(ctx context.Context) ([]sequence, error) {
	rows, err := t.control.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, tn.nspname::text, t.relname::text, a.attname::text
		  FROM pg_catalog.pg_sequence s
		  JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
		  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		  LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
		        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
		  LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
		  LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
		  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND t.relkind IN ('r', 'p') AND EXISTS (
		        WITH RECURSIVE y AS (SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
		        UNION ALL SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t JOIN y ON t.oid = y.typbasetype)
		        SELECT FROM y WHERE y.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype))
		 WHERE c.relpersistence = 'p' AND n.nspname NOT IN ($1, $2) ORDER BY 1, 2`, ourSchema, bookSchema)
	if err != nil {
		return nil, fmt.Errorf("list sequences: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (q sequence, err error) {
		var schema, table, column *string
		err = row.Scan(&q.name.Schema, &q.name.Name, &q.increment, &q.low, &q.high, &q.cycle, &schema, &table, &column)
		if column != nil {
			q.owner = &pgbase.Owner{Name: pgbase.Name{Schema: *schema, Name: *table}, Column: *column}
		}
		return q, err
	})
	if err != nil {
		return nil, fmt.Errorf("list sequences: %w", err)
	}
	return all, nil
}

// furthestInColumn returns the furthest value of the column that a sequence belongs to; nil when there is none that the
// sequence can have given.
func (t *Target) furthestInColumn(ctx context.Context, q *sequence) (*state, error) {
	if q.owner == nil {
		return nil, nil
	}
	furthest := "max"
	if q.increment < 0 {
		furthest = "min"
	}
	name := quote(q.name.Schema, q.name.Name)
	var value *int64
	column := quote(q.owner.Column) // which may be numeric
	sql := fmt.Sprintf("SELECT trunc(%s(%s)::numeric)::int8 FROM %s WHERE %s BETWEEN %d AND %d",
		furthest, column, quote(q.owner.Schema, q.owner.Name.Name), column, math.MinInt64, math.MaxInt64)
	if err := t.control.QueryRow(ctx, sql).Scan(&value); err != nil {
		return nil, fmt.Errorf("find the last value of sequence %s: %w", name, err)
	}
	if value == nil {
		return nil, nil
	}
	if *value < q.low || *value > q.high {
		t.warn("sequence %s takes no note of its column, which holds %d: that is outside its bounds", name, *value)
		return nil, nil
	}
	return &state{*value, true}, nil
}

func (t *Target) currentState(ctx context.Context, name string) (*state, error) {
	s := &state{}
	if err := t.control.QueryRow(ctx, "SELECT last_value, is_called FROM "+name).Scan(&s.last, &s.called); err != nil {
		return nil, fmt.Errorf("read sequence %s: %w", name, err)
	}
	return s, nil
}
