package trend

import (
	"fmt"
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
		for _, p := range b.host[series.Key{Metric: m.metric}].Points {
			if p.At >= b.From && p.At <= b.To {
				d := time.Duration(p.Value * float64(time.Second))
				out = append(out, leak.ReportMark{At: at(p.At), Kind: m.kind, Size: p.Value, Text: fmt.Sprintf(m.words, since(d))})
			}
		}
	}
	return append(out, b.gaps()...)
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

// gaps are times in which no series of the service has a point, and the host
// did not sleep.
func (b *books) gaps() (out []leak.ReportMark) {
	var longest []series.Point
	for _, s := range b.series {
		if len(s.Points) > len(longest) || len(s.Points) == len(longest) && len(longest) > 0 && s.Points[0].At < longest[0].At {
			longest = s.Points
		}
	}
	if len(longest) < 8 {
		return nil
	}
	least := gapOf(longest)
	for i := 1; i < len(longest); i++ {
		from, to := longest[i-1].At, longest[i].At
		if b.awakeAt(to)-b.awakeAt(from) < least {
			continue
		}
		d := time.Duration(to-from) * time.Millisecond
		out = append(out, leak.ReportMark{At: at(from), Kind: leak.MarkGap, Size: d.Seconds(), Text: "nobody was watching for " + since(d)})
	}
	return out
}

// gapOf is how long two points are apart at least where nobody watched.
func gapOf(ps []series.Point) int64 {
	stride := max(1, len(ps)/1024)
	var usual []float64
	for i := 1; i < len(ps); i += stride {
		usual = append(usual, float64(ps[i].At-ps[i-1].At))
	}
	return max(gapTicks*int64(series.Median(usual)), leastGap.Milliseconds())
}
