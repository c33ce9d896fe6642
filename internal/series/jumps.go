package series

import (
	"math"
	"slices"
)

// What a series that grows by jumps looks like: few of its steps from one
// sample to the next are jumps, and they are most of what it grew by.
const (
	mostJumps     = 0.34 // of all samples
	leastExplains = 0.5  // of the sum of what went up
	leastJumps    = 3
	jumpNoise     = 8 // standard deviations of the other steps
)

// Jumps finds the moments at which a series rose by far more than it moves
// otherwise: the time of the first sample that is higher, and by how much. It
// finds none in a series that does not grow by jumps: where they would be less
// than three, or more than a third of all samples, or where something else
// makes most of the growth.
func Jumps(ps []Point) []Point {
	steps := make([]Point, 0, len(ps))
	for i := 1; i < len(ps); i++ {
		steps = append(steps, Point{ps[i].At, ps[i].Value - ps[i-1].Value})
	}
	least := jumpSize(steps)
	if least == 0 {
		return nil
	}
	var jumps []Point
	var rose, jumped float64
	for _, s := range steps {
		if s.Value > 0 {
			rose += s.Value
		}
		if s.Value >= least {
			jumps = append(jumps, s)
			jumped += s.Value
		}
	}
	if len(jumps) < leastJumps || float64(len(jumps)) > mostJumps*float64(len(steps)) || jumped < leastExplains*rose {
		return nil
	}
	return jumps
}

// jumpSize is the least that is a jump among these steps; 0 when there is none.
func jumpSize(steps []Point) float64 {
	var up, size []float64
	for _, s := range steps {
		size = append(size, math.Abs(s.Value))
		if s.Value > 0 {
			up = append(up, s.Value)
		}
	}
	if len(up) < leastJumps {
		return 0
	}
	slices.Sort(size)
	slices.Sort(up)
	// The median of sizes tells the noise: jumps are the minority. 1.4826 makes
	// it the standard deviation of normal noise.
	noise := 1.4826 * size[len(size)/2]
	// Without noise anything is more than it: a jump is of the order of the
	// larger ones.
	large := up[len(up)*9/10]
	return max(jumpNoise*noise, large/4)
}
