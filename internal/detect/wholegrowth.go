package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// whole is how all the memory of a process moved.
type whole struct {
	known bool
	looks bool    // the looks at the heap say it; else resident memory does
	grown float64 // reachable bytes, or resident ones
	trend trend
	rises bool // resident memory grew in every third
	watch time.Duration
	all   float64
}

func wholeGrowth(p *Pass) whole {
	var w whole
	series := p.Proc.Gauges[leak.GaugeAnon]
	if len(series) == 0 {
		series = p.Proc.Gauges[leak.GaugeRSS]
	}
	w.trend, w.rises = rising(series)
	if n := len(series); n >= trendPoints && series[n-1].At-series[0].At >= trendTime {
		w.known = true
		w.grown = series[n-1].Value - series[0].Value - probeTouched(p.Proc)
		w.watch = series[n-1].At - series[0].At
		w.all = series[n-1].Value
	}
	if n := len(p.Proc.Looks); n > 1 {
		first, last := &p.Proc.Looks[0], &p.Proc.Looks[n-1]
		if first.Walked && last.Walked && last.At-first.At >= trendTime {
			w.known, w.looks = true, true
			w.grown = float64(last.Bytes) - float64(last.LostBytes) - (float64(first.Bytes) - float64(first.LostBytes))
			w.watch = last.At - first.At
			w.all = float64(last.Bytes)
		}
	}
	return w
}

// pageSize is what a record of the probe may add to the target's memory: its
// table is hashed, so that each may lie in a page of its own.
const pageSize = 4096

// probeTouched bounds what the probe's own records added to resident memory.
func probeTouched(p *ledger.Process) float64 {
	all, ok := latest(p, leak.GaugeProbeBytes)
	if !ok {
		return 0
	}
	interval, ok := latest(p, leak.GaugeProbeInterval)
	if !ok || interval <= 0 {
		interval = defaultSample
	}
	var records float64
	for i := range p.Tallies {
		y := &p.Tallies[i]
		if y.Kind != leak.KindMemory || len(y.Points) == 0 {
			continue
		}
		a := y.Points[len(y.Points)-1].Acquired
		if !y.Exact {
			a.N = math.Min(a.N, 1+a.Bytes/interval)
		}
		records += 1 + a.N
	}
	return math.Min(all, records*pageSize)
}

// The least growth of the whole that is worth a finding without a site: bytes,
// and the part of all.
const (
	leastWhole     = 1 << 20
	leastWholePart = 0.002
)

// unexplained reports growth of the whole that no site explains.
func unexplained(p *Pass, w *whole, explained float64) {
	rest := w.grown - explained
	if !w.looks {
		// Resident memory holds what was lost, too.
		for _, l := range p.shared.lost {
			rest -= l.bytes
		}
	}
	if !w.known || !w.rises || w.watch < 2*trendTime || rest < leastWhole || rest < 0.3*w.grown || rest < leastWholePart*w.all ||
		rest < float64(p.Config.MinBytes) {
		return
	}
	word, are := "growth that no line explains", "estimated"
	if w.looks {
		word, are = "reachable growth", "usable"
	}
	h := w.watch.Hours()
	f := leak.Finding{
		Key: "unexplained", NameKey: "unexplained", Severity: leak.SeverityGrowth, Kind: leak.KindMemory.String(),
		What: word, Title: leak.FormatBytes(rest) + " of " + word, Bytes: uint64(rest), BytesAre: are, SiteCertainty: leak.CertaintyNone,
		Rate: &leak.Rate{BytesPerHour: rest / h},
	}
	if w.trend.perHour > 0 {
		f.Rate.BytesPerHourLow = ptr(f.Rate.BytesPerHour * w.trend.low / w.trend.perHour)
		f.Rate.BytesPerHourHigh = ptr(f.Rate.BytesPerHour * w.trend.high / w.trend.perHour)
	}
	f.Exhaustion = exhaustion(p.Proc, p.Config, f.Rate)
	p.shared.rate += f.Rate.BytesPerHour
	if explained > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("seen: %s in all, %s of it by the lines named", leak.FormatBytes(w.grown), leak.FormatBytes(explained)))
	}
	f.Evidence = append(f.Evidence, p.names.growing(p.Proc, rest)...)
	p.Report(f)
}

// maxGrowing is how many growing holders are named.
const maxGrowing = 3

// growing names what holds more in the last look than in the first.
func (n *names) growing(p *ledger.Process, atLeast float64) []string {
	type more struct {
		h     *ledger.Holder
		bytes float64
	}
	var all []more
	for i := range p.Holders {
		h := &p.Holders[i]
		if b := float64(h.Last.Bytes) - float64(h.First.Bytes); b > atLeast/20 {
			all = append(all, more{h, b})
		}
	}
	slices.SortStableFunc(all, func(a, b more) int { return -cmp.Compare(a.bytes, b.bytes) })
	var out []string
	for _, m := range all[:min(len(all), maxGrowing)] {
		size := "blocks"
		if m.h.Size > 0 {
			size = leak.FormatCount(m.h.Size) + "-byte blocks"
		}
		out = append(out, fmt.Sprintf("holder: %s holds %s more in %s", n.root(m.h.Root), leak.FormatBytes(m.bytes), size))
	}
	return out
}

// root names what keeps blocks reachable.
func (n *names) root(r leak.Root) string {
	switch r.What {
	case "data":
		if object := n.object(r.Frame); object != "" {
			return object
		}
		return fmt.Sprintf("data of %s+%#x", moduleName(n.view.Maps[r.Frame.Map]), r.Frame.Off)
	case "stack", "registers":
		return fmt.Sprintf("the %s of thread %d", r.What, r.TID)
	case "memory":
		return "memory outside of the heap"
	case "":
		return "an unknown root"
	}
	return r.What
}
