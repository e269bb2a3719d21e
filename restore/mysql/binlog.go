package mysql

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"txreel/archive"
	"txreel/change"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// BinlogOptions are how WriteBinlog writes. The zero value writes what a server would.
type BinlogOptions struct {
	Base     string // what the files' names begin with; "" means "binlog"
	MaxSize  int64  // at which another file begins, between transactions; zero means 1 GiB
	SpillDir string // where huge segments wait to be read; "" means the system's temporary folder
	// Progress, if set, is called after each transaction with its Seq.
	Progress func(done change.Seq)
}

// BinlogFile is a file that WriteBinlog has written.
type BinlogFile struct {
	Name  string     `json:"name"`
	Size  int64      `json:"size"`
	First change.Seq `json:"first"` // the transactions it holds
	Last  change.Seq `json:"last"`
	// Held is the set of GTIDs that the log had seen before the file, as the file says itself.
	Held string `json:"held_before"`
}

// WriteBinlog writes the transactions from from to to of an epoch into dir, as binlog files that the
// vendor's own programs read: each begins with the format and the GTIDs before it, holds
// transactions as the source wrote them, and all but the last end by naming the next. A new
// file begins where the source began one. An index file lists them. Files are durable when it returns, never overwritten, and
// removed when it fails.
func WriteBinlog(ctx context.Context, a *archive.Archive, epoch uint64, from, to change.Seq, dir string, opts BinlogOptions) (files []BinlogFile, err error) {
	if opts.Base == "" {
		opts.Base = "binlog"
	}
	if strings.ContainsAny(opts.Base, "./\\\x00\n") {
		return nil, fmt.Errorf("the files cannot be called %q: a name without dots and slashes is needed", opts.Base)
	}
	if opts.MaxSize <= 0 {
		opts.MaxSize = 1 << 30
	}
	flavor, err := archiveFlavor(a)
	if err != nil {
		return nil, err
	}
	if from, err = checkRange(ctx, a, epoch, from, to); err != nil {
		return nil, err
	}
	w := &binlogWriter{dir: dir, opts: opts, flavor: flavor}
	if w.held, err = heldBefore(ctx, a, flavor, epoch, from); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.discard()
		}
	}()
	stream := a.Stream(ctx, epoch, from, to, opts.SpillDir)
	defer stream.Close()
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.record(&rec)
		}
		if err != nil {
			return nil, err
		}
	}
	return w.finish()
}

func archiveFlavor(a *archive.Archive) (gtid.Flavor, error) {
	switch a.Identity.Engine {
	case "mysql":
		return gtid.MySQL, nil
	case "mariadb":
		return gtid.MariaDB, nil
	}
	return 0, fmt.Errorf("the archive records a %s database, which has no binlog", a.Identity.Engine)
}

// checkRange refuses what the epoch does not hold.
func checkRange(ctx context.Context, a *archive.Archive, epoch uint64, from, to change.Seq) (change.Seq, error) {
	from = max(from, 1)
	tail, err := a.Tail(ctx, epoch)
	if err != nil {
		return 0, err
	}
	if from > to || to > tail.Seq {
		return 0, fmt.Errorf("epoch %d holds the transactions %s to %s, not %s to %s", epoch, change.Seq(1), tail.Seq, from, to)
	}
	return from, nil
}

// heldBefore returns the set of GTIDs that the source's log had seen before a transaction.
func heldBefore(ctx context.Context, a *archive.Archive, flavor gtid.Flavor, epoch uint64, seq change.Seq) (*gtid.Set, error) {
	x, err := segmentOf(ctx, a, epoch, seq)
	if err != nil {
		return nil, err
	}
	pruned, err := a.Pruned(ctx, epoch)
	if err != nil {
		return nil, err
	}
	var held *gtid.Set
	switch {
	case x.First() > 1 && pruned != nil && pruned.Tail.Seq == x.First()-1:
		if held, err = gtid.Parse(flavor, string(pruned.Tail.Position)); err != nil {
			return nil, fmt.Errorf("%w: what is on record of pruning epoch %d: %w", archive.ErrCorrupt, epoch, err)
		}
	case x.First() > 1:
		before, err := segmentOf(ctx, a, epoch, x.First()-1)
		if err != nil {
			return nil, err
		}
		held, err = gtid.Parse(flavor, string(before.End))
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, before.Key, err)
		}
	case x.Txns[0].Kind == change.TxnHeartbeat: // capture begins an epoch with one
		if held, err = gtid.Parse(flavor, string(x.Txns[0].Position)); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, x.Key, err)
		}
	default:
		if held, err = heldAtFirst(ctx, a, flavor, epoch, x); err != nil {
			return nil, err
		}
	}
	for i := range x.Txns {
		t := &x.Txns[i].Txn
		if t.Seq >= seq {
			break
		}
		if t.Kind != change.TxnSource {
			continue
		}
		g, err := gtid.ParseGTID(t.XID)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: transaction %s: %w", archive.ErrCorrupt, x.Key, t.Seq, err)
		}
		held.Add(g)
	}
	return held, nil
}

// heldAtFirst returns what was held before an epoch that begins with a transaction: what its base says, or
// else what the segment's account leaves.
func heldAtFirst(ctx context.Context, a *archive.Archive, flavor gtid.Flavor, epoch uint64, x *archive.SegmentIndex) (*gtid.Set, error) {
	bases, err := a.Bases(ctx, epoch)
	if err != nil {
		return nil, err
	}
	for i := range bases {
		if bases[i].Seq == 0 {
			return gtid.Parse(flavor, string(bases[i].Position))
		}
	}
	end, err := gtid.Parse(flavor, string(x.End))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, x.Key, err)
	}
	own := gtid.New(flavor)
	for i := range x.Txns {
		if g, err := gtid.ParseGTID(x.Txns[i].XID); err == nil {
			own.Add(g)
		}
	}
	return end.Minus(own), nil
}

// segmentOf returns the index of the segment that holds a transaction.
func segmentOf(ctx context.Context, a *archive.Archive, epoch uint64, seq change.Seq) (*archive.SegmentIndex, error) {
	for x, err := range a.Segments(ctx, epoch, seq) {
		if err != nil {
			return nil, err
		}
		return &x, nil
	}
	return nil, fmt.Errorf("%w: epoch %d has lost transaction %s", archive.ErrCorrupt, epoch, seq)
}

// binlogWriter writes files. It is not for concurrent use.
type binlogWriter struct {
	dir    string
	opts   BinlogOptions
	flavor gtid.Flavor
	held   *gtid.Set // before the transaction being written

	defined []byte // the FORMAT_DESCRIPTION event of what follows
	format  *binlog.Format
	header  binlog.Header   // of that event
	fresh   bool            // no file of it was begun
	clock   int64           // MySQL: the last sequence number in the file
	sum     binlog.Checksum // of the events in the file

	files []BinlogFile
	file  *os.File // nil between files
	out   *bufio.Writer
	size  int64
	paths []string // of everything created
	buf   []byte

	seq   change.Seq
	begun bool     // the open transaction's GTID event was written
	front [][]byte // what stands before it
	left  int64    // of an event that comes in pieces
}

// record takes the next record.
func (w *binlogWriter) record(rec *segment.Record) error {
	switch rec.Kind {
	case segment.Definition:
		return w.define(rec.Raw)
	case segment.Begin:
		w.seq, w.begun, w.front, w.left = rec.Seq, false, w.front[:0], 0
		return nil
	case segment.Message:
		if err := w.message(rec.Raw); err != nil {
			return fmt.Errorf("transaction %s: %w", w.seq, err)
		}
		return nil
	}
	if w.left > 0 {
		return fmt.Errorf("transaction %s: %w", w.seq, errPieces)
	}
	if w.begun {
		g, err := gtid.ParseGTID(rec.XID)
		if err != nil {
			return fmt.Errorf("transaction %s: %w", w.seq, err)
		}
		w.held.Add(g)
		w.files[len(w.files)-1].Last = w.seq
	}
	if w.opts.Progress != nil {
		w.opts.Progress(w.seq)
	}
	return nil
}

func (w *binlogWriter) define(raw []byte) error {
	if bytes.Equal(raw, w.defined) {
		return nil
	}
	e, err := binlog.Parse(raw, binlog.ChecksumCRC32)
	if err != nil || e.Type != binlog.TypeFormatDescription {
		return err
	}
	if w.format, err = binlog.ParseFormat(&e); err != nil {
		return fmt.Errorf("definition in the record: %w", err)
	}
	w.defined, w.header, w.fresh = bytes.Clone(raw), e.Header, true
	return nil
}

// message takes the next event of the open transaction, or a piece of one.
func (w *binlogWriter) message(raw []byte) error {
	if w.left > 0 {
		if int64(len(raw)) > w.left {
			return errPieces
		}
		w.left -= int64(len(raw))
		return w.write(raw)
	}
	h, err := binlog.ParseHeader(raw)
	if err != nil {
		return err
	}
	if int64(len(raw)) > int64(h.Size) {
		return fmt.Errorf("%w: a %s event of %d bytes claims %d", binlog.ErrMalformed, h.Type, len(raw), h.Size)
	}
	switch {
	case w.begun:
	case !h.Type.Begins():
		if len(w.front) == maxFront || int(h.Size) != len(raw) {
			return fmt.Errorf("too much stands before its GTID event")
		}
		w.front = append(w.front, bytes.Clone(raw))
		return nil
	default:
		if err := w.begin(raw); err != nil {
			return err
		}
	}
	w.left = int64(h.Size) - int64(len(raw))
	return w.write(raw)
}

// begin opens another file if the transaction that the event opens needs one.
func (w *binlogWriter) begin(raw []byte) error {
	if w.format == nil {
		return errors.New("no FORMAT_DESCRIPTION event stands before it")
	}
	e, err := w.format.Parse(raw)
	if err != nil {
		return err
	}
	group, err := binlog.ParseGroup(&e)
	if err != nil {
		return err
	}
	again := group.SequenceNumber != 0 && group.SequenceNumber <= w.clock // the source began a file
	if w.file == nil || w.fresh || again || w.size >= w.opts.MaxSize {
		if err := w.open(); err != nil {
			return err
		}
	}
	w.clock, w.begun = group.SequenceNumber, true
	for _, f := range w.front {
		if err := w.write(f); err != nil {
			return err
		}
	}
	return nil
}

func (w *binlogWriter) name(n int) string { return fmt.Sprintf("%s.%06d", w.opts.Base, n) }

// open ends the current file, if there is one, and begins the next.
func (w *binlogWriter) open() error {
	n := len(w.files) + 1
	if w.file != nil {
		if err := w.rotate(w.name(n)); err != nil {
			return err
		}
	}
	file, err := w.create(w.name(n))
	if err != nil {
		return err
	}
	w.file, w.out, w.size = file, bufio.NewWriterSize(file, 1<<20), 0
	w.files = append(w.files, BinlogFile{Name: w.name(n), First: w.seq, Held: w.held.String()})
	if err := w.write([]byte(binlog.Magic)); err != nil {
		return err
	}
	e, err := w.format.Parse(w.defined)
	if err != nil {
		return err
	}
	w.buf = binlog.AppendMoved(w.buf[:0], &e, uint32(w.size)+e.Size)
	if err := w.write(w.buf); err != nil {
		return err
	}
	h := binlog.Header{Timestamp: w.header.Timestamp, ServerID: w.header.ServerID}
	if w.flavor == gtid.MySQL {
		h.Flags = binlog.FlagIgnorable
	}
	w.buf = binlog.AppendPrevious(w.buf[:0], h, w.held, w.format.Checksum)
	h.LogPos = uint32(w.size) + uint32(len(w.buf))
	w.buf = binlog.AppendPrevious(w.buf[:0], h, w.held, w.format.Checksum)
	w.fresh, w.clock, w.sum = false, 0, w.format.Checksum
	return w.write(w.buf)
}

// create makes a file that must not be there.
func (w *binlogWriter) create(name string) (*os.File, error) {
	path := filepath.Join(w.dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it holds data
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w: nothing is overwritten; name an empty folder", err)
	}
	if err != nil {
		return nil, fmt.Errorf("write binlog: %w", err)
	}
	w.paths = append(w.paths, path)
	return f, nil
}

// rotate ends the current file by naming the next one.
func (w *binlogWriter) rotate(next string) error {
	h := binlog.Header{Timestamp: w.header.Timestamp, ServerID: w.header.ServerID}
	r := binlog.Rotate{Position: uint64(len(binlog.Magic)), Name: []byte(next)}
	w.buf = binlog.AppendRotate(w.buf[:0], h, r, w.sum)
	h.LogPos = uint32(min(w.size+int64(len(w.buf)), math.MaxUint32))
	w.buf = binlog.AppendRotate(w.buf[:0], h, r, w.sum)
	if err := w.write(w.buf); err != nil {
		return err
	}
	return w.close()
}

func (w *binlogWriter) write(b []byte) error {
	w.size += int64(len(b))
	if _, err := w.out.Write(b); err != nil {
		return fmt.Errorf("write binlog: %w", err)
	}
	return nil
}

// close makes the current file durable.
func (w *binlogWriter) close() error {
	err := w.out.Flush()
	if err == nil {
		err = w.file.Sync()
	}
	err = errors.Join(err, w.file.Close())
	w.file = nil
	w.files[len(w.files)-1].Size = w.size
	if err != nil {
		return fmt.Errorf("write binlog: %w", err)
	}
	return nil
}

// finish ends the last file, writes the index and makes the folder durable.
func (w *binlogWriter) finish() ([]BinlogFile, error) {
	if w.file == nil {
		return nil, nil // heartbeats only
	}
	if err := w.close(); err != nil {
		return nil, err
	}
	index, err := w.create(w.opts.Base + ".index")
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, f := range w.files {
		list.WriteString("./" + f.Name + "\n")
	}
	_, err = index.WriteString(list.String())
	err = errors.Join(err, index.Sync(), index.Close())
	if err == nil {
		var d *os.File
		if d, err = os.Open(w.dir); err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write binlog: %w", err)
	}
	return w.files, nil
}

// discard removes what was created: a part of a log looks like all of it.
func (w *binlogWriter) discard() {
	if w.file != nil {
		_ = w.file.Close() // it goes
	}
	for _, path := range w.paths {
		_ = os.Remove(path) // nothing more can be done
	}
}
