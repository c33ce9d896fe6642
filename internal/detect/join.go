package detect

import (
	"fmt"
	"slices"
	"time"

	"stanch/internal/leak"
)

// Join makes one report of those of several processes, in the order in which
// they are given: a section for each, and what several processes of one
// executable lose alike as one finding. Times and costs of the whole are the
// caller's to fill in where the processes' own do not add up.
func Join(reports ...*leak.Report) *leak.Report {
	out := &leak.Report{}
	gaps := common(reports, func(r *leak.Report) []string { return r.Gaps })
	// What was not examined has fewer notes; that takes nothing from the others'.
	examined := slices.DeleteFunc(slices.Clone(reports), func(r *leak.Report) bool {
		return len(r.Targets) == 1 && r.Targets[0].LostDirect == nil
	})
	notes := common(examined, func(r *leak.Report) []string { return r.Notes })
	var own []string // notes of some processes only
	whose := map[string][]*leak.ReportTarget{}
	for _, r := range reports {
		ids := map[int]int{}
		for _, t := range r.Targets {
			ids[t.ID] = len(out.Targets) + 1
			t.ID = ids[t.ID]
			t.Gaps = slices.Clone(t.Gaps)
			out.Targets = append(out.Targets, t)
		}
		for _, f := range r.Findings {
			f.Target = ids[f.Target]
			out.Findings = append(out.Findings, f)
		}
		// What only some processes have belongs to them.
		for _, g := range r.Gaps {
			if len(r.Targets) == 1 && !gaps[g] {
				t := &out.Targets[len(out.Targets)-1]
				t.Gaps = appendNew(t.Gaps, g)
				continue
			}
			out.Gaps = appendNew(out.Gaps, g)
		}
		for _, n := range r.Notes {
			if len(r.Targets) != 1 || notes[n] {
				out.Notes = appendNew(out.Notes, n)
				continue
			}
			if whose[n] == nil {
				own = append(own, n)
			}
			whose[n] = append(whose[n], &r.Targets[0])
		}
		out.Suppressed = append(out.Suppressed, r.Suppressed...)
		out.Known = append(out.Known, r.Known...)
		joinObserved(&out.Observed, &r.Observed)
	}
	for _, n := range own {
		who := fmt.Sprintf("%s[%d]", whose[n][0].Comm, whose[n][0].PID)
		if more := len(whose[n]) - 1; more > 0 {
			who += fmt.Sprintf(" and %s more", leak.FormatCount(uint64(more)))
		}
		out.Notes = append(out.Notes, who+": "+n)
	}
	Fold(out)
	out.Normalize()
	return out
}

// common finds the sentences that all reports hold.
func common(reports []*leak.Report, of func(*leak.Report) []string) map[string]bool {
	n := map[string]int{}
	for _, r := range reports {
		for _, s := range slices.Compact(slices.Sorted(slices.Values(of(r)))) {
			n[s]++
		}
	}
	all := map[string]bool{}
	for s, k := range n {
		all[s] = k == len(reports)
	}
	return all
}

func appendNew(to []string, s string) []string {
	if slices.Contains(to, s) {
		return to
	}
	return append(to, s)
}

func joinObserved(to, o *leak.Observed) {
	if to.Start.IsZero() || !o.Start.IsZero() && o.Start.Before(to.Start) {
		if end := to.Start.Add(span(to.DurationS)); !to.Start.IsZero() {
			to.DurationS = end.Sub(o.Start).Seconds()
		}
		to.Start = o.Start
	}
	to.DurationS = max(to.DurationS, o.Start.Add(span(o.DurationS)).Sub(to.Start).Seconds())
	to.PauseMS = append(to.PauseMS, o.PauseMS...)
	if o.PeakMemoryBytes != nil && (to.PeakMemoryBytes == nil || *to.PeakMemoryBytes < *o.PeakMemoryBytes) {
		to.PeakMemoryBytes = o.PeakMemoryBytes
	}
	if o.OverheadPercent != nil && (to.OverheadPercent == nil || *to.OverheadPercent < *o.OverheadPercent) {
		to.OverheadPercent = o.OverheadPercent
	}
	if o.ProbeRemoved != nil && (to.ProbeRemoved == nil || *to.ProbeRemoved) {
		to.ProbeRemoved = o.ProbeRemoved
	}
}

// Fold puts findings together that processes of the same executable have alike,
// or one process at several instructions of one line, and orders all by
// urgency. Their numbers are added up; words are those of the first.
func Fold(r *leak.Report) {
	targets := map[int]*leak.ReportTarget{}
	for i := range r.Targets {
		targets[r.Targets[i].ID] = &r.Targets[i]
	}
	first := map[folded]*gathered{}
	var out []leak.Finding
	for i := range r.Findings {
		f := r.Findings[i]
		f.Processes = max(f.Processes, 1)
		t := targets[f.Target]
		if t == nil {
			out = append(out, f)
			continue
		}
		k := foldKey(t, &f)
		j := first[k]
		if j == nil {
			first[k] = &gathered{at: len(out), alike: true, targets: map[int]bool{f.Target: true}}
			out = append(out, f)
			continue
		}
		to := &out[j.at]
		j.alike = j.alike && slices.Equal(to.Evidence, f.Evidence) && slices.Equal(to.Advice, f.Advice)
		processes := to.Processes
		if !j.targets[f.Target] {
			j.targets[f.Target] = true
			processes += f.Processes
		}
		addFinding(to, &f)
		to.Processes = processes
	}
	for _, j := range first {
		if f := &out[j.at]; !j.alike {
			of := "of " + leak.FormatCount(uint64(f.Processes)) + " processes"
			if f.Processes == 1 {
				of = "that is called here"
			}
			t := targets[f.Target]
			f.Evidence = append(slices.Clone(f.Evidence), fmt.Sprintf("also: these lines are of the first %s, in %s[%d]", of, t.Comm, t.PID))
		}
	}
	slices.SortStableFunc(out, urgency)
	r.Findings = out
}

// gathered is a finding that others are added to.
type gathered struct {
	at      int  // index of the finding
	alike   bool // all have said the same words
	targets map[int]bool
}

// folded is what findings that become one have in common.
type folded struct {
	exe, rule, place string
	severity         leak.Severity
}

// foldKey says where a finding is: by the lines of its site, or by its key
// where lines are not known.
func foldKey(t *leak.ReportTarget, f *leak.Finding) folded {
	k := folded{t.Exe, f.Rule, f.Key, f.Severity}
	if k.exe == "" {
		k.exe = t.Comm
	}
	if place := linesOf(f.Stack, f.Site); place != "" {
		k.place = place
		for i := range f.Related {
			if r := &f.Related[i]; r.What != leak.RelatedIndirect {
				k.place += "|" + linesOf(r.Stack, r.Site)
			}
		}
	}
	return k
}

// linesOf writes the line of a site and of its callers, as far as they tell
// sites apart; "" when one of them is not known.
func linesOf(stack []leak.StackFrame, site int) string {
	var place string
	site = max(site, 0)
	for i := site; i < min(len(stack), site+1+siteCallers); i++ {
		f := &stack[i]
		if f.File == "" || f.Line == 0 {
			if i > site && starts[functionName(f)] {
				break
			}
			return ""
		}
		place += fmt.Sprintf("%s %s:%d<", functionName(f), f.File, f.Line)
	}
	return place
}

// addFinding adds the numbers of another one. The lesser key stays, so that it
// does not depend on which came first.
func addFinding(to, f *leak.Finding) {
	if f.Key < to.Key {
		to.Key, to.NameKey = f.Key, f.NameKey
	}
	to.Count += f.Count
	to.Bytes += f.Bytes
	to.Direct += f.Direct
	to.Indirect += f.Indirect
	to.IndirectBytes += f.IndirectBytes
	if to.BytesAre != f.BytesAre {
		to.BytesAre = weaker(to.BytesAre, f.BytesAre)
	}
	if to.What != f.What && to.Kind == leak.KindMemory.String() {
		to.What = "blocks of several sizes"
	}
	if to.What == "an address" {
		to.What = "addresses"
	}
	if f.SiteCertainty == leak.CertaintyLikely {
		to.SiteCertainty = f.SiteCertainty
	}
	if b := f.BeforeAttach; b != nil {
		sum := *b
		if o := to.BeforeAttach; o != nil {
			sum = *o
			sum.Count += b.Count
			sum.Bytes += b.Bytes
			sum.IndirectCount += b.IndirectCount
			sum.IndirectBytes += b.IndirectBytes
		}
		to.BeforeAttach = &sum
	}
	to.Related = addRelated(to.Related, f.Related)
}

// addRelated adds stacks that are the same by what they did and by their site.
func addRelated(to, from []leak.Related) []leak.Related {
	to = slices.Clone(to)
	for _, r := range from {
		i := slices.IndexFunc(to, func(o leak.Related) bool { return o.What == r.What && samePlace(&o, &r) })
		switch {
		case i >= 0:
			to[i].Count += r.Count
			to[i].Bytes += r.Bytes
		case r.What == leak.RelatedIndirect:
			to = append(to, r)
		}
	}
	return to
}

func samePlace(a, b *leak.Related) bool {
	if a.Site >= len(a.Stack) || b.Site >= len(b.Stack) {
		return len(a.Stack) == len(b.Stack)
	}
	return where(&a.Stack[a.Site]) == where(&b.Stack[b.Site])
}

// weaker gives the word for bytes that are partly one thing, partly another.
func weaker(a, b string) string {
	if a == "estimated" || b == "estimated" {
		return "estimated"
	}
	return "usable"
}

func span(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
