package archive

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"txreel/change"
	"txreel/internal/failpoint"
)

// Protection says from where on COMMIT waited for the archive, or did not: the content of an
// object below protection/. It holds from its transaction on until the one with the next number
// says otherwise, which may well begin before this one.
type Protection struct {
	Number    uint64     `json:"number"`
	Epoch     uint64     `json:"epoch"`
	From      change.Seq `json:"from"`      // the first transaction it speaks of
	Protected bool       `json:"protected"` // their COMMIT returned only once the archive held them
	Reason    string     `json:"reason"`
	Noted     string     `json:"noted"` // RFC 3339, by the clock of the capture
}

// Span is a run of transactions for which COMMIT waited for the archive, or did not.
type Span struct {
	From      change.Seq `json:"from"`
	To        change.Seq `json:"to,omitempty"` // the last one; zero for the last span, which has no end yet
	Protected bool       `json:"protected"`
	Reason    string     `json:"reason"`
	Noted     string     `json:"noted"`
}

func protectionsKey(epoch uint64) string { return epochKey(epoch) + "/protection/" }

func protectionKey(epoch, number uint64) string {
	return fmt.Sprintf("%s%08d.json", protectionsKey(epoch), number)
}

// RecordProtection puts p on record, with the time if it has none and the next number of its epoch, of which have are
// those on record; it returns them with p. The key is taken when another writer is at work: an
// error wrapping fs.ErrExist.
func (a *Archive) RecordProtection(ctx context.Context, have []Protection, p Protection) ([]Protection, error) {
	p.Number = uint64(len(have) + 1)
	if p.Noted == "" {
		p.Noted = time.Now().UTC().Format(time.RFC3339)
	}
	failpoint.Hit(failpoint.ProtectionCreating)
	if err := createOwn(ctx, a.Store, protectionKey(p.Epoch, p.Number), p); err != nil {
		return have, err
	}
	failpoint.Hit(failpoint.ProtectionCreated)
	return append(have, p), nil
}

// Protections returns what is on record of an epoch, in order; nothing, if the capture never made
// COMMIT wait.
func (a *Archive) Protections(ctx context.Context, epoch uint64) ([]Protection, error) {
	var all []Protection
	after := ""
	for {
		objects, err := a.Store.List(ctx, protectionsKey(epoch), after, page)
		if err != nil {
			return nil, fmt.Errorf("list the protection of epoch %d: %w", epoch, err)
		}
		for _, o := range objects {
			digits := strings.TrimSuffix(strings.TrimPrefix(o.Key, protectionsKey(epoch)), ".json")
			n, err := strconv.ParseUint(digits, 10, 64)
			if err != nil || protectionKey(epoch, n) != o.Key {
				return nil, fmt.Errorf("%w: %s is no key of a protection", ErrCorrupt, o.Key)
			}
			if n != uint64(len(all)+1) {
				return nil, fmt.Errorf("%w: %s is missing, %s is there", ErrCorrupt, protectionKey(epoch, uint64(len(all)+1)), o.Key)
			}
			var p Protection
			if err := readJSON(ctx, a.Store, o.Key, &p); err != nil {
				return nil, err
			}
			if p.Number != n || p.Epoch != epoch || p.From == 0 {
				return nil, fmt.Errorf("%w: %s speaks of number %d of epoch %d, from %s", ErrCorrupt, o.Key, p.Number, p.Epoch, p.From)
			}
			all = append(all, p)
			after = o.Key
		}
		if len(objects) < page {
			return all, nil
		}
	}
}

// Spans lays protections of an epoch out over its transactions. What is said later holds from where
// it says on, whatever was said before. Transactions in front of the first
// protection were captured without.
func Spans(protections []Protection) []Span {
	var spans []Span
	for _, p := range protections {
		for len(spans) > 0 && spans[len(spans)-1].From >= p.From {
			spans = spans[:len(spans)-1]
		}
		if n := len(spans); n > 0 {
			if spans[n-1].Protected == p.Protected {
				continue // it goes on
			}
			spans[n-1].To = p.From - 1
		}
		spans = append(spans, Span{From: p.From, Protected: p.Protected, Reason: p.Reason, Noted: p.Noted})
	}
	if len(spans) > 0 {
		spans[len(spans)-1].To = 0
	}
	return spans
}

// Protected reports whether the spans say of a transaction that its COMMIT waited for the archive.
func Protected(spans []Span, seq change.Seq) bool {
	for i := len(spans) - 1; i >= 0; i-- {
		if spans[i].From <= seq {
			return spans[i].Protected
		}
	}
	return false
}
