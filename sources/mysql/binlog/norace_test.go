//go:build !race

package binlog

const raced = false
