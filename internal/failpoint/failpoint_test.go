package failpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryPointIsListed demands that All returns each constant once, so that tests which go through it leave out none.
func TestEveryPointIsListed(t *testing.T) {
	listed := make(map[Point]int)
	for _, p := range All() {
		listed[p]++
	}
	names := points(t)
	for name, p := range names {
		if listed[p] != 1 {
			t.Errorf("All returns %s (%q) %d times", name, p, listed[p])
		}
	}
	if len(listed) != len(names) {
		t.Errorf("All returns %d points, there are %d", len(listed), len(names))
	}
}

// TestEveryPointIsInTheProgram demands of each constant a call that reaches it.
func TestEveryPointIsInTheProgram(t *testing.T) {
	hit := make(map[string]bool)
	var groups []string
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.'):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			switch _, name := selector(call.Fun); name {
			case "failpoint.Hit":
				constant, _ := selector(call.Args[0])
				hit[constant] = true
			case "failpoint.Step":
				if text, ok := call.Args[0].(*ast.BasicLit); ok {
					group, _ := strconv.Unquote(text.Value) // the parser has taken it for a string
					groups = append(groups, group)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range points(t) {
		if !hit[name] && !slices.ContainsFunc(groups, func(g string) bool { return strings.HasPrefix(string(p), g+"-") }) {
			t.Errorf("nothing calls failpoint.Hit(failpoint.%s)", name)
		}
	}
}

// selector returns the last part of x.Sel, and all of it.
func selector(e ast.Expr) (last, all string) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return s.Sel.Name, x.Name + "." + s.Sel.Name
}

// points returns the constants of the package by their names.
func points(t *testing.T) map[string]Point {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "failpoint.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]Point)
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[v.Names[0].Name] = Point(text)
		}
		return true
	})
	if len(found) == 0 {
		t.Fatal("found no points")
	}
	return found
}
