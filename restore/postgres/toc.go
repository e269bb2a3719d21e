package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"txreel/sources/postgres/pgclient"
)

// entry is an object of the schema dump.
type entry struct {
	id     int    // pg_dump's own number
	class  uint32 // OID of the catalog the object is in
	oid    uint32 // its OID there, in the source
	deps   []int  // entries it needs
	name   string
	kind   string // pg_dump's word, such as TABLE or FK CONSTRAINT
	schema string
	sql    string
}

// script is a schema dump taken apart.
type script struct {
	preamble string // settings of the session
	pre      []*entry
	post     []*entry
}

// Catalogs whose OIDs the dump names; they are the same in every PostgreSQL.
const (
	catalogConstraint  = 2606
	catalogClass       = 1259
	catalogPublication = 6104
)

// pgRestore finds the program that reads a dump: no older than the one that wrote it. source is the major version of the
// server that the dump is of.
func pgRestore(ctx context.Context, given, dump string, source int) (string, error) {
	need, err := dumpedBy(dump)
	if err != nil {
		return "", fmt.Errorf("read the schema of the base: %w", err)
	}
	if need == 0 {
		need = source
	}
	if given == "" {
		p, err := pgclient.Find(ctx, "pg_restore", need)
		return p.Path, err
	}
	p, err := pgclient.At(ctx, given)
	if err != nil {
		return "", fmt.Errorf("run pg_restore: %w", err)
	}
	if p.Major < need {
		return "", fmt.Errorf("%s is of version %d, and the schema of the base was written by pg_dump %d: name a pg_restore of version %d or newer with --pg-restore",
			given, p.Major, need, need)
	}
	return p.Path, nil
}

// readDump lets pg_restore turn a custom-format dump into SQL and takes it apart.
func readDump(ctx context.Context, program, dump string, noOwner bool) (*script, error) {
	s := &script{}
	for _, section := range []string{"pre-data", "post-data"} {
		list, err := output(ctx, program, "--section="+section, "--list", dump)
		if err != nil {
			return nil, err
		}
		// Tablespaces are the server's, not the database's: a fresh one has others.
		args := []string{"--verbose", "--no-tablespaces", "--section=" + section, "--file=-", dump}
		if noOwner {
			args = append(args, "--no-owner", "--no-privileges")
		}
		sql, err := output(ctx, program, args...)
		if err != nil {
			return nil, err
		}
		preamble, entries := takeApart(string(sql), listed(list))
		if section == "pre-data" {
			s.preamble, s.pre = preamble, entries
		} else {
			s.post = entries
		}
	}
	return s, nil
}

func output(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("read the schema of the base with %s: %w: %s", program, err, lines[len(lines)-1])
	}
	return out, nil
}

// toc is how an entry is known in the list and in the script.
type toc struct{ id, class, oid string }

// listed reads which entries pg_restore --list names.
func listed(list []byte) map[toc]bool {
	all := make(map[toc]bool)
	for _, m := range regexp.MustCompile(`(?m)^(\d+); (\d+) (\d+) `).FindAllSubmatch(list, -1) {
		all[toc{string(m[1]), string(m[2]), string(m[3])}] = true
	}
	return all
}

// heads finds where entries may begin: a comment that pg_restore --verbose writes.
func heads() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^--\n-- TOC entry (\d+) \(class (\d+) OID (\d+)\)\n(?:-- Dependencies:([ \d]*)\n)?-- Name: (.*); Type: ([^;]*); Schema: (.*); Owner: (.*)\n`)
}

// takeApart cuts pg_restore's output into entries. A comment that the list does not know, or has met already, is
// part of somebody's function and no beginning.
func takeApart(sql string, known map[toc]bool) (preamble string, entries []*entry) {
	sql = withoutMeta(sql)
	var cuts [][]int
	for _, m := range heads().FindAllStringSubmatchIndex(sql, -1) {
		key := toc{sql[m[2]:m[3]], sql[m[4]:m[5]], sql[m[6]:m[7]]}
		if known[key] {
			known[key] = false
			cuts = append(cuts, m)
		}
	}
	if len(cuts) == 0 {
		return sql, nil
	}
	preamble, carry := carried(sql[:cuts[0][0]], "")
	preamble += carry
	for i, m := range cuts {
		end := len(sql)
		if i+1 < len(cuts) {
			end = cuts[i+1][0]
		}
		text := func(n int) string {
			if m[2*n] < 0 {
				return ""
			}
			return sql[m[2*n]:m[2*n+1]]
		}
		e := &entry{id: number(text(1)), class: uint32(number(text(2))), oid: uint32(number(text(3))),
			name: text(5), kind: text(6), schema: text(7)}
		for _, d := range strings.Fields(text(4)) {
			e.deps = append(e.deps, number(d))
		}
		var body string
		e.sql = carry
		body, carry = carried(sql[m[1]:end], carry)
		e.sql += body
		entries = append(entries, e)
	}
	return preamble, entries
}

func number(s string) int {
	n, _ := strconv.ParseUint(s, 10, 32) // the expression lets digits through only
	return int(n)
}

// carried cuts the settings off the end of a piece that pg_restore makes for the
// entries behind it; before is what held until then.
func carried(piece, before string) (body, carry string) {
	m := regexp.MustCompile(`(?:\nSET default_table_access_method = [^\n]*;\n*)+$`).FindStringIndex(piece)
	if m == nil {
		return piece, before
	}
	lines := strings.Split(strings.TrimSpace(piece[m[0]:]), "\n")
	return piece[:m[0]] + "\n", lines[len(lines)-1] + "\n"
}

// withoutMeta removes the commands to psql around the script: \restrict KEY and, with
// the same key, \unrestrict.
func withoutMeta(sql string) string {
	m := regexp.MustCompile(`(?m)^\\restrict (\S+)\n`).FindStringSubmatchIndex(sql)
	if m == nil {
		return sql
	}
	key := sql[m[2]:m[3]]
	sql = sql[:m[0]] + sql[m[1]:]
	if i := strings.LastIndex(sql, "\n\\unrestrict "+key); i >= 0 {
		sql = sql[:i+1]
	}
	return sql
}

// errNoDump is returned when a base has no schema.
var errNoDump = errors.New("the base holds no schema")

// leaveOut removes what is txreel's own: its publications by their OIDs, its event
// triggers, its schema, and all that needs one of those. It returns the names of what went
// besides.
func (s *script) leaveOut(publications []uint32) (also []string) {
	gone := make(map[int]bool)
	keep := func(list []*entry) []*entry {
		return slices.DeleteFunc(list, func(e *entry) bool {
			ours := e.class == catalogPublication && slices.Contains(publications, e.oid) ||
				e.kind == "EVENT TRIGGER" && strings.HasPrefix(e.name, ourSchema) ||
				e.kind == "SCHEMA" && e.name == ourSchema || e.schema == ourSchema
			needs := slices.ContainsFunc(e.deps, func(d int) bool { return gone[d] })
			if needs && !ours && !strings.HasPrefix(e.kind, "PUBLICATION") && e.kind != "COMMENT" && e.kind != "ACL" {
				also = append(also, strings.ToLower(e.kind)+" "+e.name)
			}
			gone[e.id] = ours || needs
			return gone[e.id]
		})
	}
	s.pre = keep(s.pre)
	s.post = keep(s.post)
	return also
}
