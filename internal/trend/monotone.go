package trend

import (
	"fmt"
	"math"

	"stanch/internal/leak"
)

// Monotone finds steady growth.
var Monotone = &Detector{
	Name:    "trend.monotone",
	Doc:     "grows steadily, also when nothing is to be done",
	Assumes: "noise of the future is like noise of the window; what is given back is given back within a sixth of the window",
	Run: func(p *Pass) {
		r, ok := p.along(p.curve.x)
		if !p.enough() || p.loadRose != "" || p.seldom {
			return
		}
		// A load that was not measured may rise in the same way.
		if !ok && p.load != nil && p.slowed() == 0 {
			if r, ok = accelerating(p.curve.x, p.curve.low); ok {
				ok = r.p < alpha/10 && r.grew >= p.resource.least && r.grew >= restOfSteps*p.leveled && p.seenToGrow(p.curve.x)
			}
		}
		if !ok || !p.above(r) {
			return
		}
		p.growth(r)
		p.conclude(leak.VerdictGrowing, p.words(r, r))
	},
}

// restOfSteps is the part of the steps taken out that the growth beside them
// must be: their size is not known better.
const restOfSteps = 0.25

// along asks whether the curve grows without end along x: surely, by enough to
// speak of, and not slowing down.
func (p *Pass) along(x []float64) (r rise, ok bool) {
	c := &p.curve
	if c.n() < 6 || x[len(x)-1] <= x[0] {
		return r, false
	}
	r = rising(x, c.low)
	if raw := rising(x, c.raw); raw.p < r.p {
		r = raw
	}
	if p.best.windows == 0 || r.p < p.best.p {
		p.best = r
	}
	limit := alpha
	if len(p.bends) > 0 {
		limit /= 10 // the part was chosen for its slope
	}
	if r.p > limit || r.slope <= 0 || r.grew < p.resource.least || r.grew < restOfSteps*p.leveled {
		return r, false
	}
	return r, p.goesOn(x) && p.seenToGrow(x)
}

// goesOn tells that growth does not slow down towards the end.
func (p *Pass) goesOn(x []float64) bool {
	share, sure := endShare(x, p.curve.low, true)
	if share < 0.2 && sure > 2 || share < 0.55 && sure > 3 {
		return false
	}
	if p.whole.slows() {
		return false
	}
	if sure > 2 {
		// It bends, if only a little as yet.
		if b := contest(lowest(x, p.curve.low, min(48, len(x)))); b.slows() {
			return false
		}
	}
	if p.slowed() > 0 {
		// Nothing proves that it goes on: see contest. What has grown more since
		// than before, or for long, and straight, is believed all the same.
		last := p.bends[len(p.bends)-1]
		c := &p.curve
		before := last.before * hours(last.at-p.points[p.life.from].At)
		if straight, bent := endShare(x, c.low, false); straight < 0.85 || bent > 1 || rising(c.x, c.low).grew < before && last.part > 0.3 {
			return false
		}
	}
	end, less := tail(x, p.curve.low)
	return end > 0.5 || less < 3
}

// words tells what was seen: r along its axis, hourly along time.
func (p *Pass) words(r, hourly rise) string {
	return fmt.Sprintf("the lowest value of each of %d windows rose from %s to %s in %s; %s; the chance that noise does this is %s",
		r.windows, p.amount(r.first), p.amount(r.last), p.spanWords(), p.slopeWords(hourly), chance(math.Max(r.p, 0)))
}

func (p *Pass) slopeWords(r rise) string {
	if math.IsInf(r.low, 0) || math.IsNaN(r.low) {
		return p.signed(r.slope)
	}
	return fmt.Sprintf("%s (%s to %s)", p.signed(r.slope), p.amount(r.low), p.amount(r.high))
}
