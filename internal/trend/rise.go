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
	keep, finest := 0.0, 1
	var interval rise
	for _, k := range scales {
		k = min(k, len(x))
		if k < 6 || k == last {
			continue
		}
		last = k
		bx, by := lowest(x, low, k)
		r, kept := trendOf(bx, by, math.Pow(keep, float64(finest)/float64(k)))
		if tried == 0 || r.p < best.p {
			best = r
		}
		if !r.drift && !(interval.high > interval.low) {
			interval = r // the finest scale's: the surest was chosen for being so
		}
		if tried == 0 {
			keep, finest = max(0, kept), k
		}
		tried++
	}
	// The scales see the same curve, so they are worth about two tests.
	best.p = min(1, 2*best.p)
	if interval.high > interval.low && !best.drift {
		best.slope, best.low, best.high = interval.slope, interval.low, interval.high
	}
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
//
// Least is what the persistence is at least: few windows tell it badly, and
// noise that is remembered from one short window to the next is remembered for
// longer ones in the power of their length.
func trendOf(x, y []float64, least float64) (r rise, keep float64) {
	n := float64(len(x))
	line := series.TheilSen(x, y)
	r = rise{slope: line.Slope, p: 1, windows: len(x), first: y[0], last: y[len(y)-1], deviation: series.Deviation(line.Residuals)}
	r.grew = line.Slope * (x[len(x)-1] - x[0])
	for i := 1; i < len(y); i++ {
		if y[i] > y[i-1] {
			r.rising++
		}
	}
	keep = max(series.Persistence(line.Residuals, true), least)
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
		return r, keep
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
	if r.drift {
		r.p = min(1, 2*r.p, 2*neverBack(x, y))
	}
	return r, keep
}

// neverBack is the chance that a walk at random rises as y does while it
// falls back no further than y does: exp(-rise/fall), for the rises of a walk
// between falls of a given depth come like the events of a Poisson process
// (Taylor, Annals of Probability 3, 1975). It says nothing (1) of a smooth
// curve, which is no walk.
func neverBack(x, y []float64) float64 {
	top, fall := y[0], 0.0
	for i := 1; i < len(y); i++ {
		top = max(top, y[i])
		fall = max(fall, top-y[i])
	}
	if len(x) < 12 || changesKeep(y) > 0.3 {
		return 1
	}
	// A walk that is seen so seldom falls between two looks as well.
	fall = max(fall, series.Deviation(changes(y)))
	gain := y[len(y)-1] - y[0]
	if gain <= 0 || fall <= 0 {
		return 1
	}
	return math.Exp(-gain / fall)
}

// driftError is the standard error of the mean change of a walk, for each unit
// of x, and how many changes are worth one.
func driftError(x, y []float64, slope float64) (err, inflation float64) {
	rest := make([]float64, 0, len(x))
	for i := 1; i < len(x); i++ {
		rest = append(rest, y[i]-y[i-1]-slope*(x[i]-x[i-1]))
	}
	inflation = series.Inflation(series.Persistence(rest, false))
	n := float64(len(rest))
	span := x[len(x)-1] - x[0]
	if span <= 0 {
		return 0, inflation
	}
	return series.Deviation(rest) * math.Sqrt(n*inflation) / span, inflation
}

// suddenTimes is how much larger the standard deviation of the changes is than
// the deviation of most of them, where some are steps: 1 of normal noise.
const suddenTimes = 1.6

// sudden tells that some changes from window to window are much larger than
// most.
func sudden(y []float64) bool {
	_, wy := lowest(y, y, min(48, len(y)))
	c := changes(wy)
	deviation := series.Deviation(c)
	middle := series.Median(c)
	for i := range c {
		c[i] = math.Abs(c[i] - middle)
	}
	return deviation > suddenTimes*1.4826*series.Median(c)
}

func changes(y []float64) []float64 {
	out := make([]float64, 0, len(y))
	for i := 1; i < len(y); i++ {
		out = append(out, y[i]-y[i-1])
	}
	return out
}

// changesKeep is the persistence of the changes: about 0 of a walk, -0.5 of
// noise around a line, near 1 of a smooth curve.
func changesKeep(y []float64) float64 { return series.Persistence(changes(y), false) }

// tail compares the slope of the last third with the mean slope: as a share,
// and how sure it is that it is less than half: in standard errors.
func tail(x, y []float64) (share, sure float64) {
	n := min(len(x), 48)
	if n < 18 {
		return 1, 0
	}
	bx, by := lowest(x, y, n)
	whole := series.TheilSen(bx, by)
	from := n - n/3
	end := series.TheilSen(bx[from:], by[from:])
	if whole.Slope <= 0 {
		return 1, 0
	}
	err := end.Error * math.Sqrt(series.Inflation(series.Persistence(end.Residuals, true)))
	if walk, ok := walkError(x, y); ok {
		err = max(err, walk*math.Sqrt(3))
	}
	return end.Slope / whole.Slope, (whole.Slope/2 - end.Slope) / max(err, 1e-12*whole.Slope)
}

// endShare is the slope at the end of the curve as a share of its mean slope,
// and how sure it is that the curve bends down: standard errors below none.
// Uneven allows for growth by steps at random moments.
func endShare(x, y []float64, uneven bool) (share, sure float64) {
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
	err := f.Errors[2] * math.Sqrt(series.Inflation(series.Persistence(f.Residuals, true)))
	if walk, ok := walkError(u, by); ok && uneven {
		err = max(err, walkBend*walk)
	}
	if err == 0 {
		return share, math.Copysign(math.Inf(1), -c)
	}
	return share, -c / err
}

// walkBend is the standard deviation of the square coefficient that is fitted
// to a walk at random over [0, 1], for each unit of the deviation of its end:
// 180 times the square root of the integral of (u^3/3 - u^2/2 + u/6)^2.
const walkBend = 2.07

// walkError is the standard error of the mean slope of what grows by steps at
// random moments, which come unevenly; ok is false when the changes of few
// windows know of one another, so that it does not.
func walkError(x, y []float64) (err float64, ok bool) {
	wx, wy := lowest(x, y, min(16, len(x)))
	if changesKeep(wy) > 0.3 || !sudden(y) {
		return 0, false
	}
	err, _ = driftError(wx, wy, 0)
	return err, true
}

// accelerating asks whether y grows ever faster along x, and gives the trend of
// its mean slope. Around a line such a curve looks like slow noise.
func accelerating(x, y []float64) (r rise, ok bool) {
	bx, by := lowest(x, y, min(48, len(x)))
	n := len(bx)
	if n < bendWindows || bx[n-1] <= bx[0] {
		return r, false
	}
	ones, square := make([]float64, n), make([]float64, n)
	span := bx[n-1] - bx[0]
	u := make([]float64, n)
	for i := range bx {
		// Around the middle, so that the middle coefficient is the mean slope.
		u[i] = (bx[i]-bx[0])/span - 0.5
		ones[i], square[i] = 1, u[i]*u[i]
	}
	f, ok := series.FitColumns(by, ones, u, square)
	if !ok {
		return r, false
	}
	b, c := f.Coefficients[1], f.Coefficients[2]
	inflation := series.Inflation(series.Persistence(f.Residuals, true) + 2/float64(n))
	err := f.Errors[1] * math.Sqrt(inflation)
	freedom := float64(n)/inflation - 3
	if b <= 0 || c <= 0 || b-c < -1.3*b || freedom < 1 || err <= 0 {
		return r, false
	}
	student := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}
	r = rise{slope: b / span, t: b / err, windows: n, grew: b, first: by[0], last: by[n-1]}
	r.p = 2 * student.Survival(r.t)
	width := student.Quantile(0.975) * err / span
	r.low, r.high = r.slope-width, r.slope+width
	return r, true
}
