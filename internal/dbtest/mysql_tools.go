package dbtest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Program is the path of one of the vendor's programs, by the name it has with MySQL: "mysql", "mysqlbinlog",
// "mysqldump", "mysqladmin" or "mysqld".
func (m *MySQL) Program(name string) string {
	if m.Flavor == "mariadb" {
		name = map[string]string{"mysql": "mariadb", "mysqlbinlog": "mariadb-binlog", "mysqldump": "mariadb-dump",
			"mysqladmin": "mariadb-admin", "mysqld": "mariadbd"}[name]
	}
	return filepath.Join(m.Root, "bin", name)
}

// BinlogTool is the path of mysqlbinlog or mariadb-binlog.
func (m *MySQL) BinlogTool() string { return m.Program("mysqlbinlog") }

// DumpTool is the path of mysqldump or mariadb-dump.
func (m *MySQL) DumpTool() string { return m.Program("mysqldump") }

// ToolArgs are the first arguments of every such program that comes as root through the socket; its environment
// needs ToolEnv.
func (m *MySQL) ToolArgs() []string {
	return []string{"--no-defaults", "--socket=" + m.socket(), "--user=root"}
}

// ToolEnv is the whole environment of a program that comes as root. mysqlbinlog leaves the blocks of a LOAD DATA in its
// folder for temporary files: it is the server's, and goes with it.
func (m *MySQL) ToolEnv() []string {
	return append(mysqlEnv(), "MYSQL_PWD="+m.password, "TMPDIR="+m.tmp())
}

// Tool runs one of the vendor's programs with ToolArgs and more, and returns what it printed.
func (m *MySQL) Tool(ctx context.Context, name string, args ...string) (string, error) {
	return m.tool(ctx, name, "", args)
}

// Client runs a script through the vendor's own client, DELIMITER and all, and returns the rows as it prints them:
// tabs between columns, no names, and backslashes before what would be ambiguous. More arguments of the client may
// follow.
func (m *MySQL) Client(ctx context.Context, db, script string, args ...string) (string, error) {
	// From 9.0 on MySQL's client knows its own commands only when told to.
	first := []string{"--loose-commands", "--local-infile=1", "--default-character-set=utf8mb4", "--batch", "--skip-column-names"}
	if db != "" {
		first = append(first, "--database="+db)
	}
	return m.tool(ctx, "mysql", script, append(first, args...))
}

func (m *MySQL) tool(ctx context.Context, name, input string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, m.Program(name), append(m.ToolArgs(), args...)...)
	var out, complaints bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdin = m.ToolEnv(), m.tmp(), strings.NewReader(input)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &complaints, 10*time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, tailOf(complaints.String(), 5))
	}
	return out.String(), nil
}

// quoteName writes a name as SQL wants it.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteText writes a text as SQL wants it, in every sql_mode but NO_BACKSLASH_ESCAPES.
func quoteText(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

// redact takes a password out of a text.
func redact(text, password string) string {
	if password == "" {
		return text
	}
	return strings.ReplaceAll(text, password, "…")
}
