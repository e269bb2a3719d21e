package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/change"
	"txreel/internal/failpoint"
	"txreel/restore"
	"txreel/restore/postgres/fold"
)

// defaultMemory is what folding may take, in bytes.
const defaultMemory = 1 << 30

// foldTo says up to which transaction the record can be folded into the load of the base: the first change of
// definitions ends it, and a partial base. It returns the base's own where there is nothing to fold.
func (t *Target) foldTo() change.Seq {
	p := t.job.Plan
	to := p.Seq
	if t.opts.Exact {
		return p.Base.Seq
	}
	if len(p.Definitions) > 0 {
		to = min(to, p.Definitions[0]-1)
	}
	for i := range p.Mends {
		if t.mends(&p.Mends[i]) {
			to = min(to, p.Mends[i].Seq)
		}
	}
	return max(to, p.Base.Seq)
}

// beginFold notes, with the schema, how the restore begins.
func (t *Target) beginFold(ctx context.Context, conn *pgx.Conn) error {
	var keys int64
	for i := range t.tables {
		keys += foldedKeys(t.job.Plan, &t.tables[i])
	}
	passes := fold.Passes(keys, t.memory())
	_, err := conn.Exec(ctx, "INSERT INTO txreel_restore.fold VALUES ($1, $2, 0, false, 0)", t.foldTo().String(), passes)
	if err != nil {
		return fmt.Errorf("note how the restore begins: %w", err)
	}
	return nil
}

func (t *Target) memory() int64 {
	if t.opts.Memory > 0 {
		return t.opts.Memory
	}
	return defaultMemory
}

// foldedKeys bounds of how many keys of a table the record can speak.
func foldedKeys(p *restore.Plan, tab *table) int64 {
	c := p.Changes[tab.name()]
	if c == nil {
		return 0
	}
	return int64(c.Inserts) + min(int64(c.Updates+c.Deletes), tab.Rows+int64(c.Inserts))
}

// folding is a load with the record folded into it, as the target notes it.
type folding struct {
	upto    change.Seq
	passes  int
	filled  int  // passes whose rows of the record are in
	filling bool // rows of one more may be in, or some of them
	done    int  // passes whose rows of the base are in too
}

func (t *Target) readFolding(ctx context.Context) (s folding, err error) {
	var upto string
	err = t.control.QueryRow(ctx, "SELECT upto, passes, filled, filling, done FROM txreel_restore.fold").Scan(&upto, &s.passes, &s.filled, &s.filling, &s.done)
	if err == nil {
		s.upto, err = change.ParseSeq(upto)
	}
	if err == nil && (s.passes < 1 || s.passes > fold.MaxPasses) {
		err = fmt.Errorf("%d passes", s.passes)
	}
	if err != nil {
		return s, fmt.Errorf("read how the restore began: %w", err)
	}
	return s, nil
}

// loadFolded loads the base with what the record makes of it, as far as that can be folded: what is overwritten is never
// written. It reports false, and has loaded nothing, where all of the record is to be replayed.
func (t *Target) loadFolded(ctx context.Context) (bool, error) {
	s, err := t.readFolding(ctx)
	if err != nil {
		return false, err
	}
	for s.upto > t.job.Plan.Base.Seq {
		err := t.foldPasses(ctx, &s)
		if err == nil {
			t.folded = s.upto
			return true, nil
		}
		again := folding{upto: s.upto, passes: s.passes}
		switch {
		case errors.Is(err, fold.ErrMemory) && s.passes < fold.MaxPasses:
			again.passes *= 2
		case errors.Is(err, fold.ErrNotFoldable), errors.Is(err, fold.ErrContradiction):
			// The replay tells what is wrong, if anything is, and where.
			t.warn("%v: every transaction was replayed by itself", err)
			again = folding{upto: t.job.Plan.Base.Seq, passes: 1}
		default:
			return false, err
		}
		if err := t.foldAnew(ctx, again); err != nil {
			return false, err
		}
		s = again
	}
	return false, nil
}

// foldAnew empties the tables that the record speaks of, to begin again.
func (t *Target) foldAnew(ctx context.Context, s folding) error {
	var tables []string
	var notes []string
	for i := range t.tables {
		if t.job.Plan.Changes[t.tables[i].name()] == nil {
			continue
		}
		tables = append(tables, t.tables[i].quoted())
		for _, c := range t.tables[i].Chunks {
			notes = append(notes, c.Name)
		}
	}
	err := inTx(ctx, t.control, func() error {
		if len(tables) > 0 {
			if err := run(ctx, t.control, "TRUNCATE ONLY "+strings.Join(tables, ", ONLY ")); err != nil {
				return err
			}
		}
		if _, err := t.control.Exec(ctx, "DELETE FROM txreel_restore.chunks WHERE pg_catalog.split_part(name, '#', 1) = ANY ($1)", notes); err != nil {
			return err
		}
		_, err := t.control.Exec(ctx, "UPDATE txreel_restore.fold SET upto = $1, passes = $2, filled = 0, filling = false, done = 0", s.upto.String(), s.passes)
		return err
	})
	if err != nil {
		return fmt.Errorf("empty the tables to begin again: %w", err)
	}
	return nil
}

// foldPasses does what is left to do.
func (t *Target) foldPasses(ctx context.Context, s *folding) error {
	if s.filling {
		*s = folding{upto: s.upto, passes: s.passes}
		if err := t.foldAnew(ctx, *s); err != nil {
			return err
		}
	}
	f := fold.New(t.job.Archive, t.span(s.upto), foldTables(t.job.Plan, t.tables), fold.Options{
		Jobs: t.job.Workers, Memory: t.memory(), Passes: s.passes, SpillDir: t.opts.TempDir, Progress: func(done int64) {
			t.job.Progress(restore.PhaseBase, done, int64(s.upto-t.job.Plan.Base.Seq), "transactions folded")
		},
	})
	for s.done < s.passes {
		if err := t.foldHistory(ctx, f, s); err != nil {
			return err
		}
		if err := t.foldBase(ctx, f, s); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) span(upto change.Seq) fold.Span {
	p := t.job.Plan
	s := fold.Span{Epoch: p.Epoch, From: p.Base.Seq, To: upto, Skip: p.Base.Skip()}
	if p.Partial != nil {
		s.Passed = p.Partial.Passed
	}
	return s
}

func foldTables(p *restore.Plan, tables []table) []fold.Table {
	all := make([]fold.Table, len(tables))
	for i := range tables {
		tab := &tables[i]
		all[i] = fold.Table{Schema: tab.Schema, Name: tab.Name, Keys: foldedKeys(p, tab)}
		for _, c := range tab.Columns {
			all[i].Columns = append(all[i].Columns, c.Name)
		}
	}
	return all
}

// foldHistory puts in the rows of the record that belong to the next pass, unless they are.
func (t *Target) foldHistory(ctx context.Context, f *fold.Fold, s *folding) error {
	if s.filled > s.done {
		return f.History(ctx, s.done, nil)
	}
	if err := run(ctx, t.control, "UPDATE txreel_restore.fold SET filling = true"); err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	s.filling = true
	failpoint.Hit(failpoint.RestoreFoldFilling)
	sink := &foldSink{target: t, conns: make([]*pgx.Conn, t.job.Workers)}
	defer sink.close()
	if err := f.History(ctx, s.done, sink); err != nil {
		return err
	}
	s.filled, s.filling = s.done+1, false
	if _, err := t.control.Exec(ctx, "UPDATE txreel_restore.fold SET filled = $1, filling = false", s.filled); err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	failpoint.Hit(failpoint.RestoreFoldFilled)
	return nil
}

// foldBase puts in what the record leaves of the base, for the pass, and notes that it is done.
func (t *Target) foldBase(ctx context.Context, f *fold.Fold, s *folding) error {
	var loads []load
	for i := range t.tables {
		r := f.Result(i)
		if r.Truncated || !r.Touched && s.done > 0 {
			continue
		}
		var all []chunk
		for k := range t.tables[i].Chunks {
			all = append(all, chunk{i, &t.tables[i].Chunks[k]})
		}
		l := load{pass: s.done}
		if r.Touched {
			l.filter = f
		}
		if r.Unordered && len(all) > 0 {
			l.chunks = all
			loads = append(loads, l)
			continue
		}
		for k := range all {
			l.chunks = all[k : k+1]
			loads = append(loads, l)
		}
	}
	if err := t.loadAll(ctx, loads); err != nil {
		return err
	}
	if err := t.checkTaken(ctx, f, loads); err != nil {
		return err
	}
	s.done++
	rows := make(map[string]int64, len(t.tables))
	for i := range t.tables {
		r := f.Result(i)
		rows[t.tables[i].name()] = r.Delta
		if !r.Truncated {
			rows[t.tables[i].name()] += t.tables[i].Rows
		}
	}
	counts, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.RestoreFoldDone)
	err = inTx(ctx, t.control, func() error {
		if _, err := t.control.Exec(ctx, "UPDATE txreel_restore.fold SET done = $1", s.done); err != nil {
			return err
		}
		if s.done < s.passes {
			return nil
		}
		_, err := t.control.Exec(ctx, "UPDATE txreel_restore.progress SET seq = $1, rows = $2", s.upto.String(), string(counts))
		return err
	})
	if err != nil {
		return fmt.Errorf("note progress: %w", err)
	}
	return nil
}

// checkTaken compares the rows that were loaded with the manifest, and those that the record changes with what it said of them: each
// must have been in the base.
func (t *Target) checkTaken(ctx context.Context, f *fold.Fold, loads []load) error {
	type loaded struct{ rows, taken int64 }
	noted := make(map[string]loaded)
	rows, err := t.control.Query(ctx, "SELECT name, rows, taken FROM txreel_restore.chunks")
	if err == nil {
		var name string
		var l loaded
		_, err = pgx.ForEachRow(rows, []any{&name, &l.rows, &l.taken}, func() error { noted[name] = l; return nil })
	}
	if err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	sums := make(map[int]loaded)
	for i := range loads {
		for _, c := range loads[i].chunks {
			n, sum := noted[loads[i].note(c)], sums[c.table]
			sums[c.table] = loaded{sum.rows + n.rows, sum.taken + n.taken}
		}
	}
	for _, i := range slices.Sorted(maps.Keys(sums)) {
		tab, r := &t.tables[i], f.Result(i)
		if loads[0].pass == 0 && sums[i].rows != tab.Rows {
			return fmt.Errorf("the target notes %d rows of table %s in base %s, the manifest %d", sums[i].rows, tab.name(), t.job.Plan.Base.ID, tab.Rows)
		}
		if sums[i].taken != r.Expected {
			return fmt.Errorf("%w: it changes %d rows of table %s that must be in the base, which has %d of them", fold.ErrContradiction, r.Expected, tab.name(), sums[i].taken)
		}
	}
	return nil
}

// foldSink copies final rows into the target.
type foldSink struct {
	target *Target
	conns  []*pgx.Conn // by worker
}

// Rows implements fold.Sink.
func (s *foldSink) Rows(ctx context.Context, worker, number int, lines []byte, rows int64) (err error) {
	conn := s.conns[worker]
	if conn == nil {
		if conn, err = s.target.worker(ctx); err != nil {
			return err
		}
		s.conns[worker] = conn
	}
	tab := &s.target.tables[number]
	tag, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(lines), copySQL(tab))
	if err != nil {
		return fmt.Errorf("write rows of the record into %s: %w", tab.name(), err)
	}
	if tag.RowsAffected() != rows {
		return fmt.Errorf("write rows of the record into %s: the target took %d of %d", tab.name(), tag.RowsAffected(), rows)
	}
	failpoint.Hit(failpoint.RestoreMessageSent)
	return nil
}

func (s *foldSink) close() {
	for _, conn := range s.conns {
		if conn != nil {
			hangUp(conn)
		}
	}
}
