// Package archive lays the record of one database out as objects in a Store and
// finds everything in it again: epochs, segments, base snapshots, marks. The
// layout is specified in docs/format.md. The archive is the only state txreel has
// (Invariant 2).
package archive

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"txreel/internal/failpoint"
)

// FormatVersion is the version of the layout this build writes, and the newest it
// reads.
const FormatVersion = 1

// Identity says which database an archive records. It is the content of
// archive.json and never changes.
type Identity struct {
	Format   int    `json:"format"`
	Archive  string `json:"archive"`  // 32 hexadecimal digits, random
	Engine   string `json:"engine"`   // postgres, mysql or mariadb
	System   string `json:"system"`   // the source's own identity: system identifier, server uuid
	Database string `json:"database"` // the database recorded; "" when it is the whole server
	Created  string `json:"created"`  // RFC 3339
}

// Archive is one archive in a Store. It holds no state besides its identity, and for a while what it read of packs, and
// may be used concurrently.
type Archive struct {
	Store    Store
	Identity Identity
	id       [16]byte
	packs    *packs
	fan      int // rollupFan, less in tests
	spill    int // spillLimit, less in tests
}

// Errors that callers tell apart.
var (
	// ErrNoArchive is returned by Open when the store holds no archive.json.
	ErrNoArchive = errors.New("no archive")
	// ErrOtherDatabase is returned by Init when the archive records another database.
	ErrOtherDatabase = errors.New("the archive records another database")
	// ErrOverwrites is returned by Init when the store does not honour create-once.
	ErrOverwrites = errors.New("the store overwrites objects")
	// ErrVersion is wrapped when an object was written by a newer layout version.
	ErrVersion = errors.New("archive version not supported")
	// ErrCorrupt is wrapped by errors about objects that are damaged, missing or
	// out of place. Damage inside a segment also wraps segment.ErrCorrupt.
	ErrCorrupt = errors.New("archive corrupt")
)

const identityKey = "archive.json"

// Open opens an existing archive.
func Open(ctx context.Context, store Store) (*Archive, error) {
	var id Identity
	err := readJSON(ctx, store, identityKey, &id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s: check the address, or start `txreel capture` to begin one", ErrNoArchive, store)
	}
	if err != nil {
		return nil, err
	}
	if id.Format != FormatVersion {
		return nil, fmt.Errorf("%w: %s has format %d, this build reads %d", ErrVersion, store, id.Format, FormatVersion)
	}
	a := &Archive{Store: store, Identity: id, packs: new(packs), fan: rollupFan, spill: spillLimit}
	if n, err := hex.Decode(a.id[:], []byte(id.Archive)); err != nil || n != len(a.id) {
		return nil, fmt.Errorf("%w: %s: archive id %q is not 32 hexadecimal digits", ErrCorrupt, identityKey, id.Archive)
	}
	return a, nil
}

// Init opens the archive of the database that want describes, creating it if the
// store holds none. want's Format, Archive and Created are filled in. It proves on
// the way that the store honours create-once (Invariant 3): a store that overwrites
// could not fence a second writer.
func Init(ctx context.Context, store Store, want Identity) (*Archive, error) {
	want.Format = FormatVersion
	want.Created = time.Now().UTC().Format(time.RFC3339)
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	want.Archive = hex.EncodeToString(id[:])
	failpoint.Hit(failpoint.ArchiveCreating)
	if err := createJSON(ctx, store, identityKey, want); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	failpoint.Hit(failpoint.ArchiveCreated)
	a, err := Open(ctx, store)
	if err != nil {
		return nil, err
	}
	// The object is there now. Creating it again, with the same bytes so that even
	// a store that overwrites loses nothing, must fail.
	switch err := createJSON(ctx, store, identityKey, a.Identity); {
	case err == nil:
		return nil, fmt.Errorf("%w: %s accepted a second object under a key that is taken (If-None-Match is not honoured); use another store", ErrOverwrites, store)
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	got := a.Identity
	if got.Engine != want.Engine || got.System != want.System || got.Database != want.Database {
		return nil, fmt.Errorf("%w: %s holds %s system %s database %q, the source is %s system %s database %q; give each database an archive of its own",
			ErrOtherDatabase, store, got.Engine, got.System, got.Database, want.Engine, want.System, want.Database)
	}
	return a, nil
}
