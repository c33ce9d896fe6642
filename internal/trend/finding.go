package trend

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
)

// Grows reports whether a verdict says that something grows without end, as
// far as was seen.
func Grows(verdict string) bool {
	switch verdict {
	case leak.VerdictGrowing, leak.VerdictStepping, leak.VerdictWithLoad:
		return true
	}
	return false
}

// Order is the order of a ranking: what grows, what may, what does not; then what
// exhausts its limit first, then what grows fastest for its size.
func Order(a, b *leak.ReportTrend) int {
	if by := cmp.Compare(rank(a), rank(b)); by != 0 {
		return by
	}
	return cmp.Or(cmp.Compare(until(a), until(b)), cmp.Compare(relative(b), relative(a)), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Worker, b.Worker))
}

// rank is 0 for what grows, 1 for what rises and is not decided yet, 2 for the
// rest.
func rank(t *leak.ReportTrend) int {
	switch {
	case Grows(t.Verdict):
		return 0
	case t.Verdict == leak.VerdictUnknown && t.PerHour != nil && *t.PerHour > 0:
		return 1
	}
	return 2
}

// until is the time to the limit, infinite when none was found.
func until(t *leak.ReportTrend) float64 {
	if t.Exhaustion == nil {
		return math.Inf(1)
	}
	return t.Exhaustion.InS
}

func relative(t *leak.ReportTrend) float64 {
	if t.PerHour == nil {
		return 0
	}
	return *t.PerHour / max(math.Abs(t.Now), 1)
}

// Findings makes a finding of each trend that grows. Services must be in order,
// with their targets in r: Finding.Target is what target says of a service and
// worker.
func Findings(services []leak.ReportService, target func(service, worker string) int) []leak.Finding {
	var out []leak.Finding
	for i := range services {
		s := &services[i]
		for j := range s.Trends {
			if t := &s.Trends[j]; Grows(t.Verdict) {
				out = append(out, finding(s, t, target(s.Name, t.Worker)))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b leak.Finding) int { return cmp.Compare(limitIn(&a), limitIn(&b)) })
	return out
}

func limitIn(f *leak.Finding) float64 {
	if f.Exhaustion == nil {
		return math.Inf(1)
	}
	return f.Exhaustion.InS
}

// kinds are the kinds of a Finding by a trend's resource.
var kinds = map[string]string{
	"memory": leak.KindMemory.String(), "descriptors": leak.KindDescriptor.String(), "threads": leak.KindThread.String(), "address space": leak.KindMapping.String(),
}

func finding(s *leak.ReportService, t *leak.ReportTrend, target int) leak.Finding {
	rule := "trend.monotone"
	if len(t.Detectors) > 0 {
		rule = t.Detectors[0]
	}
	f := leak.Finding{
		Rule: rule, Severity: leak.SeverityGrowth, SiteCertainty: leak.CertaintyNone, Target: target,
		Kind: cmp.Or(kinds[t.Resource], t.Resource), What: t.Resource,
		Title:      title(s, t),
		Exhaustion: t.Exhaustion,
		Evidence:   slices.Clone(t.Evidence),
		Advice:     advice(s, t),
	}
	f.Key = rule + ":" + s.Name + ":" + t.Worker + ":" + t.Metric
	f.NameKey = f.Key
	if t.PerHour != nil {
		f.Rate = &leak.Rate{CountPerHour: *t.PerHour}
		if t.Bytes {
			f.Rate = &leak.Rate{BytesPerHour: *t.PerHour, BytesPerHourLow: t.PerHourLow, BytesPerHourHigh: t.PerHourHigh}
		}
	}
	if t.Bytes {
		f.Bytes, f.BytesAre = uint64(max(t.Now, 0)), "estimated"
	} else {
		f.Count = uint64(max(t.Now, 0))
	}
	return f
}

func title(s *leak.ReportService, t *leak.ReportTrend) string {
	of := t.Resource + " of " + s.Name
	if len(s.Workers) > 1 && t.PID > 0 {
		of += "[" + strconv.Itoa(t.PID) + "]"
	}
	grows := "grows"
	if strings.HasSuffix(t.Resource, "s") {
		grows = "grow" // descriptors, threads, tasks
	}
	switch t.Verdict {
	case leak.VerdictStepping:
		return of + " " + grows + " by steps"
	case leak.VerdictWithLoad:
		return fmt.Sprintf("%s %s with each %s", of, grows, cmp.Or(t.Unit, "unit of load"))
	}
	return of + " " + grows + " steadily"
}

// advice says what to run next.
func advice(s *leak.ReportService, t *leak.ReportTrend) []string {
	var out []string
	switch {
	case t.PID <= 0:
	case t.Resource == "descriptors":
		out = append(out, fmt.Sprintf("stanch fds --for 5m %d names the line that opens what is not closed", t.PID))
	default:
		out = append(out, fmt.Sprintf("stanch diagnose --for 5m %d names the line that loses it", t.PID))
	}
	if t.Verdict == leak.VerdictStepping && len(s.Logs) == 0 {
		out = append(out, "stanch watch --log FILE tells which log lines come before the steps")
	}
	if t.Exhaustion != nil && t.Exhaustion.InS < (24*time.Hour).Seconds() {
		out = append(out, "until it is fixed: restart it at a quiet time before "+t.Exhaustion.Limit+" is reached")
	}
	return out
}
