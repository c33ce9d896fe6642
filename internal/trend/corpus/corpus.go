// Package corpus makes histories of which it is known whether something leaks.
// It is test support: the accuracy of package trend is measured on it, and
// testdata/series writes it out for other tools.
//
// What the words mean, exactly:
//
//   - Growth is the part of a trace that is added without end: by time, by
//     work done, or by steps. A trace is a leak if it has such a part.
//   - Signal is how much the growth adds from the first point to the last; of
//     traces that restart, in the longest life.
//   - Noise is the standard deviation over the window of the same trace without
//     its growth: collectors, load, the time of day and measuring errors are
//     all noise, and so is the filling of a cache beside a leak.
//   - A trace whose window does not show the difference is in no family: a
//     cache that is still filling evenly when the window ends, a day's load of
//     which an hour was seen and whose load was not measured. What such a window
//     shows is a leak by every look at it, and nobody can tell it from one.
package corpus

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"

	"stanch/internal/series"
)

// Trace is the history of one process, with its truth.
type Trace struct {
	Name     string // "leak/linear/6h/10s/snr4/17"
	Family   string // "linear"
	Leak     bool
	Window   time.Duration
	Interval time.Duration
	Metric   series.Metric // what grows or does not
	Signal   float64       // see the package
	Noise    float64
	PerHour  float64 // the true slope where growth is linear over the whole window, else 0
	Steps    []int64 // true times of growth steps, of the first point after each; Unix ms
	Series   []series.Series
	Host     []series.Series
}

// SNR is Signal over Noise, 0 of what does not leak.
func (t *Trace) SNR() float64 {
	if t.Noise == 0 {
		return 0
	}
	return t.Signal / t.Noise
}

// From and To are the window, Unix ms.
func (t *Trace) From() int64 { return t.Series[0].Points[0].At }

// To is the time of the last point, Unix ms.
func (t *Trace) To() int64 {
	ps := t.Series[0].Points
	return ps[len(ps)-1].At
}

// Shape is a window's length and how often it was sampled.
type Shape struct{ Window, Interval time.Duration }

// Shapes are those that traces are made in.
var Shapes = []Shape{
	{10 * time.Minute, time.Second},
	{10 * time.Minute, 10 * time.Second},
	{30 * time.Minute, time.Second},
	{30 * time.Minute, 10 * time.Second},
	{2 * time.Hour, 10 * time.Second},
	{6 * time.Hour, 10 * time.Second},
	{24 * time.Hour, 10 * time.Second},
	{72 * time.Hour, 10 * time.Second},
	{168 * time.Hour, 10 * time.Second},
}

// SNRs are the ratios of signal to noise that leaks are made with.
var SNRs = []float64{1, 2, 3, 4, 6, 10, 20}

// Family is a way in which memory behaves.
type Family struct {
	Name  string
	Doc   string
	Leak  bool
	least time.Duration // the shortest window it can be seen in
	build func(*draft)
}

// Families are all of them: first what does not leak.
func Families() []Family { return append(append([]Family{}, innocent...), leaking...) }

// start is when all traces begin: a Monday at 00:00 UTC.
const start = int64(1_767_571_200_000)

// Make gives one trace of a family. The same arguments give the same trace.
// It is nil where the window is too short for the family.
func Make(f Family, s Shape, snr float64, seed uint64) *Trace {
	if s.Window < f.least {
		return nil
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%v/%v/%g", f.Name, s.Window, s.Interval, snr)
	d := newDraft(s, snr, rand.New(rand.NewPCG(seed, h.Sum64())))
	f.build(d)
	t := d.trace()
	t.Family, t.Leak = f.Name, f.Leak
	t.Name = fmt.Sprintf("none/%s/%s/%s/%d", f.Name, short(s.Window), short(s.Interval), seed)
	if f.Leak {
		t.Name = fmt.Sprintf("leak/%s/%s/%s/snr%g/%d", f.Name, short(s.Window), short(s.Interval), snr, seed)
	}
	return t
}

// short writes a duration without its zeros: 168h, 10m, 1s.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%gh", d.Hours())
	case d >= time.Minute:
		return fmt.Sprintf("%gm", d.Minutes())
	}
	return fmt.Sprintf("%gs", d.Seconds())
}

// draft is a trace in the making: what is there without growth, and growth.
type draft struct {
	*rand.Rand
	Shape
	n      int
	snr    float64
	metric series.Metric
	unit   float64   // values are whole multiples of it: pages, or 1
	level  float64   // where it begins
	sigma  float64   // of small noise
	base   []float64 // above level, without growth
	growth []float64 // shape of growth, 0 to 1; nil of what does not leak
	load   []float64 // work done, CPU seconds per second
	unseen bool      // the load was not measured
	lives  []int     // the first points of lives after the first
	steps  []int     // points at which growth steps
	linear bool
	holes  [][2]int // points that nobody measured
	sleep  [2]int   // the point before which the host slept, and the seconds
}

func newDraft(s Shape, snr float64, r *rand.Rand) *draft {
	d := &draft{Rand: r, Shape: s, n: int(s.Window / s.Interval), snr: snr, metric: series.Anonymous, unit: 4096}
	d.level = math.Exp(d.between(math.Log(20e6), math.Log(800e6)))
	d.sigma = d.level * math.Exp(d.between(math.Log(0.0005), math.Log(0.02)))
	d.base = make([]float64, d.n)
	d.load = d.anyLoad()
	return d
}

func (d *draft) between(low, high float64) float64 { return low + (high-low)*d.Float64() }
func (d *draft) chance(p float64) bool             { return d.Float64() < p }

// part is where in the window point i is, 0 to 1.
func (d *draft) part(i int) float64 { return float64(i) / float64(d.n-1) }

// each adds f of every point to the base.
func (d *draft) each(f func(i int) float64) {
	for i := range d.base {
		d.base[i] += f(i)
	}
}

// grow sets the shape of growth.
func (d *draft) grow(f func(i int) float64) {
	d.growth = make([]float64, d.n)
	for i := range d.growth {
		d.growth[i] = f(i)
	}
}

// counts makes it a count of descriptors or threads, not bytes.
func (d *draft) counts(m series.Metric) {
	d.metric, d.unit = m, 1
	d.level = math.Round(math.Exp(d.between(math.Log(40), math.Log(2000))))
	d.sigma = max(1.5, d.level*d.between(0.002, 0.02))
}

// trace joins base and growth, and measures both.
func (d *draft) trace() *Trace {
	t := &Trace{Window: d.Window, Interval: d.Interval, Metric: d.metric, Noise: series.Deviation(d.base)}
	if d.growth != nil {
		first, last := d.longest()
		rise := d.growth[last] - d.growth[first]
		t.Signal = d.snr * t.Noise
		scale := t.Signal / rise
		for i := range d.growth {
			d.base[i] += d.growth[i] * scale
		}
		if d.linear {
			t.PerHour = t.Signal / (d.Window - d.Interval).Hours()
		}
	}
	lowest := 0.0
	for _, v := range d.base {
		lowest = min(lowest, v)
	}
	d.level = max(d.level, 1.1*-lowest)
	d.points(t)
	return t
}

// longest is the first and the last point of the longest life.
func (d *draft) longest() (first, last int) {
	from := 0
	last = -1
	for _, at := range append(append([]int{}, d.lives...), d.n) {
		if at-1-from > last-first || last < 0 {
			first, last = from, at-1
		}
		from = at
	}
	return first, last
}
