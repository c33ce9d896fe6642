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
func Text(w io.Writer, r *leak.Report) error {
	r.Normalize()
	var b strings.Builder
	for i := range r.Targets {
		if i > 0 {
			b.WriteByte('\n')
		}
		t := &r.Targets[i]
		head(&b, t)
		about(&b, r, t)
	}
	for _, g := range r.Gaps {
		wrap(&b, "not seen: ", clean(g))
	}
	for _, n := range r.Notes {
		wrap(&b, "note: ", clean(n))
	}
	if c := cost(&r.Observed); c != "" {
		wrap(&b, "cost: ", c)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// about writes what was found in one target.
func about(b *strings.Builder, r *leak.Report, t *leak.ReportTarget) {
	var own []*leak.Finding
	var rest *leak.Finding
	for i := range r.Findings {
		switch f := &r.Findings[i]; {
		case f.Target != t.ID:
		case f.Key == unexplained:
			rest = f
		default:
			own = append(own, f)
		}
	}
	if len(own) == 0 && rest != nil {
		own, rest = []*leak.Finding{rest}, nil
	}
	for i, f := range own[:min(len(own), maxFindings)] {
		if i > 0 {
			b.WriteByte('\n')
		}
		finding(b, f)
	}
	if len(own) > 1 {
		b.WriteByte('\n')
	}
	if more := len(own) - maxFindings; more > 0 {
		fmt.Fprintf(b, "and %s less urgent findings: --format json has them all\n", leak.FormatCount(uint64(more)))
	}
	if len(own) == 0 {
		nothing(b, r, t)
	}
	if rest != nil {
		wrap(b, "not explained: ", strings.Join(append([]string{clean(rest.Title)}, speed(rest)...), "; "))
		for _, e := range rest.Evidence {
			labelled(b, e)
		}
	}
	holders(b, t)
}

// head says who it is and how it stands.
func head(b *strings.Builder, t *leak.ReportTarget) {
	parts := []string{fmt.Sprintf("%s[%d]", clean(t.Comm), t.PID)}
	if t.UptimeS != nil {
		parts[0] += " up " + seconds(*t.UptimeS)
	}
	if t.Allocator != "" {
		parts = append(parts, clean(t.Allocator))
	}
	switch {
	case t.RSSBytes != nil && t.MemoryLimitBytes != nil:
		parts = append(parts, fmt.Sprintf("memory %s (%s)", of(float64(*t.RSSBytes), float64(*t.MemoryLimitBytes)), clean(t.MemoryLimit)))
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
	leak.SeverityLeak: "LEAK", leak.SeverityGrowth: "GROWTH", leak.SeverityRisk: "RISK", leak.SeverityNote: "NOTE",
}

func finding(b *strings.Builder, f *leak.Finding) {
	word := words[f.Severity]
	if word == "" {
		word = strings.ToUpper(clean(string(f.Severity)))
	}
	wrap(b, word+"  ", headline(f))
	if len(f.Stack) > 0 {
		what := f.What
		if what == "" {
			what = f.Title
		}
		wrap(b, "  ", clean(what)+" from "+stack(f))
	} else if f.Rule == "heap.unreachable" {
		wrap(b, "  ", clean(f.Title))
	}
	for _, e := range f.Evidence {
		labelled(b, e)
	}
	for _, a := range f.Advice {
		wrap(b, "  do     ", clean(a))
	}
}

// maxLabel is the longest label that stands in the margin.
const maxLabel = 6

// labelled writes "proof: no pointer to them" as a label and its text.
func labelled(b *strings.Builder, s string) {
	label, text, ok := strings.Cut(clean(s), ": ")
	if !ok || strings.Contains(label, " ") || len(label) > maxLabel {
		label, text = "seen", clean(s)
	}
	wrap(b, fmt.Sprintf("  %-*s ", maxLabel, label), text)
}

// headline says how much, how fast, until when.
func headline(f *leak.Finding) string {
	if f.Rule != "heap.unreachable" {
		parts := []string{clean(f.Title)}
		return strings.Join(append(parts, speed(f)...), "; ")
	}
	count, bytes := f.Count, f.Bytes
	if f.BeforeAttach != nil {
		count += f.BeforeAttach.Count
		bytes += f.BeforeAttach.Bytes
	}
	plural := "blocks"
	if count == 1 {
		plural = "block"
	}
	parts := []string{together(fmt.Sprintf("%s %s, %s unreachable", leak.FormatCount(count), plural, leak.FormatBytes(float64(bytes))))}
	return strings.Join(append(parts, speed(f)...), "; ")
}

// rough is how far the bounds of a rate lie apart before it is called rough.
const rough = 4

// speed writes the rate and when the limit comes.
func speed(f *leak.Finding) []string {
	var parts []string
	if r := f.Rate; r != nil {
		switch {
		case f.Kind != leak.KindMemory.String() && r.CountPerHour > 0:
			parts = append(parts, "+"+perHour(r.CountPerHour)+"/h")
		case r.BytesPerHour > 0 && r.BytesPerHourLow != nil && r.BytesPerHourHigh != nil && *r.BytesPerHourHigh > rough**r.BytesPerHourLow:
			parts = append(parts, "roughly +"+leak.FormatBytes(r.BytesPerHour)+"/h")
		case r.BytesPerHour > 0:
			parts = append(parts, "+"+leak.FormatBytes(r.BytesPerHour)+"/h")
		}
	}
	if x := f.Exhaustion; x != nil {
		s := "limit in " + seconds(x.InS)
		if x.InS <= 0 {
			s = "limit reached"
		}
		if x.LowS != nil && x.HighS != nil {
			if between := leak.FormatDurations(duration(*x.LowS), duration(*x.HighS)); strings.Contains(between, "-") {
				s += " (" + between + ")"
			}
		}
		parts = append(parts, s)
	}
	for i := range parts {
		parts[i] = together(parts[i])
	}
	return parts
}

func perHour(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.2g", n)
	}
	return leak.FormatCount(uint64(n + 0.5))
}

// nothing says what was looked at when nothing was found.
func nothing(b *strings.Builder, r *leak.Report, t *leak.ReportTarget) {
	if n := expected(r); n > 0 {
		wrap(b, "", fmt.Sprintf("nothing new found in %s; suppressed or known, as the notes say: %s", seconds(r.Observed.DurationS), leak.FormatCount(n)))
		return
	}
	switch {
	case t.HeapBlocks != nil:
		state := "pointers lead to all of them"
		if t.LostBlocks != nil && *t.LostBlocks > 0 {
			state = fmt.Sprintf("no pointer to %s of them was seen in one snapshot, which proves nothing", leak.FormatCount(*t.LostBlocks))
		}
		wrap(b, "", fmt.Sprintf("nothing found in %s: %s blocks, %s, were examined; %s", seconds(r.Observed.DurationS),
			leak.FormatCount(*t.HeapBlocks), bytesOf(t.HeapBytes), state))
	case t.Allocator != "":
		wrap(b, "", fmt.Sprintf("nothing found in %s; the heap of %s was not examined", seconds(r.Observed.DurationS), clean(t.Allocator)))
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
func holders(b *strings.Builder, t *leak.ReportTarget) {
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
			s += ", " + clean(h.Type)
		}
		wrap(b, fmt.Sprintf("  %8s  ", leak.FormatBytes(float64(h.Bytes))), clean(h.Holder)+": "+s)
	}
}

// cost says what the observation cost the target.
func cost(o *leak.Observed) string {
	var parts []string
	if len(o.PauseMS) > 0 {
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
