package app

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
	"stanch/internal/logs"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/trend"
)

// correlate says which log templates come before the moments at which what
// grows does so. Those are the steps that were found, or where it grows by many
// small ones, each of these. All is read in full: a moment that is known to a
// minute only tells nothing.
func (h *historian) correlate(ctx context.Context, s *leak.ReportService) error {
	var times []int64
	var jumps []leak.ReportMark
	for i := range s.Trends {
		t := &s.Trends[i]
		if !trend.Grows(t.Verdict) {
			continue
		}
		full, err := h.past.Select(ctx, tsdb.Match{Service: s.Name, Host: s.Name == hostName, Worker: t.Worker, Metrics: []series.Metric{series.Metric(t.Metric)}}, h.from, h.to)
		if err != nil {
			return err
		}
		for _, one := range full {
			for _, p := range series.Jumps(one.Points) {
				jumps = append(jumps, leak.ReportMark{At: time.UnixMilli(p.At).UTC(), Kind: leak.MarkStep, Metric: t.Metric, Worker: t.Worker, Size: p.Value, Text: rose(t, p.Value)})
			}
		}
		for _, m := range s.Marks {
			if m.Kind == leak.MarkStep && m.Size > 0 && m.Metric == t.Metric && m.Worker == t.Worker {
				times = append(times, m.At.UnixMilli())
			}
		}
	}
	for _, m := range jumps {
		times = append(times, m.At.UnixMilli())
	}
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	times = slices.Compact(times)
	templates, err := h.templates(ctx, s.Name)
	if err != nil || len(templates) == 0 {
		return err
	}
	sample, err := h.sample(ctx, s.Name)
	if err != nil {
		return err
	}
	// Before the first line nobody followed a log, so no step then lacks one.
	from := max(s.From.UnixMilli(), firstLine(templates))
	s.Logs = logs.Rank(templates, times, logs.RankOptions{From: from, To: h.to, Sample: sample, Gaps: gaps(s.Marks)})
	if len(s.Logs) == 0 {
		return nil
	}
	// Of steps that are too many to look at, the largest are marked.
	slices.SortStableFunc(jumps, func(a, b leak.ReportMark) int { return cmp.Compare(b.Size, a.Size) })
	s.Marks = append(s.Marks, jumps[:min(len(jumps), mostJumps)]...)
	for i := range s.Logs {
		s.Marks = append(s.Marks, logMarks(&s.Logs[i], templates, times, sample)...)
	}
	s.Marks = inOrder(s.Marks)
	return nil
}

// mostJumps is how many steps are marked for the log lines before them.
const mostJumps = 200

// gaps are when nobody was watching, nor following logs.
func gaps(marks []leak.ReportMark) []logs.Gap {
	var out []logs.Gap
	for _, m := range marks {
		if m.Kind == leak.MarkGap {
			out = append(out, logs.Gap{From: m.At.UnixMilli(), To: m.At.UnixMilli() + int64(1000*m.Size)})
		}
	}
	return out
}

// templates are the log templates that a service is held against: those of log
// files, and of its own journal.
func (h *historian) templates(ctx context.Context, service string) ([]series.Series, error) {
	if !h.logsRead {
		var err error
		if h.logs, err = h.readLogs(ctx, tsdb.Match{Host: true}); err != nil {
			return nil, err
		}
		h.logsRead = true
	}
	if service == hostName {
		return logs.Fold(h.logs), nil
	}
	own, err := h.readLogs(ctx, tsdb.Match{Service: service})
	if err != nil {
		return nil, err
	}
	return logs.Fold(append(slices.Clone(h.logs), own...)), nil
}

// How logs are read: a template that is written all the time has ten points a
// second, six million in a week.
const (
	logPiece   = 2 * 3600_000 // ms that are read at once
	mostPieces = 1000
	logStretch = int64(logs.Window / time.Millisecond)
)

// readLogs reads log templates piece by piece. Of one with many lines in a
// piece, those between the first and the last of each stretch are counted with
// the last: what lies before a step is the same.
func (h *historian) readLogs(ctx context.Context, m tsdb.Match) ([]series.Series, error) {
	m.Metrics = []series.Metric{series.Log}
	m.Step = max(1, h.to-h.from) // the first and the last points alone
	ends, err := h.past.Select(ctx, m, h.from, h.to)
	if err != nil || len(ends) == 0 {
		return nil, err
	}
	m.Step = 0
	begin := firstLine(ends)
	long := max(logPiece, (h.to-begin)/mostPieces)
	var all []series.Series
	place := map[series.Key]int{}
	for from := begin; from <= h.to; from += long {
		piece, err := h.past.Select(ctx, m, from, min(from+long-1, h.to))
		if err != nil {
			return nil, err
		}
		for _, s := range piece {
			i, ok := place[s.Key]
			if !ok {
				i = len(all)
				place[s.Key] = i
				all = append(all, series.Series{Key: s.Key})
			}
			if int64(len(s.Points)) > 2*long/logStretch {
				s.Points = thinned(s.Points)
			}
			all[i].Points = append(all[i].Points, s.Points...)
		}
	}
	return all, nil
}

// thinned keeps the first and the last point of each stretch, and the sum.
func thinned(points []series.Point) []series.Point {
	var kept []series.Point
	last, in := int64(-1), 0 // the stretch of the last points, and how many of it are kept
	for _, p := range points {
		if at := p.At / logStretch; at != last {
			last, in = at, 0
		}
		if in == 2 {
			n := len(kept) - 1
			kept[n] = series.Point{At: p.At, Value: kept[n].Value + p.Value}
			continue
		}
		kept = append(kept, p)
		in++
	}
	return kept
}

// firstLine is when the first line of all was written.
func firstLine(templates []series.Series) int64 {
	first := int64(math.MaxInt64)
	for _, t := range templates {
		if len(t.Points) > 0 {
			first = min(first, t.Points[0].At)
		}
	}
	return first
}

// sample is the usual time between two samples of a service at the end of the
// time.
func (h *historian) sample(ctx context.Context, service string) (time.Duration, error) {
	metric := series.PID
	if service == hostName {
		metric = series.HostAvailable
	}
	all, err := h.past.Select(ctx, tsdb.Match{Service: service, Host: service == hostName, Metrics: []series.Metric{metric}}, h.to-fullTime, h.to)
	return sampleTime(all, metric), err
}

// inOrder sorts marks by time and drops those that are there twice.
func inOrder(marks []leak.ReportMark) []leak.ReportMark {
	type moment struct {
		at                   int64
		kind, metric, worker string
	}
	seen := map[moment]bool{}
	marks = slices.DeleteFunc(marks, func(m leak.ReportMark) bool {
		of := moment{m.At.UnixMilli(), m.Kind, m.Metric, m.Worker}
		if m.Kind == leak.MarkLog {
			of.metric = m.Text
		}
		twice := seen[of]
		seen[of] = true
		return twice
	})
	slices.SortStableFunc(marks, func(a, b leak.ReportMark) int { return a.At.Compare(b.At) })
	return marks
}

// rose says a jump in words.
func rose(t *leak.ReportTrend, by float64) string {
	if t.Bytes {
		return t.Resource + " rose by " + leak.FormatBytes(by) + " at once"
	}
	return t.Resource + " rose by " + leak.FormatCount(uint64(by)) + " at once"
}

// sampleTime is the usual time between two samples of a metric; 0 when it has
// none.
func sampleTime(all []series.Series, metric series.Metric) time.Duration {
	var gaps []int64
	for _, s := range all {
		if s.Key.Metric == metric {
			for i := 1; i < len(s.Points); i++ {
				gaps = append(gaps, s.Points[i].At-s.Points[i-1].At)
			}
		}
	}
	if len(gaps) == 0 {
		return 0
	}
	slices.Sort(gaps)
	return time.Duration(gaps[len(gaps)/2]) * time.Millisecond
}

// mostLogMarks is how many lines of one template are marked.
const mostLogMarks = 200

// logMarks marks the lines of a template that came before a step.
func logMarks(l *leak.ReportLog, templates []series.Series, steps []int64, sample time.Duration) []leak.ReportMark {
	var out []leak.ReportMark
	for _, t := range templates {
		if t.Key.Part != l.Template {
			continue
		}
		for _, step := range steps {
			before := t.Between(step-(logs.Window+sample).Milliseconds(), step)
			if last, ok := before.Last(); ok && len(out) < mostLogMarks {
				out = append(out, leak.ReportMark{At: time.UnixMilli(last.At).UTC(), Kind: leak.MarkLog, Text: l.Template})
			}
		}
	}
	return out
}
