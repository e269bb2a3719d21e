package e2e

import (
	"slices"
	"strings"

	"txreel/internal/failpoint"
)

// restore ends restores of the record, or the server that one writes to, at all points that are theirs. All restores
// into one target continue each other.
func (o *ordeal) restore() {
	o.t.Helper()
	points := o.points(failpoint.RestoreBeginCheck, failpoint.RestoreEndVerify)
	var either, processes, servers []failpoint.Point
	for i, at := range points {
		process, server := o.engine.kills(i, at)
		if process || server {
			either = append(either, at)
		}
		if process {
			processes = append(processes, at)
		}
		if server {
			servers = append(servers, at)
		}
	}
	if !slices.ContainsFunc(servers, func(at failpoint.Point) bool { return slices.Contains(processes, at) }) {
		o.endRestores(either, servers) // into one target
		return
	}
	o.endRestores(processes, nil)
	o.endRestores(servers, servers)
}

// endRestores ends a restore at each of the points, by the death of the target at those among servers, and else by its
// own. The last one of them all comes through.
func (o *ordeal) endRestores(points, servers []failpoint.Point) {
	o.t.Helper()
	target := o.engine.target(o.t)
	p := *o.place
	p.hidden, p.extra = append(slices.Clone(p.hidden), target.secret), append(slices.Clone(p.extra), "TXREEL_TARGET="+target.url)
	command := []string{"restore", "--jobs", "2"}
	for _, at := range points {
		if !slices.Contains(servers, at) {
			o.kill(&p, at, command...)
			continue
		}
		r := o.strand(&p, target, at, command...)
		if code := r.wait(patience()); code != 1 && code != 7 && (code != 0 || at != failpoint.RestoreEndVerify) {
			o.t.Errorf("a restore whose target was killed at %q ended with %d:\n%s", at, code, tail(r.stderr(), 10))
		}
	}
	r := p.run(command...)
	switch done := slices.Contains(points, failpoint.RestoreEndVerify); {
	case !done && r.code == 0:
	case done && r.code == 1 && strings.Contains(r.stderr, "not empty"): // all was done when the last one was ended
	default:
		o.t.Errorf("the last restore ended with %d:\n%s", r.code, tail(r.stderr, 10))
	}
	target.equal()
}
