package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"txreel/capture"
	"txreel/change"
	"txreel/sources/postgres/lsn"
	"txreel/sources/postgres/pgoutput"
)

// fencePrefix is the prefix of the logical messages that fences are.
const fencePrefix = "txreel.fence"

// fenced is the last fence that was written, and a position behind it.
type fenced struct {
	number uint64
	behind lsn.LSN
}

// newChain names the fences of one stream. Nobody can guess it who cannot read the stream, so nobody forges one.
func newChain() (string, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return hex.EncodeToString(b[:]), err
}

// writeFence writes the next fence into the source's log if anything came since the last one. It is a message outside
// any transaction: it takes no transaction id, waits for nobody, and leaves nothing in the database.
func (s *Source) writeFence(ctx context.Context) error {
	traffic := s.traffic.Load()
	if s.noFences || traffic == s.fencedTraffic && !s.sequences.due(&s.opts, traffic) {
		return nil
	}
	f := change.Fence{Chain: s.parser.chain, Number: s.fences + 1}
	content := f.String()
	sample, err := s.sample(ctx, f.Number, traffic)
	if err == nil && sample != nil {
		content, err = sample.Message(content)
	}
	if err != nil || sample == nil && traffic == s.fencedTraffic {
		return err
	}
	var at string
	err = s.control.QueryRow(ctx, `select pg_catalog.pg_logical_emit_message(false, $1, $2)::text`, fencePrefix, content).Scan(&at)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42501" { // insufficient_privilege
		s.noFences = true // the record is what it is without them
		return nil
	}
	if err != nil {
		return wrapSQL("write a fence", err)
	}
	behind, err := lsn.Parse(at)
	if err != nil {
		return err
	}
	s.fences, s.fencedTraffic = f.Number, traffic
	s.written.Store(&fenced{number: f.Number, behind: behind})
	return nil
}

// fenceOf returns the note and the number of a fence of this stream; zero when the message is none. One of an earlier stream, sent
// again, is a message like any other.
func (p *parser) fenceOf(l *pgoutput.LogicalMessage) (note string, number uint64) {
	if l.Prefix != fencePrefix || l.Transactional {
		return "", 0
	}
	line, _, _ := bytes.Cut(l.Content, []byte("\n")) // what follows is a sample
	if f, ok := change.ParseFence(string(line)); ok && f.Chain == p.chain {
		return string(line), f.Number
	}
	return "", 0
}

// meet checks that no fence is missing before the one that arrives.
func (p *parser) meet(number uint64) error {
	if number != p.fenced+1 {
		return p.lacks(p.fenced + 1)
	}
	p.fenced = number
	return nil
}

// fences checks that the stream has not come past a fence without it.
func (p *parser) fences(w *fenced) error {
	if w == nil || p.open || p.streams.block != nil || p.end < w.behind || p.fenced >= w.number {
		return nil
	}
	return p.lacks(p.fenced + 1)
}

func (p *parser) lacks(number uint64) error {
	return fmt.Errorf("%w: fence %d, which capture wrote into the source's log, did not come out of it: transactions before it may be missing too; run capture with --new-epoch to go on behind the gap",
		capture.ErrGap, number)
}
