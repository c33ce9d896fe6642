package ledger

import (
	"slices"
	"time"

	"stanch/internal/leak"
)

// Point is one value of a series.
type Point struct {
	At    time.Duration
	Value float64
}

// series keeps up to max points over any length of time: when it is full,
// every second one goes, and from then on only every second new one stays. The
// first and the last value are always kept.
type series struct {
	points []Point
	max    int
	stride int
	skip   int  // values since the last one that stays
	loose  bool // the last point is there only until the next one comes
}

// The most points of a gauge and of a stack's tallies.
const (
	maxPoints  = 512
	maxTallies = 64
)

func (s *series) add(p Point) {
	at := func(a Point, t time.Duration) int { return cmpDuration(a.At, t) }
	s.points = insert(s.points, p, p.At, at, &s.skip, &s.loose, max(s.stride, 1))
	if len(s.points) > s.max {
		s.points = thin(s.points)
		s.stride = max(s.stride, 1) * 2
	}
}

// insert adds p in the order of time. A value for the same moment replaces the
// older one, since totals are said again.
func insert[P any](ps []P, p P, t time.Duration, at func(P, time.Duration) int, skip *int, loose *bool, stride int) []P {
	i, same := slices.BinarySearchFunc(ps, t, at)
	switch {
	case same:
		ps[i] = p
		return ps
	case i < len(ps):
		return slices.Insert(ps, i, p)
	case *loose:
		ps = ps[:len(ps)-1]
	}
	*skip++
	*loose = *skip < stride
	if !*loose {
		*skip = 0
	}
	return append(ps, p)
}

// thin keeps every second value, and the last.
func thin[P any](ps []P) []P {
	kept := ps[:0]
	for i := range ps {
		if i%2 == 0 || i == len(ps)-1 {
			kept = append(kept, ps[i])
		}
	}
	return kept
}

func cmpDuration(a, b time.Duration) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// tallyKey tells the tallies of a stack apart: some of its blocks may be
// counted one by one, and others sampled.
type tallyKey struct {
	kind  leak.Kind
	stack leak.StackID
	exact bool
}

// Total is what a stack acquired and released up to a moment.
type Total struct {
	At       time.Duration
	Acquired leak.Count
	Released leak.Count
}

// Live is what is left of it.
func (t Total) Live() leak.Count {
	return leak.Count{N: t.Acquired.N - t.Released.N, Bytes: t.Acquired.Bytes - t.Released.Bytes}
}

// tallies are the totals of one stack over time, bounded as a series is.
type tallies struct {
	points []Total
	stride int
	skip   int
	loose  bool
}

func (t *tallies) add(y leak.Tally) {
	at := func(a Total, d time.Duration) int { return cmpDuration(a.At, d) }
	t.points = insert(t.points, Total{y.At, y.Acquired, y.Released}, y.At, at, &t.skip, &t.loose, max(t.stride, 1))
	if len(t.points) > maxTallies {
		t.points = thin(t.points)
		t.stride = max(t.stride, 1) * 2
	}
}
