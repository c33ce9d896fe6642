package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Growth reports sites whose held blocks grow though pointers lead to them,
// and the growth of the whole that no site explains.
var Growth = &Detector{
	Name: "heap.growth",
	Doc:  "memory that is held, reachable, and grew over the whole watch",
	Run:  growth,
}

// The least growth of a site that is reported: so many blocks, or samples
// where blocks are sampled, which keeps the error below a third, and so many
// times the square root of what is held, which is how far a site that holds
// blocks for a short time varies by itself; and so many findings.
const (
	leastBlocks   = 9
	leastBytes    = 4096
	leastSigma    = 4
	maxGrowth     = 10
	defaultSample = 512 << 10
)

// steps is how many times of the watch the books of a site are compared at.
// The first quarter is left out: a probe's books begin empty, and fill until
// as much is freed as is acquired.
const (
	steps     = 24
	firstStep = steps / 4
)

// grower is a site with what it held at each step of the watch.
type grower struct {
	site     *site
	held     [steps + 1]leak.Count
	at       [steps + 1]time.Duration // when the books said so
	acquired leak.Count
	released leak.Count
	counted  leak.Count // what is held of the blocks that are counted one by one
	sampled  leak.Count // and of those that are sampled
	most     float64
	trend    trend // of the bytes
}

// grown is what is held more than when the probe came.
func (g *grower) grown() leak.Count { return g.held[steps] }

// steady finds the trend, and reports whether there is one.
func (g *grower) steady() bool {
	points := make([]ledger.Point, 0, steps)
	for i := firstStep; i <= steps; i++ {
		if n := len(points); n == 0 || points[n-1].At < g.at[i] {
			points = append(points, ledger.Point{At: g.at[i], Value: g.held[i].Bytes})
		}
	}
	var ok bool
	g.trend, ok = rising(points)
	return ok
}

func growth(p *Pass) {
	if p.Proc.Ended() {
		return // what it held to its end is judged there
	}
	sites, window := growers(p)
	all := wholeGrowth(p)
	var explained float64
	n := 0
	for _, g := range sites {
		bytes, ok := significant(p, g, &all)
		if !ok {
			continue
		}
		if n++; n > maxGrowth {
			break
		}
		if f, ok := g.finding(p, bytes, window, &all); ok {
			explained += bytes
			p.Report(f)
		}
	}
	unexplained(p, &all, explained)
}

// growers sums the tallies of each site at every step, the site that grew most
// first.
func growers(p *Pass) (sites []*grower, window time.Duration) {
	start := max(p.Proc.ProbeAt, 0)
	end := start
	times := map[time.Duration]bool{}
	for i := range p.Proc.Tallies {
		for _, t := range p.Proc.Tallies[i].Points {
			end = max(end, t.At)
			times[t.At] = true
		}
	}
	window = end - start
	if len(times) < trendPoints || window < trendTime {
		return nil, 0
	}
	bySite := map[string]*grower{}
	for i := range p.Proc.Tallies {
		y := &p.Proc.Tallies[i]
		s := p.names.stack(y.Stack)
		if y.Kind != leak.KindMemory || s == nil || len(y.Points) == 0 {
			continue
		}
		g := bySite[s.key]
		if g == nil {
			g = &grower{site: s}
			bySite[s.key] = g
			sites = append(sites, g)
		}
		g.add(y, s, start, window)
	}
	slices.SortStableFunc(sites, func(a, b *grower) int {
		return cmp.Or(-cmp.Compare(a.grown().Bytes, b.grown().Bytes), cmp.Compare(a.site.key, b.site.key))
	})
	return sites, window
}

func (g *grower) add(y *ledger.TallySeries, s *site, start, window time.Duration) {
	var t ledger.Total
	next := 0
	for i := range g.held {
		at := start + window*time.Duration(i)/steps
		for next < len(y.Points) && y.Points[next].At <= at {
			t = y.Points[next]
			next++
		}
		g.at[i] = max(g.at[i], t.At)
		l := t.Live()
		g.held[i].N += l.N
		g.held[i].Bytes += l.Bytes
	}
	last := y.Points[len(y.Points)-1]
	g.acquired.N += last.Acquired.N
	g.acquired.Bytes += last.Acquired.Bytes
	g.released.N += last.Released.N
	g.released.Bytes += last.Released.Bytes
	l := last.Live()
	if l.Bytes > g.most {
		g.most, g.site = l.Bytes, s
	}
	part := &g.sampled
	if y.Exact {
		part = &g.counted
	}
	part.N += l.N
	part.Bytes += l.Bytes
}

// samples is how many independent observations the growth rests on.
func (g *grower) samples(p *Pass) float64 {
	interval, ok := latest(p.Proc, leak.GaugeProbeInterval)
	if !ok || interval <= 0 {
		interval = defaultSample
	}
	return math.Max(g.counted.N, 0) + math.Max(math.Min(g.sampled.N, g.sampled.Bytes/interval), 0)
}

// exact reports whether every block was counted.
func (g *grower) exact() bool { return g.sampled == leak.Count{} }

// significant gives the reachable growth of a site, when it is enough to speak
// of and more than the replacement of older blocks.
func significant(p *Pass, g *grower, w *whole) (float64, bool) {
	grown := g.grown()
	if grown.Bytes < leastBytes || !g.steady() {
		return 0, false
	}
	// The share of the growth that came in the time that counts.
	k := g.samples(p)
	if more := k * g.trend.grown / grown.Bytes; more < leastBlocks || more < leastSigma*math.Sqrt(k) {
		return 0, false
	}
	bytes := grown.Bytes * (1 - lostShare(p, g.site.key))
	if loss, ok := p.shared.lost[g.site.key]; ok {
		bytes = math.Min(bytes, grown.Bytes-loss.bytes)
	}
	if bytes < 0.3*grown.Bytes {
		return 0, false // heap.unreachable says it
	}
	// The probe does not see the blocks that were there before it. A site that
	// only replaces them grows in its books and not in the heap.
	switch {
	case w.looks:
		return bytes, w.grown >= bytes/2
	case w.known:
		return bytes, w.grown >= bytes/4
	}
	return bytes, g.released.Bytes <= g.acquired.Bytes/2
}

// lostShare is the part of a site's recorded blocks that the last look found
// lost, by themselves or below another lost block.
func lostShare(p *Pass, key string) float64 {
	var all, lost float64
	for i := range p.Proc.Live {
		l := &p.Proc.Live[i]
		if s := p.names.stack(l.Stack); l.Kind == leak.KindMemory && s != nil && s.key == key {
			all += l.Count.Bytes
			lost += l.Lost.Bytes
		}
	}
	if all == 0 {
		return 0
	}
	return lost / all
}

// finding puts a growing site into words.
func (g *grower) finding(p *Pass, bytes float64, window time.Duration, w *whole) (leak.Finding, bool) {
	grown := g.grown()
	count := grown.N * bytes / grown.Bytes
	if bytes < float64(p.Config.MinBytes) {
		return leak.Finding{}, false
	}
	line := g.site.short()
	f := leak.Finding{
		Severity: leak.SeverityGrowth, Kind: leak.KindMemory.String(),
		Key: g.site.key, NameKey: g.site.nameKey, What: "blocks", BytesAre: "estimated",
		Count: uint64(count + 0.5), Bytes: uint64(bytes + 0.5),
		SiteCertainty: leak.CertaintyProved, Stack: g.site.stack, Site: g.site.line,
	}
	if g.exact() && bytes == grown.Bytes {
		f.BytesAre = "requested"
	}
	f.Title = fmt.Sprintf("%s more held by %s after %s, and still reachable", leak.FormatBytes(bytes), functionName(&g.site.stack[g.site.line]), leak.FormatDuration(window))
	if !w.looks {
		f.Title = fmt.Sprintf("%s more held by %s after %s", leak.FormatBytes(bytes), functionName(&g.site.stack[g.site.line]), leak.FormatDuration(window))
	}
	f.Rate = g.rate(p, bytes)
	f.Exhaustion = exhaustion(p.Proc, p.Config, f.Rate)
	p.shared.rate += f.Rate.BytesPerHour

	about := "about "
	if g.exact() {
		about = ""
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("seen: %s%s acquired, %s freed in %s; each third added %s", about,
		number(g.acquired.N), number(g.released.N), leak.FormatDuration(window), g.thirds()))
	switch {
	case w.looks:
		f.Evidence = append(f.Evidence, fmt.Sprintf("heap: pointers lead to them; all that is reachable grew by %s", leak.FormatBytes(w.grown)))
	case w.known:
		f.Evidence = append(f.Evidence, fmt.Sprintf("heap: not examined, so it is not known whether they are lost; resident memory grew by %s", leak.FormatBytes(w.grown)))
	default:
		f.Evidence = append(f.Evidence, "heap: not examined, so it is not known whether they are lost")
	}
	if lostEvents(p.View) {
		f.Evidence = append(f.Evidence, "weaker: events were missed, so some may have been freed unseen")
	}
	f.Advice = []string{"see what keeps what " + line + " allocates: a cache without a bound, a list or table that is only added to"}
	return f, true
}

// thirds writes how much each third added.
func (g *grower) thirds() string {
	var parts []string
	for i := 0; i < steps; i += steps / 3 {
		more := g.held[i+steps/3].Bytes - g.held[i].Bytes
		sign := "+"
		if more < 0 {
			sign = ""
		}
		parts = append(parts, sign+leak.FormatBytes(more))
	}
	return strings.Join(parts, ", ")
}

// rate is that of the trend, for the reachable part of the growth. It is
// bounded by the number of samples and by the faster and the slower half.
func (g *grower) rate(p *Pass, bytes float64) *leak.Rate {
	grown := g.grown()
	part := bytes / grown.Bytes
	r := &leak.Rate{BytesPerHour: g.trend.perHour * part, CountPerHour: g.trend.perHour * part * grown.N / grown.Bytes}
	k := g.samples(p)
	low, high := countInterval(k)
	r.BytesPerHourLow = ptr(math.Min(low/k*r.BytesPerHour, g.trend.low*part))
	r.BytesPerHourHigh = ptr(math.Max(high/k*r.BytesPerHour, g.trend.high*part))
	return r
}

func number(n float64) string { return leak.FormatCount(uint64(math.Max(n, 0) + 0.5)) }

// lostEvents reports whether events of a probe are missing. A gap that counts
// none says that it recorded less on purpose, which its estimates allow for.
func lostEvents(v *ledger.View) bool {
	return slices.ContainsFunc(v.Gaps, func(g leak.Gap) bool { return g.Source == "probe" && g.Lost > 0 })
}
