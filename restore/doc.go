// Package restore rebuilds a database at a point of its record: it plans, then
// drives a Target through base, changes and verification. It knows no engine; a Dialect
// and a Target stand for it.
package restore
