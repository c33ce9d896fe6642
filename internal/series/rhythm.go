package series

import "math"

// Rhythm is a wave that is repeated evenly.
type Rhythm struct {
	Period float64   // in x
	Wave   []float64 // its value at each x, around 0
	Share  float64   // of the variance beside the trend, that it explains
}

const (
	// rhythmSeen is how many periods must be seen, so that what comes again is
	// told from what happened once.
	rhythmSeen = 2.2
	// rhythmPeak and rhythmTrough are the correlations of the values with
	// themselves, a period and half a period later. Noise that is slow has the
	// first seldom, and hardly ever both.
	rhythmPeak   = 0.3
	rhythmTrough = -0.2
	// rhythmFirst is how good the first peak is at least, as a part of the best.
	rhythmFirst = 0.75
	// rhythmPeakFew is asked where fewer than four periods were seen.
	rhythmPeakFew = 0.6
)

// FindRhythm finds the strongest rhythm of the values, which are about evenly
// spaced in x, and takes no trend for one. Its time is quadratic.
func FindRhythm(x, y []float64) (Rhythm, bool) {
	n := len(y)
	if n < 16 {
		return Rhythm{}, false
	}
	ones, square := make([]float64, n), make([]float64, n)
	for i := range x {
		ones[i], square[i] = 1, (x[i]-x[0])*(x[i]-x[0])
	}
	trend, ok := FitColumns(y, ones, x, square)
	if !ok || trend.Squares == 0 {
		return Rhythm{}, false
	}
	lag, ok := rhythmLag(trend.Residuals, trend.Squares)
	if !ok {
		return Rhythm{}, false
	}
	spacing := (x[n-1] - x[0]) / float64(n-1)
	best, squares := Rhythm{}, math.Inf(1)
	// A period that is wrong by a quarter of a wave at the end fits nothing.
	finest := min(0.01, 0.25*float64(lag)/float64(n))
	for part := -0.1; part <= 0.1; part += finest {
		period := float64(lag) * spacing * (1 + part)
		if period*rhythmSeen > x[n-1]-x[0]+spacing {
			continue
		}
		waves := harmonics(x, period)
		f, ok := FitColumns(y, append([][]float64{ones, x, square}, waves...)...)
		if !ok || f.Squares >= squares {
			continue
		}
		squares = f.Squares
		best = Rhythm{Period: period, Wave: make([]float64, n), Share: 1 - f.Squares/trend.Squares}
		for i := range x {
			for k, w := range waves {
				best.Wave[i] += f.Coefficients[3+k] * w[i]
			}
		}
	}
	return best, best.Wave != nil && best.Share > 0.3
}

// rhythmLag is the lag at which the residuals are most like themselves.
func rhythmLag(r []float64, squares float64) (lag int, ok bool) {
	n := len(r)
	most := int(float64(n) / rhythmSeen)
	correlation := make([]float64, most+1)
	for k := range correlation {
		for i := k; i < n; i++ {
			correlation[k] += r[i] * r[i-k]
		}
		correlation[k] *= float64(n) / float64(n-k) / squares
	}
	k := 1
	for k < most && correlation[k] > 0 {
		k++
	}
	// Two periods later the values are as like themselves, or more so where
	// they meet better: the first is taken that is nearly as good as any.
	highest := 0.0
	from := max(k, 4)
	for k := from; k <= most; k++ {
		highest = max(highest, correlation[k])
	}
	for k := from; k <= most && lag == 0; k++ {
		if correlation[k] >= rhythmFirst*highest && (k == most || correlation[k] >= correlation[k+1]) {
			lag = k
		}
	}
	peak := rhythmPeak
	if lag*4 > n {
		peak = rhythmPeakFew
	}
	return lag, lag > 0 && correlation[lag] > peak && correlation[lag/2] < rhythmTrough
}

// harmonics are the sines and cosines of the period and its half.
func harmonics(x []float64, period float64) [][]float64 {
	out := make([][]float64, 4)
	for h := range 2 {
		s, c := make([]float64, len(x)), make([]float64, len(x))
		for i := range x {
			s[i], c[i] = math.Sincos(2 * math.Pi * float64(h+1) * x[i] / period)
		}
		out[2*h], out[2*h+1] = s, c
	}
	return out
}
