package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"txreel/archive"
	"txreel/change"
	mysqltarget "txreel/restore/mysql"
)

type binlogCmd struct {
	archiveFlag
	Dir      string   `arg:"" help:"The folder to write the files into; it is made when it is missing."`
	Epoch    uint64   `placeholder:"N" help:"The epoch (default: the last one)."`
	From     string   `env:"TXREEL_FROM_SEQ" placeholder:"SEQ" help:"First transaction (default: the epoch's first)."`
	To       string   `env:"TXREEL_UNTIL_SEQ" placeholder:"SEQ" help:"Last transaction (default: the epoch's last)."`
	Base     string   `default:"binlog" help:"What the names of the files begin with."`
	MaxSize  byteSize `default:"1GiB" help:"Begin another file at this size."`
	SpillDir string   `placeholder:"DIR" help:"Where huge segments wait to be read (default: the system's temporary folder)."`
	JSON     bool     `help:"Print JSON."`
}

// Run implements the command.
func (c *binlogCmd) Run(a *app) error {
	r, err := (&rangeFlags{From: c.From, To: c.To}).parse()
	if err != nil {
		return err
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	if ar.Identity.Engine == enginePostgres {
		return &usageError{"the archive records PostgreSQL, which has no binlog: see `txreel audit export`"}
	}
	epoch, tail, err := c.epoch(a, ar)
	if err != nil {
		return err
	}
	pruned, err := ar.Pruned(a.ctx, epoch)
	if err != nil {
		return err
	}
	from, to := r.from, r.to
	if from == 0 {
		from = pruned.From()
	}
	if to == 0 {
		to = tail.Seq
	}
	if pruned != nil && from < pruned.From() {
		return &archive.PrunedError{Pruned: *pruned, Asked: fmt.Sprintf("transaction %s of epoch %d", from, epoch)}
	}
	if from > to || to > tail.Seq {
		return &usageError{fmt.Sprintf("epoch %d holds the transactions %s to %s, not %s to %s", epoch, pruned.From(), tail.Seq, from, to)}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil { // the files hold all that the database does
		return fmt.Errorf("write binlog files: %w", err)
	}
	bars := newBars(a.stderr, c.JSON)
	files, err := mysqltarget.WriteBinlog(a.ctx, ar, epoch, from, to, c.Dir, mysqltarget.BinlogOptions{
		Base: c.Base, MaxSize: int64(c.MaxSize), SpillDir: c.SpillDir,
		Progress: func(done change.Seq) {
			if done%256 == 0 || done == to {
				bars.set("binlog", int64(done-from+1), int64(to-from+1), humanize.Comma(int64(done-from+1))+" transactions")
			}
		},
	})
	bars.close()
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.stdout, files)
	}
	for _, f := range files {
		if _, err := fmt.Fprintf(a.stdout, "%s  %s  %s to %s\n", filepath.Join(c.Dir, f.Name), humanize.IBytes(uint64(f.Size)), f.First, f.Last); err != nil {
			return err
		}
	}
	return nil
}

// epoch returns the epoch asked for and where it ends.
func (c *binlogCmd) epoch(a *app, ar *archive.Archive) (uint64, archive.Tail, error) {
	epochs, err := ar.Epochs(a.ctx)
	if err != nil {
		return 0, archive.Tail{}, err
	}
	number := c.Epoch
	if number == 0 {
		number = uint64(len(epochs))
	}
	if number == 0 || number > uint64(len(epochs)) {
		return 0, archive.Tail{}, &usageError{fmt.Sprintf("the archive has %d epochs", len(epochs))}
	}
	tail, err := ar.Tail(a.ctx, number)
	if err == nil && tail.Seq == 0 {
		err = &usageError{fmt.Sprintf("epoch %d holds nothing yet", number)}
	}
	return number, tail, err
}
