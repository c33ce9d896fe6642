package trend

import (
	"fmt"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// Restart judges lives that are too short to be judged one by one, and else
// chooses the life that is judged.
var Restart = &Detector{
	Name:    "trend.restart",
	Doc:     "a worker that is restarted again and again grows in each of its lives",
	Assumes: "lives are alike: what one process of the service does, the next does too; its warm-up is over after two fifths of a life",
	Run:     restart,
}

const (
	// leastLives is how many lives tell by their differences how sure their mean
	// is.
	leastLives = 4
	// lifePoints is how many points a life needs to have a slope.
	lifePoints = 12
	// settled is the part of a life that may be a warm-up.
	settled = 0.4
	// ownLife is the part of the window that the last life must fill to be
	// judged by itself.
	ownLife = 0.3
)

func restart(p *Pass) {
	last := p.lives[len(p.lives)-1]
	all := len(p.points)
	if len(p.lives) == 1 || all < leastPoints || float64(last.to-last.from) >= ownLife*float64(all) && last.to-last.from >= leastPoints {
		return
	}
	if r, n, ok := p.together(); ok {
		p.best = r
		p.growth(r)
		p.trend.Since = nil // each life begins anew
		length := time.Duration(p.points[len(p.points)-1].At-p.points[0].At) * time.Millisecond / time.Duration(len(p.lives))
		p.conclude(leak.VerdictGrowing, fmt.Sprintf("each of %d lives of about %s grew by about %s until the restart; the chance that noise does this is %s",
			n, since(length), p.rate(r.slope), chance(r.p)))
		return
	}
	longest := slices.MaxFunc(p.lives, func(a, b life) int { return (a.to - a.from) - (b.to - b.from) })
	if longest.to-longest.from > 2*(last.to-last.from) || !p.enough() {
		p.judgeLife(longest)
		p.note("the life judged is an earlier one: it is the longest that was seen")
	}
}

// together asks whether the slopes of the lives, each without its first part,
// are above zero. n is how many lives were asked.
func (p *Pass) together() (r rise, n int, ok bool) {
	var late, early []float64
	sure := 0.0
	var lengths []int
	for _, l := range p.lives {
		lengths = append(lengths, l.to-l.from)
	}
	slices.Sort(lengths)
	middle := lengths[len(lengths)/2]
	for _, l := range p.lives {
		if length := l.to - l.from; length < lifePoints || length < middle/2 {
			continue
		}
		ps := p.points[l.from:l.to]
		cut := int(settled * float64(len(ps)))
		line := trendOfPoints(ps[cut:])
		late = append(late, line.slope)
		sure += distuv.UnitNormal.Quantile(1 - max(line.p, 1e-12))
		early = append(early, trendOfPoints(ps[:cut+1]).slope)
	}
	n = len(late)
	if n < 2 {
		return r, n, false
	}
	positive := 0
	for _, s := range late {
		if s > 0 {
			positive++
		}
	}
	student := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(n - 1)}
	err := series.Deviation(late) / math.Sqrt(float64(n))
	r.slope = series.Mean(late)
	width := student.Quantile(0.975) * err
	r.low, r.high = r.slope-width, r.slope+width
	if r.slope <= 0 || positive*10 < n*9 {
		return r, n, false
	}
	if err > 0 {
		r.t = r.slope / err
		r.p = student.Survival(r.t)
	}
	// Few lives say little by how they differ, but each has noise of its own to
	// be held against (Stouffer's sum).
	if n < leastLives {
		r.t = sure / math.Sqrt(float64(n))
		r.p = distuv.UnitNormal.Survival(r.t)
		r.low, r.high = math.Inf(-1), math.Inf(1)
	}
	// A warm-up slows down within each life; a leak does not.
	if r.slope < 0.4*series.Median(early) {
		return r, n, false
	}
	span := hours(p.points[len(p.points)-1].At-p.points[0].At) / float64(len(p.lives))
	r.grew = r.slope * span
	return r, n, r.p < alpha && r.grew >= p.resource.least
}

// trendOfPoints is the trend of the lowest values of some windows.
func trendOfPoints(ps []series.Point) rise {
	ws := series.Windows(ps, 24)
	x, y := make([]float64, len(ws)), make([]float64, len(ws))
	for i, w := range ws {
		x[i], y[i] = hours(w.LowAt-ws[0].From), w.Low
	}
	if len(x) < 3 {
		return rise{p: 1}
	}
	r, _ := trendOf(x, y, 0)
	return r
}
