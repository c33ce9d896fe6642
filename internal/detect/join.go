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
	gaps := map[string]int{}
	for _, r := range reports {
		seen := map[string]bool{}
		for _, g := range r.Gaps {
			if !seen[g] {
				seen[g] = true
				gaps[g]++
			}
		}
	}
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
		for _, g := range r.Gaps {
			// What only some processes have belongs to them.
			if len(r.Targets) == 1 && gaps[g] < len(reports) {
				t := &out.Targets[len(out.Targets)-1]
				t.Gaps = appendNew(t.Gaps, g)
				continue
			}
			out.Gaps = appendNew(out.Gaps, g)
		}
		for _, n := range r.Notes {
			out.Notes = appendNew(out.Notes, n)
		}
		out.Suppressed = append(out.Suppressed, r.Suppressed...)
		out.Known = append(out.Known, r.Known...)
		joinObserved(&out.Observed, &r.Observed)
	}
	Fold(out)
	out.Normalize()
	return out
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

// Fold puts findings together that processes of the same executable have
// alike, and orders all by urgency. Their numbers are added up; words are those
// of the first process.
func Fold(r *leak.Report) {
	type same struct {
		exe, key string
		severity leak.Severity
	}
	targets := map[int]*leak.ReportTarget{}
	for i := range r.Targets {
		targets[r.Targets[i].ID] = &r.Targets[i]
	}
	first := map[same]int{}
	alike := map[same]bool{} // whether all have said the same words
	var out []leak.Finding
	for i := range r.Findings {
		f := r.Findings[i]
		f.Processes = max(f.Processes, 1)
		t := targets[f.Target]
		if t == nil {
			out = append(out, f)
			continue
		}
		k := same{t.Exe, f.Key, f.Severity}
		if k.exe == "" {
			k.exe = t.Comm
		}
		j, ok := first[k]
		if !ok || out[j].Target == f.Target {
			first[k], alike[k] = len(out), true
			out = append(out, f)
			continue
		}
		alike[k] = alike[k] && slices.Equal(out[j].Evidence, f.Evidence) && slices.Equal(out[j].Advice, f.Advice)
		addFinding(&out[j], &f)
	}
	for k, j := range first {
		if !alike[k] {
			t := targets[out[j].Target]
			out[j].Evidence = append(slices.Clone(out[j].Evidence), fmt.Sprintf("also: these lines are of %s[%d], the first of %s processes", t.Comm, t.PID, leak.FormatCount(uint64(out[j].Processes))))
		}
	}
	slices.SortStableFunc(out, urgency)
	r.Findings = out
}

// addFinding adds the numbers of another process.
func addFinding(to, f *leak.Finding) {
	to.Processes += f.Processes
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
