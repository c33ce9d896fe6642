package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/trend"
)

// jury judges the services of a watch in turns, and knows what it said last.
// Reading a week and judging it costs far more than a sample does, so that a
// service whose lowest values do not rise is not judged at all.
type jury struct {
	past  tsdb.Reader
	every time.Duration // between two judgements of a service whose verdict may change
	since time.Duration // how far back

	lows     map[series.Key]*series.Lows
	starts   map[series.Key]float64 // when the process began that has a place
	services map[string]*judged
}

// judged is a service before the jury.
type judged struct {
	due    int64 // when it is its turn, Unix ms
	rising bool  // one of its lows rises
	calm   int   // judgements in a row without growth
	lives  int   // processes that had a place after another
	report *leak.ReportService
}

// change is a verdict that is not what it was.
type change struct {
	service string
	was     string // "" when there was none
	trend   leak.ReportTrend
}

// judgedMetrics are those whose growth is worth a judgement. The others come
// along.
var judgedMetrics = map[series.Metric]bool{
	series.RSS: true, series.Anonymous: true, series.FDs: true, series.Threads: true, series.Zombies: true, series.Virtual: true, series.Swap: true,
	series.CgroupMemory: true, series.CgroupTasks: true,
	series.HostSlab: true, series.HostFiles: true, series.HostSockets: true, series.HostConntrack: true, series.HostCommitted: true,
}

// The jury's pace: how many services one tick judges at most, and how many
// times longer a service waits that was calm again and again.
const (
	mostJudged = 4
	mostCalm   = 12
)

func newJury(p tsdb.Reader, every, since time.Duration) *jury {
	return &jury{past: p, every: every, since: since, lows: map[series.Key]*series.Lows{}, starts: map[series.Key]float64{}, services: map[string]*judged{}}
}

// note takes samples in.
func (j *jury) note(samples []series.Sample) {
	for _, s := range samples {
		if s.Key.Metric == series.Started {
			j.began(s)
		}
		if !judgedMetrics[s.Key.Metric] {
			continue
		}
		l := j.lows[s.Key]
		if l == nil {
			l = &series.Lows{}
			j.lows[s.Key] = l
		}
		l.Add(series.Point{At: s.At, Value: s.Value})
		if l.Rise() > 0 {
			j.service(s.Key.Service, s.At).rising = true
		}
	}
}

// manyLives is from how many restarts on a service is judged though nothing
// rises: each may undo what grew.
const manyLives = 3

// began notes when a place went to another process.
func (j *jury) began(s series.Sample) {
	was, known := j.starts[s.Key]
	j.starts[s.Key] = s.Value
	if !known || was == s.Value {
		return
	}
	of := j.service(s.Key.Service, s.At)
	if of.lives++; of.lives >= manyLives {
		of.rising = true
	}
}

func (j *jury) service(name string, now int64) *judged {
	if name == "" {
		name = hostName
	}
	s := j.services[name]
	if s == nil {
		// Not all at once that came at once.
		s = &judged{due: now + int64(len(j.services)%32)*j.every.Milliseconds()/32}
		j.services[name] = s
	}
	return s
}

// forget drops what is known of series that have ended.
func (j *jury) forget(keys []series.Key) {
	for _, k := range keys {
		delete(j.lows, k)
		delete(j.starts, k)
	}
}

// sit judges the services whose turn it is, the longest due first.
func (j *jury) sit(ctx context.Context, now int64) ([]change, error) {
	var due []string
	for name, s := range j.services {
		if s.due <= now && (s.rising || s.report != nil) {
			due = append(due, name)
		}
	}
	if len(due) == 0 {
		return nil, nil
	}
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(cmp.Compare(j.services[a].due, j.services[b].due), strings.Compare(a, b))
	})
	h, err := newHistorian(ctx, j.past, now-j.since.Milliseconds(), now)
	if err != nil {
		return nil, err
	}
	var changes []change
	var errs []error
	for _, name := range due[:min(len(due), mostJudged)] {
		s := j.services[name]
		report, err := h.service(ctx, name, false)
		if err != nil {
			errs = append(errs, fmt.Errorf("judge %s: %w", name, err))
		}
		s.calm++
		if err == nil {
			if slices.ContainsFunc(report.Trends, func(t leak.ReportTrend) bool { return trend.Grows(t.Verdict) }) {
				s.calm = 0
			}
			changes = append(changes, s.changes(&report)...)
			s.report = &report
		}
		s.due = now + j.every.Milliseconds()*int64(1+min(s.calm, mostCalm))
		if s.calm > 0 {
			s.rising = false // until a low rises again
		}
	}
	return changes, errors.Join(errs...)
}

// changes are the verdicts of a report that are not what they were. That
// something is steady, or undecided, is no news of what was never otherwise.
func (s *judged) changes(now *leak.ReportService) []change {
	was := map[string]string{}
	if s.report != nil {
		for _, t := range s.report.Trends {
			was[t.Metric+" "+t.Worker] = t.Verdict
		}
	}
	var out []change
	for _, t := range now.Trends {
		before := was[t.Metric+" "+t.Worker]
		if t.Verdict == before || !trend.Grows(t.Verdict) && !trend.Grows(before) {
			continue
		}
		out = append(out, change{service: now.Name, was: before, trend: t})
	}
	return out
}

// steady reports whether nothing of a service rises, so that it need not be
// judged to be called steady.
func (j *jury) steady(name string) bool {
	s := j.services[name]
	return s == nil || !s.rising && s.report == nil
}

// growing are the services with a trend that grows, as last judged.
func (j *jury) growing() []leak.ReportService {
	var out []leak.ReportService
	for _, s := range j.services {
		if s.report != nil && slices.ContainsFunc(s.report.Trends, func(t leak.ReportTrend) bool { return trend.Grows(t.Verdict) }) {
			out = append(out, *s.report)
		}
	}
	slices.SortFunc(out, func(a, b leak.ReportService) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// String writes the change as a line of the log.
func (c change) String() string {
	t := &c.trend
	var b strings.Builder
	b.WriteString(c.service)
	if t.PID > 0 {
		fmt.Fprintf(&b, "[%d]", t.PID)
	}
	fmt.Fprintf(&b, " %s: %s", t.Resource, t.Verdict)
	if c.was != "" {
		fmt.Fprintf(&b, " (was %s)", c.was)
	}
	if !trend.Grows(t.Verdict) {
		return b.String()
	}
	now := leak.FormatCount(uint64(max(t.Now, 0)))
	if t.Bytes {
		now = leak.FormatBytes(t.Now)
	}
	fmt.Fprintf(&b, ", now %s", now)
	if t.PerHour != nil {
		if t.Bytes {
			fmt.Fprintf(&b, ", +%s/h", leak.FormatBytes(*t.PerHour))
		} else {
			fmt.Fprintf(&b, ", +%.3g/h", *t.PerHour)
		}
	}
	if x := t.Exhaustion; x != nil {
		fmt.Fprintf(&b, ", %s in %s", x.Limit, leak.FormatDuration(secondsLong(x.InS)))
		if x.LowS != nil && x.HighS != nil {
			fmt.Fprintf(&b, " (%s)", leak.FormatDurations(secondsLong(*x.LowS), secondsLong(*x.HighS)))
		}
	}
	return b.String()
}

// secondsLong is a number of seconds as a duration, the longest there is when it
// is longer.
func secondsLong(s float64) time.Duration {
	const most = float64(1<<63-1) / float64(time.Second)
	return time.Duration(min(s, most-1) * float64(time.Second))
}
