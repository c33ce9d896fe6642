package detect

import (
	"math"
	"time"

	"stanch/internal/ledger"
)

// trend is growth that was seen in every third of a watch. The lowest value of
// each third is taken, so that what comes and goes does not count.
type trend struct {
	grown     float64 // from the first third's lowest value to the last's
	perHour   float64
	low, high float64    // per hour, the slower and the faster half of it
	lows      [3]float64 // the lowest value of each third
	last      float64    // the last value of all
	watch     time.Duration
}

// The least that shows a trend.
const (
	trendPoints = 6
	trendTime   = 5 * time.Second
)

// rising gives the trend of a series that grew in every third.
func rising(ps []ledger.Point) (trend, bool) {
	if len(ps) < trendPoints {
		return trend{}, false
	}
	start, end := ps[0].At, ps[len(ps)-1].At
	if end-start < trendTime {
		return trend{}, false
	}
	var lows [3]ledger.Point
	var seen [3]bool
	for _, p := range ps {
		i := min(int(3*(p.At-start)/(end-start)), 2)
		// Of equal values the latest is taken in the first third and the
		// earliest in the last, so that a flat stretch makes no slope steeper.
		if !seen[i] || p.Value < lows[i].Value || i == 0 && p.Value == lows[i].Value {
			lows[i], seen[i] = p, true
		}
	}
	if !seen[0] || !seen[1] || !seen[2] || lows[1].Value <= lows[0].Value || lows[2].Value <= lows[1].Value {
		return trend{}, false
	}
	first, second := slope(lows[0], lows[1]), slope(lows[1], lows[2])
	if math.Min(first, second)*5 < math.Max(first, second) {
		return trend{}, false // a step, and no steady growth
	}
	return trend{
		grown: lows[2].Value - lows[0].Value, perHour: slope(lows[0], lows[2]),
		low: math.Min(first, second), high: math.Max(first, second),
		lows: [3]float64{lows[0].Value, lows[1].Value, lows[2].Value}, last: ps[len(ps)-1].Value, watch: end - start,
	}, true
}

func slope(a, b ledger.Point) float64 { return (b.Value - a.Value) / (b.At - a.At).Hours() }
