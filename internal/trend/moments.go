package trend

import (
	"math"
	"sort"

	"stanch/internal/series"
)

// clockOf reads how much of what makes steps has gone by at a time: time that
// was looked at, or work done.
type clockOf func(at int64) float64

// watched is the time without the gaps in which nobody looked, in ms, and what
// was gained in the gaps.
func (p *Pass) watched() (clock clockOf, gained float64) {
	ps := p.judged()
	least := gapOf(ps)
	var gaps []lost
	for i := 1; i < len(ps); i++ {
		if d := ps[i].At - ps[i-1].At; d >= least {
			gaps = append(gaps, lost{ps[i].At, d})
			gained += ps[i].Value - ps[i-1].Value
		}
	}
	return func(at int64) float64 {
		seen := at
		for _, g := range gaps {
			if at >= g.at {
				seen -= g.ms
			}
		}
		return float64(seen)
	}, gained
}

// worked is the work done; nil where it was not measured, or is the same at all
// times.
func (p *Pass) worked() clockOf {
	w := p.load
	if w == nil || len(w.done) != p.curve.n() || !w.varies() {
		return nil
	}
	ws := p.curve.windows
	return func(at int64) float64 {
		k := sort.Search(len(ws), func(i int) bool { return ws[i].From > at }) - 1
		if k < 0 {
			return w.done[0]
		}
		if k+1 == len(ws) {
			return w.done[k]
		}
		part := float64(at-ws[k].From) / float64(ws[k+1].From-ws[k].From)
		return w.done[k] + part*(w.done[k+1]-w.done[k])
	}
}

// rarer tells that steps come ever more seldom by a clock, or have not come
// for long.
func rarer(steps []series.Step, ps []series.Point, clock clockOf) bool {
	from, to := clock(ps[0].At), clock(ps[len(ps)-1].At)
	if to <= from {
		return true
	}
	return lateness(steps, clock, from, to) < -2 || quiet(steps, clock, to)
}

// lateness is Laplace's test for a trend in the times of events: how many
// standard errors their mean lies after the middle of the window.
func lateness(steps []series.Step, clock clockOf, from, to float64) float64 {
	sum := 0.0
	for _, s := range steps {
		sum += (clock(s.At)-from)/(to-from) - 0.5
	}
	n := float64(len(steps))
	return sum / n * math.Sqrt(12*n)
}

// quiet tells that after the last step there was none for four times as long
// as between them in the mean.
func quiet(steps []series.Step, clock clockOf, to float64) bool {
	first, last := clock(steps[0].At), clock(steps[len(steps)-1].At)
	return to-last > 4*(last-first)/float64(len(steps)-1)
}

// stepRate is the growth by steps per hour, with the error of what comes again
// and again: by how much the distances and sizes of the steps differ.
func stepRate(steps []series.Step, ps []series.Point, clock clockOf) (r rise) {
	n := float64(len(steps))
	var sizes, distances []float64
	for i, s := range steps {
		sizes = append(sizes, s.Size)
		if i > 0 {
			distances = append(distances, clock(s.At)-clock(steps[i-1].At))
		}
	}
	span := (clock(ps[len(ps)-1].At) - clock(ps[0].At)) / 3_600_000
	if span <= 0 {
		return rise{low: math.Inf(-1), high: math.Inf(1)}
	}
	square := func(v float64) float64 { return v * v }
	uneven := square(series.Deviation(sizes)/series.Mean(sizes)) + square(series.Deviation(distances)/max(series.Mean(distances), 1))
	r.slope = total(steps) / span
	// One step more or less at the ends is chance, too.
	err := r.slope * math.Sqrt(uneven/n+1/square(n))
	r.low, r.high = r.slope-1.96*err, r.slope+1.96*err
	r.grew, r.windows = total(steps), len(steps)
	r.p = math.Pow(0.5, n)
	return r
}
