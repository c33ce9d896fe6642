package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"stanch/internal/leak"
)

// section is what is said of one process, or of all those of one executable
// that have ended.
type section struct {
	targets  []*leak.ReportTarget
	findings []*leak.Finding
	rest     *leak.Finding // the growth that no other finding explains
	first    int           // index of the first finding
}

// ended reports whether the process was followed to its end.
func ended(t *leak.ReportTarget) bool { return t.Ended != "" || t.LostDirect != nil }

// sections divides a report: a living process has its own section, those that
// have ended share one with the others of their executable. Sections of ended
// ones come in the order of their most urgent finding, those without any last.
func sections(r *leak.Report) []*section {
	var out []*section
	byID, byExe := map[int]*section{}, map[string]*section{}
	for i := range r.Targets {
		t := &r.Targets[i]
		exe := t.Exe
		if exe == "" {
			exe = t.Comm
		}
		s := byExe[exe]
		if s == nil || !ended(t) {
			s = &section{first: len(r.Findings)}
			out = append(out, s)
			if ended(t) {
				byExe[exe] = s
			}
		}
		s.targets = append(s.targets, t)
		byID[t.ID] = s
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		s := byID[f.Target]
		switch {
		case s == nil:
		case f.Key == unexplained:
			s.rest = f
		default:
			s.first = min(s.first, i)
			s.findings = append(s.findings, f)
		}
	}
	for _, s := range out {
		if len(s.findings) == 0 && s.rest != nil {
			s.findings, s.rest = []*leak.Finding{s.rest}, nil
		}
	}
	slices.SortStableFunc(out, func(a, b *section) int {
		if !ended(a.targets[0]) || !ended(b.targets[0]) {
			return 0
		}
		return cmp.Compare(a.first, b.first)
	})
	return out
}

// sectionHead says who it is.
func sectionHead(b *page, s *section) {
	t := s.targets[0]
	if len(s.targets) == 1 {
		head(b, t)
		return
	}
	const named = 3
	var pids []string
	for _, t := range s.targets[:min(len(s.targets), named)] {
		pids = append(pids, fmt.Sprint(t.PID))
	}
	if len(s.targets) > named {
		pids = append(pids, "...")
	}
	text := fmt.Sprintf("%s, %s processes (%s)", Clean(t.Comm), leak.FormatCount(uint64(len(s.targets))), strings.Join(pids, ", "))
	if t.Allocator != "" {
		text += ", " + Clean(t.Allocator)
	}
	wrap(b, "", text)
}

// totals says what the looks at the exits found in all.
func totals(b *page, s *section) {
	direct, indirect, reachable, n := sum(s.targets)
	if n == 0 {
		return
	}
	text := fmt.Sprintf("%s lost", amount(direct))
	if indirect.Count > 0 {
		text += fmt.Sprintf(" directly, %s indirectly", amount(indirect))
	}
	text += fmt.Sprintf("; %s still reachable", amount(reachable))
	if n < len(s.targets) {
		text += fmt.Sprintf(" (in %s of %s processes; the others were not examined)", leak.FormatCount(uint64(n)), leak.FormatCount(uint64(len(s.targets))))
	}
	wrap(b, "at exit: ", text)
}

// sum adds up what the looks at the exits of n processes found.
func sum(ts []*leak.ReportTarget) (direct, indirect, reachable leak.ReportBlocks, n int) {
	add := func(to *leak.ReportBlocks, from *leak.ReportBlocks) {
		if from != nil {
			to.Count += from.Count
			to.Bytes += from.Bytes
		}
	}
	for _, t := range ts {
		if t.LostDirect == nil {
			continue
		}
		n++
		add(&direct, t.LostDirect)
		add(&indirect, t.LostIndirect)
		add(&reachable, t.StillReachable)
	}
	return direct, indirect, reachable, n
}

// amount writes "12 blocks, 1.2 KB"; none has no bytes.
func amount(n leak.ReportBlocks) string {
	if n.Count == 0 {
		return together("0 blocks")
	}
	return together(fmt.Sprintf("%s, %s", counted(n.Count, "block"), leak.FormatBytes(float64(n.Bytes))))
}

// counted writes "1 block", "2 blocks", "3 processes".
func counted(n uint64, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "ss"):
		noun += "es"
	default:
		noun += "s"
	}
	return leak.FormatCount(n) + " " + noun
}

// inProcesses says in how many of the processes of a section a finding is.
func inProcesses(s *section, f *leak.Finding) string {
	if len(s.targets) < 2 {
		return ""
	}
	if f.Processes == len(s.targets) {
		return together(fmt.Sprintf("in all %s processes", leak.FormatCount(uint64(f.Processes))))
	}
	if f.Processes > 1 {
		return together(fmt.Sprintf("in %s of %s processes", leak.FormatCount(uint64(f.Processes)), leak.FormatCount(uint64(len(s.targets)))))
	}
	for _, t := range s.targets {
		if t.ID == f.Target {
			return together(fmt.Sprintf("in %d only", t.PID))
		}
	}
	return ""
}

// nothingLost says of a process that has ended how it was looked at when
// nothing was found.
func nothingLost(b *page, ts []*leak.ReportTarget) {
	direct, indirect, reachable, n := sum(ts)
	switch {
	case n < len(ts):
		wrap(b, "", "nothing found; the heap was not examined at the exit")
	case direct.Count+indirect.Count > 0:
		wrap(b, "", fmt.Sprintf("nothing to report: of the %s lost, all were left out", amount(leak.ReportBlocks{Count: direct.Count + indirect.Count, Bytes: direct.Bytes + indirect.Bytes})))
	case reachable.Count == 0:
		wrap(b, "", "nothing lost: every block was freed")
	default:
		wrap(b, "", fmt.Sprintf("nothing lost: %s were held at the exit, and pointers led to all of them", amount(reachable)))
	}
}

// quiet sums the processes that have ended and in which nothing was found: by
// how well they were looked at. Others says that there are more.
func quiet(b *page, ts []*leak.ReportTarget, others bool) {
	var clear, unseen, left []*leak.ReportTarget
	for _, t := range ts {
		switch direct, indirect, _, n := sum([]*leak.ReportTarget{t}); {
		case n == 0:
			unseen = append(unseen, t)
		case direct.Count+indirect.Count > 0:
			left = append(left, t)
		default:
			clear = append(clear, t)
		}
	}
	for _, k := range []struct {
		ts   []*leak.ReportTarget
		what string
	}{{clear, "nothing lost"}, {left, "nothing to report"}, {unseen, "not examined at the exit, nothing found"}} {
		if len(k.ts) == 0 {
			continue
		}
		who := counted(uint64(len(k.ts)), "process")
		if others {
			who = strings.Replace(who, " ", " other ", 1)
		}
		wrap(b, "", fmt.Sprintf("%s: %s (%s)", who, k.what, names(k.ts)))
		others = true
	}
}

// maxNames is how many names of processes stand in one line.
const maxNames = 6

// names counts processes by name: "cc1 12, sh 4, make".
func names(ts []*leak.ReportTarget) string {
	counts := map[string]int{}
	var order []string
	for _, t := range ts {
		if counts[t.Comm] == 0 {
			order = append(order, t.Comm)
		}
		counts[t.Comm]++
	}
	slices.SortStableFunc(order, func(a, b string) int { return -cmp.Compare(counts[a], counts[b]) })
	var parts []string
	for _, name := range order[:min(len(order), maxNames)] {
		if counts[name] > 1 {
			parts = append(parts, together(fmt.Sprintf("%s %s", Clean(name), leak.FormatCount(uint64(counts[name])))))
		} else {
			parts = append(parts, Clean(name))
		}
	}
	if len(order) > maxNames {
		parts = append(parts, "...")
	}
	return strings.Join(parts, ", ")
}

// targetGaps says what could not be seen of some of the processes.
func targetGaps(b *page, ts []*leak.ReportTarget) {
	who := map[string][]*leak.ReportTarget{}
	var order []string
	for _, t := range ts {
		for _, g := range t.Gaps {
			if who[g] == nil {
				order = append(order, g)
			}
			who[g] = append(who[g], t)
		}
	}
	for _, g := range order {
		text := Clean(g)
		switch {
		case len(who[g]) < len(ts) && len(who[g]) == 1:
			text = fmt.Sprintf("%s[%d]: %s", Clean(who[g][0].Comm), who[g][0].PID, text)
		case len(who[g]) < len(ts):
			text = fmt.Sprintf("%s (%s): %s", counted(uint64(len(who[g])), "process"), names(who[g]), text)
		}
		wrap(b, "not seen: ", text)
	}
}
