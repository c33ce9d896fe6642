package trend

import (
	"math"

	"stanch/internal/series"
)

// What a curve that has slowed down may be.
type outcome int

const (
	ends     outcome = iota // it fills: nothing goes on that can be told from that
	outlasts                // something fills, and something else goes on
	jumped                  // it goes on, and was moved up once
)

// contest holds the curves of what goes on against those of what ends. What
// goes on is a line beside something that fills (1 - exp(-t/T)), or a line that
// is moved once; what ends fills, or grows as the logarithm of time, or stops.
// To go on it must fit better by more than noise does: an end is what is
// believed without proof.
func contest(x, y []float64) (won outcome, at int, size float64) {
	n := len(x)
	span := x[n-1] - x[0]
	if n < bendWindows || span <= 0 {
		return ends, 0, 0
	}
	u, ones := make([]float64, n), make([]float64, n)
	for i := range x {
		u[i], ones[i] = (x[i]-x[0])/span, 1
	}
	column := func(f func(u float64) float64) []float64 {
		c := make([]float64, n)
		for i := range u {
			c[i] = f(u[i])
		}
		return c
	}
	end, filled := math.Inf(1), math.Inf(1)
	var fill series.Fit
	for tau := 0.01; tau < 3; tau *= 1.3 {
		c := column(func(u float64) float64 { return 1 - math.Exp(-u/tau) })
		if f, ok := series.FitColumns(y, ones, c); ok {
			end = min(end, f.Squares)
		}
		if f, ok := series.FitColumns(y, ones, c, u); ok && tau < 0.2 && f.Squares < filled {
			filled, fill = f.Squares, f
		}
		if f, ok := series.FitColumns(y, ones, column(func(u float64) float64 { return math.Log(1 + u/tau) })); ok {
			end = min(end, f.Squares)
		}
	}
	moved := math.Inf(1)
	var shift series.Fit
	for k := 3; k <= n-3; k++ {
		if f, ok := series.FitColumns(y, ones, column(func(v float64) float64 { return min(v, u[k]) })); ok {
			end = min(end, f.Squares)
		}
		if f, ok := series.FitColumns(y, ones, u, column(func(v float64) float64 {
			if v >= u[k] {
				return 1
			}
			return 0
		})); ok && f.Squares < moved {
			moved, shift, at = f.Squares, f, k
		}
	}
	won, best := outlasts, fill
	slope := 2
	if moved < filled {
		won, best, slope = jumped, shift, 1
		size = shift.Coefficients[2]
	}
	if best.Coefficients == nil || best.Coefficients[slope] <= 0 || won == jumped && size <= 0 || won == outlasts && fill.Coefficients[1] <= 0 {
		return ends, 0, 0
	}
	inflation := series.Inflation(series.Persistence(best.Residuals, true))
	if (end-best.Squares)/inflation < contestMargin*best.Squares/float64(n) {
		return ends, 0, 0
	}
	return won, at, size
}

// contestMargin is by how much better what goes on must fit, in units of the
// noise's variance.
const contestMargin = 5
