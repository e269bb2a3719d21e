package archive

import "fmt"

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
