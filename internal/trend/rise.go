package trend

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"stanch/internal/series"
)

// scales are how many windows a curve is looked at with. The lowest value of
// few long windows does not know of teeth and waves; many short ones tell more
// of a curve that has none.
var scales = []int{48, 24, 12, 6}

// rise is what is known of the growth of a curve along an axis: hours, or
// work done.
type rise struct {
	slope, low, high float64 // for each unit of the axis; low to high holds it with 95 %
	p                float64 // chance that noise rises so, of all scales together
	t                float64 // slope in standard errors
	windows          int
	tau              float64
	grew             float64 // over the curve
	first, last      float64 // lowest values of the first and last window
	deviation        float64 // of the windows' lowest values around the line
	drift            bool    // told from a walk at random
	rising           int     // windows that are higher than the one before
}

// rising looks at low along x, of windows in time, at all scales, and gives
// the surest.
func rising(x, low []float64) (best rise) {
	best.p = 1
	tried, last := 0, 0
	for _, k := range scales {
		k = min(k, len(x))
		if k < 6 || k == last {
			continue
		}
		last = k
		tried++
		bx, by := lowest(x, low, k)
		if r := trendOf(bx, by); tried == 1 || r.p < best.p {
			best = r
		}
	}
	best.p = min(1, best.p*float64(max(tried, 1)))
	return best
}

// lowest gives the lowest of each of k groups of neighbours.
func lowest(x, low []float64, k int) (bx, by []float64) {
	n := len(x)
	for g := range k {
		from, to := g*n/k, (g+1)*n/k
		at := from
		for i := from; i < to; i++ {
			if low[i] < low[at] {
				at = i
			}
		}
		bx, by = append(bx, x[at]), append(by, low[at])
	}
	return bx, by
}

// trendOf asks whether y rises along x by more than noise does that is like
// the noise around its line.
//
// Noise of which too little is forgotten from one window to the next cannot be
// told from a walk at random, by 1/sqrt(n) (Perron and Yabu, Journal of
// Econometrics 151, 2009). Then the changes from window to window are asked
// instead, whose mean is no more than chance in a walk.
func trendOf(x, y []float64) rise {
	n := float64(len(x))
	line := series.TheilSen(x, y)
	r := rise{slope: line.Slope, p: 1, windows: len(x), first: y[0], last: y[len(y)-1], deviation: series.Deviation(line.Residuals)}
	r.grew = line.Slope * (x[len(x)-1] - x[0])
	for i := 1; i < len(y); i++ {
		if y[i] > y[i-1] {
			r.rising++
		}
	}
	keep := series.Persistence(line.Residuals, true)
	inflation := series.Inflation(keep)
	freedom := n/inflation - 2
	err := line.Error * math.Sqrt(inflation)
	if keep > 1-1/math.Sqrt(n) {
		r.drift = true
		err, inflation = driftError(x, y, line.Slope)
		freedom = (n-1)/inflation - 1
	}
	k := series.MannKendall(y, inflation)
	r.tau = k.Tau
	if freedom < 1 {
		r.low, r.high = math.Inf(-1), math.Inf(1)
		return r
	}
	student := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}
	width := student.Quantile(0.975) * err
	r.low, r.high = r.slope-width, r.slope+width
	switch {
	case err > 0:
		r.t = r.slope / err
		r.p = student.Survival(r.t)
	case r.slope > 0:
		r.t, r.p = math.Inf(1), 0
	}
	// Both must agree: the order of the values, which no outlier moves, and
	// their size. Few windows have few orders, so the first is asked for less.
	if k.P > 0.01 {
		r.p = max(r.p, k.P)
	}
	return r
}

// driftError is the standard error of the mean change of a walk, for each unit
// of x, and how many changes are worth one.
func driftError(x, y []float64, slope float64) (err, inflation float64) {
	changes := make([]float64, 0, len(x)-1)
	for i := 1; i < len(x); i++ {
		changes = append(changes, y[i]-y[i-1]-slope*(x[i]-x[i-1]))
	}
	inflation = series.Inflation(series.Persistence(changes, false))
	n := float64(len(changes))
	span := x[len(x)-1] - x[0]
	if span <= 0 {
		return 0, inflation
	}
	return series.Deviation(changes) * math.Sqrt(n*inflation) / span, inflation
}

// endShare is the slope at the end of the curve as a share of its mean slope,
// and how sure it is that the curve bends down: standard errors below none.
func endShare(x, y []float64) (share, sure float64) {
	n := min(len(x), 48)
	bx, by := lowest(x, y, n)
	if n < 8 {
		return 1, 0
	}
	ones, square := make([]float64, n), make([]float64, n)
	x0, span := bx[0], bx[n-1]-bx[0]
	if span <= 0 {
		return 1, 0
	}
	u := make([]float64, n)
	for i := range bx {
		u[i] = (bx[i] - x0) / span
		ones[i], square[i] = 1, u[i]*u[i]
	}
	f, ok := series.FitColumns(by, ones, u, square)
	if !ok {
		return 1, 0
	}
	b, c := f.Coefficients[1], f.Coefficients[2]
	if b+c <= 0 {
		return 0, math.Inf(1)
	}
	share = (b + 2*c) / (b + c)
	if f.Errors[2] == 0 {
		return share, math.Copysign(math.Inf(1), -c)
	}
	return share, -c / (f.Errors[2] * math.Sqrt(series.Inflation(series.Persistence(f.Residuals, true))))
}
