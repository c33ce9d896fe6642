package series

import (
	"math"
	"slices"
)

// Line is a straight line through points.
type Line struct {
	Slope, Intercept float64
	Error            float64 // standard error of the slope for independent noise
	Residuals        []float64
}

// TheilSen gives the line whose slope is the median of the slopes between all
// pairs of points: up to 29 % of them may be anything. Its time is quadratic.
// Error is that of the least squares slope with the same residuals, of which
// it has 95 % of the efficiency for normal noise.
func TheilSen(x, y []float64) Line {
	var slopes []float64
	for i := range x {
		for j := i + 1; j < len(x); j++ {
			if d := x[j] - x[i]; d != 0 {
				slopes = append(slopes, (y[j]-y[i])/d)
			}
		}
	}
	if len(slopes) == 0 {
		return Line{Residuals: make([]float64, len(y))}
	}
	l := Line{Slope: Median(slopes)}
	offsets := make([]float64, len(x))
	for i := range x {
		offsets[i] = y[i] - l.Slope*x[i]
	}
	l.Intercept = Median(slices.Clone(offsets))
	for i := range offsets {
		offsets[i] -= l.Intercept
	}
	l.Residuals = offsets
	l.Error = slopeError(x, l.Residuals)
	return l
}

// LeastSquares gives the line with the smallest squared residuals.
func LeastSquares(x, y []float64) Line {
	mx, my := Mean(x), Mean(y)
	var xx, xy float64
	for i := range x {
		xx += (x[i] - mx) * (x[i] - mx)
		xy += (x[i] - mx) * (y[i] - my)
	}
	l := Line{Intercept: my, Residuals: make([]float64, len(y))}
	if xx > 0 {
		l.Slope = xy / xx
		l.Intercept = my - l.Slope*mx
	}
	for i := range x {
		l.Residuals[i] = y[i] - l.Intercept - l.Slope*x[i]
	}
	l.Error = slopeError(x, l.Residuals)
	return l
}

func slopeError(x, residuals []float64) float64 {
	if len(x) < 3 {
		return math.Inf(1)
	}
	mx := Mean(x)
	var xx, ss float64
	for i := range x {
		xx += (x[i] - mx) * (x[i] - mx)
		ss += residuals[i] * residuals[i]
	}
	if xx == 0 {
		return math.Inf(1)
	}
	return math.Sqrt(ss / float64(len(x)-2) / xx)
}
