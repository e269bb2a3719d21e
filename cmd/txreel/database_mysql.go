package main

import (
	"context"
	"errors"

	"txreel/archive"
	"txreel/audit"
	"txreel/change"
	"txreel/restore"
	"txreel/sources"
)

// mysqlFlags are the options of MySQL and MariaDB sources.
type mysqlFlags struct {
	ServerID  uint32 `placeholder:"N" help:"MySQL, MariaDB: the server id to register with, unique among the source's replicas (default: derived from the archive)."`
	AllowLock bool   `help:"MySQL, MariaDB: let a base take FLUSH TABLES WITH READ LOCK for a moment when nothing gentler works."`
}

// mysqlTargetFlags are the options of MySQL and MariaDB targets.
type mysqlTargetFlags struct {
	Serve string `placeholder:"ADDR" help:"MySQL, MariaDB: where the target fetches the changes from this command, for a target on another machine (default: a free port of 127.0.0.1)."`
}

// errNoMySQL is all there is to say for now.
var errNoMySQL = errors.New("this build records PostgreSQL only")

// mysqlDatabase is a MySQL or MariaDB server.
type mysqlDatabase struct{ *databaseFlags }

func (d *mysqlDatabase) identify(context.Context) (incarnation, error) {
	return incarnation{}, errNoMySQL
}
func (d *mysqlDatabase) belongs(context.Context, *archive.Archive, incarnation) error {
	return errNoMySQL
}
func (d *mysqlDatabase) fresh(context.Context) error { return errNoMySQL }
func (d *mysqlDatabase) open(context.Context, archive.Epoch, archive.Tail, bool) (stream, error) {
	return nil, errNoMySQL
}
func (d *mysqlDatabase) continues(archive.Epoch) error { return nil }
func (d *mysqlDatabase) takeBase(context.Context, *archive.Archive, uint64, string, func(sources.BaseProgress)) (*archive.Base, error) {
	return nil, errNoMySQL
}
func (d *mysqlDatabase) finishBase(context.Context, *archive.Archive, *archive.Base, func()) error {
	return errNoMySQL
}
func (d *mysqlDatabase) changed(context.Context, map[string]uint64) (string, error) {
	return "", errNoMySQL
}
func (d *mysqlDatabase) mark(context.Context, string) (marker, error) { return nil, errNoMySQL }
func (d *mysqlDatabase) retention(context.Context, change.Position) (*sources.Retention, error) {
	return nil, errNoMySQL
}

func (c *restoreCmd) mysqlRestorer(string) (restore.Dialect, func(context.Context) (restoreTarget, error), error) {
	return nil, nil, errNoMySQL
}

func newMySQLDecoder(context.Context, *archive.Archive, uint64) (audit.Decoder, error) {
	return nil, errNoMySQL
}
