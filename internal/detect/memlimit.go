package detect

import (
	"fmt"
	"time"

	"stanch/internal/leak"
)

// MemoryLimit reports when the nearest limit on memory comes. It runs after
// the detectors that name sites: what they explain is not said twice.
var MemoryLimit = &Detector{
	Name: "limit.memory",
	Doc:  "when the nearest limit on memory comes at the seen growth",
	Run:  memoryLimit,
}

// The horizon within which a limit is a risk, the part of growth that other
// findings may explain before this one says it too, and the part of a limit
// from which on it is near even without growth.
const (
	horizon       = 7 * 24 * time.Hour
	explainedPart = 0.7
	nearMemory    = 0.9
)

func memoryLimit(p *Pass) {
	ls := limits(p.Proc, p.Config)
	if len(ls) == 0 || p.Proc.Ended() {
		return
	}
	near := ls[0]
	series := p.Proc.Gauges[leak.GaugeAnon]
	if len(series) == 0 {
		series = p.Proc.Gauges[leak.GaugeRSS]
	}
	f := leak.Finding{
		Severity: leak.SeverityRisk, Kind: leak.KindMemory.String(), SiteCertainty: leak.CertaintyNone, What: "memory",
		Key: near.name, NameKey: near.name,
		Evidence: []string{fmt.Sprintf("limit: %s, %s of %s in use", near.name, leak.FormatBytes(near.used), leak.FormatBytes(near.max))},
	}
	t, rises := rising(series)
	own := probeTouched(p.Proc)
	if rises && t.grown >= leastWhole+2*own && t.grown >= leastWholePart*t.last && p.shared.rate < explainedPart*t.perHour {
		f.Rate = &leak.Rate{BytesPerHour: t.perHour, BytesPerHourLow: ptr(t.low), BytesPerHourHigh: ptr(t.high)}
		if f.Exhaustion = exhaustion(p.Proc, p.Config, f.Rate); f.Exhaustion != nil && f.Exhaustion.InS <= horizon.Seconds() {
			f.Bytes, f.BytesAre = uint64(t.grown), "estimated"
			f.Title = fmt.Sprintf("memory grew by %s in %s", leak.FormatBytes(t.grown), leak.FormatDuration(t.watch))
			f.Evidence = append(f.Evidence, fmt.Sprintf("seen: it grew in each third of %s; if it goes on so, %s is reached", leak.FormatDuration(t.watch), near.name))
			p.Report(f)
			return
		}
	}
	// Most of the host's memory being in use is how hosts are run.
	if near.name != "host memory" && near.used >= nearMemory*near.max && p.shared.rate == 0 {
		f.Rate, f.Exhaustion = nil, nil
		f.Title = fmt.Sprintf("%s of %s of memory are in use", leak.FormatBytes(near.used), leak.FormatBytes(near.max))
		p.Report(f)
	}
}
