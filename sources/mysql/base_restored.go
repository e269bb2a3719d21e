package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"txreel/archive"
	"txreel/sources/mysql/mybase"
)

// Restored is a server into which the record was restored, and what cannot be read there since it is the source's own.
type Restored struct {
	From     *archive.Base   // the base that the restore began with
	Accounts mybase.Accounts // its accounts
	// Same reports whether an account is as it was in From, or is not there if From lacks it, whatever the server has: it may have had
	// one of that name before.
	Same func(*mybase.Account) bool
	// EventState says whether an event ran in the source; "" where the record does not tell. In the server none may run.
	EventState func(schema, name string) string
	// File and Offset are the place in the source's binlog.
	File   string
	Offset uint64
	Doubts []string                    // what the restore warned of
	Alone  func(context.Context) error // fails if somebody else has written to the server since
}

// ReadRestored reads a base out of such a server, and commits it: base says where it belongs in the record. What the source is, From says.
func ReadRestored(ctx context.Context, a *archive.Archive, base *archive.Base, r Restored, o BaseOptions) error {
	o.defaults()
	b := &baseRun{BaseOptions: o, archive: a, base: base}
	defer b.close()
	if err := b.openRestored(ctx); err != nil {
		return err
	}
	if err := b.readObjects(ctx); err != nil {
		return err
	}
	if err := b.copyTables(ctx); err != nil {
		return err
	}
	if err := b.describeRestored(ctx, &r); err != nil {
		return err
	}
	if err := r.Alone(ctx); err != nil {
		return err
	}
	return a.CommitBase(ctx, base)
}

// openRestored makes views of a server in which nothing happens: they need not be aligned.
func (b *baseRun) openRestored(ctx context.Context) (err error) {
	if b.control, err = b.connect(ctx); err != nil {
		return err
	}
	if b.access, err = readAccess(ctx, b.control); err != nil {
		return err
	}
	if err := b.access.checkBase(); err != nil {
		return err
	}
	if err := b.openReaders(ctx); err != nil {
		return err
	}
	return wrapSQL("take a snapshot", b.view(ctx))
}

// describeRestored stores the definitions and fills in what the manifest says besides tables.
func (b *baseRun) describeRestored(ctx context.Context, r *Restored) error {
	events := b.engine.Events
	b.engine = mybase.Engine{}
	if err := json.Unmarshal(r.From.Engine, &b.engine); err != nil {
		return fmt.Errorf("%w: manifest of base %s: %w", archive.ErrCorrupt, r.From.ID, err)
	}
	e := &b.engine
	e.Rule, e.File, e.Offset, e.Events = mybase.RuleRestored, r.File, r.Offset, events
	e.DefinedUntil, e.ReadUntil = string(b.base.Position), string(b.base.Position)
	doubts := slices.Clone(r.Doubts)
	for i := range e.Events {
		ev := &e.Events[i]
		state := r.EventState(ev.Schema, ev.Name)
		if state == "" {
			doubts = append(doubts, fmt.Sprintf("event %s is %s: the record does not say what it was in the source", mybase.Quote(ev.Schema, ev.Name), ev.Status))
			continue
		}
		ev.Status = state
	}
	if err := b.mergeAccounts(r); err != nil {
		return err
	}
	b.coverRestored(r.From, doubts)
	if err := b.putDefinitions(ctx); err != nil {
		return err
	}
	b.base.Server, b.base.Coverage = r.From.Server, b.coverage
	var err error
	b.base.Engine, err = marshal(e)
	return err
}

// mergeAccounts puts accounts of the base before in the place of those that the server had of its own, or could not make.
func (b *baseRun) mergeAccounts(r *Restored) error {
	if b.accounts.Missing != "" { // here it would say that the source's could not be read
		return fmt.Errorf("the restored accounts cannot be read: %s", b.accounts.Missing)
	}
	all := slices.DeleteFunc(b.accounts.Accounts, func(a mybase.Account) bool { return r.Same(&a) })
	for i := range r.Accounts.Accounts {
		if a := &r.Accounts.Accounts[i]; r.Same(a) {
			all = append(all, *a)
		}
	}
	b.accounts = mybase.Accounts{Accounts: all, Missing: r.Accounts.Missing}
	return nil
}

// coverRestored says of tables what is so now, of all else what the base before said, and what the restore left in doubt.
func (b *baseRun) coverRestored(from *archive.Base, doubts []string) {
	b.coverTables()
	known := slices.Clone(b.coverage)
	for _, c := range from.Coverage {
		looked := c.Class == archive.Bounded && strings.HasPrefix(c.What, "view ") // by readViews
		if !looked && !slices.ContainsFunc(known, func(now archive.Coverage) bool { return now.What == c.What }) {
			b.coverage = append(b.coverage, c)
		}
	}
	for _, doubt := range doubts {
		b.cover(archive.Bounded, "what this base is made of", doubt)
	}
}
