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

// bout is what a contest tells.
type bout struct {
	won   outcome
	at    int     // where it jumped
	size  float64 // by how much
	share float64 // of what ends: its slope at the end as a part of its mean slope
	sure  float64 // standard errors by which what ends fits better than a line
	// uneven tells that steps at random moments, which come unevenly, may have
	// made the bend.
	uneven bool
}

const (
	// contestMargin is by how much better what goes on must fit, in units of the
	// noise's variance.
	contestMargin = 5
	// bentShare and bentSure are what slows down by so much, and so surely, that
	// it may be the begin of a way to an end.
	bentShare = 0.9
	bentSure  = 6
)

// contest holds the curves of what goes on against those of what ends. What
// goes on is a line beside something that fills (1 - exp(-t/T)), or a line that
// is moved once; what ends fills, or grows as the logarithm of time, or stops.
// To go on it must fit better by more than noise does: an end is what is
// believed without proof.
func contest(x, y []float64) (b bout) {
	n := len(x)
	if n < bendWindows || x[n-1] <= x[0] {
		return b
	}
	c := newContender(x, y)
	line, ok := series.FitColumns(y, c.ones, c.u)
	if !ok {
		return b
	}
	end := series.Fit{Squares: math.Inf(1)}
	stop := func(f series.Fit, ok bool, share float64) {
		if ok && f.Squares < end.Squares {
			end, b.share = f, share
		}
	}
	filled := series.Fit{Squares: math.Inf(1)}
	for tau := 0.01; tau < 6; tau *= 1.3 {
		e := c.column(func(u float64) float64 { return 1 - math.Exp(-u/tau) })
		f, ok := series.FitColumns(y, c.ones, e)
		stop(f, ok, math.Exp(-1/tau)/tau/(1-math.Exp(-1/tau)))
		if f, ok := series.FitColumns(y, c.ones, e, c.u); ok && tau < 0.2 && f.Squares < filled.Squares {
			filled = f
		}
	}
	for tau := 0.001; tau < 6; tau *= 1.3 {
		f, ok := series.FitColumns(y, c.ones, c.column(func(u float64) float64 { return math.Log(1 + u/tau) }))
		stop(f, ok, 1/(1+tau)/math.Log(1+1/tau))
	}
	for _, late := range []float64{0.1, 0.2, 0.3, 0.4} {
		for tau := 0.05; tau < 3; tau *= 1.6 {
			f, ok := series.FitColumns(y, c.ones, c.column(func(u float64) float64 { return 1 - math.Exp(-max(0, u-late)/tau) }))
			z := (1 - late) / tau
			stop(f, ok, math.Exp(-z)/tau/(1-math.Exp(-z)))
		}
	}
	moved := series.Fit{Squares: math.Inf(1)}
	for k := 3; k <= n-3; k++ {
		f, ok := series.FitColumns(y, c.ones, c.column(func(v float64) float64 { return min(v, c.u[k]) }))
		stop(f, ok, 0)
		if f, ok := series.FitColumns(y, c.ones, c.u, c.column(func(v float64) float64 {
			if v >= c.u[k] {
				return 1
			}
			return 0
		})); ok && f.Squares < moved.Squares {
			moved, b.at = f, k
		}
	}
	b.judge(line, end, filled, moved, float64(n))
	if _, walks := walkError(x, y); walks {
		_, bent := endShare(x, y, true)
		b.uneven = bent < 2
	}
	return b
}

// judge tells who has won.
func (b *bout) judge(line, end, filled, moved series.Fit, n float64) {
	if end.Coefficients != nil && end.Coefficients[1] > 0 && line.Squares > end.Squares {
		inflation := series.Inflation(series.Persistence(end.Residuals, true))
		b.sure = math.Sqrt((line.Squares - end.Squares) / inflation / max(end.Squares/n, 1e-12*line.Squares))
	}
	best, slope := filled, 2
	won := outlasts
	if moved.Squares < filled.Squares {
		won, best, slope = jumped, moved, 1
	}
	if best.Coefficients == nil || best.Coefficients[slope] <= 0 || best.Coefficients[3-slope] <= 0 {
		return
	}
	inflation := series.Inflation(series.Persistence(best.Residuals, true))
	if (end.Squares-best.Squares)/inflation < contestMargin*best.Squares/n {
		return
	}
	if b.won = won; won == jumped {
		b.size = moved.Coefficients[2]
	}
}

// slows tells that what was seen slows down, and may come to an end.
func (b *bout) slows() bool {
	return b.won == ends && b.share < bentShare && b.sure > bentSure && !b.uneven
}

// contender makes columns of a curve.
type contender struct{ u, ones []float64 }

func newContender(x, y []float64) contender {
	c := contender{u: make([]float64, len(y)), ones: make([]float64, len(y))}
	for i := range x {
		c.u[i], c.ones[i] = (x[i]-x[0])/(x[len(x)-1]-x[0]), 1
	}
	return c
}

func (c *contender) column(f func(u float64) float64) []float64 {
	out := make([]float64, len(c.u))
	for i, u := range c.u {
		out[i] = f(u)
	}
	return out
}
