// Package faults injects what a network and an object store do to a program, by a plan that a
// seed repeats, and counts it: a Store around another one, a TCP proxy, an HTTP proxy that
// knows how S3 fails, and a clock that jumps under servers. It is for tests.
package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Kind names a fault.
type Kind string

// Counts is how many faults of each kind were injected.
type Counts map[Kind]int

// Total is the sum over all kinds.
func (c Counts) Total() int {
	n := 0
	for _, k := range c {
		n += k
	}
	return n
}

// String lists the kinds in order: "after 3, before 5".
func (c Counts) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, c[k]))
	}
	return strings.Join(parts, ", ")
}

// counter is a Counts that may be used concurrently. The zero value is ready.
type counter struct {
	mu sync.Mutex
	c  Counts
}

func (c *counter) add(k Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c == nil {
		c.c = make(Counts)
	}
	c.c[k]++
}

// Counts returns what was injected so far.
func (c *counter) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.c)
}

// Chance is how often a fault is injected: times in a thousand.
type Chance struct {
	Kind  Kind
	Times int
}

// pick returns the fault that a number below 1000 falls on, or "".
func pick(chances []Chance, n int) Kind {
	for _, c := range chances {
		if n -= c.Times; n < 0 {
			return c.Kind
		}
	}
	return ""
}
