package render

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"stanch/internal/leak"
)

// unexplained ends the key of the finding that says which growth no other
// finding explains; it is shown in the closing line.
const unexplained = "heap.growth:unexplained"

// maxFindings is how many findings the text shows; JSON has all.
const maxFindings = 25

// Text writes the report for a person: facts first, one finding a paragraph.
func Text(w io.Writer, r *leak.Report) error { return TextIn(w, r, columns) }

// TextIn is Text for a terminal of so many columns: lines are at most so wide,
// where tables allow it, and never wider than Text's.
func TextIn(w io.Writer, r *leak.Report, width int) error {
	r.Normalize()
	b := newPage()
	b.width = max(min(width, columns), leastColumns)
	all := sections(WithoutHistory(r))
	switch {
	case len(r.Services) > 0:
		history(b, r.Services)
		if len(all)+len(r.Gaps)+len(r.Notes) > 0 {
			apart(b)
		}
	case len(all) == 0:
		wrap(b, "", "nothing was examined")
	}
	var silent []*leak.ReportTarget
	said := 0
	for _, sec := range all {
		if len(all) > 1 && len(sec.findings) == 0 && ended(sec.targets[0]) {
			silent = append(silent, sec.targets...)
			continue
		}
		if said > 0 {
			apart(b)
		}
		said++
		sectionHead(b, sec)
		about(b, r, sec)
	}
	if len(silent) > 0 {
		if said > 0 {
			apart(b)
		}
		quiet(b, silent, said > 0)
		targetGaps(b, silent)
	}
	for _, g := range r.Gaps {
		wrap(b, "not seen: ", Clean(g))
	}
	for _, n := range r.Notes {
		wrap(b, "note: ", Clean(n))
	}
	if c := cost(&r.Observed); c != "" {
		wrap(b, "cost: ", c)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// apart leaves one line empty.
func apart(b *page) {
	if !strings.HasSuffix(b.String(), "\n\n") {
		b.WriteByte('\n')
	}
}

// about writes what was found in one section.
func about(b *page, r *leak.Report, s *section) {
	own, t := s.findings, s.targets[0]
	if len(own) > 0 {
		totals(b, s)
	}
	for i, f := range own[:min(len(own), maxFindings)] {
		if i > 0 {
			b.WriteByte('\n')
		}
		finding(b, s, f)
	}
	if len(own) > 1 {
		b.WriteByte('\n')
	}
	if more := len(own) - maxFindings; more > 0 {
		fmt.Fprintf(b, "and %s less urgent findings: --format json has them all\n", leak.FormatCount(uint64(more)))
	}
	if len(own) == 0 {
		nothing(b, r, s)
	}
	if rest := s.rest; rest != nil {
		wrap(b, "not explained: ", strings.Join(append([]string{Clean(rest.Title)}, speed(rest)...), "; "))
		for _, e := range rest.Evidence {
			labelled(b, e)
		}
	}
	open(b, s)
	targetGaps(b, s.targets)
	if len(s.targets) == 1 && !ended(t) {
		holders(b, t)
	}
}

// head says who it is and how it stands.
func head(b *page, t *leak.ReportTarget) {
	parts := []string{fmt.Sprintf("%s[%d]", Clean(t.Comm), t.PID)}
	if t.UptimeS != nil && !ended(t) {
		parts[0] += " up " + seconds(*t.UptimeS)
	}
	if t.Allocator != "" {
		parts = append(parts, Clean(t.Allocator))
	}
	if t.Ended != "" {
		parts = append(parts, Clean(t.Ended))
	}
	switch {
	case ended(t):
	case t.RSSBytes != nil && t.MemoryLimitBytes != nil:
		parts = append(parts, fmt.Sprintf("memory %s (%s)", of(float64(*t.RSSBytes), float64(*t.MemoryLimitBytes)), Clean(t.MemoryLimit)))
	case t.RSSBytes != nil:
		parts = append(parts, "memory "+leak.FormatBytes(float64(*t.RSSBytes)))
	}
	wrap(b, "", strings.Join(parts, ", "))
}

// of writes "7.2 of 8 GB", with one unit when both have the same.
func of(used, all float64) string {
	u, a := leak.FormatBytes(used), leak.FormatBytes(all)
	number, unit, _ := strings.Cut(u, " ")
	if strings.HasSuffix(a, " "+unit) {
		u = number
	}
	return u + " of " + a
}

func seconds(s float64) string { return leak.FormatDuration(duration(s)) }

// duration takes times that no Duration holds for the longest one.
func duration(s float64) time.Duration {
	return time.Duration(max(min(s*float64(time.Second), math.MaxInt64/2), math.MinInt64/2))
}

// words are the severities as they stand at the beginning of a paragraph.
var words = map[leak.Severity]string{
	leak.SeverityError: "ERROR", leak.SeverityLeak: "LEAK", leak.SeverityGrowth: "GROWTH", leak.SeverityRisk: "RISK", leak.SeverityNote: "NOTE",
}

func finding(b *page, s *section, f *leak.Finding) {
	word := words[f.Severity]
	if word == "" {
		word = strings.ToUpper(Clean(string(f.Severity)))
	}
	wrap(b, word+"  ", headline(s, f))
	switch {
	case len(f.Stack) > 0:
		wrap(b, "  ", origin(f)+stack(f))
	case amounted(f):
		wrap(b, "  ", Clean(f.Title))
	}
	related(b, f)
	for _, e := range f.Evidence {
		labelled(b, e)
	}
	for _, a := range f.Advice {
		wrap(b, "  do     ", Clean(a))
	}
}

// origin is what stands before the stack.
func origin(f *leak.Finding) string {
	what := f.What
	if what == "" {
		what = f.Title
	}
	switch {
	case f.Rule != invalidFree:
		return Clean(what) + " from "
	case len(f.Related) > 0:
		return Clean(what) + " freed again by "
	}
	return Clean(what) + " freed by "
}

// maxRelated is how many frames are shown of the other stacks.
const maxRelated = 4

// related writes the other stacks of a finding.
func related(b *page, f *leak.Finding) {
	for i := range f.Related {
		r := &f.Related[i]
		if len(r.Stack) == 0 {
			continue
		}
		at := stackOf(r.Stack, r.Site, maxRelated)
		if r.What == leak.RelatedIndirect {
			if at == stackOf(f.Stack, f.Site, maxRelated) {
				at = "the same line"
			}
			wrap(b, "  below  ", fmt.Sprintf("%s from %s", amount(leak.ReportBlocks{Count: r.Count, Bytes: r.Bytes}), at))
			continue
		}
		wrap(b, "  ", did(r)+" by "+at)
	}
}

// did says what another stack did, and how often.
func did(r *leak.Related) string {
	switch {
	case r.What != leak.RelatedClosed:
		return Clean(r.What)
	case r.Count == 0:
		return "others from this line were closed"
	case r.Count == 1:
		return "1 other from this line was closed"
	}
	return leak.FormatCount(r.Count) + " others from this line were closed"
}

// maxLabel is the longest label that stands in the margin.
const maxLabel = 6

// labelled writes "proof: no pointer to them" as a label and its text.
func labelled(b *page, s string) {
	label, text := labelOf(s)
	wrap(b, fmt.Sprintf("  %-*s ", maxLabel, label), text)
}

// nothing says what was looked at when nothing was found.
func nothing(b *page, r *leak.Report, s *section) {
	t := s.targets[0]
	if n := expected(r); n > 0 {
		wrap(b, "", fmt.Sprintf("nothing new found in %s; suppressed or known, as the notes say: %s", seconds(r.Observed.DurationS), leak.FormatCount(n)))
		return
	}
	switch {
	case ended(t):
		nothingLost(b, s.targets)
	case t.Descriptors != nil && onlyDescriptors(s):
		watched := ""
		if r.Observed.DurationS >= 1 {
			watched = " in " + seconds(r.Observed.DurationS)
		}
		wrap(b, "", fmt.Sprintf("nothing found among %s%s", counted(t.Descriptors.Open, "descriptor"), watched))
	case t.HeapBlocks != nil:
		state := "pointers lead to all of them"
		if t.LostBlocks != nil && *t.LostBlocks > 0 {
			state = fmt.Sprintf("no pointer to %s of them was seen in one snapshot, which proves nothing", leak.FormatCount(*t.LostBlocks))
		}
		wrap(b, "", fmt.Sprintf("nothing found in %s: %s blocks, %s, were examined; %s", seconds(r.Observed.DurationS),
			leak.FormatCount(*t.HeapBlocks), bytesOf(t.HeapBytes), state))
	case t.Allocator != "":
		wrap(b, "", fmt.Sprintf("nothing found in %s; the heap of %s was not examined", seconds(r.Observed.DurationS), Clean(t.Allocator)))
	default:
		wrap(b, "", fmt.Sprintf("nothing found in %s; the heap was not examined", seconds(r.Observed.DurationS)))
	}
}

// expected is how many findings suppressions and baselines took out.
func expected(r *leak.Report) (n uint64) {
	for i := range r.Suppressed {
		n += uint64(r.Suppressed[i].Findings)
	}
	for i := range r.Known {
		n += uint64(r.Known[i].Findings)
	}
	return n
}

func bytesOf(n *uint64) string {
	if n == nil {
		return "unknown size"
	}
	return leak.FormatBytes(float64(*n))
}

// maxHolders is how many holders the text shows.
const maxHolders = 8

// holders says who holds what is reachable, those with a hundredth of it or
// more: a scan's answer to "where is the rest".
func holders(b *page, t *leak.ReportTarget) {
	var all uint64
	for i := range t.Held {
		all += t.Held[i].Bytes
	}
	if t.HeapBytes != nil {
		all = *t.HeapBytes
	}
	n := 0
	for n < min(len(t.Held), maxHolders) && t.Held[n].Bytes >= all/100 {
		n++
	}
	if n == 0 {
		return
	}
	if t.HeapBytes != nil {
		held := *t.HeapBytes
		if t.LostBytes != nil {
			held -= min(held, *t.LostBytes)
		}
		wrap(b, "", fmt.Sprintf("held: %s of the heap, by", leak.FormatBytes(float64(held))))
	} else {
		wrap(b, "", "held by")
	}
	for i := range t.Held[:n] {
		h := &t.Held[i]
		s := leak.FormatCount(h.Count) + " blocks"
		if h.Size > 0 {
			s = fmt.Sprintf("%s x %s bytes", leak.FormatCount(h.Count), leak.FormatCount(h.Size))
		}
		if h.Type != "" {
			s += ", " + Clean(h.Type)
		}
		wrap(b, fmt.Sprintf("  %8s  ", leak.FormatBytes(float64(h.Bytes))), Clean(h.Holder)+": "+s)
	}
}

// maxPauses is how many pauses are listed one by one.
const maxPauses = 8

// cost says what the observation cost the target.
func cost(o *leak.Observed) string {
	var parts []string
	if len(o.PauseMS) > maxPauses {
		longest, all := 0.0, 0.0
		for _, p := range o.PauseMS {
			longest = max(longest, p)
			all += p
		}
		parts = append(parts, together(fmt.Sprintf("%s pauses", leak.FormatCount(uint64(len(o.PauseMS))))), together(fmt.Sprintf("%.3g ms at most", longest)),
			together(seconds(all/1000)+" in all"))
	} else if len(o.PauseMS) > 0 {
		var ms []string
		for _, p := range o.PauseMS {
			ms = append(ms, fmt.Sprintf("%.3g", p))
		}
		word := "pauses "
		if len(ms) == 1 {
			word = "pause "
		}
		parts = append(parts, together(word+strings.Join(ms, " + ")+" ms"))
	}
	if o.OverheadPercent != nil {
		parts = append(parts, together(fmt.Sprintf("%.2g %% CPU", *o.OverheadPercent)))
	}
	if o.PeakMemoryBytes != nil {
		parts = append(parts, together(leak.FormatBytes(float64(*o.PeakMemoryBytes))))
	}
	s := strings.Join(parts, ", ")
	if o.ProbeRemoved != nil {
		state := "probe removed"
		if !*o.ProbeRemoved {
			state = "PROBE STILL IN PLACE: stanch detach removes it"
		}
		if s != "" {
			s += "; "
		}
		s += state
	}
	return s
}
