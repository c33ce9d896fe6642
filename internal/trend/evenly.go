package trend

import (
	"slices"

	"stanch/internal/series"
)

const (
	// unevenPace is by how much the pace of looking differs where it matters.
	// The lowest of many values of noise is lower than that of a few: by a tenth
	// of its deviation where they are half as many again.
	unevenPace = 1.5
	// paceStretches is how many stretches of the time are asked for their pace.
	paceStretches = 24
	// keptPlain is the stretch, in ms, of which the store keeps the first point
	// as it was, beside the extremes, when a window is longer than longPlain.
	keptPlain, longPlain = 60_000, 12 * 3_600_000
)

// evenly thins points out to the slowest pace that they were taken at for an
// eighth of the time, where another eighth has a faster one: a watch was begun
// anew with another interval. Else the lowest values would rise from the part
// that was looked at often to the one that was not.
func evenly(ps []series.Point) []series.Point {
	if len(ps) < leastPoints {
		return ps
	}
	paces := pacesOf(ps)
	if len(paces) == 0 {
		return ps
	}
	slices.Sort(paces)
	slow := paces[len(paces)-1-len(paces)/10]
	if float64(slow) < unevenPace*float64(paces[len(paces)/10]) {
		return ps
	}
	if ps[len(ps)-1].At-ps[0].At > longPlain {
		slow = (slow + keptPlain - 1) / keptPlain * keptPlain
	}
	out := make([]series.Point, 0, len(ps))
	cell := int64(0)
	for _, p := range ps {
		if c := p.At / slow; len(out) == 0 || c != cell {
			out, cell = append(out, p), c
		}
	}
	return out
}

// pacesOf gives the shortest distance of two neighbours in each stretch of the
// time. Where the store has thinned out already, this is still the distance at
// which they were taken.
func pacesOf(ps []series.Point) (paces []int64) {
	first := ps[0].At
	width := (ps[len(ps)-1].At-first)/paceStretches + 1
	current := int64(-1)
	for i := 1; i < len(ps); i++ {
		k := (ps[i].At - first) / width
		if (ps[i-1].At-first)/width != k {
			continue
		}
		d := ps[i].At - ps[i-1].At
		if k != current {
			paces, current = append(paces, d), k
		} else if n := len(paces) - 1; d < paces[n] {
			paces[n] = d
		}
	}
	return paces
}
