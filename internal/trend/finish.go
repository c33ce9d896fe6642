package trend

import (
	"fmt"
	"math"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// rhythm notes that what varies was explained.
func (p *Pass) rhythm(words string) {
	p.note(words)
	p.wavy = true
}

// widened is r with the interval that follows from all that was taken out of
// the curve: the size of a step is not known better than this.
func (p *Pass) widened(r rise) rise {
	if span := p.curve.span(); span > 0 {
		r.low -= restOfSteps * p.leveled / span
		r.high += restOfSteps * p.leveled / span
	}
	return r
}

// above tells that the interval of the slope is above 0, or that there is none.
func (p *Pass) above(r rise) bool {
	r = p.widened(r)
	return r.low > 0 || math.IsInf(r.low, 0) || math.IsNaN(r.low)
}

// growth puts the slope of r into the trend.
func (p *Pass) growth(r rise) {
	p.best = r
	r = p.widened(r)
	p.trend.PerHour = &r.slope
	if !math.IsInf(r.low, 0) && !math.IsNaN(r.low) {
		p.trend.PerHourLow, p.trend.PerHourHigh = &r.low, &r.high
	}
	p.trend.Strength = max(0, min(1, 1-r.p))
	if k := len(p.bends); k > 0 {
		at := p.time(p.bends[k-1].at)
		p.trend.Since = &at
	} else if p.life.from > 0 {
		at := p.time(p.points[p.life.from].At)
		p.trend.Since = &at
	}
}

// finish concludes when no detector did, and adds what follows from the
// verdict.
func (p *Pass) finish() {
	if p.trend.Verdict == "" {
		p.detector = Monotone
		p.leftOver()
	}
	if Grows(p.trend.Verdict) || p.trend.Verdict == leak.VerdictUnknown && p.trend.PerHour != nil {
		p.trend.Exhaustion = p.exhaustion()
	}
	if p.trend.Verdict != leak.VerdictUnknown && p.trend.Strength == 0 {
		p.trend.Strength = max(0, min(1, p.best.p))
	}
}

// leftOver tells steady from not decided.
func (p *Pass) leftOver() {
	r := p.best
	if p.curve.n() >= 6 && r.windows == 0 {
		r = rising(p.curve.x, p.curve.low)
	}
	switch {
	case !p.enough():
		p.short(r)
	case p.loadRose != "" && r.p < alpha && r.slope > 0:
		p.undecided(r, p.loadRose)
	case p.whole.slows() && p.slowed() == 0 && p.grown() >= p.resource.least:
		p.undecided(r, p.slowWords()+", which may come to an end, or not")
	case p.climbs():
		p.undecided(r, fmt.Sprintf("rose by %s in %s, but not evenly enough to tell that it goes on", p.amount(p.grown()), p.spanWords()))
	case (r.p < 0.01 || p.widened(r).low > 0) && r.slope > 0 && r.grew >= p.resource.least:
		p.undecided(r, p.doubt(r))
	case p.slowed() > 0:
		p.detector = Saturation
		p.conclude(leak.VerdictSaturating, p.bendWords())
	case p.wavy:
		p.conclude(leak.VerdictPeriodic, "beside that it does not grow: "+p.slopeWords(r))
	default:
		p.conclude(leak.VerdictSteady, "no growth in "+p.spanWords()+": "+p.slopeWords(r))
	}
}

// climbs tells that nearly all of the curve is higher than what was before it:
// it is not steady, whatever it is.
func (p *Pass) climbs() bool {
	_, low := lowest(p.curve.x, p.curve.low, min(48, p.curve.n()))
	return p.slowed() == 0 && series.MannKendall(low, 1).Tau > 0.8 && p.grown() >= p.resource.least
}

// doubt says why growth that was seen is not believed.
func (p *Pass) doubt(r rise) string {
	rose := fmt.Sprintf("rose by %s in %s", p.amount(r.grew), p.spanWords())
	if p.unseen {
		return rose + ", but most of it while nobody was watching: it may have come once"
	}
	if r.p < alpha/10 {
		return rose + ", but not evenly enough to tell that it goes on"
	}
	return rose + ", and the chance that noise does this is " + chance(r.p) + ": too much to be sure"
}

// short says what can be said of too little data.
func (p *Pass) short(r rise) {
	ps := p.judged()
	if k := len(p.bends); k > 0 {
		for ps[0].At < p.bends[k-1].at {
			ps = ps[1:]
		}
	}
	span := time.Duration(ps[len(ps)-1].At-ps[0].At) * time.Millisecond
	needs := leastTime - span
	if n := len(ps); n > 1 && n < leastPoints {
		needs = max(needs, span*time.Duration(leastPoints-n)/time.Duration(n-1))
	}
	seconds := max(1, needs.Seconds())
	p.trend.NeedsS = &seconds
	if r.windows > 0 && r.p < 0.05 && r.slope > 0 && r.grew >= p.resource.least {
		p.growth(r)
		p.conclude(leak.VerdictUnknown, fmt.Sprintf("rose from %s to %s in %s; %s; a verdict needs %s more", p.amount(r.first), p.amount(r.last), since(span), p.slopeWords(r), since(needs)))
		return
	}
	p.conclude(leak.VerdictUnknown, fmt.Sprintf("%s in %s: too few for a verdict, which needs %s more", times(len(ps), "sample"), since(span), since(max(needs, time.Second))))
}

// undecided says how much longer it takes. A slope is known the better the
// longer it is watched: its error falls with the time to the power of 1.5.
func (p *Pass) undecided(r rise, why string) {
	p.growth(r)
	need := 1.5
	if r.t > 0 && !math.IsInf(r.t, 0) {
		need = max(1.25, math.Pow(5/r.t, 2.0/3))
	}
	seconds := min(need-1, 10) * p.curve.span() * 3600
	p.trend.NeedsS = &seconds
	p.conclude(leak.VerdictUnknown, why)
}
