package mysql

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"txreel/change"
	"txreel/internal/dbtest"
	"txreel/sources/mysql/binlog"
)

// printed runs the vendor's reader over files, with checksums verified.
func printed(t *testing.T, my *dbtest.MySQL, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(my.BinlogTool(), append([]string{"--no-defaults", "--verify-binlog-checksum"}, args...)...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.Dir = t.TempDir() // it leaves the files of LOAD DATA behind
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, complaints.String())
	}
	if complaints.Len() > 0 {
		t.Logf("%s", complaints.String())
	}
	return out.Bytes()
}

// fit leaves out the steps that the vendor's reader and client cannot carry over: they
// lose what statements of LOAD DATA depend on, and what a session must keep.
func fit(steps []step) (out []step) {
	for _, s := range steps {
		switch s.name {
		case "statements", "load data", "temporary", "huge", "prepared", "beside it", "decided":
			continue
		}
		out = append(out, s)
	}
	return out
}

// TestBinlogFiles writes the record as binlog files, has the vendor's reader verify
// them, and feeds what it prints to the vendor's client.
func TestBinlogFiles(t *testing.T) {
	both(t, func(t *testing.T, source, target *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		live(t, r, fit(history))
		tail := r.writer.Tail().Seq
		out := t.TempDir()
		files, err := WriteBinlog(ctx, r.archive, 1, 1, tail, out, BinlogOptions{Base: "mysql-bin", MaxSize: 8 << 10})
		r.check(err)
		if len(files) < 3 || files[0].First != 1 || files[len(files)-1].Last != tail {
			t.Fatalf("files %+v of transactions up to %s", files, tail)
		}
		var paths []string
		for i, f := range files {
			path := filepath.Join(out, f.Name)
			if st, err := os.Stat(path); err != nil || st.Size() != f.Size {
				t.Fatalf("%s: %v, size %v, want %d", f.Name, err, st, f.Size)
			}
			if i > 0 && f.First <= files[i-1].Last {
				t.Fatalf("files %+v", files)
			}
			text := printed(t, source, path) // each by itself
			if next := "Rotate to mysql-bin."; bytes.Contains(text, []byte(next)) == (i == len(files)-1) {
				t.Errorf("%s: is there %q in it?", f.Name, next)
			}
			paths = append(paths, path)
		}
		index, err := os.ReadFile(filepath.Join(out, "mysql-bin.index"))
		r.check(err)
		if want := "./" + files[0].Name + "\n./" + files[1].Name + "\n"; !strings.HasPrefix(string(index), want) {
			t.Errorf("index %q, want %q", index, want)
		}
		if _, err := target.Client(ctx, "", string(printed(t, source, paths...)), "--binary-mode"); err != nil {
			t.Fatal(err)
		}
		// The client leaves the semicolon out of what is defined.
		if diff := dbtest.Diff(content(t, source).Tables, content(t, target).Tables); diff != "" {
			t.Errorf("the vendor's way: source and target differ:\n%s", diff)
		}

		if _, err := WriteBinlog(ctx, r.archive, 1, 1, tail, out, BinlogOptions{Base: "mysql-bin"}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over what is there: %v", err)
		}
		if after, err := os.ReadFile(filepath.Join(out, "mysql-bin.index")); err != nil || !bytes.Equal(after, index) {
			t.Errorf("the index was lost: %v", err)
		}
	})
}

// TestBinlogOfMySQL compares files with those of the server: what begins where one of them begins, and holds
// nothing else, is the same to the byte, up to the event that ends it.
func TestBinlogOfMySQL(t *testing.T) {
	source, _ := servers(t, "mysql")
	ctx := context.Background()
	r := record(t, source)
	live(t, r, history)
	r.capture()
	out := t.TempDir()
	files, err := WriteBinlog(ctx, r.archive, 1, 1, r.writer.Tail().Seq, out, BinlogOptions{MaxSize: 1 << 40})
	r.check(err)
	if len(files) != 2 {
		t.Fatalf("files %+v", files)
	}
	for _, f := range files {
		ours, err := os.ReadFile(filepath.Join(out, f.Name))
		r.check(err)
		theirs, err := os.ReadFile(filepath.Join(source.DataDir(), f.Name))
		r.check(err)
		const end = 100 // its times are its own, and the server's last file is open
		n := min(len(ours), len(theirs)) - end
		ours[4+17], theirs[4+17] = 0, 0 // the flag that the file is open
		format, err := binlog.ParseHeader(ours[4:])
		r.check(err)
		previous := ours[4+format.Size:][:binlog.HeaderSize+8+4]
		if f.Held == "" { // the server has two notations for nothing
			copy(previous, theirs[4+format.Size:])
		}
		if !bytes.Equal(ours[:n], theirs[:n]) {
			at := differ(ours, theirs)
			t.Errorf("%s differs at byte %d of %d: %x, the server's %x", f.Name, at, n, ours[max(at-30, 0):at+30], theirs[max(at-30, 0):at+30])
		}
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestBinlogRange writes a part of the record from every place, and looks at what the
// first file says came before it.
func TestBinlogRange(t *testing.T) {
	both(t, func(t *testing.T, source, _ *dbtest.MySQL) {
		ctx := context.Background()
		r := record(t, source)
		live(t, r, history[:4])
		tail := r.writer.Tail().Seq
		for from := change.Seq(1); from <= tail; from++ {
			files, err := WriteBinlog(ctx, r.archive, 1, from, tail, t.TempDir(), BinlogOptions{})
			r.check(err)
			before := ""
			if from > 1 {
				before = r.xids[from-2]
				if source.Flavor == "mysql" && from > 2 {
					before = strings.Replace(before, ":", ":1-", 1)
				}
			}
			if len(files) != 1 || files[0].Held != before || files[0].First != from {
				t.Errorf("from %s: %+v, want held %q", from, files, before)
			}
		}
		for _, bad := range [][2]change.Seq{{2, 1}, {1, tail + 1}} {
			if _, err := WriteBinlog(ctx, r.archive, 1, bad[0], bad[1], t.TempDir(), BinlogOptions{}); err == nil {
				t.Errorf("%v was written", bad)
			}
		}
	})
}
