package trend

import (
	"fmt"
	"math"
	"slices"
	"time"

	"stanch/internal/series"
)

// Periodic takes out a rhythm: the time of day, a job every hour, a collector.
var Periodic = &Detector{
	Name:    "trend.periodic",
	Doc:     "goes up and down in an even rhythm",
	Assumes: "the rhythm is even and was seen 2.2 times at least",
	Run:     periodic,
}

// manyPeriods is from how many periods on their lowest values are asked alone.
// A wave that is fitted to teeth leaves much of them; their feet are what they
// are.
const manyPeriods = 16

func periodic(p *Pass) {
	c := &p.curve
	r, ok := series.FindRhythm(c.x, c.mean)
	if !ok || slices.Max(r.Wave)-slices.Min(r.Wave) < p.resource.step {
		return // counts go up by ones in a rhythm of their own
	}
	words := "which is taken out"
	if (c.x[c.n()-1]-c.x[0])/r.Period >= manyPeriods {
		*c = c.feet(r)
		p.load = p.workload()
		words = "of which the lowest values are asked"
	} else {
		for i := range r.Wave {
			c.low[i] -= r.Wave[i]
			c.mean[i] -= r.Wave[i]
		}
	}
	p.rhythm(fmt.Sprintf("goes up and down every %s, %s", since(time.Duration(r.Period*float64(time.Hour))), words))
}

// feet is the curve by whole periods, each with its foot in the middle: a tooth
// is highest just before its foot, and a period is not known to the last digit.
func (c *curve) feet(r series.Rhythm) (out curve) {
	foot := 0
	for i, v := range r.Wave {
		if v < r.Wave[foot] {
			foot = i
		}
	}
	current, count := 0, 0.0
	for i := range c.x {
		middle := hours((c.windows[i].From+c.windows[i].To)/2 - c.windows[0].From)
		k := int(math.Round((middle - c.x[foot]) / r.Period))
		if n := out.n() - 1; n >= 0 && k == current {
			out.windows[n].To = c.windows[i].To
			if c.low[i] < out.low[n] {
				out.low[n], out.x[n] = c.low[i], c.x[i]
			}
			out.raw[n] = min(out.raw[n], c.raw[i])
			count++
			out.mean[n] += (c.mean[i] - out.mean[n]) / count
			continue
		}
		current, count = k, 1
		out.windows = append(out.windows, c.windows[i])
		out.x, out.low = append(out.x, c.x[i]), append(out.low, c.low[i])
		out.mean, out.raw = append(out.mean, c.mean[i]), append(out.raw, c.raw[i])
	}
	// The first and the last are parts, whose foot may not have been seen.
	if n := out.n(); n > 3 {
		out = curve{windows: out.windows[1 : n-1], x: out.x[1 : n-1], low: out.low[1 : n-1], mean: out.mean[1 : n-1], raw: out.raw[1 : n-1]}
	}
	return out
}
