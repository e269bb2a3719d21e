package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"txreel/archive"
	"txreel/sources/postgres/pgbase"
)

// Copied is a database into which the record has been restored, and what that leaves open.
type Copied struct {
	From     *archive.Base     // the base that the restore began with
	Numbers  map[uint32]uint32 // by which the source knows its tables, by their OIDs there
	Versions map[string]uint64 // of the tables' definitions, by name, where they are those of From; nil: they are for the record to tell
	Globals  *pgbase.Globals   // as they are on record; nil: those of From
	Doubts   []string          // what the restore warned of
}

// CopyBase reads a base out of such a database, of which nobody else knows, and commits it: base says where it belongs in the record. What the
// source is, and how it is recorded, is as From has it.
func CopyBase(ctx context.Context, a *archive.Archive, base *archive.Base, c Copied, o BaseOptions) error {
	o.Jobs = max(o.Jobs, 1)
	if o.LockTimeout <= 0 {
		o.LockTimeout = defaultLockTimeout
	}
	b := &baseRun{BaseOptions: o, archive: a, base: base}
	defer b.close()
	if err := b.openCopy(ctx); err != nil {
		return err
	}
	var err error
	if b.tables, err = readTables(ctx, b.leader); err != nil {
		return err
	}
	for i := range b.tables {
		b.progress.Total += b.tables[i].Pages
	}
	if err := b.dumpSchema(ctx); err != nil {
		return err
	}
	if err := b.copyTables(ctx); err != nil {
		return err
	}
	if err := b.copyLargeObjects(ctx); err != nil {
		return err
	}
	if err := b.renumber(&c); err != nil {
		return err
	}
	if err := b.describeCopy(ctx, &c); err != nil {
		return err
	}
	return a.CommitBase(ctx, base)
}

// openCopy makes a snapshot of a database in which nothing happens.
func (b *baseRun) openCopy(ctx context.Context) (err error) {
	if b.leader, err = Connect(ctx, b.URL); err != nil {
		return err
	}
	if err := wrapSQL("begin", b.leader.PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").Close()); err != nil {
		return err
	}
	return wrapSQL("export the snapshot", b.leader.QueryRow(ctx, `select pg_catalog.pg_export_snapshot()`).Scan(&b.snapshot))
}

// firstUnnumbered is the first number that tables may get of which the source's is not known.
const firstUnnumbered = 1 << 31

// renumber gives the tables the numbers and versions that they have in the record.
func (b *baseRun) renumber(c *Copied) error {
	before, taken := make(map[uint32]pgbase.Table), make(map[uint32]bool)
	for _, number := range c.Numbers {
		taken[number] = true
	}
	free := uint32(firstUnnumbered)
	for i := range c.From.Tables {
		var t pgbase.Table
		if err := json.Unmarshal(c.From.Tables[i].Engine, &t); err != nil {
			return fmt.Errorf("%w: manifest of base %s: table %s: %w", archive.ErrCorrupt, c.From.ID, c.From.Tables[i].Name, err)
		}
		before[t.OID], taken[t.OID] = t, true
	}
	for i := range b.tables {
		t, entry := &b.tables[i], &b.base.Tables[i]
		entry.Version = archive.HexVersion(c.Versions[t.Schema+"."+t.Name])
		number, known := c.Numbers[t.OID]
		for ; !known && number == 0; free++ {
			if !taken[free] {
				number = free
			}
		}
		t.OID, t.Unnumbered, t.Unpublished = number, !known, before[number].Unpublished
		var err error
		if entry.Engine, err = json.Marshal(t.Table); err != nil {
			return err
		}
	}
	return nil
}

// describeCopy fills in what the manifest says besides tables.
func (b *baseRun) describeCopy(ctx context.Context, c *Copied) error {
	var was pgbase.Engine
	if err := json.Unmarshal(c.From.Engine, &was); err != nil {
		return fmt.Errorf("%w: manifest of base %s: %w", archive.ErrCorrupt, c.From.ID, err)
	}
	e, err := readEngine(ctx, b.leader, b.Publication)
	if err != nil {
		return err
	}
	e.ServerVersion, e.Encoding, e.Collate, e.Ctype = was.ServerVersion, was.Encoding, was.Collate, was.Ctype
	if e.Roles, err = b.namedRoles(ctx, was.Roles); err != nil {
		return err
	}
	e.Publications, e.Definitions, e.Globals = was.Publications, was.Definitions, was.Globals
	e.Snapshot, e.Visible, e.Slot = "", nil, "" // it is told by its place in the record
	if c.Globals != nil {
		e.Globals = c.Globals
	}
	b.base.Server, b.base.Coverage = c.From.Server, slices.Clone(c.From.Coverage)
	for _, doubt := range c.Doubts {
		b.base.Coverage = append(b.base.Coverage, archive.Coverage{Class: archive.Bounded, What: "what this base is made of", Detail: doubt})
	}
	b.base.Engine, err = json.Marshal(e)
	return err
}

// namedRoles returns the roles that the schema names, with those that it named before. Who owns the copy, and the role that initdb made
// there, are none of them.
func (b *baseRun) namedRoles(ctx context.Context, before []string) ([]string, error) {
	var named []string
	err := b.leader.QueryRow(ctx, `select array(select distinct r.rolname::text from pg_catalog.pg_roles r
		join pg_catalog.pg_shdepend s on s.refclassid = 'pg_catalog.pg_authid'::regclass and s.refobjid = r.oid
		join pg_catalog.pg_database d on d.oid = s.dbid where d.datname = pg_catalog.current_database())`).Scan(&named)
	if err != nil {
		return nil, wrapSQL("list the roles that the schema names", err)
	}
	named = append(named, before...)
	slices.Sort(named)
	return slices.Compact(named), nil
}
