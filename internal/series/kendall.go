package series

import "math"

// Kendall is the outcome of a Mann-Kendall test: do later values tend to be
// higher? It knows only the order of the values, so neither outliers nor the
// shape of the noise matter.
type Kendall struct {
	S   int     // pairs that rise, minus pairs that fall
	Tau float64 // S as a share of all pairs, -1 to 1
	P   float64 // chance that values in random order rise as much, one-sided
}

// MannKendall tests the values, which are in order of time. Inflation is how
// many values are worth one independent one (1 for independent values): it
// widens the variance of S, as Hamed and Rao (Journal of Hydrology 204, 1998)
// do for correlated data. Its time is quadratic: it is for hundreds of
// values, not for thousands.
func MannKendall(values []float64, inflation float64) Kendall {
	n := len(values)
	if n < 3 {
		return Kendall{P: 1}
	}
	s := 0
	for i, v := range values {
		for _, w := range values[i+1:] {
			switch {
			case w > v:
				s++
			case w < v:
				s--
			}
		}
	}
	f := float64(n)
	variance := (f*(f-1)*(2*f+5) - tied(values)) / 18 * max(inflation, 1)
	k := Kendall{S: s, Tau: float64(s) / (f * (f - 1) / 2), P: 1}
	if variance <= 0 {
		return k
	}
	// One is taken off |S|, which only takes every second whole number.
	z := 0.0
	switch {
	case s > 0:
		z = float64(s-1) / math.Sqrt(variance)
	case s < 0:
		z = float64(s+1) / math.Sqrt(variance)
	}
	k.P = math.Erfc(z/math.Sqrt2) / 2
	return k
}

// tied is what groups of equal values take from 18 times the variance of S.
func tied(values []float64) float64 {
	counts := make(map[float64]int, len(values))
	for _, v := range values {
		counts[v]++
	}
	sum := 0.0
	for _, c := range counts {
		t := float64(c)
		sum += t * (t - 1) * (2*t + 5)
	}
	return sum
}
