package series

import "math"

// lowBins is how many stretches Lows keeps.
const lowBins = 48

// Lows keeps the lowest value of each stretch of a series' life in bounded
// memory: when there are too many stretches, each two become one that is twice
// as long. The zero value is ready, with stretches of 30 s.
type Lows struct {
	width int64 // of a stretch, ms
	start int64 // of the first stretch
	bins  []float64
}

// Add takes a point in, not older than the last one.
func (l *Lows) Add(p Point) {
	if l.bins == nil {
		l.width, l.start = 30_000, p.At
	}
	i := (p.At - l.start) / l.width
	for ; i >= lowBins; i = (p.At - l.start) / l.width {
		l.fold()
	}
	if i < 0 {
		return
	}
	for int64(len(l.bins)) <= i {
		l.bins = append(l.bins, math.NaN()) // nothing was seen
	}
	if v := l.bins[i]; math.IsNaN(v) || p.Value < v {
		l.bins[i] = p.Value
	}
}

// fold makes one stretch of each two.
func (l *Lows) fold() {
	half := l.bins[:0]
	for i := 0; i < len(l.bins); i += 2 {
		v := l.bins[i]
		if i+1 < len(l.bins) {
			v = lower(v, l.bins[i+1])
		}
		half = append(half, v)
	}
	l.bins = half
	l.width *= 2
}

// lower is the lower of two, of which either may be missing.
func lower(a, b float64) float64 {
	if math.IsNaN(a) || b < a {
		return b
	}
	return a
}

// Rise is what the lowest value of the last third of the life lies above that
// of the first third and of the second; zero when it does not, and while there
// are fewer than six stretches. Whatever grows without end rises; much that
// rises does not grow without end.
func (l *Lows) Rise() float64 {
	n := len(l.bins)
	if n < 6 {
		return 0
	}
	lowest := func(bins []float64) float64 {
		v := math.NaN()
		for _, b := range bins {
			v = lower(v, b)
		}
		return v
	}
	first, last := lowest(l.bins[:n/3]), lowest(l.bins[n-n/3:])
	middle := lowest(l.bins[n/3 : n-n/3])
	if rise := last - max(first, middle); rise > 0 {
		return rise
	}
	return 0
}
