package archive

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"testing"

	"txreel/change"
	"txreel/segment"
)

// keptArchive returns a copy of an archive of an earlier format version.
func keptArchive(t *testing.T, name string) (*memStore, *Archive) {
	t.Helper()
	st := newMem()
	root := os.DirFS("../testdata/archives/" + name)
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, p)
		st.set(path.Clean(p), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	return st, a
}

// versionOf returns the format version in a segment's footer, which is the end of b.
func versionOf(b []byte) uint16 { return binary.LittleEndian.Uint16(b[len(b)-16:]) }

// TestUpgradeInTheMiddleOfAnEpoch goes on with an epoch that a build of format
// version 1 began. Rollups of both levels then hold indexes of both versions.
func TestUpgradeInTheMiddleOfAnEpoch(t *testing.T) {
	t.Parallel()
	st, a := keptArchive(t, "v1")
	a.fan = 2
	old, err := a.Tail(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, a, 1)
	var added []change.Txn
	for i := range 7 {
		x := change.Txn{
			Seq: old.Seq + change.Seq(i) + 1, Kind: change.TxnSource, XID: numbered(i).xid, Position: change.Position("1/" + numbered(i).xid),
			CommitTime: old.Latest + change.Time(i), Received: old.Latest + 1000, Note: "alter table t add c int",
		}
		if i == 3 { // what a source does not say stays absent
			x.Received, x.Note = 0, ""
		}
		added = append(added, x)
		for _, m := range []change.Message{
			{Kind: change.KindBegin},
			{Kind: change.KindData, Raw: []byte(numbered(i).message), Defs: []*change.Definition{testDefinition}},
			{Kind: change.KindCommit, XID: x.XID, Position: x.Position, CommitTime: x.CommitTime, Received: x.Received, Note: x.Note},
		} {
			if err := w.Append(&m); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 || i == 2 {
			continue
		}
		shipAll(t, w, x.Position)
	}

	for level := 1; level <= levels; level++ {
		objects, err := st.List(t.Context(), rollupsKey(1, level), "", page)
		if err != nil {
			t.Fatal(err)
		}
		mixed := false
		for _, o := range objects {
			s, err := parseRollupKey(1, level, o)
			if err != nil {
				t.Fatal(err)
			}
			found := map[uint16]bool{}
			if err := a.readRollup(t.Context(), s, func(e rolled) error { found[versionOf(e.packed)] = true; return nil }); err != nil {
				t.Fatal(err)
			}
			mixed = mixed || found[1] && found[2]
		}
		if !mixed {
			t.Errorf("no rollup of level %d holds segments of both versions: this proves nothing", level)
		}
	}

	report, err := a.Verify(t.Context(), VerifyOptions{Full: true})
	if err != nil || len(report.Problems) > 0 || len(report.Notes) > 0 {
		t.Fatalf("verify: %v: %v %v", err, report.Problems, report.Notes)
	}

	check := func(what string, txns []change.Txn) {
		t.Helper()
		if len(txns) != int(old.Seq)+len(added) {
			t.Fatalf("%s: %d transactions, want %d and %d", what, len(txns), old.Seq, len(added))
		}
		for i, x := range txns {
			want := change.Txn{Seq: change.Seq(i + 1)}
			if i >= int(old.Seq) {
				want = added[i-int(old.Seq)]
			}
			if x.Seq != want.Seq || x.Received != want.Received || x.Note != want.Note || want.XID != "" && (x.XID != want.XID || x.CommitTime != want.CommitTime) {
				t.Errorf("%s: transaction %+v, want %+v", what, x, want)
			}
		}
	}
	var forward, backward, records []change.Txn
	segments := 0
	for x, err := range a.Segments(t.Context(), 1, 1) {
		if err != nil {
			t.Fatal(err)
		}
		segments++
		for _, e := range x.Txns {
			forward = append(forward, e.Txn)
		}
	}
	check("forward", forward)
	for x, err := range a.Backward(t.Context(), 1, old.Seq+change.Seq(len(added))) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range slices.Backward(x.Txns) {
			backward = append(backward, e.Txn)
		}
	}
	slices.Reverse(backward)
	check("backward", backward)
	stream := a.Stream(t.Context(), 1, 1, old.Seq+change.Seq(len(added)), t.TempDir())
	defer stream.Close()
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind == segment.Commit {
			records = append(records, change.Txn{Seq: rec.Seq, XID: rec.XID, CommitTime: rec.CommitTime, Received: rec.Received, Note: rec.Note})
		}
	}
	check("stream", records)
	if e, ok, err := a.FirstAfter(t.Context(), 1, old.Latest); err != nil || !ok || e.Note != added[1].Note || e.Received != added[1].Received {
		t.Errorf("the first after the upgrade: %+v, %t, %v", e, ok, err)
	}

	// A hole in the rollups is filled from the segments, of whichever version.
	for _, k := range slices.Clone(st.keys) {
		if b := st.objects[k]; len(b) > len(rollupMagic) && string(b[:len(rollupMagic)]) == rollupMagic {
			st.remove(k)
		}
	}
	forward = nil
	for x, err := range a.Segments(t.Context(), 1, 1) {
		if err != nil {
			t.Fatal(err)
		}
		segments--
		for _, e := range x.Txns {
			forward = append(forward, e.Txn)
		}
	}
	if check("without rollups", forward); segments != 0 {
		t.Errorf("%d segments are in the rollups only", segments)
	}
}
