package series

import (
	"math"
	"slices"
)

// Step is a moment at which the level changed at once.
type Step struct {
	At     int64   // of the first point at the new level, Unix ms
	Before int64   // of the last point at the old level
	Size   float64 // new level minus old level
}

const (
	// stepSides is how many points on each side tell the levels. That all of
	// five lie above all of five others by chance is 1 in 252, which is asked
	// beside the size of the change.
	stepSides = 5
	// stepDeviations is how many deviations of the usual change from one point
	// to the next a step has at least.
	stepDeviations = 6
	// stepShare is how much of the difference of levels must come at once.
	stepShare = 0.6
	// stepGap is how many median distances two points may be apart, or farGap of
	// those that a tenth exceeds: of what was thinned out to the extremes of each
	// minute many lie close together, and as many a minute apart.
	stepGap, farGap = 3, 2
	// scaleSample is how many changes the usual one is estimated from.
	scaleSample = 4096
)

// Steps finds the moments at which the points, which are in order, changed
// their level at once by least or more, and stayed there for a few points. A
// slope is not a step, however steep.
func Steps(points []Point, least float64) []Step {
	if len(points) < 2*stepSides {
		return nil
	}
	usual, deviation := usualChange(points)
	longest := usualDistance(points)
	threshold := max(stepDeviations*deviation, least)
	var out []Step
	for i := 1; i < len(points); i++ {
		change := points[i].Value - points[i-1].Value
		if points[i].At-points[i-1].At > longest {
			continue // who knows how it went while nobody looked
		}
		if math.Abs(change-usual) < threshold || math.Abs(change) < least {
			continue
		}
		size, ok := levels(points, i)
		if !ok || math.Abs(size) < least || math.Abs(change) < stepShare*math.Abs(size) || change*size < 0 {
			continue
		}
		out = append(out, Step{At: points[i].At, Before: points[i-1].At, Size: size})
	}
	return out
}

// usualChange is the median of the changes from point to point, and how far
// they deviate from it: 1.4826 times the median deviation, which is the
// standard deviation where they are normal, and 0 where most do not change.
func usualChange(points []Point) (median, deviation float64) {
	stride := max(1, len(points)/scaleSample)
	changes := make([]float64, 0, len(points)/stride+1)
	for i := 1; i < len(points); i += stride {
		changes = append(changes, points[i].Value-points[i-1].Value)
	}
	median = Median(changes)
	for i, c := range changes {
		changes[i] = math.Abs(c - median)
	}
	return median, 1.4826 * Median(changes)
}

// usualDistance is how far points are apart at most where somebody looks.
func usualDistance(points []Point) int64 {
	stride := max(1, len(points)/scaleSample)
	var distances []float64
	for i := 1; i < len(points); i += stride {
		distances = append(distances, float64(points[i].At-points[i-1].At))
	}
	median := Median(distances) // puts them in order
	return max(stepGap*int64(median), farGap*int64(distances[len(distances)*9/10]))
}

// levels compares the points before i with those from i on; ok tells that all
// of one side lie above all of the other.
func levels(points []Point, i int) (size float64, ok bool) {
	before, after := values(points[max(0, i-stepSides):i]), values(points[i:min(len(points), i+stepSides)])
	if len(before) < 2 || len(after) < 2 {
		return 0, false
	}
	slices.Sort(before)
	slices.Sort(after)
	size = Median(after) - Median(before)
	return size, after[0] > before[len(before)-1] || after[len(after)-1] < before[0]
}

func values(points []Point) []float64 {
	out := make([]float64, len(points))
	for i, p := range points {
		out[i] = p.Value
	}
	return out
}

// Hinge is a line that changes its slope once.
type Hinge struct {
	At            int     // index of the first value of the second part
	Before, After float64 // slopes
	AfterError    float64 // standard error of After for independent noise
	T             float64 // change of the slope in standard errors, for independent noise
	Residuals     []float64
}

// BestHinge finds where a line that bends once fits the values best, with at
// least edge values on each side. ok is false for too few values. Its time is
// linear in the product of values and places.
func BestHinge(x, y []float64, edge int) (best Hinge, ok bool) {
	n := len(x)
	edge = max(edge, 3)
	least := math.Inf(1)
	at := -1
	for k := edge; k <= n-edge; k++ {
		if _, ss := hinge(x, y, k); ss < least {
			least, at = ss, k
		}
	}
	if at < 0 {
		return Hinge{}, false
	}
	coefficients, _ := hinge(x, y, at)
	best = Hinge{At: at, Before: coefficients.b[1], After: coefficients.b[1] + coefficients.b[2], Residuals: make([]float64, n)}
	for i := range x {
		best.Residuals[i] = y[i] - coefficients.at(x[i]-x[0], x[at]-x[0])
	}
	variance := least / float64(max(n-4, 1))
	best.T = coefficients.b[2] / math.Sqrt(variance*coefficients.inverse[2][2])
	best.AfterError = math.Sqrt(max(0, variance*(coefficients.inverse[1][1]+coefficients.inverse[2][2]+2*coefficients.inverse[1][2])))
	if variance == 0 { // it fits exactly, as a straight line does without any bend
		best.T, best.AfterError = 0, 0
		if coefficients.b[2] != 0 {
			best.T = math.Inf(sign(coefficients.b[2]))
		}
	}
	return best, !math.IsNaN(best.T)
}

func sign(v float64) int {
	if v < 0 {
		return -1
	}
	return 1
}

// bent is a fit of 1, x and max(0, x-hinge).
type bent struct {
	b       [3]float64
	inverse [3][3]float64
}

func (b bent) at(x, hinge float64) float64 { return b.b[0] + b.b[1]*x + b.b[2]*max(0, x-hinge) }

func hinge(x, y []float64, k int) (fit bent, ss float64) {
	var m [3][3]float64
	var v [3]float64
	y0 := y[0]
	for i := range x {
		row := [3]float64{1, x[i] - x[0], max(0, x[i]-x[k])}
		for a := range row {
			v[a] += row[a] * (y[i] - y0)
			for b := range row {
				m[a][b] += row[a] * row[b]
			}
		}
	}
	var ok bool
	if fit.inverse, ok = invert3(m); !ok {
		return fit, math.Inf(1)
	}
	for a := range v {
		for b := range v {
			fit.b[a] += fit.inverse[a][b] * v[b]
		}
	}
	fit.b[0] += y0
	for i := range x {
		r := y[i] - fit.at(x[i]-x[0], x[k]-x[0])
		ss += r * r
	}
	return fit, ss
}

// invert3 inverts a symmetric matrix.
func invert3(m [3][3]float64) (inverse [3][3]float64, ok bool) {
	cofactor := func(a, b int) float64 {
		c, d, e, f := (a+1)%3, (a+2)%3, (b+1)%3, (b+2)%3
		return m[c][e]*m[d][f] - m[c][f]*m[d][e]
	}
	det := m[0][0]*cofactor(0, 0) + m[0][1]*cofactor(0, 1) + m[0][2]*cofactor(0, 2)
	if scale := m[0][0] * m[1][1] * m[2][2]; math.Abs(det) <= 1e-12*math.Abs(scale) {
		return inverse, false
	}
	for a := range m {
		for b := range m {
			inverse[a][b] = cofactor(b, a) / det
		}
	}
	return inverse, true
}
