package detect

import (
	"fmt"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Accumulating reports places that open descriptors which are not closed.
var Accumulating = &Detector{
	Name: "fd.accumulating",
	Doc:  "descriptors of one place that only become more while it is watched",
	Run:  accumulating,
}

// fds are the descriptors of a process and who opened them, found once for all
// detectors.
type fds struct {
	entries []*fdEntry
	groups  []*fdGroup
	sites   []*fdSite
	// Of the growth of all, what other findings explain: an hour, and of the
	// whole watch.
	explained, explainedCount float64
	cause                     *leak.Finding   // the finding that explains most of it
	closing                   map[string]bool // sites whose descriptors fd.closewait reports
}

func (p *Pass) fds() *fds {
	if p.shared.fds == nil {
		entries, groups := fdEntries(p.names, p.Proc)
		p.shared.fds = &fds{entries: entries, groups: groups, sites: fdSites(p.names, p.Proc, entries), closing: map[string]bool{}}
	}
	return p.shared.fds
}

// explains notes a finding that names a cause of the growth.
func (d *fds) explains(f *leak.Finding) {
	if f.Rate == nil {
		return
	}
	d.explained += f.Rate.CountPerHour
	d.explainedCount += float64(f.Count)
	if d.cause == nil || d.cause.Rate.CountPerHour < f.Rate.CountPerHour {
		d.cause = f
	}
}

// explain reports whether other findings name the cause of most of a growth. A
// rate over the whole watch and one of its steady part may differ where the
// numbers do not.
func (d *fds) explain(t trend) bool {
	return d.explained >= explainedPart*t.perHour || d.explainedCount >= explainedPart*t.grown
}

// remedy is the advice for the limit, in the finding that names the cause: once.
func (p *Pass) remedy(f *leak.Finding) {
	i := slices.IndexFunc(p.Proc.Usages, func(u ledger.UsageSeries) bool { return isDescriptors(u) })
	if p.fds().cause != nil || i < 0 || f.Exhaustion == nil || f.Exhaustion.InS >= soon.Seconds() {
		return
	}
	u := &p.Proc.Usages[i]
	if float64(u.Used) >= nearLimit*float64(u.Max) {
		return // fd.limit has it
	}
	f.Advice = append(f.Advice, nofileAdvice(p, u, f.Rate.CountPerHour, f.Exhaustion)...)
}

// over reports whether nothing more can come of the process's descriptors.
func (p *Pass) over() bool { return p.Proc.Ended() || p.Proc.Exited }

// watchedFDs is for how long the descriptors of the process were watched. Once
// the limit is reached none can come any more: then it ends with the last one
// that did.
func (p *Pass) watchedFDs() time.Duration {
	start, end := max(p.Proc.FirstAt, 0), p.Proc.LastAt
	if fdsFull(p.Proc) {
		last := time.Duration(-1)
		for i := range p.Proc.Open {
			last = max(last, p.Proc.Open[i].OpenedAt)
		}
		if last > start {
			end = last
		}
	}
	return end - start
}

func accumulating(p *Pass) {
	if p.over() {
		return // fd.unclosed lists them
	}
	if len(p.fds().sites) == 0 {
		return
	}
	window := p.watchedFDs()
	for _, s := range p.fds().sites {
		if p.fds().closing[s.site.lines] || !s.accumulates(p) {
			continue
		}
		noun := fdNoun(s.open, s.held)
		f := leak.Finding{
			Severity: leak.SeverityGrowth, Kind: leak.KindDescriptor.String(), What: noun, Count: s.held,
			Key: s.site.key, NameKey: s.site.nameKey, SiteCertainty: leak.CertaintyProved, Stack: s.site.stack, Site: s.site.line,
			Title: fmt.Sprintf("%s more %s from %s after %s: they are not closed", leak.FormatCount(s.held), noun,
				functionName(&s.site.stack[s.site.line]), leak.FormatDuration(window)),
		}
		f.Rate, f.Exhaustion = keptRate(p, s.held, window)
		kept := s.kept(p)
		f.Evidence = append(f.Evidence, fmt.Sprintf("seen: %s; of each third of %s, %s, %s and %s are open still", s.seen(), leak.FormatDuration(window),
			leak.FormatCount(kept[0]), leak.FormatCount(kept[1]), leak.FormatCount(kept[2])))
		f.Evidence = append(f.Evidence, s.stillOpen(p)...)
		f.Advice = s.closeAdvice()
		p.remedy(&f)
		p.fds().explains(&f)
		p.Report(f)
	}
}

// stillOpen says what the kept descriptors of a site are, what was done with
// them, and how near the limit is.
func (f *fdSite) stillOpen(p *Pass) []string {
	var out []string
	if kinds := kindsOf(f.open); kinds != "" {
		out = append(out, "kinds: "+kinds)
	}
	if calls := lastCalls(f.open); calls != "" {
		out = append(out, calls)
	}
	out = append(out, limitEvidence(p)...)
	if missedCalls(p) > 0 {
		out = append(out, missedEvidence)
	}
	return out
}

// limitEvidence says how many descriptors are in use, and that a raised limit
// did not help.
func limitEvidence(p *Pass) []string {
	u, ok := fdLimit(p.Proc)
	if !ok || u.Max == 0 {
		return nil
	}
	out := []string{fmt.Sprintf("limit: %s of %s in use", leak.FormatCount(u.Used), leak.FormatCount(u.Max))}
	if u.RaisedAt >= 0 {
		out = append(out, fmt.Sprintf("raised: the limit was %s at first, and was raised %s into the watch; the number grows on", leak.FormatCount(u.FirstMax), leak.FormatDuration(u.RaisedAt-max(p.Proc.FirstAt, 0))))
	}
	return out
}
