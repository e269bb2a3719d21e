// Package archive lays transactions, base snapshots and marks out as objects in
// a Store, and finds them again.
package archive
