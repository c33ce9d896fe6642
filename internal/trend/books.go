package trend

import (
	"slices"

	"stanch/internal/series"
)

// books are a history, made ready: series by key, workers, lives.
type books struct {
	*History
	series  map[series.Key]series.Series // of the service, without its name
	host    map[series.Key]series.Series
	workers []string // of processes, and "" for cgroup and host
	lost    []lost   // time that the clock tells and nothing could happen in
}

// lost is time to be taken from all later points: the host slept, or its
// clock was set.
type lost struct {
	at int64
	ms int64
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
	slices.SortFunc(b.lost, func(x, y lost) int { return int(x.at - y.at) })
	for _, s := range h.Series {
		s.Points = series.Clean(s.Points)
		s = s.Between(h.From, h.To)
		s.Key.Service = "" // there is one
		b.series[s.Key] = s
		if !slices.Contains(b.workers, s.Key.Worker) {
			b.workers = append(b.workers, s.Key.Worker)
		}
	}
	slices.Sort(b.workers)
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
	moved := at
	for _, l := range b.lost {
		if at >= l.at {
			moved -= l.ms
		}
	}
	return moved
}

// clock is the reverse of awakeAt, for times that people read.
func (b *books) clock(awake int64) int64 {
	at := awake
	for _, l := range b.lost {
		if at+l.ms >= l.at {
			at += l.ms
		}
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

// sum adds what a slower series said last to each point of a.
func sum(a, slow []series.Point) []series.Point {
	used := slices.ContainsFunc(slow, func(p series.Point) bool { return p.Value > 0 })
	if !used {
		return a
	}
	out := slices.Clone(a)
	k, last := 0, 0.0
	for i := range out {
		for k < len(slow) && slow[k].At <= out[i].At {
			last = slow[k].Value
			k++
		}
		out[i].Value += last
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
			if d := ps[i].Value - ps[i-1].Value; m == series.PID && d != 0 || d > 1.5 || d < -1.5 {
				out = append(out, ps[i].At)
			}
		}
		return out
	}
	return nil
}
