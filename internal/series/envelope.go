package series

// Window sums up the points of one stretch of time.
type Window struct {
	From, To int64 // of its first and last point, Unix ms
	Count    int
	Low      float64 // the lowest value: what a collector or a cache could not give back
	LowAt    int64
	Mean     float64
	High     float64
	Variance float64 // of the values around Mean
}

// Windows cuts the time of the points, which are in order, into n equal
// stretches and sums up each. Stretches without a point are left out.
func Windows(points []Point, n int) []Window {
	if len(points) == 0 || n < 1 {
		return nil
	}
	first, last := points[0].At, points[len(points)-1].At
	span := float64(last-first) + 1
	out := make([]Window, 0, n)
	current := -1
	for _, p := range points {
		if k := min(int(float64(p.At-first)/span*float64(n)), n-1); k != current || len(out) == 0 {
			current = k
			out = append(out, Window{From: p.At, Low: p.Value, LowAt: p.At, High: p.Value})
		}
		out[len(out)-1].add(p)
	}
	for i := range out {
		out[i].Variance /= float64(out[i].Count)
	}
	return out
}

// add takes one point in, by Welford's method, which does not lose the
// digits of small changes of large values.
func (w *Window) add(p Point) {
	w.Count++
	d := p.Value - w.Mean
	w.Mean += d / float64(w.Count)
	w.Variance += d * (p.Value - w.Mean)
	w.To, w.High = p.At, max(w.High, p.Value)
	if p.Value < w.Low {
		w.Low, w.LowAt = p.Value, p.At
	}
}
