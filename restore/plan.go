package restore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"txreel/archive"
	"txreel/change"
)

// Plan says what a restore will do. Making it reads indexes and manifests only,
// and proves that every object the restore needs is there.
type Plan struct {
	Archive  string        `json:"archive"` // the archive's id
	Store    string        `json:"store"`
	Engine   string        `json:"engine"`
	System   string        `json:"system"`
	Database string        `json:"database"`
	Goal     Goal          `json:"goal"`
	Epoch    uint64        `json:"epoch"`
	Base     *archive.Base `json:"-"`
	// Proof is a base that was taken at the very cut, which the restored tables are compared with; nil when
	// there is none, and Base itself when nothing is replayed.
	Proof *archive.Base `json:"-"`
	// Mends are the partial bases between Base and the cut: each holds tables that a restore puts in place of its own.
	Mends []archive.Base `json:"-"`
	// Earlier and Later are the nearest bases before and behind the cut that tell what the schema was then, the former behind Base; nil where there is none.
	Earlier, Later *archive.Base `json:"-"`

	// Seq is the cut: the last transaction the restored database will hold.
	Seq change.Seq `json:"seq"`
	// Cut is that transaction; nil when the epoch's first base is asked for as it is.
	Cut *change.Txn `json:"-"`
	// Next is the first transaction left out; nil when the archive holds none. Only its
	// Seq is known when it cannot be read.
	Next *change.Txn `json:"-"`

	BaseRows  int64 `json:"base_rows"`
	BaseBytes int64 `json:"base_bytes"` // as stored

	// What is replayed on top of the base.
	Transactions uint64 `json:"transactions"`
	Rows         uint64 `json:"rows"`
	Bytes        uint64 `json:"bytes"` // of messages, uncompressed
	Segments     int    `json:"segments"`
	SegmentBytes int64  `json:"segment_bytes"` // to be read

	// Protection says for which transactions of the epoch COMMIT waited for the archive; empty when the
	// capture never was in zero-loss mode.
	Protection []archive.Span `json:"protection,omitempty"`

	// Definitions are the transactions that change definitions and say how, in order: the target carries that out. What the
	// tables are called in Changes, and what they are, is as it stood when each was written to.
	Definitions []change.Seq `json:"-"`

	// Roles are the owners and grantees that the schema names, where they are not made as they were.
	Roles []string `json:"roles,omitempty"`
	// Globals says what a target would be given besides; whoever asks for roles and settings sets it.
	Globals *Globals `json:"globals,omitempty"`

	// Partial says which tables are restored; nil: all.
	Partial *Partial `json:"partial,omitempty"`

	// Estimate is what the restore is expected to take.
	Estimate Estimate `json:"estimate"`

	// Between is how many changes of rows there are in front of the first of Definitions, behind each of them up to the next, and behind the last.
	Between []uint64 `json:"-"`

	inserted uint64 // changes in front of the first change of definitions that insert

	// Changes counts what is replayed, per table.
	Changes map[string]*change.TableCount `json:"-"`
}

// MakePlan chooses epoch, cut and base for a goal.
func MakePlan(ctx context.Context, a *archive.Archive, d Dialect, g Goal) (*Plan, error) {
	return MakePartialPlan(ctx, a, d, g, nil)
}

// MakePartialPlan makes a Plan of what choose takes of the base; nil takes all.
func MakePartialPlan(ctx context.Context, a *archive.Archive, d Dialect, g Goal, choose Chooser) (*Plan, error) {
	r, err := resolve(ctx, a, d, g)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Archive: a.Identity.Archive, Store: a.Store.String(), Engine: a.Identity.Engine,
		System: a.Identity.System, Database: a.Identity.Database,
		Goal: g, Epoch: r.epoch.Number, Seq: r.cut,
	}
	if p.Base, err = r.base(g.Base); err != nil {
		return nil, err
	}
	if err := p.findParts(ctx, a, r.bases); err != nil {
		return nil, err
	}
	p.chooseProof(r.bases)
	p.BaseBytes = p.Base.Size()
	if choose != nil {
		if p.Partial, err = choose(ctx, p); err != nil {
			return nil, err
		}
		p.Partial.begin(p.Base)
		p.BaseBytes = p.Partial.BaseBytes
	}
	for i := range p.Base.Tables {
		if t := &p.Base.Tables[i]; p.Partial.Chosen(t.Schema, t.Name) {
			p.BaseRows += t.Rows
		}
	}
	if err := p.survey(ctx, a, d, r.bases); err != nil {
		return nil, err
	}
	if err := checkBase(ctx, a, p.Base, p.Partial); err != nil {
		return nil, err
	}
	for i := range p.Mends {
		if err := checkBase(ctx, a, &p.Mends[i], nil); err != nil {
			return nil, err
		}
	}
	protections, err := a.Protections(ctx, p.Epoch)
	if err != nil {
		return nil, err
	}
	p.Protection = archive.Spans(protections)
	p.Estimate = p.estimate(d.Pace())
	return p, p.neighbours(ctx, a)
}

// findParts finds the partial bases that belong into the replay, and what is known of the schema around the cut.
func (p *Plan) findParts(ctx context.Context, a *archive.Archive, bases []archive.Base) error {
	parts, err := a.PartialBases(ctx, p.Epoch)
	for i := range parts {
		if b := &parts[i]; len(b.Tables) > 0 && b.Seq > p.Base.Seq && b.Seq <= p.Seq {
			p.Mends = append(p.Mends, *b)
		}
	}
	for _, b := range slices.Concat(bases, parts) {
		switch {
		case len(b.Objects) == 0:
		case b.Upto() > p.Seq && (p.Later == nil || b.Upto() < p.Later.Upto()):
			p.Later = &b
		case b.Seq > p.Base.Seq && b.Upto() <= p.Seq && (p.Earlier == nil || b.Upto() >= p.Earlier.Upto()):
			p.Earlier = &b
		}
	}
	return err
}

// neighbours looks up the last transaction taken and the first one left out.
func (p *Plan) neighbours(ctx context.Context, a *archive.Archive) error {
	if p.Seq > 0 {
		e, ok, err := a.Lookup(ctx, p.Epoch, p.Seq)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: epoch %d has lost transaction %s", archive.ErrCorrupt, p.Epoch, p.Seq)
		}
		p.Cut = &e.Txn
	}
	e, ok, err := a.Lookup(ctx, p.Epoch, p.Seq+1)
	switch {
	case errors.Is(err, archive.ErrCorrupt): // damage behind the cut takes nothing from the restore
		p.Next = &change.Txn{Seq: p.Seq + 1}
		return nil
	case ok:
		p.Next = &e.Txn
	}
	return err
}

// survey walks the indexes from the base to the cut: it counts what will be
// replayed, which is what the base does not hold, refuses a change of definition, and compares the segments with the
// store's listing.
func (p *Plan) survey(ctx context.Context, a *archive.Archive, d Dialect, bases []archive.Base) error {
	p.Changes = make(map[string]*change.TableCount)
	if p.Seq == p.Base.Seq {
		return nil
	}
	versions := p.Base.Versions()
	listed := newLister(ctx, a, p.Epoch)
	last := p.Base.Seq
	for x, err := range a.Segments(ctx, p.Epoch, p.Base.Seq+1) {
		if err != nil {
			return err
		}
		if x.First() > p.Seq {
			break
		}
		wanted := p.Partial == nil
		seen := make(surveyed, len(x.Tables))
		for i := range x.Txns {
			t := &x.Txns[i].Txn
			if t.Seq <= p.Base.Seq || t.Seq > p.Seq {
				continue
			}
			last = t.Seq
			if p.Base.Holds(t.Seq) {
				continue
			}
			wanted = wanted || p.wants(d, t)
			if err := p.add(d, t, seen, versions, bases); err != nil {
				return err
			}
		}
		if p.Partial != nil {
			p.Partial.SegmentsAll++
			p.Partial.SegmentBytesAll += x.Size
		}
		if !wanted {
			p.Partial.pass(x)
			continue
		}
		if err := listed.expect(x); err != nil {
			return err
		}
		p.Segments++
		p.SegmentBytes += x.Size
	}
	if p.Partial != nil {
		p.Partial.Segments, p.Partial.SegmentBytes = p.Segments, p.SegmentBytes
	}
	if last != p.Seq {
		return &archive.HoleError{Epoch: p.Epoch, After: last, Next: p.Seq + 1}
	}
	return nil
}

// surveyed is what is known of the tables of one index, to which all its transactions point: to look that up by name for each change would take
// longer than to read the index.
type surveyed map[*change.Table]*surveyedTable

type surveyedTable struct {
	name    string
	checked bool               // it is what the base has, or a change of definitions comes before it
	sum     *change.TableCount // in Plan.Changes; nil: it has not been looked for
}

func (s surveyed) of(t *change.Table) *surveyedTable {
	k := s[t]
	if k == nil {
		k = &surveyedTable{name: t.String()}
		s[t] = k
	}
	return k
}

func (p *Plan) add(d Dialect, t *change.Txn, seen surveyed, versions map[string]uint64, bases []archive.Base) error {
	if t.Kind == change.TxnSource {
		p.Transactions++
	}
	p.Bytes += t.Bytes
	if len(p.Between) == 0 {
		p.Between = append(p.Between, 0)
	}
	for i := range t.Tables {
		if c := &t.Tables[i]; c.Inserts > 0 && d.Defines(c.Table) {
			p.Definitions, p.Between = append(p.Definitions, t.Seq), append(p.Between, 0)
			break
		}
	}
	for i := range t.Tables {
		c := &t.Tables[i]
		if d.Ours(c.Table) {
			continue
		}
		k := seen.of(c.Table)
		if !k.checked {
			if e := p.checkVersion(c.Table, k.name, versions); e != nil {
				return e.at(t, bases)
			}
			k.checked = true
		}
		if len(p.Definitions) == 0 && !p.Partial.Chosen(c.Table.Schema, c.Table.Name) {
			continue
		}
		if k.sum == nil {
			k.sum = p.changesOf(c.Table, k.name)
		}
		p.Rows += c.Rows()
		p.Between[len(p.Between)-1] += c.Rows()
		if len(p.Definitions) == 0 {
			p.inserted += c.Inserts
		}
		k.sum.Inserts += c.Inserts
		k.sum.Updates += c.Updates
		k.sum.Deletes += c.Deletes
		k.sum.Truncates += c.Truncates
	}
	return nil
}

// checkVersion refuses a table that is not what the base has under its name. Version 0: the source's own statements bring the definitions
// along. Behind a change of definitions that is on record the target itself finds out whether a table is what its rows were written to.
func (p *Plan) checkVersion(t *change.Table, name string, versions map[string]uint64) *DefinitionError {
	v, ok := versions[name]
	if ok && v == 0 { // the base does not know it
		v, versions[name] = t.Version, t.Version
	}
	if t.Version == 0 || ok && v == t.Version || len(p.Definitions) > 0 {
		return nil
	}
	return &DefinitionError{Goal: p.Goal, Epoch: p.Epoch, Table: name, Absent: !ok}
}

// at names the transaction at which it was found, and the last base before it.
func (e *DefinitionError) at(t *change.Txn, bases []archive.Base) *DefinitionError {
	e.First, e.Before = *t, t.Seq-1
	for i := range bases {
		if b := &bases[i]; b.Holds(t.Seq) && (e.After == 0 || b.Upto() < e.After) {
			e.After = b.Upto()
		}
	}
	return e
}

// changesOf returns the sum of a table's changes.
func (p *Plan) changesOf(t *change.Table, name string) *change.TableCount {
	sum := p.Changes[name]
	if sum == nil {
		sum = &change.TableCount{Table: &change.Table{Schema: t.Schema, Name: t.Name, Version: t.Version}}
		p.Changes[name] = sum
	}
	return sum
}

// lister goes through the segments of an epoch as the store lists them, beside the
// walk over their indexes: those may come from rollups, which survive a lost segment.
type lister struct {
	ctx     context.Context
	archive *archive.Archive
	epoch   uint64
	page    []archive.Object
	end     bool
}

func newLister(ctx context.Context, a *archive.Archive, epoch uint64) *lister {
	return &lister{ctx: ctx, archive: a, epoch: epoch}
}

func (l *lister) expect(x archive.SegmentIndex) error {
	for len(l.page) > 0 && l.page[0].Key < x.Key { // of segments that nobody asked for
		l.page = l.page[1:]
	}
	if len(l.page) == 0 && !l.end {
		var next change.Seq
		var err error
		if l.page, next, err = l.archive.NextSegments(l.ctx, l.epoch, x.First(), math.MaxUint64); err != nil {
			return err
		}
		l.end = next == 0
	}
	if len(l.page) == 0 || l.page[0].Key != x.Key {
		return fmt.Errorf("%w: %s is missing, which holds the transactions %s to %s; run `txreel verify`",
			archive.ErrCorrupt, x.Key, x.First(), x.Last())
	}
	if got := l.page[0].Size; got != x.Size {
		return fmt.Errorf("%w: %s has %d bytes, its index says %d; run `txreel verify`", archive.ErrCorrupt, x.Key, got, x.Size)
	}
	l.page = l.page[1:]
	return nil
}

// listPage is how many keys one request returns at most.
const listPage = 1000

// checkBase compares the objects of a base with the store's listing, those of chosen tables.
func checkBase(ctx context.Context, a *archive.Archive, b *archive.Base, chosen *Partial) error {
	want := make(map[string]int64)
	for _, o := range b.Objects {
		want[b.Key(o.Name)] = o.Size
	}
	for i := range b.Tables {
		if t := &b.Tables[i]; !chosen.Chosen(t.Schema, t.Name) {
			continue
		}
		for _, o := range b.Tables[i].Chunks {
			want[b.Key(o.Name)] = o.Size
		}
	}
	after := ""
	var damage []error
	for {
		objects, err := a.Store.List(ctx, b.Key(""), after, listPage)
		if err != nil {
			return fmt.Errorf("list base %s: %w", b.ID, err)
		}
		for _, o := range objects {
			if size, ok := want[o.Key]; ok && size != o.Size {
				damage = append(damage, fmt.Errorf("%s has %d bytes, the manifest says %d", o.Key, o.Size, size))
			}
			delete(want, o.Key)
			after = o.Key
		}
		if len(objects) < listPage {
			break
		}
	}
	for key := range want {
		damage = append(damage, fmt.Errorf("%s is missing", key))
	}
	if len(damage) > 0 {
		return fmt.Errorf("%w: base %s: %w; run `txreel verify`, or restore from another base", archive.ErrCorrupt, b.ID, errors.Join(damage...))
	}
	return nil
}
