// Package txreel holds the tests of the repository as a whole: what every package
// owes its readers.
package txreel

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is one parsed file.
type source struct {
	path string
	file *ast.File
}

// packages returns the files of every package of the module, by folder, without
// its tests.
func packages(t *testing.T, fset *token.FileSet) map[string][]source {
	t.Helper()
	found := make(map[string][]source)
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err == nil {
			dir := path.Dir(filepath.ToSlash(name))
			found[dir] = append(found[dir], source{name, file})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("found no packages")
	}
	return found
}

// TestPackageDocs demands of every package exactly one doc comment that says its
// job.
func TestPackageDocs(t *testing.T) {
	for dir, files := range packages(t, token.NewFileSet()) {
		var documented []string
		for _, f := range files {
			if f.file.Doc == nil {
				continue
			}
			documented = append(documented, f.path)
			want := "Package " + f.file.Name.Name + " "
			if f.file.Name.Name == "main" {
				want = "Command " + path.Base(dir) + " "
			}
			if text := f.file.Doc.Text(); !strings.HasPrefix(text, want) {
				t.Errorf("%s: its package comment begins %.40q, not with %q", f.path, text, want)
			}
		}
		if len(documented) != 1 {
			t.Errorf("package %s has %d doc comments %v, want exactly one", dir, len(documented), documented)
		}
	}
}

// TestExportedDocs demands of every exported name a comment that begins with it
// and ends with a period.
func TestExportedDocs(t *testing.T) {
	fset := token.NewFileSet()
	for _, files := range packages(t, fset) {
		for _, f := range files {
			for _, decl := range f.file.Decls {
				for _, n := range exported(decl) {
					text := strings.TrimSpace(n.doc.Text())
					words := strings.Fields(text)
					if len(words) == 0 || !slices.Contains([]string{words[0], strings.Join(words[:min(2, len(words))], " ")}, n.name) &&
						!slices.Contains([]string{"A " + n.name, "An " + n.name, "The " + n.name}, strings.Join(words[:min(2, len(words))], " ")) {
						t.Errorf("%s: the comment of %s must begin with its name", fset.Position(n.pos), n.name)
					} else if !strings.ContainsAny(text[len(text)-1:], ".:") && !strings.Contains(text, "\n\t") {
						t.Errorf("%s: the comment of %s must end with a period", fset.Position(n.pos), n.name)
					}
				}
			}
		}
	}
}

// named is an exported name and the comment that belongs to it.
type named struct {
	name string
	doc  *ast.CommentGroup
	pos  token.Pos
}

// exported returns the names that decl exports, except those of a group that one
// comment documents as a whole.
func exported(decl ast.Decl) []named {
	var out []named
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) {
			out = append(out, named{d.Name.Name, d.Doc, d.Pos()})
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					out = append(out, named{s.Name.Name, either(s.Doc, d.Doc), s.Pos()})
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && (!d.Lparen.IsValid() || s.Doc != nil || d.Doc == nil && s.Comment == nil) {
					out = append(out, named{s.Names[0].Name, either(s.Doc, d.Doc), s.Pos()})
				}
			}
		}
	}
	return out
}

func either(a, b *ast.CommentGroup) *ast.CommentGroup {
	if a != nil {
		return a
	}
	return b
}

// exportedReceiver reports whether a method's type is exported.
func exportedReceiver(recv *ast.FieldList) bool {
	typ := recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}

// TestOnlyCommandsEndTheProcess looks for what ends the process, or keeps hidden
// state, below cmd.
func TestOnlyCommandsEndTheProcess(t *testing.T) {
	fset := token.NewFileSet()
	for dir, files := range packages(t, fset) {
		if strings.HasPrefix(dir, "cmd/") {
			continue
		}
		for _, f := range files {
			ast.Inspect(f.file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Recv == nil && n.Name.Name == "init" {
						t.Errorf("%s: init runs behind the caller's back", fset.Position(n.Pos()))
					}
				case *ast.SelectorExpr:
					if pkg, ok := n.X.(*ast.Ident); ok && pkg.Obj == nil && forbidden(pkg.Name, n.Sel.Name) {
						if dir == "internal/dbtest" && n.Sel.Name == "Getenv" {
							return true // which servers the tests use
						}
						t.Errorf("%s: %s.%s belongs into cmd", fset.Position(n.Pos()), pkg.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// forbidden reports whether pkg.name may be used in commands only.
func forbidden(pkg, name string) bool {
	switch pkg {
	case "os":
		return name == "Exit" || name == "Getenv" || name == "LookupEnv"
	case "log":
		return name != "Logger"
	}
	return false
}
