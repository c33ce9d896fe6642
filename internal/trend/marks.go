package trend

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
)

const (
	// gapTicks is how many usual distances between two points are a gap.
	gapTicks = 6
	// leastGap is the shortest one: a tick may be late.
	leastGap = 30 * time.Second
	// leastTicks is how many points tell their usual distance.
	leastTicks = 8
)

// marks are the moments that are not of one resource.
func (b *books) marks() []leak.ReportMark {
	out := []leak.ReportMark{}
	for _, worker := range b.workers {
		out = append(out, b.restarts(worker)...)
	}
	out = append(out, b.kills()...)
	for _, m := range []struct {
		metric series.Metric
		kind   string
		words  string
	}{{series.ClockJumps, leak.MarkClock, "the clock was set by %s"}, {series.Suspended, leak.MarkSleep, "the host was suspended for %s"}} {
		for _, p := range largest(b.host[series.Key{Metric: m.metric}].Between(b.From, b.To).Points) {
			d := time.Duration(p.Value * float64(time.Second))
			out = append(out, leak.ReportMark{At: at(p.At), Kind: m.kind, Size: p.Value, Text: fmt.Sprintf(m.words, since(d))})
		}
	}
	return append(out, b.gaps()...)
}

// largest are the points of the largest values, either way: a host whose clock
// is set each minute is not to fill a report with that.
func largest(ps []series.Point) []series.Point {
	if len(ps) <= mostMarks {
		return ps
	}
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b series.Point) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Value), math.Abs(a.Value)), cmp.Compare(b.At, a.At))
	})
	return ps[:mostMarks]
}

func (b *books) restarts(worker string) (out []leak.ReportMark) {
	pids := b.find(series.PID, worker)
	for _, birth := range b.births(worker) {
		m := leak.ReportMark{At: at(birth), Kind: leak.MarkRestart, Worker: worker, Text: "restarted"}
		k, _ := slices.BinarySearchFunc(pids, birth, func(p series.Point, at int64) int { return int(p.At - at) })
		if k > 0 && k < len(pids) && pids[k-1].Value != pids[k].Value {
			m.Text = fmt.Sprintf("restarted, pid %.0f -> %.0f", pids[k-1].Value, pids[k].Value)
		}
		out = append(out, m)
	}
	return out
}

// kills are the OOM kills of the cgroup, and of the host when it is judged.
func (b *books) kills() (out []leak.ReportMark) {
	killed := b.series[series.Key{Metric: series.CgroupEvents, Part: "oom_kill"}].Points
	if len(killed) == 0 {
		killed = b.find(series.HostOOMKills, "")
	}
	for i := 1; i < len(killed); i++ {
		if n := killed[i].Value - killed[i-1].Value; n > 0 {
			out = append(out, leak.ReportMark{At: at(killed[i].At), Kind: leak.MarkOOM, Size: n, Text: "the kernel killed " + times(int(n), "process") + " for lack of memory"})
		}
	}
	return out
}

// gaps are times in which nobody looked, while something is known of the
// service, and the host did not sleep. The host is looked at whenever anything
// is: a service that has no points meanwhile was not running.
func (b *books) gaps() (out []leak.ReportMark) {
	own := longest(b.series)
	ticks := longest(b.host)
	if len(ticks) < leastTicks {
		ticks = own
	}
	if len(ticks) < leastTicks || len(own) == 0 {
		return nil
	}
	first, last := own[0].At, own[len(own)-1].At
	for _, s := range b.series {
		if n := len(s.Points); n > 0 {
			first, last = min(first, s.Points[0].At), max(last, s.Points[n-1].At)
		}
	}
	least := gapOf(ticks)
	for i := 1; i < len(ticks); i++ {
		from, to := ticks[i-1].At, ticks[i].At
		if from < first || to > last || b.awakeAt(to)-b.awakeAt(from) < least {
			continue
		}
		d := time.Duration(to-from) * time.Millisecond
		out = append(out, leak.ReportMark{At: at(from), Kind: leak.MarkGap, Size: d.Seconds(), Text: "nobody was watching for " + since(d)})
	}
	return out
}

// longest gives the points of the series that has most of them, of equally
// long ones those that begin first.
func longest(of map[series.Key]series.Series) (points []series.Point) {
	for _, s := range of {
		if n := len(s.Points); n > len(points) || n > 0 && n == len(points) && s.Points[0].At < points[0].At {
			points = s.Points
		}
	}
	return points
}

// gapOf is how long two points are apart at least where nobody watched. Of long
// windows the store gives the first, the last and the extremes of each minute,
// of which some lie close together: then the long distances are usual, too.
func gapOf(ps []series.Point) int64 {
	ps = evenly(ps) // with the slower of two intervals nobody is away either
	usual := make([]int64, 0, len(ps))
	for i := 1; i < len(ps); i++ {
		usual = append(usual, ps[i].At-ps[i-1].At)
	}
	slices.Sort(usual)
	n := len(usual)
	if n == 0 {
		return leastGap.Milliseconds()
	}
	return max(gapTicks*usual[n/2], 2*usual[n*9/10], leastGap.Milliseconds())
}
