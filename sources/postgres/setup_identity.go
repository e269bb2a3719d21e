package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"txreel/sources"
)

// boundLocks bounds the wait for a table's exclusive lock, during which every other session queues behind us.
func boundLocks() sources.Statement {
	return sources.Statement{SQL: "SET lock_timeout = '2s'",
		Why: "ALTER TABLE needs each table to itself for a moment. Rather than make the application queue behind it, give up and try again."}
}

// planIdentities gives every table that will be published an identity, without which its UPDATEs and DELETEs would
// fail from the moment it is, and first records what was there, so that Remove can put it back.
func (s Setup) planIdentities(ctx context.Context, conn *pgx.Conn, tables []tableName) ([]sources.Statement, error) {
	keyless, err := keylessTables(ctx, conn, oids(tables))
	if err != nil || len(keyless) == 0 {
		return nil, err
	}
	for _, k := range keyless {
		if k.virtual != "" {
			return nil, fmt.Errorf("table %s: once it is published, nobody can update it or delete from it: %s", k.quoted(), k.unpublishable())
		}
	}
	record, err := readUndo(ctx, conn, s.undoName())
	if err != nil {
		return nil, err
	}
	var plan []sources.Statement
	if record == nil {
		plan = append(plan, sources.Statement{SQL: "CREATE PUBLICATION " + quoteIdent(s.undoName()) + " WITH (publish = '')",
			Why: "A publication of nothing, whose comment remembers the identities changed below, so that setup --remove can put them back."})
		record = &undo{}
	}
	for _, k := range keyless {
		record.add(k)
	}
	plan = append(plan, sources.Statement{SQL: "COMMENT ON PUBLICATION " + quoteIdent(s.undoName()) + " IS " + quoteLiteral(record.encode()),
		Why: "Written before any table is changed."}, boundLocks())
	for _, k := range keyless {
		plan = append(plan, sources.Statement{SQL: "ALTER TABLE " + k.quoted() + " REPLICA IDENTITY FULL", Why: k.why()})
	}
	return plan, nil
}

// unpublishable says why no identity that setup could choose lets a table with a virtual column be published, and what does.
func (k keylessTable) unpublishable() string {
	cure := "give it a primary key (ALTER TABLE … ADD PRIMARY KEY)"
	if k.uniqueIndex != "" {
		cure = "let its unique index identify rows (ALTER TABLE " + k.quoted() + " REPLICA IDENTITY USING INDEX " + quoteIdent(k.uniqueIndex) + ")"
	}
	return "without a key its identity is the whole row, which cannot have the virtual generated column " + quoteIdent(k.virtual) + ": " + cure +
		", or make the column a stored one"
}

// untold says what is wrong with an identity that the stream has only a part of.
func (k keylessTable) untold() string {
	return "is identified by index " + quoteIdent(k.index) + " with the generated column " + quoteIdent(k.generated) + ", which no publication has before version 18"
}

// why explains the fix, and the cheaper one where a unique index offers itself.
func (k keylessTable) why() string {
	reason := map[byte]string{
		'd': "has no primary key that can identify a row",
		'n': "has REPLICA IDENTITY NOTHING",
		'i': "has lost the index that was its replica identity",
	}[k.identity]
	why := "Table " + k.quoted() + " " + reason + ": once it is published, UPDATE and DELETE on it would fail. FULL logs the whole old row."
	if k.generated != "" {
		why = "Table " + k.quoted() + " " + k.untold() + ": the record would not say which row was updated or deleted. FULL logs the whole old row."
	}
	if k.uniqueIndex != "" {
		why += " Its unique index would do with less WAL, as long as nobody drops it: ALTER TABLE " + k.quoted() +
			" REPLICA IDENTITY USING INDEX " + quoteIdent(k.uniqueIndex) + "."
	}
	return why
}

// undo is the record of identities that setup changed. It lives in the comment of a publication of its own, which
// publishes nothing, because it must exist before the first table is changed and outlive the real publication, which
// must not exist before the last one is changed back.
type undo struct{ entries []undoEntry }

type undoEntry struct {
	schema, name string
	was          byte   // pg_class.relreplident: d, n, i
	index        string // i: the index, unless it had been dropped
}

// undoHeader is the first line of the comment; a table a line follows, and its index where it has one. Names are quoted as Go does, in ASCII, which
// keeps any byte the server's encoding may use.
const undoHeader = "txreel setup 1: replica identities before setup (d default, n nothing, i index)"

func (s Setup) undoName() string { return s.Publication + undoSuffix }

func (u *undo) add(k keylessTable) {
	now := undoEntry{schema: k.schema, name: k.name, was: k.identity}
	if k.identity == 'i' {
		now.index = k.index
	}
	for i, e := range u.entries {
		if e.schema == k.schema && e.name == k.name {
			u.entries[i] = now // changed back by somebody since
			return
		}
	}
	u.entries = append(u.entries, now)
}

func (u *undo) encode() string {
	var b strings.Builder
	b.WriteString(undoHeader)
	for _, e := range u.entries {
		fmt.Fprintf(&b, "\n%c %s %s", e.was, strconv.QuoteToASCII(e.schema), strconv.QuoteToASCII(e.name))
		if e.index != "" {
			b.WriteString(" " + strconv.QuoteToASCII(e.index))
		}
	}
	return b.String()
}

var errUndo = errors.New("its comment is not one setup wrote")

func decodeUndo(comment string) (*undo, error) {
	u := &undo{}
	if comment == "" { // made, and not yet written to
		return u, nil
	}
	lines := strings.Split(comment, "\n")
	if lines[0] != undoHeader {
		return nil, errUndo
	}
	for _, line := range lines[1:] {
		if len(line) < 2 || !strings.Contains("dni", line[:1]) || line[1] != ' ' {
			return nil, errUndo
		}
		schema, rest, err := unquotePrefix(line[2:])
		if err != nil {
			return nil, errUndo
		}
		name, rest, err := unquotePrefix(strings.TrimPrefix(rest, " "))
		if err != nil {
			return nil, errUndo
		}
		e := undoEntry{schema: schema, name: name, was: line[0]}
		if rest != "" && e.was == 'i' {
			e.index, rest, err = unquotePrefix(strings.TrimPrefix(rest, " "))
		}
		if err != nil || rest != "" {
			return nil, errUndo
		}
		u.entries = append(u.entries, e)
	}
	return u, nil
}

func unquotePrefix(s string) (value, rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", err
	}
	value, err = strconv.Unquote(q)
	return value, s[len(q):], err
}

// readUndo returns nil when there is no record.
func readUndo(ctx context.Context, conn *pgx.Conn, name string) (*undo, error) {
	var comment string
	err := conn.QueryRow(ctx, `SELECT COALESCE(obj_description(oid, 'pg_publication'), '') FROM pg_publication WHERE pubname = $1::text`,
		name).Scan(&comment)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", name, err)
	}
	u, err := decodeUndo(comment)
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w: drop it if it is yours", name, err)
	}
	return u, nil
}
