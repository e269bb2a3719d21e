// Package mysql reads MySQL and MariaDB: the binlog as a stream, base snapshots,
// and what must be set up on the server first.
package mysql
