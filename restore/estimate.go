package restore

import (
	"fmt"
	"time"
)

// Pace is how fast an engine's restores go, per second, with two workers on two cores: what docs/performance.md has measured,
// rounded. Another machine has another one.
type Pace struct {
	Rows     float64 // loaded, with what is built on them after
	Folded   float64 // changes of rows reduced to what they come to; zero where they all are replayed
	Replayed float64 // changes of rows replayed one by one
}

// Estimate is what a restore is expected to take.
type Estimate struct {
	Bytes   int64   `json:"bytes"` // to be read from the archive
	Rows    int64   `json:"rows"`  // to be loaded
	Changes uint64  `json:"changes"`
	Seconds float64 `json:"seconds"` // on two cores
}

// MergeFrom is how many changes of rows between two changes of definitions are worth the effort of reducing them to what they come to.
const MergeFrom = 2000

// fixed is how long a restore takes in which there is nothing to do.
const fixed = 0.3

// estimate works out what the plan is expected to take.
func (p *Plan) estimate(pace Pace) Estimate {
	e := Estimate{Bytes: p.BaseBytes + p.SegmentBytes, Rows: p.BaseRows, Changes: p.Rows, Seconds: fixed}
	if p.Partial != nil {
		e.Bytes = p.Partial.BaseBytes + p.Partial.SegmentBytes
	}
	replayed := p.Rows
	if pace.Folded > 0 {
		var folded uint64
		for i, changes := range p.Between {
			if i == 0 || changes >= MergeFrom {
				folded += changes
			}
		}
		replayed -= folded
		e.Rows += int64(p.inserted)
		e.Seconds += float64(folded) / pace.Folded
	}
	e.Seconds += float64(e.Rows)/pace.Rows + float64(replayed)/pace.Replayed
	return e
}

// String says it for people.
func (e Estimate) String() string {
	d := time.Duration(e.Seconds * float64(time.Second))
	if d >= 10*time.Second {
		d = d.Round(time.Second)
	}
	return fmt.Sprintf("%d bytes to read, %d rows to load, %d changes: about %s on two cores", e.Bytes, e.Rows, e.Changes, d.Round(100*time.Millisecond))
}
