package logs

import (
	"cmp"
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// RankOptions say what is known of the times. From and To are Unix time in
// milliseconds.
type RankOptions struct {
	From, To int64         // when the log was watched, and the steps looked for
	Window   time.Duration // how long a cause comes before the growth at most, Window when zero
	Sample   time.Duration // between two samples, 10 s when zero: a step is known to that
	Gaps     []Gap         // when nobody followed the log
}

// Window is how long before growth its cause is looked for.
const Window = 5 * time.Second

// What a claim needs.
const (
	maxChance = 0.01 // corrected for the number of templates
	minSteps  = 3    // with a line before them
)

// Rank tells which templates come before steps more often than at other times,
// the surest first. Each series is one template's lines: points hold the lines
// of 100 ms. Steps are Unix times in milliseconds, known to one sample.
//
// A step has a line before it when one came between Window and a sample before
// it, and a sample after it; steps within one sample of each other are one.
// Under the assumption that lines and steps have
// nothing to do with one another, a window placed anywhere has a line as often
// as one at a step: the chance of as many as were found is hypergeometric, over
// as many windows as the time has room for, of which those have a line that the
// lines cover: lines close together cover hardly more than one, and a template
// of every second covers all.
//
// The same is asked of the minutes around the steps alone, since a program at
// work writes lines of all kinds and grows; the larger chance counts.
//
// Lines and steps that both come at regular times are all in step, or none are:
// such windows do not count one by one. How much so is measured by moving all
// steps together to other times; the spread of what is then found, over that
// of windows drawn one by one, divides the evidence.
//
// The chances are corrected by Holm's method, which bounds the chance of any
// false claim among all templates, whatever they have in common: where nothing
// correlates nothing should be said, and one good cause is enough, so the
// weaker promise of Benjamini and Hochberg (a share of the claims is false)
// would be the wrong one.
func Rank(templates []series.Series, steps []int64, o RankOptions) []leak.ReportLog {
	o = o.filled()
	templates = Fold(templates)
	if gaps := newWithout(o.Gaps); len(gaps) > 0 {
		steps = gaps.times(steps)
		for i := range templates {
			templates[i] = gaps.series(templates[i])
		}
		o.From, _ = gaps.at(o.From)
		o.To, _ = gaps.at(o.To)
	}
	steps = moments(steps, o)
	if len(steps) < minSteps {
		return nil
	}
	var tried []candidate
	for _, s := range templates {
		c := candidate{points: s.Between(o.From, o.To).Points}
		c.log.Template = s.Key.Part
		if len(c.points) > 0 {
			c.judge(steps, o)
		}
		tried = append(tried, c) // one without lines is a template that was tried
	}
	slices.SortFunc(tried, surest)
	claims := []leak.ReportLog{}
	worst := math.Inf(-1)
	for i, c := range tried {
		worst = math.Max(worst, c.chance+math.Log(float64(len(tried)-i)))
		c.log.P = math.Min(1, math.Exp(worst))
		if c.log.P >= maxChance {
			break
		}
		claims = append(claims, c.log)
	}
	return claims
}

func (o RankOptions) filled() RankOptions {
	if o.Window <= 0 {
		o.Window = Window
	}
	if o.Sample <= 0 {
		o.Sample = 10 * time.Second
	}
	return o
}

// before and after bound where a line belongs to a step, in milliseconds.
func (o RankOptions) before() int64 { return (o.Window + o.Sample).Milliseconds() }
func (o RankOptions) after() int64  { return o.Sample.Milliseconds() }
func (o RankOptions) window() int64 { return o.before() + o.after() }

// moments gives the steps of the time looked at, in order. Those within one
// sample are one moment: several numbers show the same growth.
func moments(steps []int64, o RankOptions) []int64 {
	var in []int64
	for _, s := range slices.Sorted(slices.Values(steps)) {
		if s < o.From || s > o.To || len(in) > 0 && s-in[len(in)-1] <= o.Sample.Milliseconds() {
			continue
		}
		in = append(in, s)
	}
	return in
}

// candidate is a template that is judged.
type candidate struct {
	points []series.Point
	log    leak.ReportLog
	chance float64 // logarithm of it, before the correction
}

// surest orders candidates. Where the chances are alike the one with fewer
// lines elsewhere is before the others, then the one that comes earlier: what
// comes first may be the cause of the other.
func surest(a, b candidate) int {
	return cmp.Or(
		cmp.Compare(math.Round(a.chance*10), math.Round(b.chance*10)),
		cmp.Compare(a.log.Other, b.log.Other),
		cmp.Compare(b.log.LeadS, a.log.LeadS),
		cmp.Compare(a.log.Template, b.log.Template),
	)
}

// judge counts the lines before steps and elsewhere, and finds the chance.
func (c *candidate) judge(steps []int64, o RankOptions) {
	c.log.Steps = len(steps)
	var leads []float64
	var total, near float64
	next := 0 // the first step whose window has not ended before the point
	for _, p := range c.points {
		for next < len(steps) && p.At > steps[next]+o.after() {
			next++
		}
		total += p.Value
		if next < len(steps) && p.At >= steps[next]-o.before() {
			near += p.Value
		}
	}
	for _, s := range steps {
		if lead, is := c.lead(s, o); is {
			c.log.Before++
			leads = append(leads, lead)
		}
	}
	c.log.Lines, c.log.Other = int(total), int(total-near)
	c.log.LeadS = median(leads)
	if c.log.Before < minSteps || 2*c.log.Before < len(steps) {
		c.chance = 0
		return
	}
	covered := cover(c.points, o)
	c.chance = max(overall(covered, steps, c.log.Before, o), local(covered, steps, c.log.Before, o))
	if c.chance < math.Log(maxChance) { // what cannot be claimed need not be divided
		c.chance /= spread(covered, steps, o)
	}
}

// lead is how long before a step the line came that is nearest to it, in
// seconds. A line within the sample that follows the step may have come before
// the growth all the same; it counts as no time before.
func (c *candidate) lead(step int64, o RankOptions) (seconds float64, is bool) {
	n, _ := slices.BinarySearchFunc(c.points, step+1, func(p series.Point, at int64) int { return cmp.Compare(p.At, at) })
	if n > 0 && c.points[n-1].At >= step-o.before() {
		return float64(step-c.points[n-1].At) / 1000, true
	}
	return 0, n < len(c.points) && c.points[n].At <= step+o.after()
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}
