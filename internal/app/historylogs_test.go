package app

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
)

// past is a history in memory. It knows how much was given at once.
type past struct {
	all  []series.Series
	most int // points
}

func (p *past) Select(_ context.Context, m tsdb.Match, from, to int64) ([]series.Series, error) {
	var out []series.Series
	points := 0
	for _, s := range p.all {
		if m.Host && s.Key.Service != "" || !m.Host && m.Service != "" && s.Key.Service != m.Service || len(m.Metrics) > 0 && !slices.Contains(m.Metrics, s.Key.Metric) {
			continue
		}
		if s = s.Between(from, to); len(s.Points) > 0 {
			s.Points = slices.Clone(s.Points)
			if n := len(s.Points); m.Step > 0 && n > 1 {
				s.Points = []series.Point{s.Points[0], s.Points[n-1]}
			}
			out = append(out, s)
			points += len(s.Points)
		}
	}
	p.most = max(p.most, points)
	return out, nil
}

func (p *past) Services(context.Context, int64, int64) ([]string, error) {
	return []string{"demo"}, nil
}

// stepping is two days of a service that is sampled each ten seconds and rises by
// steps, and of a log that is followed since a time. A line comes before each
// step, others at any time, and one kind ten times a second.
func stepping(since int64) (h *historian, s leak.ReportService, p *past) {
	const long, sample = 2 * 24 * 3600_000, 10_000
	from := int64(1_900_000_000_000)
	r := rand.New(rand.NewPCG(1, 2))
	key := func(m series.Metric, service, part string) series.Key {
		k := series.Key{Metric: m, Service: service, Part: part}
		if m != series.Log {
			k.Worker = "0"
		}
		return k
	}
	rss, pid := series.Series{Key: key(series.RSS, "demo", "")}, series.Series{Key: key(series.PID, "demo", "")}
	cause, other, often := series.Series{Key: key(series.Log, "", "collecting from * failed")}, series.Series{Key: key(series.Log, "", "cache was trimmed")}, series.Series{Key: key(series.Log, "", "collected *")}
	value, next := 1e8, from+3600_000
	for at := from; at <= from+long; at += sample {
		if at > next {
			value += 1e7
			next = at + 1800_000 + r.Int64N(2400_000)
			if line := at - sample/2 - 2000; line > from+since {
				cause.Points = append(cause.Points, series.Point{At: line, Value: 1})
			}
		}
		rss.Points = append(rss.Points, series.Point{At: at, Value: value})
		pid.Points = append(pid.Points, series.Point{At: at, Value: 17})
		if at < from+since {
			continue
		}
		if r.IntN(200) == 0 {
			other.Points = append(other.Points, series.Point{At: at + 4321, Value: 1})
		}
		for i := range int64(100) {
			often.Points = append(often.Points, series.Point{At: at + 100*i, Value: 2})
		}
	}
	p = &past{all: []series.Series{rss, pid, cause, often, other}}
	h = &historian{past: p, from: from, to: from + long}
	s = h.judge("demo", []series.Series{rss, pid})
	s.Trends = []leak.ReportTrend{{Metric: string(series.RSS), Worker: "0", Verdict: leak.VerdictStepping, Resource: "memory", Bytes: true}}
	return h, s, p
}

// TestLogSinceToday holds that a log that is followed since today only is held
// against the steps of today, not against those before; and that a busy log is not
// read at once, nor kept in full.
func TestLogSinceToday(t *testing.T) {
	for about, since := range map[string]int64{"all the time": 0, "since today": 36 * 3600_000} {
		h, s, p := stepping(since)
		if err := h.correlate(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Logs) != 1 || s.Logs[0].Template != "collecting from * failed" {
			t.Errorf("%s: %+v", about, s.Logs)
			continue
		}
		if l := s.Logs[0]; l.Steps < 8 || l.Before < l.Steps-1 || l.Other != 0 || l.LeadS < 6 || l.LeadS > 8 {
			t.Errorf("%s: %+v", about, l)
		}
		marks := 0
		for _, m := range s.Marks {
			if m.Kind == leak.MarkLog {
				marks++
			}
		}
		if marks < s.Logs[0].Before-1 {
			t.Errorf("%s: %d lines are marked of %d", about, marks, s.Logs[0].Before)
		}
		if p.most > 200_000 {
			t.Errorf("%s: %d points were read at once", about, p.most)
		}
		held := 0
		for _, one := range h.logs {
			held += len(one.Points)
		}
		if held > 100_000 {
			t.Errorf("%s: %d points of logs are held", about, held)
		}
	}
}
