package detect

import (
	"cmp"
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// fdLimits is the table of what can run out: first what does, the soonest
// first, then what is used most.
func fdLimits(p *ledger.Process) []leak.ReportLimit {
	var out []leak.ReportLimit
	add := func(u *ledger.UsageSeries) {
		l := leak.ReportLimit{Name: string(u.Name), Scope: u.Scope, Limit: u.Limit, Used: u.Used, Bytes: u.Bytes}
		if u.Max > 0 {
			l.Max = ptr(u.Max)
		}
		if u.Hard > 0 {
			l.Hard = ptr(u.Hard)
		}
		if rate, ok := usageRate(u); ok {
			l.RatePerHour = ptr(rate)
		}
		if r, ok := rising(u.Points); ok && u.Max > 0 && foretells(u) && !p.Ended() {
			if in := left(u) / r.perHour * 3600; in <= farthest.Seconds() {
				l.InS = ptr(in)
			}
		}
		out = append(out, l)
	}
	for i := range p.Usages {
		add(&p.Usages[i])
	}
	if l, ok := fdLimit(p); ok && !slices.ContainsFunc(p.Usages, isDescriptors) {
		add(l)
	}
	slices.SortStableFunc(out, func(a, b leak.ReportLimit) int {
		switch {
		case a.InS != nil && b.InS != nil:
			return cmp.Compare(*a.InS, *b.InS)
		case a.InS != nil:
			return -1
		case b.InS != nil:
			return 1
		}
		return cmp.Compare(fullness(&b), fullness(&a))
	})
	return out
}

// plenty is the part of a shared resource below which its growth foretells
// nothing.
const plenty = 0.1

// foretells reports whether the growth of a use says when its limit comes. What
// others use too grows and shrinks with them.
func foretells(u *ledger.UsageSeries) bool {
	switch u.Name {
	case leak.UsageFiles, leak.UsageTCPMemory, leak.UsageConntrack, leak.UsageCommit, leak.UsageHostMemory, leak.UsageUserTasks:
		return float64(u.Used) >= plenty*float64(u.Max)
	}
	return true
}

func fullness(l *leak.ReportLimit) float64 {
	if l.Max == nil {
		return 0
	}
	return float64(l.Used) / float64(*l.Max)
}

func left(u *ledger.UsageSeries) float64 { return math.Max(float64(u.Max)-float64(u.Used), 0) }

func isDescriptors(u ledger.UsageSeries) bool { return u.Name == leak.UsageDescriptors }

// fdLimit is what is known of the limit on descriptors: as a Usage, or from
// the gauges where there is none.
func fdLimit(p *ledger.Process) (*ledger.UsageSeries, bool) {
	if i := slices.IndexFunc(p.Usages, isDescriptors); i >= 0 {
		return &p.Usages[i], true
	}
	now, ok := latest(p, leak.GaugeFDs)
	most, limited := latest(p, leak.GaugeFDLimit)
	if !ok || !limited || now < 0 || most < 1 {
		return nil, false
	}
	return &ledger.UsageSeries{
		Usage:    leak.Usage{Proc: p.ID, Name: leak.UsageDescriptors, Used: uint64(now), Max: uint64(most), Limit: "RLIMIT_NOFILE"},
		FirstMax: uint64(most), RaisedAt: -1, Points: p.Gauges[leak.GaugeFDs],
	}, true
}

// usageRate is by how much an hour a use changed; not ok when it was read once
// only.
func usageRate(u *ledger.UsageSeries) (float64, bool) {
	if len(u.Points) < 2 {
		return 0, false
	}
	first, last := u.Points[0], u.Points[len(u.Points)-1]
	if last.At-first.At < minRateTime {
		return 0, false
	}
	if t, ok := rising(u.Points); ok {
		return t.perHour, true
	}
	return slope(first, last), true
}

// fdExhaustion says when the limit on descriptors comes at a rate; nil when
// there is none, or it does not lead there.
func fdExhaustion(p *Pass, r *leak.Rate, low, high float64) *leak.Exhaustion {
	u, ok := fdLimit(p.Proc)
	if !ok || r == nil || r.CountPerHour <= 0 || u.Max == 0 {
		return nil
	}
	in := func(perHour float64) float64 { return left(u) / perHour * 3600 }
	x := &leak.Exhaustion{Limit: "RLIMIT_NOFILE", InS: in(r.CountPerHour)}
	if x.InS > farthest.Seconds() {
		return nil
	}
	if high > 0 {
		x.LowS = ptr(in(high))
	}
	if low > 0 {
		x.HighS = ptr(in(low))
	}
	return x
}

// keptRate is the rate of n descriptors that came and stayed in a window, and
// when the limit comes at it.
func keptRate(p *Pass, n uint64, window time.Duration) (*leak.Rate, *leak.Exhaustion) {
	r := eventRate(float64(n), 0, window)
	if r == nil {
		return nil, nil
	}
	r.BytesPerHourLow, r.BytesPerHourHigh = nil, nil
	low, high := countInterval(float64(n))
	return r, fdExhaustion(p, r, low/window.Hours(), high/window.Hours())
}
