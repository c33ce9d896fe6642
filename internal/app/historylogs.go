package app

import (
	"context"
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
	s.Logs = logs.Rank(templates, times, logs.RankOptions{From: s.From.UnixMilli(), To: h.to, Sample: sample, Gaps: gaps(s.Marks)})
	if len(s.Logs) == 0 {
		return nil
	}
	s.Marks = append(s.Marks, jumps...)
	for i := range s.Logs {
		s.Marks = append(s.Marks, logMarks(&s.Logs[i], templates, times, sample)...)
	}
	s.Marks = inOrder(s.Marks)
	return nil
}

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
		if h.logs, err = h.past.Select(ctx, tsdb.Match{Host: true, Metrics: []series.Metric{series.Log}}, h.from, h.to); err != nil {
			return nil, err
		}
		h.logsRead = true
	}
	if service == hostName {
		return logs.Fold(h.logs), nil
	}
	own, err := h.past.Select(ctx, tsdb.Match{Service: service, Metrics: []series.Metric{series.Log}}, h.from, h.to)
	if err != nil {
		return nil, err
	}
	return logs.Fold(append(slices.Clone(h.logs), own...)), nil
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
