package main

import (
	"bufio"
	"fmt"
	"time"

	"txreel/audit"
	"txreel/change"
)

type logCmd struct {
	archiveFlag
	rangeFlags
	XID        string `placeholder:"ID" help:"Only the transaction with the source's own id."`
	MinRows    uint64 `placeholder:"N" help:"Only transactions that changed at least so many rows; with --op and --table, of those."`
	Limit      int    `short:"n" default:"0" placeholder:"N" help:"Stop after so many transactions."`
	Reverse    bool   `help:"Oldest first."`
	Heartbeats bool   `help:"Show heartbeats and fences too."`
	Oneline    bool   `help:"One line for each transaction, without its tables."`
	JSON       bool   `help:"Print a line of JSON for each transaction."`
}

// rangeFlags choose transactions and changes; log and export share them.
type rangeFlags struct {
	Epoch  uint64   `placeholder:"N" help:"The epoch (default: all for log, the last one for export)."`
	From   string   `env:"TXREEL_FROM_SEQ" placeholder:"SEQ" help:"First transaction."`
	To     string   `env:"TXREEL_UNTIL_SEQ" placeholder:"SEQ" help:"Last transaction."`
	Since  string   `placeholder:"TIME" help:"Committed at or after, such as 2026-01-31T17:00:00Z or \"2 hours ago\"."`
	Until  string   `placeholder:"TIME" help:"Committed at or before."`
	Tables []string `name:"table" placeholder:"PATTERN" help:"Only what changed this table: schema.table or table, * stands for anything (repeatable)."`
	Ops    []string `name:"op" enum:"insert,update,delete,truncate,message,statement" placeholder:"OP" help:"Only insert, update, delete or truncate; in an export also message or statement (repeatable)."`
}

// parsed is rangeFlags after parsing.
type parsedRange struct {
	from, to     change.Seq
	since, until change.Time
	ops          []change.Op
}

func (f *rangeFlags) parse() (r parsedRange, err error) {
	seq := func(text string, into *change.Seq) {
		if text != "" && err == nil {
			if *into, err = change.ParseSeq(text); err != nil {
				err = &usageError{err.Error()}
			}
		}
	}
	moment := func(text string, into *change.Time) {
		if text != "" && err == nil {
			*into, err = parseTime(text, time.Now())
		}
	}
	seq(f.From, &r.from)
	seq(f.To, &r.to)
	moment(f.Since, &r.since)
	moment(f.Until, &r.until)
	for _, name := range f.Ops {
		for _, op := range []change.Op{change.OpInsert, change.OpUpdate, change.OpDelete, change.OpTruncate, change.OpMessage, change.OpStatement} {
			if op.String() == name {
				r.ops = append(r.ops, op)
			}
		}
	}
	return r, err
}

// Run implements the command.
func (c *logCmd) Run(a *app) error {
	r, err := c.parse()
	if err != nil {
		return err
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	out := bufio.NewWriter(a.stdout)
	show := audit.Text(out, audit.TextOptions{OneLine: c.Oneline})
	if c.JSON {
		show = audit.JSONLines(out)
	}
	found := false
	err = audit.Log(a.ctx, ar, audit.Query{
		Epoch: c.Epoch, From: r.from, To: r.to, Since: r.since, Until: r.until, Tables: c.Tables, Ops: r.ops,
		XID: c.XID, MinRows: c.MinRows, Limit: c.Limit, Reverse: c.Reverse, Heartbeats: c.Heartbeats,
	}, func(e *audit.Entry) error {
		found = true
		return show(e)
	})
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if err == nil && !found && !c.JSON {
		fmt.Fprintln(a.stderr, "no transaction matches")
	}
	return err
}
