package trend

import (
	"math"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// limit is what may run out: left more of the resource.
type limit struct {
	name string
	left float64
}

// exhaustion is when the nearest limit comes, at the rate that was seen.
func (p *Pass) exhaustion() *leak.Exhaustion {
	t := &p.trend
	if t.PerHour == nil || *t.PerHour <= 0 {
		return nil
	}
	nearest := limit{left: math.Inf(1)}
	for _, l := range p.limits() {
		if l.left < nearest.left {
			nearest = l
		}
	}
	if nearest.name == "" {
		return nil
	}
	in := func(rate float64) float64 { return max(0, nearest.left) / rate * 3600 }
	e := &leak.Exhaustion{Limit: nearest.name, InS: in(*t.PerHour)}
	if t.PerHourHigh != nil && *t.PerHourHigh > 0 {
		low := in(*t.PerHourHigh)
		e.LowS = &low
	}
	if t.PerHourLow != nil && *t.PerHourLow > 0 {
		high := in(*t.PerHourLow)
		e.HighS = &high
	}
	return e
}

// unlimited is from where on a number of bytes stands for no limit: 2^62 and
// more, as RLIM_INFINITY and cgroup v1 (2^63 less a page) write it.
const unlimited = 1 << 62

// commitNear is the part of the commit limit that must be promised for it to
// be believed: where overcommit is on, the kernel does not hold to it.
const commitNear = 0.9

// commitNear tells that what is promised comes near to the commit limit, and
// has not passed it.
func (b *books) commitNear() bool {
	committed, ok := b.lastOf(series.HostCommitted, "")
	most, ok2 := b.lastOf(series.HostCommitLimit, "")
	return ok && ok2 && committed > commitNear*most && committed <= most
}

func (p *Pass) limits() (out []limit) {
	b, w := p.books, p.worker
	against := func(name string, used, max series.Metric, of string) {
		u, ok := b.lastOf(used, of)
		m, ok2 := b.lastOf(max, of)
		if ok && ok2 && m > 0 && m < unlimited {
			out = append(out, limit{name, m - u})
		}
	}
	switch p.resource.name {
	case "memory", "cgroup memory":
		against("cgroup memory limit", series.CgroupMemory, series.CgroupLimit, "")
		if available, ok := b.lastOf(series.HostAvailable, ""); ok {
			swap, _ := b.lastOf(series.HostSwapFree, "")
			out = append(out, limit{"host memory", available + swap})
		}
		if b.commitNear() {
			against("commit limit", series.HostCommitted, series.HostCommitLimit, "")
		}
		if w != "" {
			against("RLIMIT_AS", series.Virtual, series.AddressLimit, w)
		}
	case "address space":
		against("RLIMIT_AS", series.Virtual, series.AddressLimit, w)
	case "descriptors":
		against("RLIMIT_NOFILE", series.FDs, series.FDLimit, w)
	case "threads", "zombies", "tasks":
		against("cgroup task limit", series.CgroupTasks, series.CgroupTasksMax, "")
	case "committed memory":
		against("commit limit", series.HostCommitted, series.HostCommitLimit, "")
	case "tracked connections":
		against("nf_conntrack_max", series.HostConntrack, series.HostConntrackMax, "")
	case "open files":
		against("fs.file-max", series.HostFiles, series.HostFilesMax, "")
	case "slab":
		if available, ok := b.lastOf(series.HostAvailable, ""); ok {
			out = append(out, limit{"host memory", available})
		}
	}
	return out
}
