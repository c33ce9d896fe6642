// Package chart decides what all pictures of a history have in common: which
// charts come first, where a line is broken, which limit is drawn, and where
// the axes have their numbers. It is pure, and knows nothing of pixels.
package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// interest orders verdicts by how much a reader needs their chart.
var interest = map[string]int{
	leak.VerdictGrowing: 5, leak.VerdictStepping: 5, leak.VerdictWithLoad: 5,
	leak.VerdictUnknown:    4,
	leak.VerdictSaturating: 3, leak.VerdictPeriodic: 3, leak.VerdictWarming: 3,
	leak.VerdictSteady: 1,
}

// Ordered gives the charts of a service that have points: first those of what
// grows, then those that are not decided, then the others, and last those that
// never change. Of those that grow or are not decided the one comes first that
// runs out first; of equals the order of the report holds.
func Ordered(s *leak.ReportService) []*leak.ReportChart {
	var out []*leak.ReportChart
	for i := range s.Charts {
		if len(s.Charts[i].Points) > 0 {
			out = append(out, &s.Charts[i])
		}
	}
	slices.SortStableFunc(out, func(a, b *leak.ReportChart) int {
		return cmp.Or(-cmp.Compare(rank(s, a), rank(s, b)), cmp.Compare(urgency(s, a), urgency(s, b)))
	})
	return out
}

// urgency is the place of a chart's trend in the report, where what runs out
// first stands first; 0 where nothing is expected to.
func urgency(s *leak.ReportService, c *leak.ReportChart) int {
	if rank(s, c) < interest[leak.VerdictUnknown] {
		return 0
	}
	return slices.IndexFunc(s.Trends, func(t leak.ReportTrend) bool { return t.Metric == c.Metric && t.Worker == c.Worker })
}

func rank(s *leak.ReportService, c *leak.ReportChart) int {
	n := 2 // of no trend at all: more than what is known to be steady
	if t := trend(s, c); t != nil {
		n = interest[t.Verdict]
	}
	if low, high := Extent(c); low == high && n < 3 {
		n = 0
	}
	return n
}

// trend is what was concluded of a chart; nil when nothing was.
func trend(s *leak.ReportService, c *leak.ReportChart) *leak.ReportTrend {
	for i := range s.Trends {
		if t := &s.Trends[i]; t.Metric == c.Metric && t.Worker == c.Worker {
			return t
		}
	}
	return nil
}

// Extent is the lowest and the highest value of a chart.
func Extent(c *leak.ReportChart) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range c.Points {
		low, high = min(low, p[1]), max(high, p[1])
	}
	return low, high
}

// Still says of charts that never change what they would show: each on a line,
// those of nothing together. What was measured once may have changed since.
func Still(s *leak.ReportService, charts []*leak.ReportChart) []string {
	var out, nothing, once []string
	for _, c := range charts {
		low, _ := Extent(c)
		switch name := Name(s, c); {
		case len(c.Points) == 1:
			at := moment(c.Points[0][0], s.To.Location())
			once = append(once, fmt.Sprintf("%s: %s at %s, measured once", name, Label(low, c.Bytes), at.Format("2 Jan 15:04:05")))
		case low == 0:
			nothing = append(nothing, name)
		default:
			out = append(out, name+": "+Label(low, c.Bytes)+" all the time")
		}
	}
	if len(nothing) > 0 {
		out = append(out, "always 0: "+strings.Join(nothing, ", "))
	}
	return append(out, once...)
}

// Lines divides the points of a chart where nobody was watching, where the
// host slept and where the process was another one: what lies between is not
// known, and must not be drawn.
func Lines(s *leak.ReportService, c *leak.ReportChart) [][][2]float64 {
	var cuts []int // a line begins at each of these points
	for i := range s.Marks {
		if m := &s.Marks[i]; Breaks(m) && Concerns(m, c) {
			cuts = append(cuts, cut(c.Points, unix(m.At)))
		}
	}
	slices.Sort(cuts)
	var out [][][2]float64
	begin := 0
	for _, k := range slices.Compact(cuts) {
		if k > 0 && k < len(c.Points) {
			out = append(out, c.Points[begin:k])
			begin = k
		}
	}
	if begin < len(c.Points) {
		out = append(out, c.Points[begin:])
	}
	return out
}

// cut is the first point after a break. Where a point was taken in the very
// moment of the break, the longer of the times beside it is the broken one.
func cut(points [][2]float64, at float64) int {
	i, exact := slices.BinarySearchFunc(points, at, func(p [2]float64, at float64) int { return cmp.Compare(p[0], at) })
	if exact && i > 0 && i+1 < len(points) && points[i+1][0]-points[i][0] > points[i][0]-points[i-1][0] {
		i++
	}
	return i
}

// Breaks reports whether a line may not be drawn over a mark.
func Breaks(m *leak.ReportMark) bool {
	return m.Kind == leak.MarkGap || m.Kind == leak.MarkSleep || m.Kind == leak.MarkRestart
}

// Concerns reports whether a mark belongs to a chart: a step to that of its
// metric and worker, a restart to those of its worker, all others to each.
func Concerns(m *leak.ReportMark, c *leak.ReportChart) bool {
	switch m.Kind {
	case leak.MarkStep:
		return m.Metric == c.Metric && m.Worker == c.Worker
	case leak.MarkRestart:
		return m.Worker == c.Worker || m.Worker == "" || c.Worker == ""
	}
	return true
}

// Marks are those that a chart shows, within the time of the service. Log lines are shown where the steps are
// that follow them; where nothing steps, on each chart.
func Marks(s *leak.ReportService, c *leak.ReportChart) []*leak.ReportMark {
	from, to := Span(s)
	steps, own := false, false
	for i := range s.Marks {
		if m := &s.Marks[i]; m.Kind == leak.MarkStep {
			steps = true
			own = own || Concerns(m, c)
		}
	}
	var out []*leak.ReportMark
	for i := range s.Marks {
		m := &s.Marks[i]
		if at := unix(m.At); at >= from && at <= to && Concerns(m, c) && (m.Kind != leak.MarkLog || own || !steps) {
			out = append(out, m)
		}
	}
	return out
}

// Limit is the limit of a chart; ok is false when it has none.
func Limit(c *leak.ReportChart) (v float64, ok bool) {
	if c.Limit == nil || *c.Limit <= 0 {
		return 0, false
	}
	return *c.Limit, true
}

// Name is the title of a chart, with the worker where a service has several.
func Name(s *leak.ReportService, c *leak.ReportChart) string {
	if len(s.Workers) > 1 && c.Worker != "" {
		return c.Title + " of worker " + c.Worker
	}
	return c.Title
}

// Span is the time that the charts of a service share. It is never empty.
func Span(s *leak.ReportService) (from, to float64) {
	from, to = unix(s.From), unix(s.To)
	for i := range s.Charts {
		if p := s.Charts[i].Points; len(p) > 0 {
			from, to = min(from, p[0][0]), max(to, p[len(p)-1][0])
		}
	}
	if s.From.IsZero() || to <= from {
		from = to - 1
	}
	return from, to
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
