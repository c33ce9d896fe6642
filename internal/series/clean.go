package series

import (
	"cmp"
	"math"
	"slices"
)

// Clean gives the points in order of time, one a time, the last said of each,
// without those that are not numbers. It returns points itself when nothing
// is to be done.
func Clean(points []Point) []Point {
	clean := true
	for i, p := range points {
		if !finite(p.Value) || i > 0 && p.At <= points[i-1].At {
			clean = false
			break
		}
	}
	if clean {
		return points
	}
	out := make([]Point, 0, len(points))
	for _, p := range points {
		if finite(p.Value) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Point) int { return cmp.Compare(a.At, b.At) })
	n := 0
	for i, p := range out {
		if i+1 < len(out) && out[i+1].At == p.At {
			continue
		}
		out[n] = p
		n++
	}
	return out[:n]
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
