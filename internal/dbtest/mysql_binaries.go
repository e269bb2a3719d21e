package dbtest

import (
	"fmt"
	"os"
	"path/filepath"
)

// findAbove looks for a path in this folder and every one above it.
func findAbove(path string) (string, bool) {
	dir, err := os.Getwd()
	for err == nil {
		found := filepath.Join(dir, path)
		if _, err := os.Stat(found); err == nil {
			return found, true
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return "", false
}

// findMySQL returns the folder of the programs that opts ask for, and whose they are.
func findMySQL(opts MySQLOptions) (root, flavor string, err error) {
	name := opts.Flavor
	if name == "" {
		name = "mysql"
	}
	flavor = serverOf(name)
	if flavor != "mysql" && flavor != "mariadb" {
		return "", "", fmt.Errorf("start server: flavor %q is neither mysql nor mariadb", name)
	}
	if opts.Root != "" {
		program := serverProgram(flavor, opts.Root)
		if !filepath.IsAbs(opts.Root) {
			if found, ok := findAbove(program); ok {
				program = found
			}
		}
		if !isFile(program) {
			return "", "", fmt.Errorf("no %s in %s/bin", filepath.Base(program), opts.Root)
		}
		return filepath.Dir(filepath.Dir(program)), flavor, nil
	}
	name = versionOf(name)
	folder := filepath.Join(".tools", name)
	if program, ok := findAbove(serverProgram(flavor, folder)); ok {
		return filepath.Dir(filepath.Dir(program)), flavor, nil
	}
	argument := ""
	if name != flavor {
		argument = " " + name
	}
	return "", "", fmt.Errorf("no %s in %s/bin of this folder or one above it: run scripts/setup%s",
		filepath.Base(serverProgram(flavor, folder)), folder, argument)
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && !st.IsDir()
}

// serverProgram is the path of the server.
func serverProgram(flavor, root string) string {
	if flavor == "mysql" {
		return filepath.Join(root, "bin", "mysqld")
	}
	return filepath.Join(root, "bin", "mariadbd")
}

// baseArgs tell a server where its own files are, and which user it may run as: it refuses root unless told.
func baseArgs(flavor, root string) []string {
	args := []string{"--no-defaults"}
	basedir := root
	if debian := filepath.Join(root, "usr"); isDir(debian) {
		basedir = debian
		args = append(args, "--plugin-dir="+filepath.Join(debian, "lib", "mysql", "plugin"))
	}
	if os.Getuid() == 0 {
		args = append(args, "--user=root")
	}
	if flavor == "mariadb" {
		args = append(args, "--lc-messages-dir="+mariadbShare(root))
	}
	return append(args, "--basedir="+basedir)
}

// mariadbShare is the folder of a MariaDB's scripts and messages, which its packagers put where they like.
func mariadbShare(root string) string {
	for _, dir := range []string{"usr/share/mysql", "usr/share/mariadb", "share/mysql", "share/mariadb"} {
		if dir = filepath.Join(root, dir); isDir(filepath.Join(dir, "english")) {
			return dir
		}
	}
	return filepath.Join(root, "share")
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
