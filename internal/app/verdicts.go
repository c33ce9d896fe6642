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
	"stanch/internal/render"
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
	starts   map[place]float64 // when the process began that has a place
	gone     map[place]int64   // since when nobody has it
	services map[string]*judged

	last     *historian // the one that was made last, and when; Unix ms
	lastMade int64
}

// judged is a service before the jury.
type judged struct {
	first  int64 // when it was seen first, Unix ms
	due    int64 // when it is its turn, likewise
	rising bool  // one of its lows rises
	calm   int   // judgements in a row without growth
	lives  int   // processes that had a place after another
	report *leak.ReportService
	said   map[string]said // of each trend that grows, or did
}

// said is what is known of a trend from one judgement to the next.
type said struct {
	grew      bool // at the last judgement
	confirmed bool // it was said that it grows
}

// change is a verdict that is not what it was: a trend grows, or it does so no
// longer.
type change struct {
	service string
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
	return &jury{past: p, every: every, since: since, lows: map[series.Key]*series.Lows{}, starts: map[place]float64{}, gone: map[place]int64{}, services: map[string]*judged{}}
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
		if s.Key.Worker == "" && len(j.gone) > 0 {
			delete(j.gone, place{s.Key.Service, ""})
		}
		l := j.lows[s.Key]
		if l == nil {
			l = &series.Lows{}
			j.lows[s.Key] = l
			j.service(s.Key.Service, s.At)
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
	at := place{s.Key.Service, s.Key.Worker}
	if len(j.gone) > 0 {
		delete(j.gone, at)
	}
	was, known := j.starts[at]
	j.starts[at] = s.Value
	if !known || was == s.Value {
		return
	}
	of := j.service(s.Key.Service, s.At)
	if of.lives++; of.lives >= manyLives {
		of.rising = true
	}
}

// resume has a service judged that an earlier watch kept: its lows are not
// known any more. Nobody has its place until somebody is seen there.
func (j *jury) resume(at place, now int64) {
	s := j.service(at.service, now)
	s.first, s.rising = 0, true
	j.gone[at] = now
}

func (j *jury) service(name string, now int64) *judged {
	if name == "" {
		name = hostName
	}
	s := j.services[name]
	if s == nil {
		// Not all at once that came at once.
		s = &judged{first: now, due: now + int64(len(j.services)%32)*j.every.Milliseconds()/32}
		j.services[name] = s
	}
	return s
}

// keepGone is how long a place that nobody has is remembered: who comes to have
// it within that time was restarted.
const keepGone = time.Hour

// leave notes that nobody has these places any more, and forgets those that
// were left long ago.
func (j *jury) leave(places []place, now int64) {
	for _, at := range places {
		j.gone[at] = now
	}
	forget := map[place]bool{}
	for at, since := range j.gone {
		if now-since >= keepGone.Milliseconds() {
			forget[at] = true
			delete(j.gone, at)
			delete(j.starts, at)
		}
	}
	if len(forget) == 0 {
		return
	}
	for k := range j.lows {
		if forget[place{k.Service, k.Worker}] {
			delete(j.lows, k)
		}
	}
	live := map[string]bool{"": true, hostName: true}
	for at := range j.starts {
		live[at.service] = true
	}
	for at := range forget {
		if !live[at.service] {
			delete(j.services, at.service)
		}
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
	h, err := j.historian(ctx, now)
	if err != nil {
		return nil, err
	}
	var changes []change
	var errs []error
	for _, name := range due[:min(len(due), mostJudged)] {
		s := j.services[name]
		all, err := h.seriesOf(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("judge %s: %w", name, err))
		}
		s.calm++
		if err == nil {
			report := h.judge(name, all)
			if slices.ContainsFunc(report.Trends, func(t leak.ReportTrend) bool { return trend.Grows(t.Verdict) }) {
				s.calm = 0
			}
			changes = append(changes, s.changes(&report, j.every)...)
			s.report = &report
		}
		s.due = now + j.every.Milliseconds()*int64(1+min(s.calm, mostCalm))
		if s.calm > 0 {
			s.rising = false // until a low rises again
		}
	}
	return changes, errors.Join(errs...)
}

// A verdict that something grows is said once two judgements in a row agree,
// and taken back likewise. One that leaves more than a day is said only when
// it was watched for a while: what has just begun fills its caches.
const (
	urgentWithin = 24 * time.Hour
	lastingFor   = 12 // judgements' time
)

// historian is one whose series of the host are younger than the time between
// two judgements.
func (j *jury) historian(ctx context.Context, now int64) (*historian, error) {
	if j.last == nil || now-j.lastMade >= j.every.Milliseconds() || now < j.lastMade {
		h, err := newHistorian(ctx, j.past, now-j.since.Milliseconds(), now)
		if err != nil {
			return nil, err
		}
		j.last, j.lastMade = h, now
	}
	h := *j.last
	h.from, h.to = now-j.since.Milliseconds(), now
	return &h, nil
}

// changes are the verdicts of a report that were confirmed just now, or are no
// longer.
func (s *judged) changes(now *leak.ReportService, every time.Duration) []change {
	if s.said == nil {
		s.said = map[string]said{}
	}
	lasting := now.To.Sub(now.From) >= lastingFor*every
	var out []change
	seen := map[string]bool{}
	for _, t := range now.Trends {
		key := t.Metric + " " + t.Worker
		seen[key] = true
		was := s.said[key]
		is := said{grew: trend.Grows(t.Verdict), confirmed: was.confirmed}
		urgent := t.Exhaustion != nil && t.Exhaustion.InS < urgentWithin.Seconds()
		switch {
		case is.grew == was.confirmed, is.grew != was.grew, is.grew && !lasting && !urgent:
		default:
			is.confirmed = is.grew
			out = append(out, change{service: now.Name, trend: t})
		}
		s.said[key] = is
	}
	for key := range s.said {
		if !seen[key] {
			delete(s.said, key) // nobody has that place any more
		}
	}
	return out
}

// confirmed is a report without the trends that are not confirmed to grow.
func (s *judged) confirmed() (leak.ReportService, bool) {
	if s.report == nil {
		return leak.ReportService{}, false
	}
	r := *s.report
	r.Trends = slices.DeleteFunc(slices.Clone(r.Trends), func(t leak.ReportTrend) bool { return !s.said[t.Metric+" "+t.Worker].confirmed })
	return r, len(r.Trends) > 0
}

// steady reports whether nothing of a service has risen for as long as the
// first judgement takes, so that it need not be judged to be called steady.
func (j *jury) steady(name string, now int64) bool {
	s := j.services[name]
	return s != nil && !s.rising && s.report == nil && now-s.first >= j.every.Milliseconds()
}

// growing are the services with a trend that is confirmed to grow.
func (j *jury) growing() []leak.ReportService {
	var out []leak.ReportService
	for _, s := range j.services {
		if r, grows := s.confirmed(); grows {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b leak.ReportService) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// String writes the change as a line of the log, in the words of the ranking.
func (c change) String() string {
	t := &c.trend
	who := c.service
	if t.PID > 0 {
		who += fmt.Sprintf("[%d]", t.PID)
	}
	switch {
	case t.Verdict == leak.VerdictUnknown:
		return fmt.Sprintf("%s %s: it is not sure any more that it grows", who, t.Resource)
	case !trend.Grows(t.Verdict):
		return fmt.Sprintf("%s %s: grows no longer (%s)", who, t.Resource, t.Verdict)
	}
	row := render.OverviewOf([]leak.ReportService{{Name: c.service, Kind: kindOf(c.service), Trends: []leak.ReportTrend{*t}}}).Growing[0]
	line := fmt.Sprintf("%s %s: %s, now %s", who, row.What, t.Verdict, row.Now)
	if row.Grows != "" {
		line += ", " + row.Grows
	}
	if row.In != "" {
		line += ", " + row.Limit + " in " + row.In
	}
	return line
}
