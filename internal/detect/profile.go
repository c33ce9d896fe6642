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

// Profile sums up what was acquired and released, by call site, as recorded
// asks: only stacks through some functions, in some order. It concludes
// nothing, and fills in neither targets nor what the recording cost. No more
// than top sites are listed; zero means all.
func Profile(v *ledger.View, c Config, recorded leak.Recorded, top int) *leak.Profile {
	p := &leak.Profile{Recorded: recorded}
	names := newNames(v, &c)
	sites := map[string]*profiled{}
	var all profiled
	for _, proc := range v.Procs {
		grid := ticks(proc)
		oldest := oldestOf(proc)
		for _, s := range stacksOf(proc) {
			if !names.through(s.id, recorded.Through) {
				continue
			}
			p.Stacks = append(p.Stacks, leak.ProfileStack{ProfileCounts: s.counts(), Places: names.places(s.id)})
			key := "none"
			site := names.stack(s.id)
			if site != nil {
				key = site.key
			}
			g := sites[key]
			if g == nil {
				g = &profiled{grid: grid, held: make([]float64, len(grid))}
				sites[key] = g
			}
			g.add(&s, site, grid)
			all.sum(&s.profiled)
			if at, ok := oldest[s.id]; ok && (!g.aged || at < g.oldest) {
				g.aged, g.oldest = true, at
			}
		}
	}
	p.Total, p.Count = all.counts(), len(sites)
	for key, g := range sites {
		p.Sites = append(p.Sites, g.listed(key, v.End))
	}
	order := profileOrders[recorded.Sort]
	if order == nil {
		order = profileOrders["bytes"]
	}
	slices.SortFunc(p.Sites, func(a, b leak.ProfileSite) int {
		return cmp.Or(order(&a, &b), byBytes(&a, &b), cmp.Compare(a.Key, b.Key))
	})
	if len(recorded.Through) > 0 && len(sites) == 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("no recorded stack goes through %s", strings.Join(recorded.Through, " or ")))
	}
	if recorded.Sort == "growth" && !slices.ContainsFunc(p.Sites, func(s leak.ProfileSite) bool { return s.BytesPerHour != nil }) && len(sites) > 0 {
		p.Notes = append(p.Notes, "growth is not known: it takes a watch of some five seconds or more")
	}
	if top > 0 {
		p.Sites = p.Sites[:min(top, len(p.Sites))]
	}
	return p
}

// profileOrders are the orders of a profile's sites, by the names that
// leak.Recorded.Sort has.
var profileOrders = map[string]func(a, b *leak.ProfileSite) int{
	"bytes":  byBytes,
	"count":  func(a, b *leak.ProfileSite) int { return -cmp.Compare(a.Held.Count, b.Held.Count) },
	"age":    func(a, b *leak.ProfileSite) int { return -compareKnown(a.OldestS, b.OldestS) },
	"growth": func(a, b *leak.ProfileSite) int { return -compareKnown(a.BytesPerHour, b.BytesPerHour) },
}

// ProfileOrder reports whether there is such an order of sites.
func ProfileOrder(name string) bool { return profileOrders[name] != nil }

func byBytes(a, b *leak.ProfileSite) int {
	return cmp.Or(-cmp.Compare(a.Held.Bytes, b.Held.Bytes), -cmp.Compare(a.Acquired.Bytes, b.Acquired.Bytes))
}

// compareKnown orders what was not measured first.
func compareKnown(a, b *float64) int {
	switch {
	case a == nil || b == nil:
		return leak.CompareBool(a != nil, b != nil)
	}
	return cmp.Compare(*a, *b)
}

// profiled are the numbers of a stack, of a site or of all.
type profiled struct {
	acquired, released leak.Count
	estimated          bool

	site   *site
	most   float64         // bytes acquired by the stack that site is of
	grid   []time.Duration // when the books were read
	held   []float64       // bytes then
	aged   bool            // oldest is known
	oldest time.Duration
}

func (p *profiled) sum(s *profiled) {
	p.acquired.N += s.acquired.N
	p.acquired.Bytes += s.acquired.Bytes
	p.released.N += s.released.N
	p.released.Bytes += s.released.Bytes
	p.estimated = p.estimated || s.estimated
}

// profiledStack is one stack of a process.
type profiledStack struct {
	profiled
	id     leak.StackID
	series []*ledger.TallySeries // one for the blocks that are counted, one for those sampled
}

// stacksOf gives the stacks that acquired anything, in the order of their IDs.
func stacksOf(proc *ledger.Process) []profiledStack {
	var out []profiledStack
	for i := range proc.Tallies {
		y := &proc.Tallies[i]
		if y.Kind != leak.KindMemory || len(y.Points) == 0 {
			continue
		}
		last := y.Points[len(y.Points)-1]
		if last.Acquired.N <= 0 {
			continue
		}
		if n := len(out); n == 0 || out[n-1].id != y.Stack {
			out = append(out, profiledStack{id: y.Stack})
		}
		s := &out[len(out)-1]
		s.series = append(s.series, y)
		s.sum(&profiled{acquired: last.Acquired, released: last.Released, estimated: !y.Exact})
	}
	return out
}

// add makes the stack part of the site.
func (p *profiled) add(s *profiledStack, site *site, grid []time.Duration) {
	p.sum(&s.profiled)
	if p.site == nil || s.acquired.Bytes > p.most {
		p.site, p.most = site, s.acquired.Bytes
	}
	if len(grid) != len(p.held) {
		return // a site of two processes: its growth is that of the first
	}
	for _, y := range s.series {
		next, live := 0, 0.0
		for i, at := range grid {
			for next < len(y.Points) && y.Points[next].At <= at {
				live = y.Points[next].Live().Bytes
				next++
			}
			p.held[i] += live
		}
	}
}

func (p *profiled) counts() leak.ProfileCounts {
	return leak.ProfileCounts{
		Held:     amount(p.acquired.N-p.released.N, p.acquired.Bytes-p.released.Bytes),
		Acquired: amount(p.acquired.N, p.acquired.Bytes), Released: amount(p.released.N, p.released.Bytes),
		Estimated: p.estimated,
	}
}

func amount(n, bytes float64) leak.Amount {
	whole := func(f float64) uint64 { return uint64(math.Min(math.Max(f, 0), 1<<62) + 0.5) } // a damaged recording may hold anything
	return leak.Amount{Count: whole(n), Bytes: whole(bytes)}
}

func (p *profiled) listed(key string, end time.Duration) leak.ProfileSite {
	s := leak.ProfileSite{ProfileCounts: p.counts(), Key: key, NameKey: key, BytesPerHour: middleSlope(p.grid, p.held)}
	if p.site != nil {
		s.NameKey, s.Stack, s.Site = p.site.nameKey, p.site.stack, p.site.line
	}
	if p.aged && s.Held.Count > 0 {
		s.OldestS = ptr(math.Max((end - p.oldest).Seconds(), 0))
	}
	return s
}

// The growth of a site is that of the last three quarters of the watch: a
// probe's books begin empty, and fill until as much is freed as is acquired.
// It takes so many readings, over so long.
const (
	profileSteps  = 48 // the most readings that are compared
	profilePoints = 4
	profileTime   = 3 * time.Second
)

// ticks gives the times at which the books of the process were read, without
// the first quarter of the watch.
func ticks(proc *ledger.Process) []time.Duration {
	points := proc.Gauges[leak.GaugeProbeCalls]
	if len(points) == 0 {
		return nil
	}
	first, last := points[0].At, points[len(points)-1].At
	var all []time.Duration
	for _, p := range points {
		if p.At >= first+(last-first)/4 {
			all = append(all, p.At)
		}
	}
	if len(all) < profilePoints || last-all[0] < profileTime {
		return nil
	}
	step := (len(all) + profileSteps - 1) / profileSteps
	var out []time.Duration
	for i := len(all) - 1; i >= 0; i -= step {
		out = append(out, all[i])
	}
	slices.Reverse(out)
	return out
}

// middleSlope gives the median of the slopes between all pairs of points, per
// hour (Theil and Sen): what comes and goes hardly moves it. It is nil when
// there are no points.
func middleSlope(at []time.Duration, v []float64) *float64 {
	var slopes []float64
	for i := range at {
		for j := range i {
			slopes = append(slopes, (v[i]-v[j])/(at[i]-at[j]).Hours())
		}
	}
	if len(slopes) == 0 {
		return nil
	}
	slices.Sort(slopes)
	n := len(slopes)
	return ptr((slopes[(n-1)/2] + slopes[n/2]) / 2)
}

// oldestOf gives the time of the oldest block that each stack still holds.
func oldestOf(proc *ledger.Process) map[leak.StackID]time.Duration {
	out := map[leak.StackID]time.Duration{}
	for i := range proc.Live {
		if l := &proc.Live[i]; l.Kind == leak.KindMemory {
			out[l.Stack] = l.OldestAt
		}
	}
	return out
}

// through reports whether a stack goes through one of the functions, or
// through any when there are none.
func (n *names) through(id leak.StackID, functions []string) bool {
	if len(functions) == 0 {
		return true
	}
	for _, f := range n.view.Stacks[id] {
		for _, named := range n.frame(f) {
			for _, want := range functions {
				if named.Function != "" && (named.Function == want || plain(named.Function) == plain(want)) {
					return true
				}
			}
		}
	}
	return false
}

// places gives a whole stack without its allocator frames.
func (n *names) places(id leak.StackID) []leak.Place {
	s := n.stack(id)
	if s == nil {
		return nil
	}
	var out []leak.Place
	total := 0
	for _, f := range n.view.Stacks[id] {
		named := n.frame(f)
		total += len(named)
		out = append(out, leak.Place{Frame: f, Mapping: n.view.Maps[f.Map], Names: named})
	}
	for cut := total - len(s.stack); cut > 0; {
		if k := len(out[0].Names); k <= cut {
			out, cut = out[1:], cut-k
			continue
		}
		out[0].Names, cut = out[0].Names[cut:], 0
	}
	return out
}
