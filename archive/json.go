package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// maxJSON bounds the JSON objects of the layout. Base manifests are the largest.
const maxJSON = 256 << 20

// The last member of each JSON object is the SHA-256 of its key, a newline, and all
// bytes before the member, in exactly this notation: a flipped digit in a manifest, or
// an object in the place of another, would otherwise go unseen.
const (
	sumBefore = ",\n  \"sha256\": \""
	sumAfter  = "\"\n}\n"
	sumSize   = len(sumBefore) + 2*sha256.Size + len(sumAfter)
)

func encodeJSON(key string, v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSuffix(b, []byte("\n}"))
	return append(b, sumMember(key, b)...), nil
}

func sumMember(key string, b []byte) string {
	h := sha256.New()
	_, _ = io.WriteString(h, key+"\n")
	_, _ = h.Write(b)
	return sumBefore + hex.EncodeToString(h.Sum(nil)) + sumAfter
}

func decodeJSON(key string, b []byte, v any) error {
	n := len(b) - sumSize
	if n < 0 || string(b[n:]) != sumMember(key, b[:n]) {
		return fmt.Errorf("%w: %s: its SHA-256 is not the one it ends with", ErrCorrupt, key)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return nil
}

func readJSON(ctx context.Context, store Store, key string, v any) error {
	b, err := readAll(ctx, store, key, maxJSON)
	if err != nil {
		return err
	}
	return decodeJSON(key, b, v)
}

// readAll reads an object of at most limit bytes.
func readAll(ctx context.Context, store Store, key string, limit int64) ([]byte, error) {
	body, size, err := store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	if size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrCorrupt, key, size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(body, size+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

func createJSON(ctx context.Context, store Store, key string, v any) error {
	b, err := encodeJSON(key, v)
	if err != nil {
		return err
	}
	if err := store.Create(ctx, key, bytes.NewReader(b), int64(len(b))); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

// createOwn is createJSON for content that nobody else can have made: when the key
// is taken by the same bytes, it was this call that took it and its answer was lost.
func createOwn(ctx context.Context, store Store, key string, v any) error {
	err := createJSON(ctx, store, key, v)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	want, encodeErr := encodeJSON(key, v)
	got, readErr := readAll(ctx, store, key, maxJSON)
	if readErr != nil {
		return readErr
	}
	if encodeErr == nil && bytes.Equal(got, want) {
		return nil
	}
	return err
}

// sameObject reports whether the object at key has the size bytes of body: a create
// that took effect although its answer was lost finds its own bytes.
func sameObject(ctx context.Context, store Store, key string, body io.ReaderAt, size int64) (bool, error) {
	there, n, err := store.Open(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer there.Close()
	if n != size {
		return false, nil
	}
	return sameBytes(there, body, size)
}

// sameBytes reports whether there has the size bytes of body, and nothing behind them.
func sameBytes(there io.Reader, body io.ReaderAt, size int64) (bool, error) {
	theirs, ours := sha256.New(), sha256.New()
	if _, err := io.Copy(theirs, there); err != nil {
		return false, err
	}
	if _, err := io.Copy(ours, io.NewSectionReader(body, 0, size)); err != nil {
		return false, err
	}
	return bytes.Equal(theirs.Sum(nil), ours.Sum(nil)), nil
}
