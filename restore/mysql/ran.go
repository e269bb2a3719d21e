package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/segment"
	"txreel/sources/mysql/binlog"
	"txreel/sources/mysql/gtid"
)

// ranError is the failure of a statement that has run already: it defines something, and the server died before it noted that.
type ranError struct {
	gtid gtid.GTID
	err  error
}

// Error implements error.
func (e *ranError) Error() string { return e.err.Error() }

// Unwrap returns what the applier said.
func (e *ranError) Unwrap() error { return e.err }

// ranAlready are errors of statements that find done what they are to do, where slave_ddl_exec_mode does not see to that itself: what they make
// is there, or what they drop is not (MariaDB documentation, section Error Codes). What could also mean that something else is
// wrong, such as a table that is missing, is none.
var ranAlready = []string{"1007", "1008", "1050", "1051", "1060", "1061", "1068", "1091", "1304", "1305", "1359", "1360", "1507", "1517", "1537", "1539", "1826"}

// mayHaveRun reports whether a failed transaction is the first one behind what a target of MariaDB held when the replay was taken up again, and
// one statement that defines something. MariaDB runs such a statement whole or not at all, and notes behind it that it did:
// a server that dies in between has run what it does not know of. In front of the statement the target was what the source was,
// where it succeeded. So if it finds done what it is to do, it has run.
func (t *Target) mayHaveRun(ctx context.Context, errno string, seq change.Seq, executed *gtid.Set) (gtid.GTID, bool) {
	if !t.version.mariadb() || !t.resumed || t.began == nil || !executed.Equal(t.began) || !slices.Contains(ranAlready, errno) {
		return gtid.GTID{}, false
	}
	g, err := definition(ctx, t.job.Archive, t.job.Plan.Epoch, seq)
	return g, err == nil && !g.IsZero()
}

// definition returns the GTID of a transaction that is one statement which defines something; of others the zero GTID.
func definition(ctx context.Context, a *archive.Archive, epoch uint64, seq change.Seq) (gtid.GTID, error) {
	stream := a.Stream(ctx, epoch, seq, seq, "")
	defer stream.Close()
	var format *binlog.Format
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return gtid.GTID{}, nil
		}
		if err != nil {
			return gtid.GTID{}, err
		}
		switch rec.Kind {
		case segment.Definition:
			e, err := binlog.Parse(rec.Raw, binlog.ChecksumCRC32)
			if err != nil {
				return gtid.GTID{}, err
			}
			if e.Type == binlog.TypeFormatDescription {
				if format, err = binlog.ParseFormat(&e); err != nil {
					return gtid.GTID{}, err
				}
			}
		case segment.Message:
			h, err := binlog.ParseHeader(rec.Raw)
			if err != nil || format == nil || int(h.Size) != len(rec.Raw) {
				return gtid.GTID{}, err
			}
			if !h.Type.Begins() {
				continue
			}
			e, err := format.Parse(rec.Raw)
			if err != nil {
				return gtid.GTID{}, err
			}
			group, err := binlog.ParseGroup(&e)
			if err != nil || group.Flags&binlog.FLStandalone == 0 || group.Flags&binlog.FLDDL == 0 {
				return gtid.GTID{}, err
			}
			return group.GTID, nil
		}
	}
}

// passOver makes the target believe that it has executed a statement, since it has.
func (t *Target) passOver(ctx context.Context, ran *ranError) error {
	next := t.began.Union(gtid.FromList([]gtid.GTID{ran.gtid}))
	if err := t.control.exec(ctx, "SET GLOBAL gtid_slave_pos = "+literal(next.String())); err != nil {
		return fmt.Errorf("tell the target that it has executed %s: %w", ran.gtid, err)
	}
	var record *restore.RecordError
	if errors.As(ran.err, &record) {
		t.warn("the target's server had died behind the statement of transaction %s, before it noted that: the statement was not run again, since it found done what it was to do", record.Seq)
	}
	return nil
}
