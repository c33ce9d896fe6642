package series

import (
	"math"
	"slices"
)

// Mean is the mean of the values, 0 of none.
func Mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(len(values), 1))
}

// Deviation is the standard deviation of the values.
func Deviation(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	m, sum := Mean(values), 0.0
	for _, v := range values {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(values)-1))
}

// Median is the middle of the values, which it puts in order; 0 of none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return values[n/2-1]/2 + values[n/2]/2
}

// Persistence says how much of a value's deviation is still there one value
// later: the correlation of neighbours, -1 to 1. Trended tells that a line was
// fitted to the values and taken away, which also takes away slow noise: the
// estimate is corrected for that (Kendall 1954; Marriott and Pope 1954).
func Persistence(residuals []float64, trended bool) float64 {
	n := float64(len(residuals))
	if n < 4 {
		return 1
	}
	m := Mean(residuals)
	var all, pairs float64
	for i, r := range residuals {
		all += (r - m) * (r - m)
		if i > 0 {
			pairs += (r - m) * (residuals[i-1] - m)
		}
	}
	if all == 0 {
		return 0
	}
	r := pairs / all
	if trended {
		r = (r + 2/n) / (1 - 4/n)
	} else {
		r = (r + 1/n) / (1 - 3/n)
	}
	return max(-1, min(r, 1))
}

// Inflation is how many neighbouring values with that persistence are worth
// one independent value, at least 1: of n values, n/Inflation count.
func Inflation(persistence float64) float64 {
	p := max(0, min(persistence, 0.995))
	return (1 + p) / (1 - p)
}
