package trend

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"stanch/internal/series"
)

// books are a history, made ready: series by key, workers, lives.
type books struct {
	*History
	series  map[series.Key]series.Series // of the service, without its name
	host    map[series.Key]series.Series
	workers []string // of processes, and "" for cgroup and host
	lost    []lost   // time that the clock tells and nothing could happen in, in order
	sums    []int64  // of lost[:i], ms
	back    int64    // by how much the clock was set back at most, ms
}

// lost is time to be taken from all later points: the host slept, or its
// clock was set. Where the clock was set back it is below zero.
type lost struct {
	at int64
	ms int64
}

// before is the part of it that lies before a time. Points cannot go back with
// a clock that is set back: they go on at half the pace until it has caught up,
// so what is missing is missing little by little.
func (l lost) before(at int64) int64 {
	switch {
	case at < l.at:
		return 0
	case l.ms < 0:
		return max(l.ms, l.at-at)
	}
	return l.ms
}

// restore puts it back into a time from which it was taken.
func (l lost) restore(awake int64) int64 {
	switch {
	case l.ms >= 0 && awake+l.ms >= l.at:
		return awake + l.ms
	case l.ms < 0 && awake >= l.at:
		return max(awake+l.ms, l.at+(awake-l.at)/2)
	}
	return awake
}

func newBooks(h *History) *books {
	b := &books{History: h, series: map[series.Key]series.Series{}, host: map[series.Key]series.Series{}}
	for _, s := range h.Host {
		s.Points = series.Clean(s.Points)
		s.Key.Service = ""
		b.host[s.Key] = s
	}
	for _, m := range []series.Metric{series.Suspended, series.ClockJumps} {
		for _, p := range b.host[series.Key{Metric: m}].Points {
			b.lost = append(b.lost, lost{p.At, int64(p.Value * 1000)})
		}
	}
	slices.SortFunc(b.lost, func(x, y lost) int { return cmp.Compare(x.at, y.at) })
	b.sums = make([]int64, len(b.lost)+1)
	for i, l := range b.lost {
		b.sums[i+1] = b.sums[i] + l.ms
		b.back = max(b.back, -l.ms)
	}
	for _, s := range h.Series {
		s.Points = series.Clean(s.Points)
		s = s.Between(h.From, h.To)
		s.Key.Service = "" // there is one
		b.series[s.Key] = s
		b.workers = append(b.workers, s.Key.Worker)
	}
	slices.Sort(b.workers)
	b.workers = slices.Compact(b.workers)
	return b
}

// find gives a series of the service that has no parts.
func (b *books) find(m series.Metric, worker string) []series.Point {
	return b.series[series.Key{Metric: m, Worker: worker}].Points
}

// awake takes from the times what the clock said too much: sleeps and jumps.
func (b *books) awake(points []series.Point) []series.Point {
	if len(b.lost) == 0 {
		return points
	}
	out := slices.Clone(points)
	for i := range out {
		out[i].At = b.awakeAt(out[i].At)
	}
	return series.Clean(out)
}

func (b *books) awakeAt(at int64) int64 {
	k := sort.Search(len(b.lost), func(i int) bool { return b.lost[i].at > at })
	moved := at - b.sums[k]
	for k--; k >= 0 && b.lost[k].at+b.back > at; k-- { // it may not have caught up yet
		moved += b.lost[k].ms - b.lost[k].before(at)
	}
	return moved
}

// clock is the reverse of awakeAt, for times that people read.
func (b *books) clock(awake int64) int64 {
	at := awake
	for _, l := range b.lost {
		at = l.restore(at)
	}
	return at
}

// lastOf is the newest value of a series of the worker, or of the host.
func (b *books) lastOf(m series.Metric, worker string) (float64, bool) {
	if ps := b.find(m, worker); len(ps) > 0 {
		return ps[len(ps)-1].Value, true
	}
	if s, ok := b.host[series.Key{Metric: m}]; ok && len(s.Points) > 0 {
		return s.Points[len(s.Points)-1].Value, true
	}
	return 0, false
}

// resource gives the points of a resource of a worker, and the metric.
func (b *books) resource(r *resource, worker string) ([]series.Point, series.Metric) {
	if (r.of == ofProcess) != (worker != "") || r.metrics[0] == series.HostCommitted && !b.commitNear() {
		return nil, ""
	}
	for _, m := range r.metrics {
		ps := b.series[series.Key{Metric: m, Worker: worker, Part: r.part}].Points
		if len(ps) == 0 {
			continue
		}
		if r.plus != "" {
			ps = sum(ps, b.find(r.plus, worker))
		}
		return ps, m
	}
	return nil, ""
}

// sum adds a slower series to each point of a: the greater of what it said
// last and what it says next. What went to swap is missing from memory at once,
// and must not be missing from the sum until swap is said again.
func sum(a, slow []series.Point) []series.Point {
	used := slices.ContainsFunc(slow, func(p series.Point) bool { return p.Value > 0 })
	if !used {
		return a
	}
	out := slices.Clone(a)
	next := 0
	for i := range out {
		for next < len(slow) && slow[next].At <= out[i].At {
			next++
		}
		out[i].Value += max(slow[max(next-1, 0)].Value, slow[min(next, len(slow)-1)].Value)
	}
	return out
}

// births are the times at which the worker's process began anew, within the
// window: by its start time, or where that is not known, by its PID.
func (b *books) births(worker string) []int64 {
	for _, m := range []series.Metric{series.Started, series.PID} {
		ps := b.find(m, worker)
		if len(ps) == 0 {
			continue
		}
		var out []int64
		for i := 1; i < len(ps); i++ {
			// Start times are computed from ticks since boot and shift by a
			// little when the clock is set.
			d := ps[i].Value - ps[i-1].Value
			if d == 0 || m == series.Started && (math.Abs(d) <= 1.5 || b.goesOn(worker, ps[i-1].At, ps[i])) {
				continue
			}
			out = append(out, ps[i].At)
		}
		return out
	}
	return nil
}

// goesOn tells that the process which is said to have started is the one that
// the worker was at an earlier time: it started before that, has its PID, and
// has used more CPU time. A start time is computed by the clock as it is when
// the process is seen first, so a watch that begins anew after the clock was
// set says another one.
func (b *books) goesOn(worker string, before int64, started series.Point) bool {
	if started.Value*1000 >= float64(before-b.back) { // points may be ahead of the clock by that
		return false
	}
	pid, pidLater, known := around(b.find(series.PID, worker), before, started.At)
	used, usedLater, measured := around(b.find(series.CPU, worker), before, started.At)
	return known && measured && pid == pidLater && used < usedLater
}

// around gives the last value until from and the first one at or after to.
func around(ps []series.Point, from, to int64) (before, after float64, ok bool) {
	i := sort.Search(len(ps), func(i int) bool { return ps[i].At > from })
	k := sort.Search(len(ps), func(i int) bool { return ps[i].At >= to })
	if i == 0 || k == len(ps) {
		return 0, 0, false
	}
	return ps[i-1].Value, ps[k].Value, true
}
