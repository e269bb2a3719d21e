package dbtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// mysqlTemplateLayout changes when what is done below does, so that an older build's template is not used.
const mysqlTemplateLayout = "1"

// mysqlTemplate returns an initialised data folder that is never started, only copied, as template does for
// PostgreSQL: root comes in through the socket without a password. There is one for each choice of the arguments that
// cannot change later.
func mysqlTemplate(ctx context.Context, flavor, root string, args []string) (string, error) {
	path, err := mysqlTemplatePath(flavor, root, args)
	if err != nil {
		return "", err
	}
	if ok, err := usableTemplate(path, account{uid: os.Getuid()}); ok || err != nil {
		return path, err
	}
	fresh, err := os.MkdirTemp("", "txreel-"+flavor+"-new-")
	if err != nil {
		return "", fmt.Errorf("make template folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // gone, or emptied, on success
	cmd, err := initialise(ctx, flavor, root, fresh, args)
	if err != nil {
		return "", err
	}
	cmd.Dir, cmd.Env, cmd.SysProcAttr = fresh, mysqlEnv(), account{}.procAttr(0)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initialise data folder: %w: %s", err, tailOf(string(out), 5))
	}
	// Each copy shall find its own identity.
	if err := os.Remove(filepath.Join(fresh, "auto.cnf")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("initialise data folder: %w", err)
	}
	if err := os.Chmod(fresh, 0o700); err != nil {
		return "", fmt.Errorf("initialise data folder: %w", err)
	}
	err = os.Rename(fresh, path)
	if err != nil && (errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY)) {
		err = nil // another process was faster
	}
	if err != nil {
		return "", fmt.Errorf("keep template folder: %w", err)
	}
	return path, nil
}

// fixedArgs are those settings that count when a data folder is made, and never again.
func fixedArgs(settings map[string]string) []string {
	var args []string
	for _, name := range []string{"lower_case_table_names", "innodb_page_size"} {
		if value := settings[name]; value != "" {
			args = append(args, "--"+name+"="+value)
		}
	}
	return args
}

// mysqlTemplatePath names a template after all that decides what is in it.
func mysqlTemplatePath(flavor, root string, args []string) (string, error) {
	server := serverProgram(flavor, root)
	if debian := filepath.Join(root, "usr", "sbin", filepath.Base(server)); isFile(debian) {
		server = debian // what runs is a few lines of shell that start this one
	}
	server, err := filepath.EvalSymlinks(server)
	if err != nil {
		return "", fmt.Errorf("find server: %w", err)
	}
	st, err := os.Stat(server)
	if err != nil {
		return "", fmt.Errorf("find server: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d\n%d\n%q", mysqlTemplateLayout, server, st.Size(),
		st.ModTime().UnixNano(), os.Getuid(), args))
	return filepath.Join(os.TempDir(), "txreel-"+flavor+"-"+hex.EncodeToString(sum[:8])), nil
}

// initialise is the command that makes a data folder.
func initialise(ctx context.Context, flavor, root, dir string, more []string) (*exec.Cmd, error) {
	args := append(baseArgs(flavor, root), "--datadir="+dir, "--tmpdir="+dir, "--skip-log-bin", "--innodb-flush-method=nosync")
	args = append(args, more...)
	if flavor == "mysql" {
		args = append(args, "--initialize-insecure", "--innodb-redo-log-capacity=8M")
		return exec.CommandContext(ctx, serverProgram(flavor, root), args...), nil
	}
	script, err := bootstrapScript(root)
	if err != nil {
		return nil, err
	}
	// mariadb-install-db does this, but wants perl, and a system that the package is installed on.
	args = append(args, "--bootstrap", "--innodb-log-file-size=8M", "--enforce-storage-engine=", "--max-allowed-packet=16M", "--log-warnings=0")
	cmd := exec.CommandContext(ctx, serverProgram(flavor, root), args...)
	cmd.Stdin = bytes.NewReader(script)
	return cmd, nil
}

// bootstrapScript is the SQL that fills the system database of a MariaDB, one statement a line.
func bootstrapScript(root string) ([]byte, error) {
	share := mariadbShare(root)
	var script bytes.Buffer
	script.WriteString("create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n")
	for _, name := range []string{"system_tables", "performance_tables", "system_tables_data", "gis", "sys_schema"} {
		found, err := filepath.Glob(filepath.Join(share, bootstrapFiles(name)))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("no %s in %s: run scripts/setup", bootstrapFiles(name), share)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			return nil, fmt.Errorf("read bootstrap script: %w", err)
		}
		script.Write(b)
	}
	return script.Bytes(), nil
}

// bootstrapFiles is the pattern of a script, which newer versions call otherwise.
func bootstrapFiles(name string) string {
	if strings.HasPrefix(name, "gis") {
		return "maria_add_gis_sp_bootstrap.sql"
	}
	return "m*_" + name + ".sql" // mysql_ and mariadb_
}
