package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// Row is one trend in words, as a table of services shows it. Foreign text is
// made safe for a terminal; "" is what is not known.
type Row struct {
	Index   int    // of the service in the report
	Service string // its name
	Short   string // the name, cut where it is long
	PID     string
	What    string // "memory", "descriptors"
	Now     string
	Grows   string // per hour
	Limit   string // the nearest one
	In      string // until then: the interval where that is known
	Since   string // when the growth began
	Verdict string
	Needs   string // how much longer until a verdict, when there is none
}

// Overview is what is said of many services at once.
type Overview struct {
	Head    string   // how many, for how long, how many of them grow
	Growing []Row    // in the order of the report
	Rising  []Row    // not decided yet, but more now than a while ago
	Waiting []Row    // not decided yet, a row a service: What is all of it, Needs the longest time
	Rest    []string // a sentence about each other group of services
}

// verdictWords are the verdicts as the table writes them.
var verdictWords = map[string]string{
	leak.VerdictGrowing: "growing", leak.VerdictStepping: "steps", leak.VerdictWithLoad: "load",
}

// Grows reports whether a verdict says that something is held more and more.
func Grows(verdict string) bool { return verdictWords[verdict] != "" }

// OverviewOf sums up services, in the order of the report.
func OverviewOf(services []leak.ReportService) Overview {
	var o Overview
	groups := map[string][]string{}
	growing := 0
	for i := range services {
		s := &services[i]
		class, grows, rises := "", false, false
		var waits []Row
		for j := range s.Trends {
			t := &s.Trends[j]
			switch {
			case Grows(t.Verdict):
				o.Growing = append(o.Growing, trendRow(i, s, t))
				grows = true
			case rising(s, t):
				o.Rising = append(o.Rising, trendRow(i, s, t))
				rises = true
			case t.Verdict == leak.VerdictUnknown:
				waits = append(waits, trendRow(i, s, t))
				class = leak.VerdictUnknown
			case class == "" || class == leak.VerdictSteady:
				class = t.Verdict
			}
		}
		if grows {
			growing++
			continue
		}
		if rises {
			continue
		}
		if len(waits) > 0 {
			o.Waiting = append(o.Waiting, waitingRow(s, waits))
		}
		groups[class] = append(groups[class], short(Clean(s.Name), maxService))
	}
	o.Head = overviewHead(services, growing)
	o.Rest = rest(groups)
	if often := restarts(services); often != "" {
		o.Rest = append(o.Rest, often)
	}
	return o
}

// rising reports whether a trend rises that is not decided yet. Addresses rise
// with the memory that is behind them.
func rising(s *leak.ReportService, t *leak.ReportTrend) bool {
	if t.Verdict != leak.VerdictUnknown || t.PerHour == nil || *t.PerHour <= 0 || t.PerHourLow != nil && *t.PerHourLow <= 0 {
		return false
	}
	if t.Exhaustion == nil && *t.PerHour*month.Hours() < t.Now {
		return false // it would take more than a month to double
	}
	return t.Resource != "address space" || !slices.ContainsFunc(s.Trends, func(other leak.ReportTrend) bool {
		return other.Worker == t.Worker && other.Resource == "memory" && other.PerHour != nil && *other.PerHour > 0
	})
}

const month = 30 * 24 * time.Hour

// maxWhat is how many resources that are not decided are named of a service.
const maxWhat = 2

// waitingRow says of a service at once what is not decided.
func waitingRow(s *leak.ReportService, rows []Row) Row {
	out := rows[0]
	var what []string
	for _, r := range rows {
		if !slices.Contains(what, r.What) {
			what = append(what, r.What)
		}
		if r.PID != out.PID {
			out.PID = ""
		}
	}
	if more := len(what) - maxWhat; more > 0 {
		what = append(what[:maxWhat], fmt.Sprintf("%d more", more))
	}
	out.What, out.Now, out.Needs = strings.Join(what, ", "), "", ""
	longest := 0.0
	for i := range s.Trends {
		if t := &s.Trends[i]; t.Verdict == leak.VerdictUnknown && t.NeedsS != nil {
			longest = max(longest, *t.NeedsS)
		}
	}
	if longest > 0 {
		out.Needs = seconds(longest)
	}
	return out
}

func overviewHead(services []leak.ReportService, growing int) string {
	from, to := span(services)
	text := counted(uint64(len(services)), "service")
	switch watched := to.Sub(from); {
	case to.IsZero():
	case watched < time.Second:
		text += " at " + together(stamp(to))
	default:
		text += fmt.Sprintf(", watched for %s until %s", together(leak.FormatDuration(watched)), together(stamp(to)))
	}
	switch growing {
	case 0:
		return text + ": none is seen to grow"
	case 1:
		return text + ": 1 grows"
	}
	return fmt.Sprintf("%s: %s grow", text, leak.FormatCount(uint64(growing)))
}

// span is the time in which any of the services was watched.
func span(services []leak.ReportService) (from, to time.Time) {
	for i := range services {
		s := &services[i]
		if from.IsZero() || s.From.Before(from) {
			from = s.From
		}
		if s.To.After(to) {
			to = s.To
		}
	}
	return from, to
}

// rest says which services do not grow, and how they stand.
func rest(groups map[string][]string) []string {
	var out []string
	for _, k := range []struct{ verdict, one, many string }{
		{leak.VerdictSaturating, "fills up and stops", "fill up and stop"},
		{leak.VerdictPeriodic, "goes up and down", "go up and down"},
		{leak.VerdictWarming, "grew after its start and no longer", "grew after their start and no longer"},
		{leak.VerdictSteady, "is steady", "are steady"},
		{"", "has not been measured yet", "have not been measured yet"},
	} {
		who := groups[k.verdict]
		if len(who) == 0 {
			continue
		}
		verb := k.many
		if len(who) == 1 {
			verb = k.one
		}
		out = append(out, fmt.Sprintf("%s %s: %s", counted(uint64(len(who)), "service"), verb, listed(who, maxNames)))
	}
	return out
}

// restarts names the services that were restarted most; "" when none was more
// than once.
func restarts(services []leak.ReportService) string {
	var who []*leak.ReportService
	for i := range services {
		if services[i].Restarts > 1 {
			who = append(who, &services[i])
		}
	}
	if len(who) == 0 {
		return ""
	}
	slices.SortStableFunc(who, func(a, b *leak.ReportService) int { return -cmp.Compare(a.Restarts, b.Restarts) })
	var names []string
	for _, s := range who {
		names = append(names, fmt.Sprintf("%s (%s)", short(Clean(s.Name), maxService), restarted(s)))
	}
	return "restarted: " + listed(names, maxNames)
}

// often is how many restarts have a rhythm.
const often = 5

// restarted writes "297 times, every 5 min".
func restarted(s *leak.ReportService) string {
	if s.Restarts == 1 {
		return "once"
	}
	text := leak.FormatCount(uint64(s.Restarts)) + " times"
	if every := s.To.Sub(s.From) / time.Duration(s.Restarts); s.Restarts >= often && every >= time.Second {
		text += ", every " + leak.FormatDuration(every)
	}
	return text
}

// listed joins names, the first n of them.
func listed(names []string, n int) string {
	shown := slices.Clone(names[:min(len(names), n)])
	for i := range shown {
		shown[i] = together(shown[i])
	}
	if more := len(names) - n; more > 0 {
		shown = append(shown, together(fmt.Sprintf("and %s more", leak.FormatCount(uint64(more)))))
	}
	return strings.Join(shown, ", ")
}

// trendRule begins the rules of findings that say again what a service's
// trends say.
const trendRule = "trend."

// WithoutHistory is what a report says beside its services: a copy without
// them, without the findings that repeat them, and without the processes of
// which nothing else is known.
func WithoutHistory(r *leak.Report) *leak.Report {
	if len(r.Services) == 0 {
		return r
	}
	out := *r
	out.Services, out.Findings, out.Targets = nil, nil, nil
	repeated, own := map[int]bool{}, map[int]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if strings.HasPrefix(f.Rule, trendRule) {
			repeated[f.Target] = true
			continue
		}
		own[f.Target] = true
		out.Findings = append(out.Findings, *f)
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; own[t.ID] || !repeated[t.ID] {
			out.Targets = append(out.Targets, *t)
		}
	}
	return &out
}

func trendRow(i int, s *leak.ReportService, t *leak.ReportTrend) Row {
	r := Row{Index: i, Service: Clean(s.Name), Short: short(Clean(s.Name), maxService), What: resource(s, t), Now: size(t.Now, t.Bytes), Verdict: verdictWords[t.Verdict]}
	if t.PID > 0 {
		r.PID = fmt.Sprint(t.PID)
	}
	if t.Verdict == leak.VerdictUnknown {
		r.Verdict = leak.VerdictUnknown
		if t.NeedsS != nil {
			r.Needs = seconds(*t.NeedsS)
		}
	}
	if t.PerHour != nil {
		r.Grows = growth(*t.PerHour, t.Bytes)
	}
	if x := t.Exhaustion; x != nil {
		r.Limit, r.In = Clean(x.Limit), between(x)
	}
	r.Since = "before"
	if t.Since != nil {
		r.Since = moment(*t.Since, s.To)
	}
	return r
}

// resource names what a trend is of.
func resource(s *leak.ReportService, t *leak.ReportTrend) string {
	what := cmp.Or(Clean(t.Resource), Clean(t.Metric))
	if t.Worker == "" && t.PID == 0 && s.Kind != "host" && t.Metric != "" && !strings.Contains(what, "cgroup") {
		what += " of the cgroup"
	}
	return what
}

// size writes a value in the unit of its metric.
func size(v float64, bytes bool) string {
	switch {
	case bytes:
		return leak.FormatBytes(v)
	case v < 0:
		return "-" + leak.FormatCount(uint64(-v+0.5))
	}
	return leak.FormatCount(uint64(v + 0.5))
}

// growth writes "+58 MB/h", "+3/h".
func growth(n float64, bytes bool) string {
	switch {
	case bytes && n < 0:
		return leak.FormatBytes(n) + "/h"
	case bytes:
		return "+" + leak.FormatBytes(n) + "/h"
	case n < 0:
		return "-" + perHour(-n) + "/h"
	}
	return "+" + perHour(n) + "/h"
}

// until writes "14 h (11-17 h)".
func until(x *leak.Exhaustion) string {
	if x.InS <= 0 {
		return "reached"
	}
	s := seconds(x.InS)
	switch {
	case x.LowS != nil && x.HighS != nil:
		if between := leak.FormatDurations(duration(*x.LowS), duration(*x.HighS)); strings.Contains(between, "-") {
			s += " (" + between + ")"
		}
	case x.LowS != nil:
		s += " (" + seconds(*x.LowS) + " or more)"
	}
	return s
}

// between writes "11-17 h", in a table where until is too long.
func between(x *leak.Exhaustion) string {
	switch {
	case x.InS <= 0:
		return "reached"
	case x.LowS != nil && x.HighS != nil:
		return leak.FormatDurations(duration(*x.LowS), duration(*x.HighS))
	case x.LowS != nil:
		return "over " + seconds(*x.LowS)
	}
	return seconds(x.InS)
}

// moment writes a time as shortly as now allows: "03:10", "Tue 03:10",
// "12 Nov", "12 Nov 2025". It is said in the zone of now.
func moment(at, now time.Time) string {
	at = at.In(now.Location())
	switch ago := now.Sub(at); {
	case ago < 0, ago < 24*time.Hour && at.Day() == now.Day():
		return at.Format("15:04")
	case ago < 6*24*time.Hour:
		return at.Format("Mon 15:04")
	case at.Year() == now.Year():
		return at.Format("2 Jan")
	}
	return at.Format("2 Jan 2006")
}

// stamp writes a time in full, with its zone.
func stamp(at time.Time) string { return at.Format("Mon 2 Jan 2006 15:04 MST") }
