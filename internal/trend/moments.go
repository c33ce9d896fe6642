package trend

import (
	"math"

	"stanch/internal/series"
)

// clockOf reads how much time has gone by that was looked at, in ms.
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

// seenToGrow tells that what grew does so while somebody looks. What came while
// nobody did may have come at once, and once: where a gap makes so much of the
// growth that a single step of that size would be taken out, the rest must rise
// beside a step at the gap, by more than noise does.
func (p *Pass) seenToGrow(x []float64) bool {
	c := &p.curve
	least, most := int64(0), oneOf*p.grown()
	ones := make([]float64, c.n())
	for i := range ones {
		ones[i] = 1
	}
	columns := [][]float64{ones, x}
	for k := 1; k < c.n(); k++ {
		if c.low[k]-c.low[k-1] < most {
			continue
		}
		if least == 0 {
			least = gapOf(p.judged())
		}
		if c.windows[k].From-c.windows[k-1].To < least {
			continue
		}
		step := make([]float64, c.n())
		for i := k; i < c.n(); i++ {
			step[i] = 1
		}
		columns = append(columns, step)
	}
	if len(columns) == 2 {
		return true
	}
	f, ok := series.FitColumns(c.low, columns...)
	if !ok {
		return false
	}
	inflation := series.Inflation(series.Persistence(f.Residuals, true))
	p.unseen = f.Coefficients[1] < f.Errors[1]*math.Sqrt(contestMargin*inflation)
	return !p.unseen
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
// standard errors their mean lies after the middle of the window. Steps that
// come in clumps, as requests do, are fewer events than they are steps: by how
// much more their number differs from one part of the window to the next than
// that of events which know nothing of one another.
func lateness(steps []series.Step, clock clockOf, from, to float64) float64 {
	const parts = 16
	var counts [parts]float64
	sum := 0.0
	for _, s := range steps {
		part := (clock(s.At) - from) / (to - from)
		counts[max(0, min(parts-1, int(part*parts)))]++
		sum += part - 0.5
	}
	n := float64(len(steps))
	differ := 0.0
	for i := 1; i < parts; i++ {
		differ += (counts[i] - counts[i-1]) * (counts[i] - counts[i-1])
	}
	clumps := max(1, differ/(2*(parts-1))/(n/parts))
	return sum / n * math.Sqrt(12*n/clumps)
}

// quiet tells that after the last step there was none for four times as long
// as between them in the mean, and twice as long as ever between them.
func quiet(steps []series.Step, clock clockOf, to float64) bool {
	first, last, longest := clock(steps[0].At), clock(steps[len(steps)-1].At), 0.0
	for i := 1; i < len(steps); i++ {
		longest = max(longest, clock(steps[i].At)-clock(steps[i-1].At))
	}
	return to-last > max(4*(last-first)/float64(len(steps)-1), 2*longest)
}

// stepRate is the growth by steps per hour, with the error of what comes again
// and again: by how much the distances and sizes of the steps differ. Steps that
// follow one another too closely are not seen one by one: the points tell
// how much they add. Gained is what they added while nobody looked.
func stepRate(steps []series.Step, ps []series.Point, clock clockOf, gained float64) (r rise) {
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
	r.slope = max(total(steps), ps[len(ps)-1].Value-ps[0].Value-gained) / span
	// One step more or less at the ends is chance, too.
	err := r.slope * math.Sqrt(uneven/n+1/square(n))
	r.low, r.high = r.slope-1.96*err, r.slope+1.96*err
	r.grew, r.windows = r.slope*span, len(steps)
	r.p = math.Pow(0.5, n)
	return r
}
