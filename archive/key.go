package archive

import (
	"fmt"
	"strings"
)

// maxKey is the longest key in bytes; S3 allows 1,024 for a key with its
// store's prefix.
const maxKey = 768

// CheckKey reports why key cannot name an object in a Store, or nil. Stores call
// it before they trust a key with a path or a URL.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("key of %d bytes: keys have 1 to %d", len(key), maxKey)
	}
	start := 0
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '/' {
			if !keyByte(key[i]) {
				return fmt.Errorf("key %q: byte %d is not one of A-Z a-z 0-9 . _ - /", key, i)
			}
			continue
		}
		switch part := key[start:i]; {
		case part == "" || part == "." || part == "..":
			return fmt.Errorf("key %q: %q cannot stand between slashes", key, part)
		case len(part) > 255:
			return fmt.Errorf("key %q: a part between slashes has at most 255 bytes", key)
		}
		start = i + 1
	}
	return nil
}

func keyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// IdentityKey is the key of the object that tells one archive from any other. Its bytes
// never change.
const IdentityKey = identityKey

// KeyKind is what the object under a key is to the record, as far as a Store must know that
// keeps objects for a while before it passes them on.
type KeyKind int

const (
	// KeyOther may refer to anything created before it, and must not arrive earlier: the
	// begin and the end of an epoch, marks, manifests of bases.
	KeyOther KeyKind = iota
	// KeySegment is a part of the record: it must not arrive before the one before it.
	KeySegment
	// KeyRollup is derived from the segments before it, and lost without harm.
	KeyRollup
	// KeyFree refers to nothing that is created while a capture runs, and nobody waits for
	// it: the archive's identity, and what a base consists of besides its manifest.
	KeyFree
)

// KindOf returns the kind of a key.
func KindOf(key string) KeyKind {
	if key == identityKey {
		return KeyFree
	}
	rest, ok := strings.CutPrefix(key, "epochs/")
	_, rest, ok2 := strings.Cut(rest, "/")
	folder, name, ok3 := strings.Cut(rest, "/")
	if !ok || !ok2 || !ok3 {
		return KeyOther
	}
	switch folder {
	case "segments":
		return KeySegment
	case "rollups":
		return KeyRollup
	case "bases":
		if _, name, ok = strings.Cut(name, "/"); ok && name != manifestName && name != aheadName {
			return KeyFree
		}
	}
	return KeyOther
}

// EndKey returns the key under which the end of the epoch is on record that the segment or
// rollup under key belongs to, or "": once there is an object, no segment may follow.
func EndKey(key string) string {
	if kind := KindOf(key); kind != KeySegment && kind != KeyRollup {
		return ""
	}
	parts := strings.SplitN(key, "/", 3)
	return parts[0] + "/" + parts[1] + "/gap.json"
}
