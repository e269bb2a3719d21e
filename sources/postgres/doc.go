// Package postgres reads PostgreSQL: its logical replication stream, base
// snapshots of it, and what must be set up on it first.
package postgres
