package mysql

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/restore"
	"txreel/sink/dir"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// recorder makes an archive of a real server out of its binlog files.
type recorder struct {
	t       testing.TB
	my      *dbtest.MySQL
	flavor  gtid.Flavor
	dir     string
	archive *archive.Archive
	writer  *archive.Writer
	perSeg  int // transactions in a segment
	// impatient restores read the target's tables again after every definition.
	impatient bool

	file   string // being read, and how far
	pos    int64
	group  binlog.Grouper
	format *binlog.Format
	def    *change.Definition
	count  *binlog.Counter
	text   binlog.Inflater
	note   string // of the open group
	held   *gtid.Set
	xids   []string // of what was recorded, in order
}

// record begins an archive of a server that was just emptied, with a base of nothing.
func record(t testing.TB, my *dbtest.MySQL) *recorder {
	t.Helper()
	ctx := context.Background()
	r := &recorder{t: t, my: my, flavor: gtid.MySQL, dir: t.TempDir(), perSeg: 7, count: binlog.NewCounter()}
	if my.Flavor == "mariadb" {
		r.flavor = gtid.MariaDB
	}
	r.held = gtid.New(r.flavor)
	store, err := dir.Open(r.dir)
	r.check(err)
	r.archive, err = archive.Init(ctx, store, archive.Identity{Engine: my.Flavor, System: "test", Database: "test"})
	r.check(err)
	_, err = r.archive.StartEpoch(ctx, nil, archive.CauseFirst, "", nil)
	r.check(err)
	r.writer, err = r.archive.NewWriter(ctx, 1, t.TempDir())
	r.check(err)
	t.Cleanup(r.writer.Close)
	r.base()
	return r
}

func (r *recorder) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// base commits a base without content at where the record stands.
func (r *recorder) base() {
	r.t.Helper()
	v, err := parseVersion(r.my.Version)
	r.check(err)
	engine, err := json.Marshal(mybase.Engine{Flavor: r.my.Flavor, Version: v.text, Number: v.number, PageSize: 16384})
	r.check(err)
	b, err := archive.NewBase(1, "test")
	r.check(err)
	b.Seq, b.Position, b.Engine, b.Server = r.writer.Tail().Seq, change.Position(r.held.String()), engine, r.my.Version
	r.check(r.archive.CommitBase(context.Background(), b))
}

// capture brings everything the source has committed into the archive.
func (r *recorder) capture() archive.Tail {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.my.DataDir(), "binlog.0*"))
	r.check(err)
	slices.Sort(files)
	for _, path := range files {
		name := filepath.Base(path)
		if name < r.file || strings.HasSuffix(name, ".idx") {
			continue
		}
		if name != r.file {
			r.file, r.pos = name, int64(len(binlog.Magic))
		}
		r.read(path)
	}
	if r.writer.Txns() > 0 {
		r.ship()
	}
	return r.writer.Tail()
}

func (r *recorder) read(path string) {
	f, err := os.Open(path)
	r.check(err)
	defer f.Close()
	in := io.NewSectionReader(f, 0, 1<<40)
	_, err = in.Seek(r.pos, io.SeekStart)
	r.check(err)
	for {
		head := make([]byte, binlog.HeaderSize)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		h, err := binlog.ParseHeader(head)
		r.check(err)
		raw := append(head, make([]byte, int(h.Size)-len(head))...)
		_, err = io.ReadFull(in, raw[len(head):])
		r.check(err)
		r.pos += int64(h.Size)
		r.event(raw)
	}
}

func (r *recorder) event(raw []byte) {
	sum := binlog.ChecksumCRC32
	if r.format != nil {
		sum = r.format.Checksum
	}
	e, err := binlog.Parse(raw, sum)
	r.check(err)
	r.check(e.Verify())
	if e.Type == binlog.TypeFormatDescription {
		r.format, err = binlog.ParseFormat(&e)
		r.check(err)
		r.def = &change.Definition{Messages: [][]byte{bytes.Clone(raw)}}
	}
	place, torn, err := r.group.Next(&e)
	r.check(err)
	if torn {
		r.t.Fatalf("a torn group before %s:%d", r.file, r.pos)
	}
	m := change.Message{Kind: change.KindData, Defs: []*change.Definition{r.def}}
	touched, _ := r.count.Count(&e, r.format)
	r.noteEvent(&e)
	switch place {
	case binlog.Frame:
		return
	case binlog.Stray:
		r.t.Fatalf("stray %s event", e.Type)
	case binlog.Begins:
		m.Kind, r.note = change.KindBegin, ""
	}
	m.Touched = touched
	// As a primary cuts it for the network.
	piece := raw[:min(len(raw), maxPayload-1)]
	for rest := raw[len(piece):]; ; {
		m.Raw = piece
		if place == binlog.Ends && len(rest) == 0 {
			g := r.group.Group.GTID
			if !r.held.Add(g) {
				r.t.Fatalf("%s twice", g)
			}
			r.xids = append(r.xids, g.String())
			m.Kind, m.XID, m.CommitTime = change.KindCommit, g.String(), r.group.Group.CommitTime()
			m.Position, m.Note = change.Position(fmt.Sprintf("%s:%d", r.file, r.pos)), r.note
		}
		r.check(r.writer.Append(&m))
		m.Touched = nil
		if len(rest) == 0 {
			break
		}
		m.Kind = change.KindData
		piece = rest[:min(len(rest), maxPayload)]
		rest = rest[len(piece):]
	}
	if place == binlog.Ends && r.writer.Txns() >= r.perSeg {
		r.ship()
	}
}

// noteEvent notes a group by its first statement, as a capture does.
func (r *recorder) noteEvent(e *binlog.Event) {
	if r.note != "" {
		return
	}
	switch e.Type {
	case binlog.TypeQuery, binlog.TypeQueryCompressed, binlog.TypeExecuteLoadQuery:
		r.note = r.text.Note(e)
	case binlog.TypeXAPrepare:
		if x, err := binlog.ParseXAPrepare(e); err == nil && !x.OnePhase {
			r.note = fmt.Sprintf("XA PREPARE X'%x',X'%x',%d", x.Global, x.Branch, x.Format)
		}
	}
}

// heartbeat records that nothing has happened.
func (r *recorder) heartbeat() {
	r.t.Helper()
	r.check(r.writer.Heartbeat(change.Position(r.held.String()), r.writer.Tail().Latest))
	r.ship()
}

func (r *recorder) ship() {
	r.t.Helper()
	s, err := r.writer.Seal(change.Position(r.held.String()))
	r.check(err)
	r.check(r.writer.Ship(context.Background(), s))
	r.writer.Release(s)
}

// plan makes the plan of a goal.
func (r *recorder) plan(g restore.Goal) (*restore.Plan, error) {
	return restore.MakePlan(context.Background(), r.archive, Dialect{Flavor: r.flavor}, g)
}

// restore runs a restore into a target and returns its report.
func (r *recorder) restore(ctx context.Context, to *dbtest.MySQL, g restore.Goal, o restore.Options) (*restore.Report, error) {
	p, err := r.plan(g)
	if err != nil {
		return nil, err
	}
	target, err := Open(ctx, to.URL(""), Options{})
	if err != nil {
		return nil, err
	}
	defer target.Close()
	if r.impatient {
		target.patience = 0
	}
	o.SpillDir = r.dir
	return restore.Run(ctx, r.archive, p, target, o)
}

// mustRestore is restore for what must work.
func (r *recorder) mustRestore(to *dbtest.MySQL, g restore.Goal) *restore.Report {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	report, err := r.restore(ctx, to, g, restore.Options{})
	r.check(err)
	return report
}

// content is all there is in a server.
func content(t testing.TB, my *dbtest.MySQL) dbtest.MySQLDump {
	t.Helper()
	d, err := dbtest.DumpMySQL(context.Background(), my.URL(""), dbtest.MySQLDumpOptions{IgnoreAutoIncrement: true}) // a replica counts what it sees
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// same fails the test unless both servers hold the same.
func same(t testing.TB, what string, want, got dbtest.MySQLDump) {
	t.Helper()
	if diff := dbtest.DiffMySQL(want, got); diff != "" {
		t.Fatalf("%s: source and target differ:\n%s", what, diff)
	}
}

// pair is two servers that all tests of a flavor share.
type pair struct{ source, target *dbtest.MySQL }

var (
	pairs   = map[string]*pair{}
	pairsMu sync.Mutex
)

// TestMain ends the shared servers, or is a restore to be killed.
func TestMain(m *testing.M) {
	if what := os.Getenv(helperVariable); what != "" {
		if err := helper(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	for _, p := range pairs {
		_ = errors.Join(p.source.Close(), p.target.Close())
	}
	os.Exit(code)
}

// both runs a test with an empty source and an empty target of each flavor.
func both(t *testing.T, test func(t *testing.T, source, target *dbtest.MySQL)) {
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			source, target := servers(t, flavor)
			test(t, source, target)
		})
	}
}

func servers(t testing.TB, flavor string) (source, target *dbtest.MySQL) {
	t.Helper()
	pairsMu.Lock()
	defer pairsMu.Unlock()
	p := pairs[flavor]
	if p == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		p = &pair{}
		var wg sync.WaitGroup
		var errs [2]error
		for i, into := range []**dbtest.MySQL{&p.source, &p.target} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				*into, errs[i] = dbtest.StartMySQL(ctx, dbtest.MySQLOptions{Flavor: flavor, Settings: map[string]string{"max_allowed_packet": "256M"}})
			}()
		}
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		pairs[flavor] = p
	}
	empty(t, p.source)
	empty(t, p.target)
	return p.source, p.target
}

// empty brings a server back to what it was when it was new.
func empty(t testing.TB, my *dbtest.MySQL) {
	t.Helper()
	ctx := context.Background()
	s, err := my.Session(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must := func(sql string) [][]string {
		t.Helper()
		rows, err := s.Query(ctx, sql)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	must("SET sql_log_bin = 0, foreign_key_checks = 0")
	if my.Flavor == "mariadb" {
		must("STOP SLAVE; RESET SLAVE ALL")
	} else {
		must("STOP REPLICA; RESET REPLICA ALL")
	}
	for _, r := range must("XA RECOVER") {
		var n int
		if _, err := fmt.Sscan(r[1], &n); err != nil {
			t.Fatal(err)
		}
		must(fmt.Sprintf("XA ROLLBACK '%s', '%s', %s", r[3][:n], r[3][n:], r[0]))
	}
	for _, r := range must("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN " + systemSchemas) {
		must("DROP DATABASE " + quote(r[0]))
	}
	users := "SELECT user, host, is_role = 'Y' FROM mysql.user WHERE user NOT LIKE 'mysql.%' AND user NOT LIKE 'mariadb.sys' AND user <> 'root'"
	if my.Flavor == "mysql" {
		users = "SELECT user, host, 0 FROM mysql.user WHERE user NOT LIKE 'mysql.%' AND user <> 'root'"
	}
	for _, r := range must(users) {
		if r[2] == "1" {
			must("DROP ROLE " + quote(r[0]))
		} else {
			must("DROP USER " + quote(r[0]) + "@" + quote(r[1]))
		}
	}
	if my.Flavor == "mariadb" {
		must("RESET MASTER; SET GLOBAL gtid_slave_pos = ''")
	} else {
		must("RESET BINARY LOGS AND GTIDS")
	}
}
