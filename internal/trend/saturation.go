package trend

import (
	"fmt"
	"math"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// Warmup finds growth after a start that has ended.
var Warmup = &Detector{
	Name:    "trend.warmup",
	Doc:     "grew after the start, and no longer",
	Assumes: "a start is over when two thirds of the window are left, and what follows it was seen long enough",
	Run: func(p *Pass) {
		p.bend()
		if !p.fresh || !p.enough() || len(p.bends) == 0 {
			return
		}
		if last := p.bends[len(p.bends)-1]; last.part < 0.35 && p.ended() {
			p.conclude(leak.VerdictWarming, p.bendWords())
		}
	},
}

// Saturation finds what fills and stops, or fills ever slower.
var Saturation = &Detector{
	Name:    "trend.saturation",
	Doc:     "fills and stops, or bends towards an end: a cache, a pool",
	Assumes: "what has no end does not slow down: its slope at the end is at least half of its mean slope",
	Run: func(p *Pass) {
		switch {
		case !p.enough():
		case len(p.bends) > 0 && p.ended():
			p.conclude(leak.VerdictSaturating, p.bendWords())
		case len(p.bends) == 0 && p.whole.slows() && p.whole.share < 0.5:
			p.conclude(leak.VerdictSaturating, p.slowWords())
		}
	},
}

// bend is a moment at which the slope changed.
type bend struct {
	at            int64   // Unix ms, awake
	part          float64 // of the window
	before, after float64 // slopes per hour
	outlasts      bool    // something goes on beside what filled: see contest
}

const (
	// bendErrors is how many standard errors a change of the slope has at
	// least. The place is the best of some forty, so chance makes three.
	bendErrors = 5
	// mostBends is how many are looked for, one after the other.
	mostBends = 4
	// bendWindows is how many windows a part of the curve needs to be judged.
	bendWindows = 16
)

// bend cuts the curve where its slope changed, until the rest is straight. What
// is straight along the work done has not bent: there was less to do.
func (p *Pass) bend() {
	if p.straightByWork() {
		return
	}
	whole := p.curve
	p.whole = contest(lowest(whole.x, whole.low, min(48, whole.n())))
	start, span := whole.windows[0].From, float64(whole.windows[whole.n()-1].To-whole.windows[0].From)
	for range mostBends {
		cut, from, h, ok := bendOf(&p.curve)
		if !ok {
			return
		}
		won := ends
		if h.T < 0 && h.Before > 0 {
			part := p.curve.from(from)
			x, y := lowest(part.x, part.low, min(48, part.n()))
			b := contest(x, y)
			if won = b.won; won == jumped {
				p.lower(from+b.at*part.n()/len(x), b.size)
				continue
			}
		}
		at := p.curve.windows[cut].From
		p.bends = append(p.bends, bend{at: at, part: float64(at-start) / span, before: h.Before, after: h.After, outlasts: won == outlasts})
		p.curve = p.curve.from(cut)
	}
}

// lower takes a step out of the curve, from window k on.
func (p *Pass) lower(k int, size float64) {
	c := &p.curve
	for i := k; i < c.n(); i++ {
		c.low[i] -= size
		c.mean[i] -= size
		c.raw[i] -= size
	}
	p.leveled += size
	p.note("rose by " + p.amount(size) + " about " + p.time(c.windows[k].From).Format("2006-01-02 15:04 MST") + ", which is not taken for growth")
}

// bendOf finds where the slope of the curve changed; cut is the first window
// of the new one, from the first that was looked at. A curve that bends twice, as what begins late and fills, has
// no one bend that fits: then its later parts are asked, for slowing down.
func bendOf(c *curve) (cut, from int, h series.Hinge, ok bool) {
	for _, from = range []int{0, c.n() / 4, c.n() / 2} {
		part := c.from(from)
		n := min(48, part.n())
		if n < bendWindows {
			return 0, 0, h, false
		}
		x, y := lowest(part.x, part.low, n)
		h, ok = series.BestHinge(x, y, max(3, n/12))
		if !ok || from > 0 && (h.T > 0 || h.Before <= 0) {
			continue
		}
		keep := series.Persistence(h.Residuals, true) + 2/float64(n) // the place was chosen, too
		if math.Abs(h.T)/math.Sqrt(series.Inflation(keep)) < bendErrors {
			continue
		}
		// Steps at random moments come unevenly.
		if walk, ok := walkError(x, y); ok {
			f := float64(h.At) / float64(n)
			if math.Abs(h.After-h.Before) < 3*walk*math.Sqrt(1/f+1/(1-f)) {
				continue
			}
		}
		if cut = from + h.At*part.n()/n; c.n()-cut >= 8 {
			return cut, from, h, true
		}
	}
	return 0, 0, h, false
}

// ended tells that growth has slowed down, and that what is left of it is not
// enough to speak of, or bends further.
func (p *Pass) ended() bool {
	slowed, first := p.slowed(), 0.0
	for _, b := range p.bends {
		first = max(first, b.before)
	}
	if slowed == 0 || p.bends[len(p.bends)-1].after > p.bends[len(p.bends)-1].before {
		return false
	}
	r := rising(p.curve.x, p.curve.low)
	if r.p > alpha || r.slope <= 0 {
		return true
	}
	share, _ := endShare(p.curve.x, p.curve.low, false)
	rest := 1 - p.bends[len(p.bends)-1].part
	return r.slope < 0.1*first && slowed > 1 || share < 0.5 || rest < 0.5 && r.slope < 0.5*first || slowed > 2
}

// slowed is how many bends slowed growth down.
func (p *Pass) slowed() (n int) {
	for _, b := range p.bends {
		if b.after < b.before && b.before > 0 && !b.outlasts {
			n++
		}
	}
	return n
}

// slowWords tells of a curve that slows down all the time.
func (p *Pass) slowWords() string {
	return fmt.Sprintf("rose by %s in %s, ever slower: at the end by %.0f %% of its mean rate", p.amount(p.grown()), p.spanWords(), 100*p.whole.share)
}

func (p *Pass) bendWords() string {
	last := p.bends[len(p.bends)-1]
	r := rising(p.curve.x, p.curve.low)
	left := time.Duration(p.curve.span() * float64(time.Hour))
	most := 0.0
	for _, b := range p.bends {
		most = max(most, b.before)
	}
	if r.slope > 0.05*most {
		return fmt.Sprintf("grew by %s, slowed down %s, and by %s in the last %s: it bends towards an end", p.rate(most), times(len(p.bends), "time"), p.rate(r.slope), since(left))
	}
	return fmt.Sprintf("grew by %s until %s, and not in the %s since", p.rate(most), p.time(last.at).Format("2006-01-02 15:04:05 MST"), since(left))
}
