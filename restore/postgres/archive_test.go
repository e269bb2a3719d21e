package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"os"
	"os/exec"
	"path/filepath"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/internal/rowsum"
	"txreel/sink/dir"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgbase"
	"txreel/sources/postgres/pgoutput"
)

// recorder makes an archive of a real database with SQL only: the slot is read by
// a function, bases are taken while nothing happens.
type recorder struct {
	t       testing.TB
	pg      *dbtest.Postgres
	db      string
	dir     string
	archive *archive.Archive
	epoch   uint64
	writer  *archive.Writer
	perSeg  int             // transactions in a segment
	pieces  int             // chunks of a table
	exact   bool            // restores replay one by one
	merge   uint64          // Options.MergeFrom
	globals *pgbase.Globals // what a base says of them

	tables map[uint32]*change.Table
	defs   map[uint32]*change.Definition
	types  [][]byte
}

func record(t testing.TB, pg *dbtest.Postgres, db string) *recorder {
	t.Helper()
	ctx := context.Background()
	r := &recorder{t: t, pg: pg, db: db, dir: t.TempDir(), perSeg: 20, pieces: 2, tables: map[uint32]*change.Table{}, defs: map[uint32]*change.Definition{}}
	publication := "CREATE PUBLICATION txreel FOR ALL TABLES"
	if pg.Major >= 18 { // as setup does
		publication += " WITH (publish_generated_columns = stored)"
	}
	r.exec(publication)
	r.exec("SELECT pg_create_logical_replication_slot('" + db + "', 'pgoutput')")
	store, err := dir.Open(r.dir)
	r.check(err)
	system := pg.MustQuery(t, "postgres", "SELECT system_identifier FROM pg_control_system()")[0][0]
	r.archive, err = archive.Init(ctx, store, archive.Identity{Engine: "postgres", System: system, Database: db})
	r.check(err)
	r.newEpoch("first")
	return r
}

func (r *recorder) newEpoch(cause string) {
	r.t.Helper()
	ctx := context.Background()
	have, err := r.archive.Epochs(ctx)
	r.check(err)
	e, err := r.archive.StartEpoch(ctx, have, cause, "", nil)
	r.check(err)
	r.epoch = e.Number
	if r.writer != nil {
		r.writer.Close()
	}
	r.writer, err = r.archive.NewWriter(ctx, r.epoch, r.t.TempDir())
	r.check(err)
}

func (r *recorder) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *recorder) exec(sql string) {
	r.t.Helper()
	r.pg.MustExec(r.t, r.db, sql)
}

// createDB makes a source database and runs its schema.
func createDB(t testing.TB, pg *dbtest.Postgres, name, sql string) {
	t.Helper()
	if _, err := pg.CreateDB(context.Background(), name); err != nil {
		t.Fatal(err)
	}
	pg.MustExec(t, name, sql)
}

// capture brings everything the slot has into the archive and returns its tail.
func (r *recorder) capture() archive.Tail {
	r.t.Helper()
	ctx := context.Background()
	cfg, err := parseURL(r.pg.URL(r.db))
	r.check(err)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	r.check(err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CHECKPOINT") // or decoding would start over from the first time
	r.check(err)
	rows, err := conn.Query(ctx, `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'txreel', 'messages', 'true')`, r.db)
	r.check(err)
	defer rows.Close()
	var begin pgoutput.Begin
	end := r.writer.Tail().Position
	for rows.Next() {
		var m []byte
		r.check(rows.Scan(&m))
		msg := change.Message{Raw: m}
		switch m[0] {
		case pgoutput.TagBegin:
			begin, err = pgoutput.ParseBegin(m)
			r.check(err)
			msg.Kind = change.KindBegin
		case pgoutput.TagCommit:
			c, err := pgoutput.ParseCommit(m)
			r.check(err)
			end = lsn.LSN(c.EndLSN).Position()
			msg.Kind, msg.XID, msg.Position, msg.CommitTime = change.KindCommit, fmt.Sprint(begin.XID), end, c.CommitTime
		case pgoutput.TagType:
			r.types = append(r.types, m)
			continue
		case pgoutput.TagRelation:
			r.define(m)
			continue
		case pgoutput.TagOrigin:
			continue
		default:
			msg.Kind = change.KindData
			r.touch(&msg)
		}
		r.check(r.writer.Append(&msg))
		if msg.Kind == change.KindCommit && r.writer.Txns() >= r.perSeg {
			r.ship(end)
		}
	}
	r.check(rows.Err())
	if r.writer.Txns() > 0 {
		r.ship(end)
	}
	return r.writer.Tail()
}

func (r *recorder) ship(end change.Position) {
	r.t.Helper()
	s, err := r.writer.Seal(end)
	r.check(err)
	r.check(r.writer.Ship(context.Background(), s))
	r.check(r.writer.RollUp(context.Background(), s))
	r.writer.Release(s)
}

func (r *recorder) define(m []byte) {
	rel, err := pgoutput.ParseRelation(m)
	r.check(err)
	t := &change.Table{Schema: rel.Schema, Name: rel.Name, Version: rel.Version()}
	if old := r.tables[rel.ID]; old == nil || *old != *t {
		r.tables[rel.ID] = t
	}
	r.defs[rel.ID] = &change.Definition{Messages: append(r.types, m)}
	r.types = nil
}

func (r *recorder) touch(msg *change.Message) {
	ops := map[byte]change.Op{'I': change.OpInsert, 'U': change.OpUpdate, 'D': change.OpDelete, 'T': change.OpTruncate}
	op := ops[msg.Raw[0]]
	if op == 0 {
		return
	}
	var ids []uint32
	var err error
	if op == change.OpTruncate {
		ids, err = pgoutput.TruncateIDs(msg.Raw, nil)
	} else {
		var id uint32
		id, err = pgoutput.RelationID(msg.Raw)
		ids = []uint32{id}
	}
	r.check(err)
	for _, id := range ids {
		msg.Defs = append(msg.Defs, r.defs[id])
		msg.Touched = append(msg.Touched, change.Touch{Table: r.tables[id], Op: op, Rows: 1})
	}
}

// base takes a base behind all that is captured. Nothing else may be at work.
func (r *recorder) base() *archive.Base {
	r.t.Helper()
	return r.baseAt(func(*archive.Base) {})
}

// baseAt is base for one that place says something else of.
func (r *recorder) baseAt(place func(b *archive.Base)) *archive.Base {
	r.t.Helper()
	ctx := context.Background()
	tail := r.capture()
	b, err := archive.NewBase(r.epoch, "test")
	r.check(err)
	b.Seq, b.Position = tail.Seq, change.Position(r.pg.MustQuery(r.t, r.db, "SELECT pg_current_wal_lsn()")[0][0])
	b.Server = r.pg.Version
	place(b)
	cfg, err := parseURL(r.pg.URL(r.db))
	r.check(err)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	r.check(err)
	defer conn.Close(ctx)

	dump := filepath.Join(r.t.TempDir(), "dump")
	cmd := exec.Command(filepath.Join(r.pg.BinDir, "pg_dump"), "-Fc", "--schema-only", "-f", dump, r.pg.URL(r.db))
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("pg_dump: %v: %s", err, out)
	}
	data, err := os.ReadFile(dump)
	r.check(err)
	o, err := r.archive.CreateObject(ctx, b, pgbase.SchemaObject, bytes.NewReader(data), int64(len(data)))
	r.check(err)
	b.Objects = append(b.Objects, o)
	b.Engine = r.marshal(r.engine(conn))
	r.baseTables(conn, b)
	b.Coverage = []archive.Coverage{{Class: archive.Exact, What: "tables", Detail: "test"}}
	r.check(r.archive.CommitBase(ctx, b))
	return b
}

func (r *recorder) marshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	r.check(err)
	return b
}

func (r *recorder) engine(conn *pgx.Conn) pgbase.Engine {
	ctx := context.Background()
	e := pgbase.Engine{Globals: r.globals}
	r.check(conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), datcollate::text, datctype::text
		FROM pg_database WHERE datname = current_database()`).Scan(&e.ServerVersion, &e.Encoding, &e.Collate, &e.Ctype))
	collect := func(sql string, add func(row pgx.CollectableRow) error) {
		rows, err := conn.Query(ctx, sql)
		r.check(err)
		_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) { return struct{}{}, add(row) })
		r.check(err)
	}
	collect("SELECT DISTINCT rolname::text FROM pg_roles JOIN pg_shdepend ON refobjid = pg_roles.oid WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())", func(row pgx.CollectableRow) error {
		var s string
		err := row.Scan(&s)
		e.Roles = append(e.Roles, s)
		return err
	})
	collect("SELECT oid FROM pg_publication WHERE pubname = 'txreel'", func(row pgx.CollectableRow) error {
		var o uint32
		err := row.Scan(&o)
		e.Publications = append(e.Publications, o)
		return err
	})
	collect(`SELECT n.nspname::text, relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'm' AND relispopulated`, func(row pgx.CollectableRow) error {
		var v pgbase.Name
		err := row.Scan(&v.Schema, &v.Name)
		e.MatViews = append(e.MatViews, v)
		return err
	})
	collect(`SELECT s.schemaname::text, s.sequencename::text, coalesce(s.last_value, s.start_value), s.last_value IS NOT NULL, s.increment_by,
			coalesce(n.nspname::text, ''), coalesce(t.relname::text, ''), coalesce(a.attname::text, '')
		FROM pg_sequences s JOIN pg_class c ON c.oid = (quote_ident(s.schemaname) || '.' || quote_ident(s.sequencename))::regclass
		LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
		LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace n ON n.oid = t.relnamespace
		LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid`, func(row pgx.CollectableRow) error {
		var s pgbase.Sequence
		var o pgbase.Owner
		err := row.Scan(&s.Schema, &s.Name.Name, &s.Last, &s.Called, &s.Increment, &o.Schema, &o.Name.Name, &o.Column)
		if o.Column != "" {
			s.OwnerOf = &o
		}
		e.Sequences = append(e.Sequences, s)
		return err
	})
	return e
}

func (r *recorder) baseTables(conn *pgx.Conn, b *archive.Base) {
	ctx := context.Background()
	rows, err := conn.Query(ctx, `
		SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident::text, coalesce(i.indexrelid, 0), coalesce(k.oid, 0),
		       coalesce((SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (i.indkey)), '{}')
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		LEFT JOIN LATERAL (SELECT * FROM pg_index i WHERE i.indrelid = c.oid AND (indisprimary OR indisreplident) ORDER BY indisprimary DESC LIMIT 1) i ON true
		LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
		WHERE relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`)
	r.check(err)
	type found struct {
		pgbase.Table
		schema, name string
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f found, err error) {
		err = row.Scan(&f.OID, &f.schema, &f.name, &f.Identity, &f.KeyIndex, &f.KeyConstraint, &f.Key)
		return f, err
	})
	r.check(err)
	for n, f := range all {
		rel := pgoutput.Relation{ID: f.OID, Schema: f.schema, Name: f.name}
		rows, err := conn.Query(ctx, `SELECT attname::text, atttypid, atttypmod, format_type(atttypid, atttypmod), attidentity = 'a', attgenerated <> '' FROM pg_attribute
			WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND (attgenerated = '' OR attgenerated = 's' AND $2) ORDER BY attnum`, f.OID, r.pg.Major >= 18)
		r.check(err)
		_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
			var c pgoutput.Column
			var p pgbase.Column
			var generated bool
			err := row.Scan(&c.Name, &c.Type, &c.Mod, &p.Type, &p.IdentityAlways, &generated)
			p.Name = c.Name
			if rel.Columns = append(rel.Columns, c); !generated {
				f.Columns = append(f.Columns, p)
			}
			return struct{}{}, err
		})
		r.check(err)
		t := archive.BaseTable{Schema: f.schema, Name: f.name, Version: archive.HexVersion(rel.Version()), Engine: r.marshal(f.Table)}
		bt := table{BaseTable: &t, Table: f.Table}
		var raw, packed bytes.Buffer
		tag, err := conn.PgConn().CopyTo(ctx, &raw, strings.Replace(copySQL(&bt), " FROM STDIN", " TO STDOUT", 1))
		r.check(err)
		t.Rows = tag.RowsAffected()
		if len(f.Columns) > 0 {
			var lines rowsum.Lines
			_, _ = lines.Write(raw.Bytes())
			t.Content = lines.Content()
		}
		for part, text := 0, raw.Bytes(); len(text) > 0; part++ { // chunks cut at a line
			cut := min(len(text), raw.Len()/r.pieces)
			cut += bytes.IndexByte(text[cut-1:], '\n')
			piece := text[:cut]
			text = text[cut:]
			packed.Reset()
			z, err := zstd.NewWriter(&packed)
			r.check(err)
			_, err = z.Write(piece)
			r.check(err)
			r.check(z.Close())
			o, err := r.archive.CreateObject(ctx, b, fmt.Sprintf("tables/%d-%d.copy.zst", n, part), bytes.NewReader(packed.Bytes()), int64(packed.Len()))
			r.check(err)
			o.Raw, o.Rows = int64(len(piece)), int64(bytes.Count(piece, []byte{'\n'}))
			t.Chunks = append(t.Chunks, o)
		}
		b.Tables = append(b.Tables, t)
	}
}

// content is the source's, or a restored database's, as it stands.
func content(t testing.TB, url string) map[string]dbtest.TableDump {
	t.Helper()
	d, err := dbtest.Dump(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
