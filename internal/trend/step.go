package trend

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// Step finds growth that comes at moments. Steps that come and go, or came a
// few times only, are taken out, so that one big step is not a slope.
var Step = &Detector{
	Name:    "trend.step",
	Doc:     "grows by steps at certain moments, and never back",
	Assumes: "a step comes within one sample and stands out of the noise; steps that go on come as often at the end of the window as at its begin",
	Run:     step,
}

const (
	// leastSteps is how many steps up without one down are growth: each by
	// itself is as likely to be the last.
	leastSteps = 7
	// stepsOfGrowth is the part of the growth that steps must explain.
	stepsOfGrowth = 0.6
	// oneOf is the part of the growth that a single step makes at least which
	// is not taken for growth.
	oneOf = 0.3
	// mostMarks is how many moments of one kind are marked: the largest.
	mostMarks = 200
)

func step(p *Pass) {
	if p.curve.n() < 8 {
		return
	}
	clearSteps(p)
	if p.trend.Verdict == "" {
		p.shift()
	}
}

// clearSteps asks for steps that stand out of the noise of the points.
func clearSteps(p *Pass) {
	steps := series.Steps(p.judged(), p.resource.step)
	ups, downs := unmatched(steps)
	ups = p.stayed(ups)
	up, down := total(ups), -total(downs)
	grew := p.grown()
	if len(ups) == 0 || up < 0.3*math.Abs(grew) || len(steps) > 4*len(ups)+4 {
		return // none that matter, or so many that came and went that these are noise too
	}
	if len(ups) < leastSteps {
		if ups = larger(ups, oneOf*grew); len(ups) == 0 {
			return
		}
		p.level(ups)
		p.mark(ups)
		p.note(fmt.Sprintf("%s up by %s in all, which is not taken for growth", times(len(ups), "step"), p.amount(total(ups))))
		return
	}
	seen, gained := p.watched()
	if grew -= max(0, gained); !p.enough() || down > 0.2*up || up-down < stepsOfGrowth*grew || grew < 0.5*(up-down) || grew < p.resource.least {
		return
	}
	if rarer(ups, p.judged(), seen) {
		p.seldom = true
		p.note(fmt.Sprintf("%s up, but ever more seldom, or none for long", times(len(ups), "step")))
		return
	}
	r := stepRate(ups, p.judged(), seen, gained)
	if !p.above(r) {
		return
	}
	p.mark(ups)
	p.steps = ups
	p.growth(r)
	span := time.Duration((p.curve.span()) * float64(time.Hour))
	p.conclude(leak.VerdictStepping, fmt.Sprintf("%s up in %s, %s each in the median, %s in all, and %s down; %s",
		times(len(ups), "step"), since(span), p.amount(middle(ups)), p.amount(up), p.amount(down), p.slopeWords(r)))
}

// shift takes out steps up that are lost in the noise of the points, but not
// in that of the windows.
func (p *Pass) shift() {
	c := &p.curve
	n := min(48, c.n())
	if n < 16 {
		return
	}
	_, y := lowest(c.x, c.low, n)
	ps := make([]series.Point, n)
	for g := range ps {
		ps[g] = series.Point{At: c.windows[g*c.n()/n].From, Value: y[g]}
	}
	ups, _ := unmatched(series.Steps(ps, p.resource.step))
	if ups = larger(p.stayed(ups), oneOf*p.grown()); len(ups) == 0 || len(ups) >= leastSteps {
		return
	}
	k, sum := 0, 0.0
	for i := range c.windows {
		for k < len(ups) && ups[k].At <= c.windows[i].From {
			sum += ups[k].Size
			k++
		}
		c.low[i] -= sum
		c.mean[i] -= sum
		c.raw[i] -= sum
	}
	p.leveled += sum
	p.note(fmt.Sprintf("%s up by %s in all, which is not taken for growth", times(len(ups), "step"), p.amount(sum)))
}

// unmatched leaves out each step down that takes back an earlier step up of
// about its size, and that one: what came and went.
func unmatched(steps []series.Step) (ups, downs []series.Step) {
	for _, s := range steps {
		if s.Size > 0 {
			ups = append(ups, s)
			continue
		}
		at := -1
		for i := len(ups) - 1; i >= 0; i-- {
			if ratio := -s.Size / ups[i].Size; ratio > 0.7 && ratio < 1.4 {
				at = i
				break
			}
		}
		if at < 0 {
			downs = append(downs, s)
			continue
		}
		ups = append(ups[:at], ups[at+1:]...)
	}
	return ups, downs
}

// stayed leaves out the steps that were given back, by many small steps or
// slowly: later values come below the middle of the step.
func (p *Pass) stayed(ups []series.Step) (out []series.Step) {
	c := &p.curve
	for _, s := range ups {
		k := sort.Search(c.n(), func(i int) bool { return c.windows[i].To >= s.Before })
		before := c.low[max(0, min(k, c.n()-1))]
		if k > 0 {
			before = max(before, c.low[k-1])
		}
		back := false
		for i := k + 2; i < c.n(); i++ {
			back = back || c.low[i] < before+s.Size/2
		}
		if !back {
			out = append(out, s)
		}
	}
	return out
}

func total(steps []series.Step) (sum float64) {
	for _, s := range steps {
		sum += s.Size
	}
	return sum
}

func middle(steps []series.Step) float64 {
	sizes := make([]float64, len(steps))
	for i, s := range steps {
		sizes[i] = s.Size
	}
	return series.Median(sizes)
}

// level takes the steps out of the curve.
func (p *Pass) level(steps []series.Step) {
	ps := append([]series.Point{}, p.judged()...)
	k, sum := 0, 0.0
	for i := range ps {
		for k < len(steps) && steps[k].At <= ps[i].At {
			sum += p.size(steps, k)
			k++
		}
		ps[i].Value -= sum
	}
	p.curve = reduce(ps)
	p.leveled += sum
	p.steps = steps
}

// size is the k-th step's size by more points than it was found with: up to 50
// on each side, as far as the next steps.
func (p *Pass) size(steps []series.Step, k int) float64 {
	const side = 50
	ps := p.judged()
	at := sort.Search(len(ps), func(i int) bool { return ps[i].At >= steps[k].At })
	from, to := max(0, at-side), min(len(ps), at+side)
	if k > 0 {
		for from < at && ps[from].At < steps[k-1].At {
			from++
		}
	}
	if k+1 < len(steps) {
		for to > at && ps[to-1].At >= steps[k+1].At {
			to--
		}
	}
	level := func(ps []series.Point) float64 {
		v := make([]float64, len(ps))
		for i, p := range ps {
			v[i] = p.Value
		}
		return series.Median(v)
	}
	return level(ps[at:to]) - level(ps[from:at])
}

// larger are the steps of at least that size.
func larger(steps []series.Step, least float64) (out []series.Step) {
	for _, s := range steps {
		if s.Size >= least {
			out = append(out, s)
		}
	}
	return out
}

// grown is what the lowest values of the last eighth lie above those of the
// first.
func (p *Pass) grown() float64 {
	c := &p.curve
	k := max(1, c.n()/8)
	first, last := c.low[0], c.low[c.n()-1]
	for i := range k {
		first, last = min(first, c.low[i]), min(last, c.low[c.n()-1-i])
	}
	return last - first
}

// mark makes marks of the largest steps, of equal ones the newest.
func (p *Pass) mark(steps []series.Step) {
	largest := slices.Clone(steps)
	slices.SortFunc(largest, func(a, b series.Step) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(b.At, a.At)) })
	for _, s := range largest[:min(len(largest), mostMarks)] {
		p.marks = append(p.marks, leak.ReportMark{
			At: p.time(s.At), Kind: leak.MarkStep, Metric: p.trend.Metric, Worker: p.worker, Size: s.Size,
			Text: p.resource.name + " rose by " + p.amount(s.Size) + " at once",
		})
	}
}
