package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"txreel/archive"
	"txreel/restore"
)

// chunk is a part of a table's data.
type chunk struct {
	table *table
	*archive.BaseObject
}

// Load implements restore.Target.
func (t *Target) Load(ctx context.Context) error {
	if !t.resumed {
		if err := t.createSchema(ctx); err != nil {
			return err
		}
	}
	done, err := t.doneNames(ctx, "SELECT name FROM txreel_restore.chunks")
	if err != nil {
		return err
	}
	var chunks []chunk
	var total, finished int64
	for i := range t.tables {
		for k := range t.tables[i].Chunks {
			c := chunk{table: &t.tables[i], BaseObject: &t.tables[i].Chunks[k]}
			total += c.Rows
			if done[c.Name] {
				finished += c.Rows
			} else {
				chunks = append(chunks, c)
			}
		}
	}
	// The largest first, so that no session is left alone with one at the end.
	slices.SortStableFunc(chunks, func(a, b chunk) int { return cmp.Compare(b.Size, a.Size) })
	var rows atomic.Int64
	rows.Store(finished)
	err = t.parallel(ctx, len(chunks), func(ctx context.Context, conn *pgx.Conn, i int) error {
		if err := t.loadChunk(ctx, conn, chunks[i]); err != nil {
			return err
		}
		t.job.Progress(restore.PhaseBase, rows.Add(chunks[i].Rows), total, "rows")
		return nil
	})
	if err != nil {
		return err
	}
	return t.checkLoaded(ctx)
}

// loadChunk copies one chunk, and notes it in the same transaction.
func (t *Target) loadChunk(ctx context.Context, conn *pgx.Conn, c chunk) error {
	key := t.job.Plan.Base.Key(c.Name)
	return inTx(ctx, conn, func() error {
		// The note comes first: should a killed restore's session still be loading the
		// chunk, this waits for it and then fails.
		if _, err := conn.Exec(ctx, "INSERT INTO txreel_restore.chunks VALUES ($1, $2)", c.Name, c.Rows); err != nil {
			return fmt.Errorf("note chunk %s: %w", key, err)
		}
		body, size, err := t.job.Archive.Store.Open(ctx, key, 0, -1)
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		defer body.Close()
		if size != c.Size {
			return fmt.Errorf("%w: %s has %d bytes, the manifest says %d", archive.ErrCorrupt, key, size, c.Size)
		}
		r, err := newChunkReader(body, key, c.SHA256)
		if err != nil {
			return err
		}
		defer r.zstd.Close()
		tag, err := conn.PgConn().CopyFrom(ctx, r, copySQL(c.table))
		switch {
		case r.err != nil:
			return r.err // what the server says of it is only "COPY failed"
		case err != nil:
			return fmt.Errorf("load %s into %s: %w", key, c.table.name(), err)
		case tag.RowsAffected() != c.Rows:
			return fmt.Errorf("%w: %s holds %d rows, the manifest says %d", archive.ErrCorrupt, key, tag.RowsAffected(), c.Rows)
		}
		return nil
	})
}

func copySQL(t *table) string {
	if len(t.Columns) == 0 { // the grammar has no empty list
		return "COPY " + t.quoted() + " FROM STDIN"
	}
	var names []string
	for _, c := range t.Columns {
		names = append(names, quote(c.Name))
	}
	return "COPY " + t.quoted() + " (" + strings.Join(names, ", ") + ") FROM STDIN"
}

// chunkReader delivers a chunk's text and, before it lets the end be seen, checks
// that the stored bytes are those of the manifest: a COPY of anything else fails.
type chunkReader struct {
	key  string
	want string
	sum  hash.Hash
	in   *tee // the stored bytes, through sum
	zstd *zstd.Decoder
	err  error // not io.EOF
}

func newChunkReader(body io.Reader, key, want string) (*chunkReader, error) {
	r := &chunkReader{key: key, want: want, sum: sha256.New()}
	r.in = &tee{in: body, sum: r.sum}
	var err error
	r.zstd, err = zstd.NewReader(r.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(256<<20))
	return r, err
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.zstd.Read(p)
	switch {
	case err == io.EOF:
		if _, err := io.Copy(io.Discard, r.in); err != nil {
			r.err = fmt.Errorf("read %s: %w", r.key, err)
		} else if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want {
			r.err = fmt.Errorf("%w: %s has SHA-256 %s, the manifest says %s: restore from another base", archive.ErrCorrupt, r.key, got, r.want)
		} else {
			return n, io.EOF
		}
		return n, r.err
	case r.in.err != nil: // not the chunk's fault
		r.err = fmt.Errorf("read %s: %w", r.key, r.in.err)
		return n, r.err
	case err != nil:
		r.err = fmt.Errorf("%w: %s: %w", archive.ErrCorrupt, r.key, err)
		return n, r.err
	}
	return n, nil
}

// tee hashes what is read through it and remembers an error of the store.
type tee struct {
	in  io.Reader
	sum hash.Hash
	err error // not io.EOF
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	_, _ = t.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// checkLoaded compares the rows noted with the manifest.
func (t *Target) checkLoaded(ctx context.Context) error {
	var got int64
	if err := t.control.QueryRow(ctx, "SELECT coalesce(sum(rows), 0)::int8 FROM txreel_restore.chunks").Scan(&got); err != nil {
		return fmt.Errorf("read the restore's progress: %w", err)
	}
	var want int64
	for i := range t.tables {
		var rows int64
		for _, c := range t.tables[i].Chunks {
			rows += c.Rows
		}
		if rows != t.tables[i].Rows {
			return fmt.Errorf("%w: base %s: the chunks of table %s hold %d rows, the table %d",
				archive.ErrCorrupt, t.job.Plan.Base.ID, t.tables[i].name(), rows, t.tables[i].Rows)
		}
		want += rows
	}
	if got != want {
		return fmt.Errorf("the target notes %d rows of the base, the manifest %d", got, want)
	}
	return nil
}
