// Package pgclient finds PostgreSQL's client programs, of a version that will do.
package pgclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Program is a client program of this machine.
type Program struct {
	Path  string
	Major int // its major version
}

// Find returns the program of that name, such as pg_dump, of the major version need or a newer one: the one on PATH if
// it will do, else the newest where Debian and the packages of the PostgreSQL project keep them. Debian's own on PATH
// stands for none of them: it starts one or the other by rules that know nothing of our server.
func Find(ctx context.Context, name string, need int) (Program, error) {
	return find(ctx, name, need, []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"})
}

func find(ctx context.Context, name string, need int, folders []string) (Program, error) {
	var best Program
	if path, err := exec.LookPath(name); err == nil && !wrapper(path) {
		if best, err = At(ctx, path); err == nil && best.Major >= need || ctx.Err() != nil {
			return best, err
		}
	}
	for _, path := range installed(name, folders) {
		p, err := At(ctx, path)
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		if err == nil && p.Major > best.Major {
			best = p
		}
	}
	switch {
	case best.Path == "":
		return best, fmt.Errorf("%s is not installed here: install PostgreSQL's client programs (postgresql-client), version %d or newer", name, need)
	case best.Major < need:
		return best, fmt.Errorf("%s is of version %d and it takes %d or newer: install PostgreSQL's client programs of that version, or name its %s with --%s",
			best.Path, best.Major, need, name, strings.ReplaceAll(name, "_", "-"))
	}
	return best, nil
}

// wrapper tells Debian's starter from the program.
func wrapper(path string) bool {
	to, err := filepath.EvalSymlinks(path)
	return err == nil && filepath.Base(to) == "pg_wrapper"
}

// installed lists the programs of that name in the folders, with the highest number in the folder's name first.
func installed(name string, folders []string) []string {
	var found []string
	for _, f := range folders {
		more, _ := filepath.Glob(filepath.Join(f, name)) // fails only on a bad pattern
		found = append(found, more...)
	}
	slices.SortStableFunc(found, func(a, b string) int { return cmp.Compare(folderMajor(b), folderMajor(a)) })
	return found
}

// folderMajor reads the version out of /usr/lib/postgresql/15/bin/pg_dump or /usr/pgsql-15/bin/pg_dump.
func folderMajor(path string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(path))), "pgsql-"))
	return n
}

// At asks the program at a path for its version.
func At(ctx context.Context, path string) (Program, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		var notFound *exec.Error
		if errors.As(err, &notFound) {
			err = notFound.Err
		}
		return Program{}, fmt.Errorf("%s: %w", path, err)
	}
	m := regexp.MustCompile(`^\w+ \(PostgreSQL\) (\d+)`).FindSubmatch(out)
	if m == nil {
		return Program{}, fmt.Errorf("%s does not say its version", path)
	}
	major, err := strconv.Atoi(string(m[1]))
	return Program{Path: path, Major: major}, err
}
