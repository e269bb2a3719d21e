package txreel

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// testName is a test as docs/regressions.md names it: the folder of its package, its function, and what it calls a case.
var testName = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)(?:/([^`]+))?`")

// TestRegressionsAreTested demands thirty rows of docs/regressions.md, of each a test or a reason, and of each test that it
// exists. A part of a test is there when its name is a string in the package's tests, or a script in its testdata.
func TestRegressionsAreTested(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("docs", "regressions.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]*testFiles)
	row := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, fmt.Sprintf("| %d ", row+1)) {
			continue
		}
		row++
		names := testName.FindAllStringSubmatch(cells[2], -1)
		if len(names) == 0 && !strings.HasPrefix(cells[2], "not yet: ") {
			t.Errorf("row %d names no test, and no reason why there is none", row)
		}
		if n := strings.Count(cells[2], ".Test"); n != len(names) {
			t.Errorf("row %d seems to name %d tests, of which %d can be read", row, n, len(names))
		}
		for _, m := range names {
			dir, function, part := m[1], m[2], m[3]
			if known[dir] == nil {
				if known[dir], err = readTests(dir); err != nil {
					t.Errorf("row %d: %v", row, err)
					known[dir] = &testFiles{}
				}
			}
			switch files := known[dir]; {
			case !files.functions[function]:
				t.Errorf("row %d: there is no %s in %s", row, function, dir)
			case part != "" && !files.strings[part]:
				t.Errorf("row %d: no case of %s in %s is called %q", row, function, dir, part)
			}
		}
	}
	if row != 30 {
		t.Errorf("%d rows, want 30", row)
	}
}

// testFiles is what the tests of a package declare and say.
type testFiles struct {
	functions, strings map[string]bool
}

func readTests(dir string) (*testFiles, error) {
	files := &testFiles{functions: make(map[string]bool), strings: make(map[string]bool)}
	paths, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				files.functions[n.Name.Name] = n.Recv == nil
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					files.strings[text] = true
				}
			}
			return true
		})
	}
	scripts, err := os.ReadDir(filepath.Join(filepath.FromSlash(dir), "testdata"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, script := range scripts {
		if name, ok := strings.CutSuffix(script.Name(), ".txtar"); ok {
			files.strings[name] = true
		}
	}
	return files, nil
}
