package trend

import (
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
)

const (
	// fine is how many windows a life is cut into, once. All else is made of
	// these, so a week costs what an hour does.
	fine = 192
	// leastPoints and leastTime are what a verdict needs at least.
	leastPoints = 30
	leastTime   = 3 * time.Minute
	// alpha is the chance of being wrong that a verdict may have.
	alpha = 4e-3
)

// Pass is the judging of one resource of one worker.
type Pass struct {
	books    *books
	resource *resource
	metric   series.Metric
	worker   string
	points   []series.Point // of all lives, in time awake
	lives    []life
	life     life // the one that is judged
	fresh    bool // it began within the window
	curve    curve
	bends    []bend
	whole    bout      // of the curve before it was cut
	load     *workload // nil when none was measured
	loadRose string    // what was seen of a load that rose too, and may explain the growth
	best     rise      // the growth that is most certain
	steps    []series.Step
	seldom   bool    // its steps come ever more seldom
	unseen   bool    // it may have grown only while nobody looked
	leveled  float64 // what steps that were taken out add up to
	detector *Detector
	follows  bool // the load was taken out
	wavy     bool // a rhythm or the load was taken out
	trend    leak.ReportTrend
	marks    []leak.ReportMark
}

// life is the points of one process: points[from:to].
type life struct{ from, to int }

// curve is a life, reduced. x is hours since its first point.
type curve struct {
	windows   []series.Window
	x         []float64 // of the lowest value
	low, mean []float64
	raw       []float64 // low before a rhythm or the load was taken away
}

func (c *curve) n() int { return len(c.x) }

// span is the time of the curve in hours.
func (c *curve) span() float64 {
	if c.n() < 2 {
		return 0
	}
	return hours(c.windows[len(c.windows)-1].To - c.windows[0].From)
}

// from gives the curve from window k on.
func (c *curve) from(k int) curve {
	return curve{windows: c.windows[k:], x: c.x[k:], low: c.low[k:], mean: c.mean[k:], raw: c.raw[k:]}
}

func newPass(b *books, r *resource, worker string) *Pass {
	ps, m := b.resource(r, worker)
	if len(ps) == 0 {
		return nil
	}
	p := &Pass{books: b, resource: r, metric: m, worker: worker, points: b.awake(ps)}
	info, _ := series.Describe(m)
	p.trend = leak.ReportTrend{Metric: string(m), Resource: r.name, Worker: worker, Bytes: info.Bytes, Now: ps[len(ps)-1].Value, Detectors: []string{}, Evidence: []string{}}
	if pid := b.find(series.PID, worker); worker != "" && len(pid) > 0 {
		p.trend.PID = int(pid[len(pid)-1].Value)
	}
	p.divide()
	p.judgeLife(p.lives[len(p.lives)-1])
	return p
}

// divide finds the lives.
func (p *Pass) divide() {
	from := 0
	for _, at := range p.books.births(p.worker) {
		at = p.books.awakeAt(at)
		to := from
		for to < len(p.points) && p.points[to].At < at {
			to++
		}
		if to > from {
			p.lives = append(p.lives, life{from, to})
			from = to
		}
	}
	if from < len(p.points) {
		p.lives = append(p.lives, life{from, len(p.points)})
	}
}

// judgeLife makes l the life that is judged.
func (p *Pass) judgeLife(l life) {
	p.life = l
	ps := p.points[l.from:l.to]
	p.fresh = l.from > 0 || p.young()
	p.curve = reduce(ps)
	p.load = p.workload()
}

// young tells that the first process seen began shortly before the window.
func (p *Pass) young() bool {
	ps := p.books.find(series.Started, p.worker)
	if len(ps) == 0 {
		return false
	}
	first := p.points[0].At
	age := float64(ps[0].At)/1000 - ps[0].Value
	return age < 0.05*float64(p.points[len(p.points)-1].At-first)/1000
}

func reduce(ps []series.Point) curve {
	ws := series.Windows(evenly(ps), fine)
	c := curve{windows: ws, x: make([]float64, len(ws)), low: make([]float64, len(ws)), mean: make([]float64, len(ws))}
	for i, w := range ws {
		c.x[i] = hours(w.LowAt - ws[0].From)
		c.low[i], c.mean[i] = w.Low, w.Mean
	}
	c.raw = append([]float64{}, c.low...)
	return c
}

// judged are the points of the life that is judged.
func (p *Pass) judged() []series.Point { return p.points[p.life.from:p.life.to] }

// enough tells whether there is data for a verdict at all: of the life, and of
// what is left of it since its last bend.
func (p *Pass) enough() bool {
	ps := p.judged()
	if len(p.bends) > 0 && p.curve.span() < leastTime.Hours() {
		return false
	}
	return len(ps) >= leastPoints && ps[len(ps)-1].At-ps[0].At >= leastTime.Milliseconds()-1000
}

func hours(ms int64) float64 { return float64(ms) / 3_600_000 }
