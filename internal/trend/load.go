package trend

import (
	"fmt"
	"math"
	"slices"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// Follow takes out what is held for work in progress.
var Follow = &Detector{
	Name:    "trend.follow",
	Doc:     "follows the load up and down",
	Assumes: "CPU time or bytes read are in proportion to the work; what is held for work in progress is a level and a part in proportion to the load",
	Run:     follow,
}

// Load finds growth by work done.
var Load = &Detector{
	Name:    "trend.load",
	Doc:     "grows by so much for each unit of work done, and never back",
	Assumes: "CPU time or bytes read are in proportion to the work; what is held for work in progress grows at most as fast as the load",
	Run:     load,
}

// Idle finds growth while nothing is to be done.
var Idle = &Detector{
	Name:    "trend.idle",
	Doc:     "grows while the program is idle, and not while it works",
	Assumes: "a load below a fifth of its mean is no work",
	Run:     idle,
}

const (
	// leastVariation is how much the load must vary, as a part of its mean, to
	// tell growth by work from growth by time.
	leastVariation = 0.15
	// betterFit is how much smaller the squared residuals along the work done
	// are than along time, where work is the cause.
	betterFit = 0.5
	// leastShare is how much of what varies the load must explain, and
	// followErrors how many standard errors the part in proportion to it has.
	leastShare   = 0.3
	followErrors = 4
	// mostElastic is how much faster than the load what is held for it may
	// grow: in proportion, and a little for what is measured badly.
	mostElastic = 1.25
)

// workload is the work of a life, by the windows of its curve.
type workload struct {
	unit  string
	scale float64   // of a unit in the metric's unit
	rate  []float64 // per hour, in each window
	done  []float64 // since the first window
	idle  []float64 // hours without work since the first window
	fresh bool      // the life began with the windows
}

// workload gives the work that explains the curve best: what is held at a
// time, by the load, or what has been added, by the work done.
func (p *Pass) workload() *workload {
	var best *workload
	closest := -1.0
	for _, c := range []struct {
		metric series.Metric
		unit   string
		scale  float64
	}{{series.CPU, "second of CPU", 1}, {series.Received, "MB received", 1e6}, {series.HostAccepted, "connection", 1}} {
		points := p.books.find(c.metric, p.worker)
		if c.metric == series.HostAccepted { // nobody counts them by process
			points = p.books.host[series.Key{Metric: c.metric}].Between(p.books.From, p.books.To).Points
		}
		if p.worker == "" || len(points) < 8 || p.curve.n() < 8 {
			continue
		}
		w := workOf(p.books.awake(points), p.curve.windows)
		if w == nil {
			continue
		}
		w.unit, w.scale, w.fresh = c.unit, c.scale, p.fresh
		like := max(w.likeness(&p.curve), 1-squares(w.done, p.curve.mean)/max(squares(p.curve.x, p.curve.mean), 1e-9))
		// The first that varies is taken, unless another explains much more.
		if best == nil || like > closest+0.1 {
			best, closest = w, like
		}
	}
	return best
}

// workOf reads a total at the windows' ends. What was counted before the first
// window began is no work of these windows: another process may have done it.
func workOf(total []series.Point, windows []series.Window) *workload {
	n := len(windows)
	w := &workload{rate: make([]float64, n), done: make([]float64, n), idle: make([]float64, n)}
	k, sum, seen := 0, 0.0, 0.0
	started := false
	for k < len(total) && total[k].At <= windows[0].From {
		seen, started = total[k].Value, true
		k++
	}
	for i, win := range windows {
		end := win.To
		if i+1 < n {
			end = windows[i+1].From
		}
		work := 0.0
		for k < len(total) && total[k].At <= end {
			if started && total[k].Value > seen {
				work += total[k].Value - seen
			}
			seen, started = total[k].Value, true
			k++
		}
		length := hours(end - win.From)
		if length > 0 {
			w.rate[i] = work / length
		} else if i > 0 {
			w.rate[i] = w.rate[i-1]
		}
		w.done[i] = sum + work/2
		sum += work
	}
	mean := series.Mean(w.rate)
	if mean <= 0 {
		return nil
	}
	quiet := 0.0
	for i, win := range windows {
		length := hours(win.To - win.From)
		if i+1 < n {
			length = hours(windows[i+1].From - win.From)
		}
		if w.rate[i] < 0.2*mean {
			w.idle[i] = quiet + length/2
			quiet += length
		} else {
			w.idle[i] = quiet
		}
	}
	return w
}

// smooth is the rate, averaged over neighbours: what is held changes with the
// load of minutes, and single windows are measured badly.
func (w *workload) smooth(side int) []float64 {
	out := make([]float64, len(w.rate))
	for i := range out {
		out[i] = series.Mean(w.rate[max(0, i-side):min(len(w.rate), i+side+1)])
	}
	return out
}

// varies tells that the load varies enough to tell growth by work from growth
// by time.
func (w *workload) varies() bool {
	level := w.smooth(1)
	return series.Deviation(level) >= leastVariation*series.Mean(level)
}

// likeness is how much of the variation of the curve's mean around its line
// the load explains.
func (w *workload) likeness(c *curve) float64 {
	f, plain, ok := w.follow(c)
	if !ok || plain == 0 || f.Coefficients[0] <= 0 {
		return 0
	}
	return 1 - f.Squares/plain
}

// follow fits the curve by a line and the load; plain are the squares left
// by the line alone. After a start it is a bent line: something fills then, and
// a load that only rises or only falls as yet must not explain that away.
func (w *workload) follow(c *curve) (f series.Fit, plain float64, ok bool) {
	ones, square := make([]float64, c.n()), make([]float64, c.n())
	for i, x := range c.x {
		ones[i], square[i] = 1, x*x
	}
	columns := [][]float64{ones, c.x}
	if w.fresh {
		columns = append(columns, square)
	}
	line, ok := series.FitColumns(c.mean, columns...)
	if !ok {
		return f, 0, false
	}
	f, ok = series.FitColumns(c.mean, append([][]float64{w.smooth(3)}, columns...)...)
	return f, line.Squares, ok
}

func follow(p *Pass) {
	w := p.load
	c := &p.curve
	if w == nil || len(w.rate) != c.n() || c.n() < 12 {
		return
	}
	f, plain, ok := w.follow(c)
	if !ok || plain == 0 {
		return
	}
	share := 1 - f.Squares/plain
	t := f.Coefficients[0] / (f.Errors[0] * math.Sqrt(series.Inflation(series.Persistence(f.Residuals, true))))
	if share < leastShare || t < followErrors {
		return
	}
	level := w.smooth(3)
	mean := series.Mean(level)
	p.leveled += f.Coefficients[0] * (slices.Max(level) - slices.Min(level))
	p.follows = true
	for i := range c.low {
		c.low[i] -= f.Coefficients[0] * (level[i] - mean)
		c.mean[i] -= f.Coefficients[0] * (level[i] - mean)
	}
	p.rhythm(fmt.Sprintf("follows the load up and down, which explains %.0f %% of what varies and is taken out", 100*share))
}

func load(p *Pass) {
	w := p.load
	if w == nil || len(w.rate) < p.curve.n() || p.curve.n() < 12 {
		return
	}
	// A curve that was cut has the end of the load.
	w = w.from(len(w.rate) - p.curve.n())
	p.load = w
	if !withWork(p, w) {
		p.loadRises(w)
	}
}

func (w *workload) from(k int) *workload {
	out := *w
	out.rate, out.done, out.idle = w.rate[k:], w.done[k:], w.idle[k:]
	return &out
}

// withWork concludes growth along the work done, where work explains it better
// than time.
func withWork(p *Pass, w *workload) bool {
	c := &p.curve
	if !p.enough() || p.seldom || !w.varies() {
		return false
	}
	r, ok := p.along(w.done)
	if !ok {
		return false
	}
	hourly := rising(c.x, c.low)
	if hourly.slope <= 0 || !p.above(hourly) || !w.explains(p) {
		return false
	}
	unit := r.slope * w.scale
	p.trend.PerUnit, p.trend.Unit = &unit, w.unit
	hourly.p = min(hourly.p, r.p)
	p.growth(hourly)
	p.conclude(leak.VerdictWithLoad, fmt.Sprintf("grew by %s for each %s, and the work explains it better than the time; %s", p.amount(unit), w.unit, p.words(r, hourly)))
	return true
}

// explains tells that the work done explains the curve better than time.
func (w *workload) explains(p *Pass) bool {
	y := p.curve.raw
	if p.follows {
		y = p.curve.low
	}
	return squares(w.done, y) <= betterFit*squares(p.curve.x, y)
}

// straightByWork tells that the curve grows evenly with the work done, and not
// with time.
func (p *Pass) straightByWork() bool {
	w := p.load
	if w == nil || len(w.done) != p.curve.n() || p.curve.n() < bendWindows || !w.varies() || !w.explains(p) {
		return false
	}
	share, sure := endShare(w.done, p.curve.low, false)
	return share > bentShare || share > 0.5 && sure < 2
}

func idle(p *Pass) {
	w := p.load
	c := &p.curve
	if w == nil || len(w.idle) != c.n() || c.n() < 12 || !p.enough() || p.seldom {
		return
	}
	quiet := w.idle[c.n()-1] - w.idle[0]
	if span := c.x[c.n()-1] - c.x[0]; quiet < 0.1*span || quiet > 0.9*span {
		return
	}
	r, ok := p.along(w.idle)
	if !ok || squares(w.idle, c.raw) > betterFit*squares(c.x, c.raw) {
		return
	}
	hourly := rising(c.x, c.low)
	if hourly.slope <= 0 || !p.above(hourly) {
		return
	}
	hourly.p = min(hourly.p, r.p)
	p.growth(hourly)
	p.conclude(leak.VerdictGrowing, fmt.Sprintf("grows while idle, by %s of idleness, and not while it works; %s", p.rate(r.slope), p.words(r, hourly)))
}

func squares(x, y []float64) float64 {
	sum := 0.0
	for _, r := range series.LeastSquares(x, y).Residuals {
		sum += r * r
	}
	return sum
}

// loadRises notes a load that rose over the curve by enough to explain its
// growth.
func (p *Pass) loadRises(w *workload) {
	c := &p.curve
	// Some windows are enough to see that it rises, and are independent.
	const parts = 12
	n := c.n()
	means := make([]float64, parts)
	for g := range means {
		means[g] = series.Mean(w.rate[g*n/parts : (g+1)*n/parts])
	}
	line := series.LeastSquares(c.x, w.rate)
	more := line.Slope * (c.x[n-1] - c.x[0]) / series.Mean(w.rate)
	if series.MannKendall(means, 1).P > 0.01 || more < 0.02 {
		return
	}
	grew := rising(c.x, c.low).grew
	if now := c.mean[n-1]; now > 0 && grew/now < mostElastic*more {
		p.loadRose = fmt.Sprintf("the load rose by %.0f %% in the same time, which may be why; it must fall or stay before this can be told", 100*more)
	}
}
