package detect

import (
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// minRateTime is the shortest watch that gives a rate.
const minRateTime = 5 * time.Second

// countInterval gives the interval that holds the mean of a Poisson count with
// 95 % confidence when n were seen. Byar's approximation, within 1 % of the
// exact one from n = 1 on (Breslow and Day, Statistical Methods in Cancer
// Research II, 1987, page 69).
func countInterval(n float64) (low, high float64) {
	const z = 1.96
	if n > 0 {
		low = n * math.Pow(1-1/(9*n)-z/(3*math.Sqrt(n)), 3)
	}
	m := n + 1
	return math.Max(low, 0), m * math.Pow(1-1/(9*m)+z/(3*math.Sqrt(m)), 3)
}

// eventRate makes a rate of n blocks and bytes that came during a watch. The
// interval treats the blocks as independent events.
func eventRate(n, bytes float64, watch time.Duration) *leak.Rate {
	if watch < minRateTime {
		return nil
	}
	h := watch.Hours()
	r := &leak.Rate{BytesPerHour: bytes / h, CountPerHour: n / h}
	if n > 0 {
		low, high := countInterval(n)
		r.BytesPerHourLow, r.BytesPerHourHigh = ptr(low*bytes/n/h), ptr(high*bytes/n/h)
	}
	return r
}

func ptr[T any](v T) *T { return &v }

// limits gives the limits on the memory of a process, as the gauges and the
// configuration tell them, the nearest first by what is left.
func limits(p *ledger.Process, c *Config) []limit {
	var out []limit
	add := func(name string, used, most float64, known bool) {
		if known && most > 0 {
			out = append(out, limit{name, used, most})
		}
	}
	cg, ok1 := latest(p, leak.GaugeCgroupMemory)
	cgMax, ok2 := latest(p, leak.GaugeCgroupMax)
	add("memory.max", cg, cgMax, ok1 && ok2)
	vm, ok1 := latest(p, leak.GaugeVirtual)
	vmMax, ok2 := latest(p, leak.GaugeAddressLimit)
	add("RLIMIT_AS", vm, vmMax, ok1 && ok2)
	avail, ok1 := latest(p, leak.GaugeMemAvailable)
	host, ok2 := latest(p, leak.GaugeHostMemory)
	if ok1 && !ok2 {
		host = avail
	}
	add("host memory", host-avail, host, ok1)
	for i := range p.Usages {
		u := &p.Usages[i]
		name := memoryLimits[u.Name]
		if name != "" && !slices.ContainsFunc(out, func(l limit) bool { return l.name == name }) {
			add(name, float64(u.Used), float64(u.Max), true)
		}
	}
	for _, l := range c.Limits {
		add(l.Name, float64(l.Used), float64(l.Max), true)
	}
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && out[j].left() < out[j-1].left(); j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

// memoryLimits are the resources that are memory of the process, and their
// limits' names.
var memoryLimits = map[leak.UsageName]string{
	leak.UsageCgroupMemory: "memory.max", leak.UsageAddressSpace: "RLIMIT_AS", leak.UsageData: "RLIMIT_DATA", leak.UsageHostMemory: "host memory",
}

type limit struct {
	name      string
	used, max float64
}

func (l limit) left() float64 { return math.Max(l.max-l.used, 0) }

func latest(p *ledger.Process, name leak.GaugeName) (float64, bool) {
	s := p.Gauges[name]
	if len(s) == 0 {
		return 0, false
	}
	return s[len(s)-1].Value, true
}

// farthest is the longest time to a limit that is worth saying.
const farthest = 365 * 24 * time.Hour

// exhaustion says when the nearest limit comes at a rate; nil when there is no
// limit or the rate does not lead there.
func exhaustion(p *ledger.Process, c *Config, r *leak.Rate) *leak.Exhaustion {
	ls := limits(p, c)
	if len(ls) == 0 || r == nil || r.BytesPerHour <= 0 {
		return nil
	}
	in := func(perHour float64) float64 { return ls[0].left() / perHour * 3600 }
	e := &leak.Exhaustion{Limit: ls[0].name, InS: in(r.BytesPerHour)}
	if e.InS > farthest.Seconds() {
		return nil
	}
	if r.BytesPerHourHigh != nil && *r.BytesPerHourHigh > 0 {
		e.LowS = ptr(in(*r.BytesPerHourHigh))
	}
	if r.BytesPerHourLow != nil && *r.BytesPerHourLow > 0 {
		e.HighS = ptr(in(*r.BytesPerHourLow))
	}
	return e
}
