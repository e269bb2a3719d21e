package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"txreel/internal/dbtest"
)

// TestMyCorpus records statements of every kind, values of every type and objects of every sort, and restores them:
// from a base of an empty server and the record alone, and from a base that holds the first half of it. What was
// recorded is also exported, and written as binlog files that the vendor's own program reads.
func TestMyCorpus(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			settings := []string{"local_infile=ON", "event_scheduler=OFF"}
			s := newMySite(t, flavor, nil, settings...)
			capture := s.capture()
			a := s.waitArchive()
			s.waitBases(a, 1, 1)

			s.script("sources/mysql/binlog", "common", flavor)
			// Databases of the same names come with the second half.
			for _, row := range s.my.MustQuery(t, "", "select schema_name from information_schema.schemata where schema_name in ('c', 'we`ird db', 'nothing')") {
				s.my.MustExec(t, "", "drop database `"+strings.ReplaceAll(row[0], "`", "``")+"`")
			}
			s.script("restore/mysql", "corpus", "corpus-"+flavor)
			s.waitPast(a, s.here())
			s.must("mark", "half")
			half := dumpOf(t, s.my)

			s.must("base")
			s.my.MustExec(t, "c", `update numbers set n = 1 where id = 2; update texts set lt = 'changed' where id < 4; delete from parent where id = 1;
				insert into myisam values (3, 'c'); alter table keyless add column later int default 5; rename table words to w2, compact to words, w2 to compact;
				insert into counter (a) values (3); alter event e_on disable; alter event `+"`e ON COMPLETION PRESERVE off`"+` enable`)
			s.waitPast(a, s.here())
			s.must("mark", "end")
			want := dumpOf(t, s.my)

			equal(t, half, s.restoreInto(s.target(settings...), "--to-mark", "half"))
			equal(t, want, s.restoreInto(s.target(settings...), "--to-mark", "end"))

			r := s.must("audit", "export")
			if !strings.Contains(r.stdout, `"record":"trailer"`) {
				t.Error("the export has no trailer")
			}
			for _, secret := range []string{"secret2", "topsecret"} {
				if strings.Contains(r.stdout, secret) || strings.Contains(s.must("log").stdout, secret) {
					t.Errorf("log or export hold the password %q", secret)
				}
			}
			for line := range strings.Lines(r.stdout) {
				if strings.Contains(line, `"record":"undecoded"`) && !strings.Contains(line, "LOAD DATA") {
					t.Errorf("not decoded: %.300s", line)
				}
			}
			s.binlogs()
			s.must("verify", "--full")
			capture.kill()
		})
	}
}

// restoreInto restores into an empty server.
func (s *mySite) restoreInto(target *dbtest.MySQL, point ...string) *dbtest.MySQL {
	s.t.Helper()
	s.hidden = append(s.hidden, target.Password())
	s.must(append([]string{"restore", "--target", target.URL("")}, point...)...)
	return target
}

// script runs scripts that lie beside a package's own tests.
func (s *mySite) script(pkg string, names ...string) {
	s.t.Helper()
	for _, name := range names {
		script, err := os.ReadFile(filepath.Join("..", "..", pkg, "testdata", name+".sql"))
		if err != nil {
			s.t.Fatal(err)
		}
		// Nothing can be proven of what is written without GTIDs, as the rest of a script is.
		text, _, _ := strings.Cut(string(script), "SET GLOBAL gtid_mode = ON_PERMISSIVE")
		hashed := map[string]string{"mysql": "'topsecret'", "mariadb": "PASSWORD('topsecret')"}[s.my.Flavor]
		text = strings.NewReplacer("$FILE", filepath.Join(s.t.TempDir(), name), "PASSWORD_OF('topsecret')", hashed).Replace(text)
		if out, err := s.my.Client(s.t.Context(), "", text, "--default-character-set=utf8mb4"); err != nil {
			s.t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

// binlogs writes the record as binlog files and lets the vendor's own program read and check each.
func (s *mySite) binlogs() {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "binlogs")
	var files []struct {
		Name string `json:"name"`
	}
	s.must("binlog", dir, "--max-size", "1MiB", "--json").decode(s.t, &files)
	if len(files) == 0 {
		s.t.Fatal("no binlog file was written")
	}
	for _, f := range files {
		cmd := exec.Command(s.my.BinlogTool(), "--no-defaults", "--verify-binlog-checksum", filepath.Join(dir, f.Name))
		cmd.Env = s.my.ToolEnv()
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 && !strings.Contains(stderr.String(), "WARNING") {
			s.t.Errorf("%s: %v\n%s", f.Name, err, stderr.String())
		}
		if !strings.Contains(string(out), "BINLOG") && !strings.Contains(string(out), "end_log_pos") {
			s.t.Errorf("%s holds nothing", f.Name)
		}
	}
}
