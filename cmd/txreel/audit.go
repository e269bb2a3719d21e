package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
	"txreel/sources/postgres/ddl"
)

type auditCmd struct {
	Export exportCmd `cmd:"" help:"Write every change as a line of JSON, with a trailer that proves the range is whole."`
}

type exportCmd struct {
	archiveFlag
	rangeFlags
	Format   string `enum:"jsonl" default:"jsonl" help:"jsonl."`
	Output   string `short:"o" placeholder:"FILE" help:"The file to write, which must not exist (default: standard output)."`
	Types    bool   `help:"Write the types of the columns with every row."`
	Empty    bool   `help:"Write a line for transactions without changes, too."`
	AllowGap bool   `help:"Export an epoch that ends in a gap although the range reaches over its end."`
	SpillDir string `placeholder:"DIR" help:"Where huge segments wait to be read (default: the system's temporary folder)."`
}

// Run implements the command.
func (c *exportCmd) Run(a *app) (err error) {
	r, err := c.parse()
	if err != nil {
		return err
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	decoder, err := newDecoder(a.ctx, ar, c.Epoch, r)
	if err != nil {
		return err
	}
	out := a.stdout
	if c.Output != "" {
		file, finish, err2 := createFile(c.Output)
		if err2 != nil {
			return err2
		}
		defer func() { err = finish(err) }()
		out = file
	}
	// A picture of progress on the terminal that the export itself goes to would spoil both.
	bars := newBars(a.stderr, isTerminal(out))
	defer bars.close()
	var first change.Seq
	s, err := audit.Export(a.ctx, ar, decoder, audit.ExportOptions{
		Epoch: c.Epoch, From: r.from, To: r.to, Since: r.since, Until: r.until, AllowGap: c.AllowGap,
		Tables: c.Tables, Ops: r.ops, Types: c.Types, Empty: c.Empty, SpillDir: c.SpillDir,
		Progress: func(done, last change.Seq) {
			if first == 0 {
				first = done
			}
			if done%256 == 0 || done == last {
				bars.set("export", int64(done-first+1), int64(last-first+1), humanize.Comma(int64(done-first+1))+" transactions")
			}
		},
	}, out)
	if err != nil {
		return err
	}
	if c.Output != "" {
		bars.close()
		fmt.Fprintf(a.stderr, "%s changes of %s transactions written to %s\n", humanize.Comma(int64(s.Changes)), humanize.Comma(int64(s.Transactions)), c.Output)
	}
	return nil
}

// newDecoder returns what decodes the messages of a range of an epoch; zero is the
// archive's only one.
func newDecoder(ctx context.Context, ar *archive.Archive, epoch uint64, r parsedRange) (audit.Decoder, error) {
	switch ar.Identity.Engine {
	case enginePostgres:
		return &ddl.Decoder{}, nil
	case engineMySQL, engineMariaDB:
		if epoch == 0 {
			epoch = 1 // more than one, and Export asks which
		}
		pruned, err := ar.Pruned(ctx, epoch)
		if err != nil {
			return nil, err
		}
		from := max(r.from, pruned.From())
		if r.since > 0 {
			first, ok, err := ar.FirstAfter(ctx, epoch, r.since-1)
			if err != nil {
				return nil, err
			}
			if ok {
				from = max(from, first.Seq)
			}
		}
		return newMySQLDecoder(ctx, ar, epoch, from)
	}
	return nil, fmt.Errorf("the archive records %s, which this build cannot decode", ar.Identity.Engine)
}

// createFile makes a file that must not exist. finish makes it durable, or removes
// it when what it holds is not whole.
func createFile(path string) (w io.Writer, finish func(error) error, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("write the export: %w", err)
	}
	return f, func(cause error) error {
		if cause == nil {
			cause = f.Sync()
		}
		if err := f.Close(); cause == nil {
			cause = err
		}
		if cause != nil {
			_ = os.Remove(path)
			return cause
		}
		return syncDir(filepath.Dir(path))
	}, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
