//go:build race

package binlog

// raced is whether the race detector is on: it makes sync.Pool, which package zstd uses, forget at
// random.
const raced = true
