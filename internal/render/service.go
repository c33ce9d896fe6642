package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// Paragraph is one conclusion in words: a word in capitals, a sentence, and
// what stands below it.
type Paragraph struct {
	Word    string // "GROWTH", "UNDECIDED", "OK", "LOG"
	Head    string
	Details []Detail
}

// Detail is a line below a paragraph. Its label is a word of at most six
// letters: "seen", "limit", "do".
type Detail struct{ Label, Text string }

// HeadOf says which service it is, and for how long it was watched.
func HeadOf(s *leak.ReportService) string {
	parts := []string{Clean(s.Name)}
	switch len(s.Workers) {
	case 0:
	case 1:
		w := &s.Workers[0]
		if w.PID == 0 {
			break
		}
		who := fmt.Sprintf("pid %d", w.PID)
		if up := s.To.Sub(w.Started); !w.Started.IsZero() && up > 0 {
			who += " up " + leak.FormatDuration(up)
		}
		parts = append(parts, together(who))
	default:
		var pids []string
		for i := range s.Workers {
			pids = append(pids, fmt.Sprint(s.Workers[i].PID))
		}
		parts = append(parts, fmt.Sprintf("%d workers (%s)", len(pids), listed(pids, maxNames)))
	}
	if watched := s.To.Sub(s.From); watched >= time.Second {
		parts = append(parts, fmt.Sprintf("watched for %s until %s", together(leak.FormatDuration(watched)), together(stamp(s.To))))
	} else if !s.To.IsZero() {
		parts = append(parts, together("at "+stamp(s.To)))
	}
	if s.Restarts > 0 {
		parts = append(parts, together("restarted "+restarted(s)))
	}
	return strings.Join(parts, ", ")
}

// ParagraphsOf says what was concluded of a service: what grows, what is not
// decided, what does not grow, and what its log says before it grows.
func ParagraphsOf(s *leak.ReportService) []Paragraph {
	var grows, waits, calm []Paragraph
	var steady []string
	for i := range s.Trends {
		t := &s.Trends[i]
		switch {
		case Grows(t.Verdict):
			grows = append(grows, growingParagraph(s, t))
		case t.Verdict == leak.VerdictUnknown:
			waits = append(waits, waitingParagraph(s, t))
		case t.Verdict == leak.VerdictSteady:
			what := whose(s, t)
			if t.Metric != "" {
				what += " " + size(t.Now, t.Bytes)
			}
			steady = append(steady, together(what))
		default:
			calm = append(calm, Paragraph{"OK", fmt.Sprintf("%s %s; %s now", whose(s, t), still(t), together(size(t.Now, t.Bytes))), details(s, t)})
		}
	}
	var logs []Paragraph
	for i := range s.Logs {
		logs = append(logs, logParagraph(&s.Logs[i]))
	}
	all := append(append(append(grows, logs...), waits...), calm...)
	if len(steady) > 0 {
		all = append(all, Paragraph{Word: "OK", Head: "steady: " + strings.Join(steady, ", ")})
	}
	if len(s.Trends) == 0 {
		all = append(all, Paragraph{Word: "UNDECIDED", Head: "nothing has been measured yet"})
	}
	return all
}

// still says of what does not grow how it behaves.
func still(t *leak.ReportTrend) string {
	many := verb(t) == "grow"
	switch {
	case t.Verdict == leak.VerdictWarming:
		return "grew after the start and no longer"
	case t.Verdict == leak.VerdictPeriodic && many:
		return "go up and down"
	case t.Verdict == leak.VerdictPeriodic:
		return "goes up and down"
	case t.Verdict == leak.VerdictSaturating && many:
		return "fill up and stop"
	case t.Verdict == leak.VerdictSaturating:
		return "fills up and stops"
	}
	// A report of a later version may know more verdicts.
	return "is " + Clean(t.Verdict)
}

// whose names a trend, with its process where there are several.
func whose(s *leak.ReportService, t *leak.ReportTrend) string {
	what := resource(s, t)
	if len(s.Workers) > 1 && t.PID > 0 {
		what += fmt.Sprintf(" of %d", t.PID)
	}
	return what
}

func growingParagraph(s *leak.ReportService, t *leak.ReportTrend) Paragraph {
	head := whose(s, t) + " " + verb(t)
	switch t.Verdict {
	case leak.VerdictStepping:
		head += " by steps"
	case leak.VerdictWithLoad:
		head += " with load"
	}
	head += ": " + together(size(t.Now, t.Bytes)+" now")
	if t.PerHour != nil {
		rate := growth(*t.PerHour, t.Bytes)
		if t.PerHourLow != nil && t.PerHourHigh != nil {
			if low, high := growth(*t.PerHourLow, t.Bytes), growth(*t.PerHourHigh, t.Bytes); low != high {
				rate += fmt.Sprintf(" (%s to %s)", strings.TrimSuffix(low, "/h"), strings.TrimSuffix(high, "/h"))
			}
		}
		head += ", " + together(rate)
	}
	if x := t.Exhaustion; x != nil {
		if in := until(x); in == "reached" {
			head += fmt.Sprintf("; %s is reached", Clean(x.Limit))
		} else {
			head += fmt.Sprintf("; %s is reached in %s", Clean(x.Limit), together(in))
		}
	}
	d := details(s, t)
	for _, a := range advice(s, t) {
		d = append(d, Detail{"do", a})
	}
	return Paragraph{"GROWTH", head, d}
}

// verb agrees with the resource: memory grows, descriptors grow.
func verb(t *leak.ReportTrend) string {
	if strings.HasSuffix(t.Resource, "s") {
		return "grow"
	}
	return "grows"
}

func waitingParagraph(s *leak.ReportService, t *leak.ReportTrend) Paragraph {
	head := fmt.Sprintf("%s: %s", whose(s, t), together(size(t.Now, t.Bytes)+" now"))
	if t.NeedsS != nil {
		head += "; needs " + together(seconds(*t.NeedsS)) + " more"
	}
	return Paragraph{"UNDECIDED", head, details(s, t)}
}

// details are the numbers behind a trend.
func details(s *leak.ReportService, t *leak.ReportTrend) []Detail {
	var out []Detail
	switch {
	case t.Since != nil:
		out = append(out, Detail{"since", stamp(t.Since.In(s.To.Location()))})
	case Grows(t.Verdict):
		out = append(out, Detail{"since", "for as long as it was watched"})
	}
	for _, e := range t.Evidence {
		label, text := labelOf(e)
		out = append(out, Detail{label, text})
	}
	if t.PerUnit != nil && t.Unit != "" && !slices.ContainsFunc(t.Evidence, func(e string) bool { return strings.Contains(e, "each "+t.Unit) }) {
		each := leak.FormatBytes(*t.PerUnit)
		if !t.Bytes {
			each = fmt.Sprintf("%.2g", *t.PerUnit)
		}
		out = append(out, Detail{"load", fmt.Sprintf("%s more for each %s", each, Clean(t.Unit))})
	}
	said := slices.ContainsFunc(t.Evidence, func(e string) bool { return strings.Contains(e, "the chance that noise") })
	if Grows(t.Verdict) && t.Strength > 0 && !said {
		out = append(out, Detail{"chance", "that noise alone looks like this: " + chance(1-t.Strength)})
	}
	return out
}

// chance writes a probability for people: "4 %", "less than 1 in 10,000".
func chance(p float64) string {
	for n := uint64(1_000_000); n >= 1000; n /= 10 {
		// A bound that the number itself stands on counts as reached.
		if p*float64(n) < 1+1e-6 {
			return "less than 1 in " + leak.FormatCount(n)
		}
	}
	return fmt.Sprintf("%.2g %%", p*100)
}

// urgent is when a limit is near enough to do something before the cause is known.
const urgent = 24 * time.Hour

// advice says what to do next.
func advice(s *leak.ReportService, t *leak.ReportTrend) []string {
	var out []string
	switch {
	case t.PID == 0:
	case t.Resource == "descriptors":
		out = append(out, fmt.Sprintf("stanch fds %d --for 10m names the lines that open what stays open", t.PID))
	case t.Resource == "memory", t.Resource == "address space", t.Resource == "threads":
		out = append(out, fmt.Sprintf("stanch diagnose %d names the lines that lose it", t.PID))
	}
	if t.Verdict == leak.VerdictStepping && len(s.Logs) == 0 {
		out = append(out, "stanch watch --log FILE tells which log lines come before the steps")
	}
	// A host is not restarted for a limit that its services reach.
	if x := t.Exhaustion; x != nil && x.InS > 0 && duration(x.InS) < urgent && s.Kind != "host" {
		out = append(out, fmt.Sprintf("until it is fixed, restart it at a quiet time before %s is reached", Clean(x.Limit)))
	}
	return out
}

func logParagraph(l *leak.ReportLog) Paragraph {
	times := leak.FormatCount(uint64(l.Other)) + " times"
	if l.Other == 1 {
		times = "once"
	}
	p := Paragraph{Word: "LOG", Head: fmt.Sprintf("`%s` came %s before %s of %s, and %s otherwise", Clean(l.Template), together(lead(l.LeadS)),
		leak.FormatCount(uint64(l.Before)), together(counted(uint64(l.Steps), "step")), together(times))}
	if l.Example != "" && l.Example != l.Template {
		p.Details = append(p.Details, Detail{"line", Clean(l.Example)})
	}
	p.Details = append(p.Details, Detail{"chance", "that this is an accident: " + chance(l.P)})
	return p
}

// lead writes a time between a line and a step: tenths of seconds below one.
func lead(s float64) string {
	if s >= 0.1 && s < 1 {
		return fmt.Sprintf("%.1f s", s)
	}
	return seconds(s)
}

// labelOf divides "proof: no pointer to them" into a label and its text.
func labelOf(s string) (label, text string) {
	label, text, ok := strings.Cut(Clean(s), ": ")
	if !ok || strings.Contains(label, " ") || len(label) > maxLabel {
		return "seen", Clean(s)
	}
	return label, text
}
