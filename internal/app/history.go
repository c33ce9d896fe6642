package app

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/source/sampler"
	"stanch/internal/trend"
)

// hostName is the host itself among the services.
const hostName = "host"

// historian makes reports of what is known of a time.
type historian struct {
	past     tsdb.Reader
	from, to int64           // Unix ms
	step     int64           // ms; 0 where each point is taken
	host     []series.Series // read once
	logs     []series.Series // of log files, read once and only where something grows
	logsRead bool
}

// fullTime is the longest time of which every point is taken, in ms. Of a
// longer one the store gives the first, the last and the extremes of each
// minute.
const (
	fullTime = 12 * 3600_000
	thinStep = 60_000
)

func newHistorian(ctx context.Context, p tsdb.Reader, from, to int64) (*historian, error) {
	h := &historian{past: p, from: from, to: to}
	always, err := p.Select(ctx, tsdb.Match{Host: true, Metrics: []series.Metric{series.HostAvailable}, Step: thinStep}, from, to)
	if err != nil {
		return nil, err
	}
	if first, _ := stretch(always, from, to); to-first.UnixMilli() > fullTime {
		h.step = thinStep
	}
	h.host, err = p.Select(ctx, tsdb.Match{Host: true, Metrics: hostMetrics, Step: h.step}, from, to)
	return h, err
}

// hostMetrics are those of the host, without its logs.
var hostMetrics = func() []series.Metric {
	list := []series.Metric{series.ClockJumps, series.Suspended}
	for _, info := range series.Metrics {
		if strings.HasPrefix(string(info.Metric), "stanch_host_") && info.Metric != series.Suspended {
			list = append(list, info.Metric)
		}
	}
	return list
}()

// names are the services of the time, and the host.
func (h *historian) names(ctx context.Context) ([]string, error) {
	names, err := h.past.Services(ctx, h.from, h.to)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	if len(h.host) > 0 {
		names = append(names, hostName)
	}
	return names, nil
}

// seriesOf reads a service.
func (h *historian) seriesOf(ctx context.Context, name string) ([]series.Series, error) {
	if name == hostName {
		return h.host, nil
	}
	match := h.match(name)
	// A PID is of one worker, so there are as many of these as workers.
	places, err := h.past.Select(ctx, tsdb.Match{Service: name, Metrics: []series.Metric{series.PID}, Step: h.to - h.from}, h.from, h.to)
	if err != nil {
		return nil, err
	}
	if coarse := int64(len(places)) * workerSeries * 4 * (h.to - h.from) / mostPoints; coarse > thinStep {
		match.Step = coarse
	}
	all, err := h.past.Select(ctx, match, h.from, h.to)
	return slices.DeleteFunc(all, func(s series.Series) bool { return s.Key.Metric == series.Log }), err
}

const (
	// mostPoints is how many points of one service are read, some 130 MB: of one
	// with dozens of workers the steps are longer, of which each gives four.
	mostPoints = 8_000_000
	// workerSeries is how many series a worker has, those of a slow pace counted
	// as less than one.
	workerSeries = 20
)

// living are those of the services that have a process, or a cgroup, at the
// end of the time, and the host.
func (h *historian) living(ctx context.Context, names []string) ([]string, error) {
	all, err := h.past.Select(ctx, tsdb.Match{Metrics: []series.Metric{series.PID, series.CgroupMemory}}, h.to-recent, h.to)
	if err != nil {
		return nil, err
	}
	byService := map[string][]series.Series{}
	for _, s := range all {
		byService[s.Key.Service] = append(byService[s.Key.Service], s)
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		if n == hostName {
			return false
		}
		ended := endedWorkers(byService[n], h.to)
		return !slices.ContainsFunc(byService[n], func(s series.Series) bool { return !ended[s.Key.Worker] })
	}), nil
}

// recent is how far back a sign of life is looked for, ms: the slowest watch
// samples each five minutes.
const recent = 30 * 60_000

// farthest is the longest time to a limit that is worth saying.
const farthest = 365 * 24 * time.Hour

// service says all of one service: what is concluded, and which log lines come
// before it grows. With charts, all that can be drawn of it comes too.
func (h *historian) service(ctx context.Context, name string, charts bool) (leak.ReportService, error) {
	all, err := h.seriesOf(ctx, name)
	if err != nil {
		return leak.ReportService{}, err
	}
	s := h.judge(name, all)
	if charts {
		s.Charts = chartsOf(all)
	}
	return s, h.correlate(ctx, &s)
}

// judge concludes from the series of a service.
func (h *historian) judge(name string, all []series.Series) leak.ReportService {
	of := name
	if name == hostName {
		of = "" // as its series are called
	}
	judged := trend.Judge(&trend.History{Service: of, Series: all, Host: h.host, From: h.from, To: h.to})
	s := leak.ReportService{Name: name, Kind: kindOf(name), Workers: workers(all), Trends: judged.Trends, Marks: judged.Marks}
	// What a process grew by that has ended is nobody's any more.
	ended := endedWorkers(all, h.to)
	s.Trends = slices.DeleteFunc(s.Trends, func(t leak.ReportTrend) bool { return ended[t.Worker] })
	for i := range s.Trends {
		if x := s.Trends[i].Exhaustion; x != nil && x.InS > farthest.Seconds() {
			s.Trends[i].Exhaustion = nil
		}
	}
	// Addresses cost nothing: without a limit on them it is the memory that
	// counts.
	s.Marks = slices.DeleteFunc(s.Marks, func(m leak.ReportMark) bool {
		return m.Metric == string(series.Virtual) && !slices.ContainsFunc(s.Trends, func(t leak.ReportTrend) bool {
			return t.Metric == m.Metric && t.Worker == m.Worker && t.Exhaustion != nil
		})
	})
	s.Trends = slices.DeleteFunc(s.Trends, func(t leak.ReportTrend) bool {
		return t.Metric == string(series.Virtual) && trend.Grows(t.Verdict) && t.Exhaustion == nil
	})
	s.From, s.To = stretch(all, h.from, h.to)
	for _, m := range s.Marks {
		if m.Kind == leak.MarkRestart {
			s.Restarts++
		}
	}
	return s
}

// match selects the series of a service, or of the host.
func (h *historian) match(service string) tsdb.Match {
	return tsdb.Match{Service: service, Host: service == hostName, Step: h.step}
}

// endedWorkers are those of which the last samples are missing.
func endedWorkers(all []series.Series, to int64) map[string]bool {
	out := map[string]bool{}
	silent := max(missing*sampleTime(all, series.PID).Milliseconds(), leastMissing)
	for _, s := range all {
		if last, ok := s.Last(); ok && s.Key.Metric == series.PID && last.At < to-silent {
			out[s.Key.Worker] = true
		}
	}
	return out
}

// How many samples must be missing, and for how long in ms, until a process is
// taken for ended: a nanny may need a moment to start the next one.
const (
	missing      = 5
	leastMissing = 30_000
)

// kindOf is the kind of a service as it is called here.
func kindOf(name string) string {
	if name == hostName {
		name = ""
	}
	return sampler.KindOf(name)
}

// workers are the processes that have, or had last, the places of a service.
func workers(all []series.Series) []leak.ReportWorker {
	byName := map[string]*leak.ReportWorker{}
	at := func(name string) *leak.ReportWorker {
		if byName[name] == nil {
			byName[name] = &leak.ReportWorker{Worker: name}
		}
		return byName[name]
	}
	for _, s := range all {
		last, ok := s.Last()
		if !ok || s.Key.Worker == "" {
			continue
		}
		switch s.Key.Metric {
		case series.PID:
			at(s.Key.Worker).PID = int(last.Value)
		case series.Started:
			at(s.Key.Worker).Started = time.UnixMilli(int64(last.Value * 1000)).UTC()
		}
	}
	var out []leak.ReportWorker
	for _, w := range byName {
		out = append(out, *w)
	}
	slices.SortFunc(out, func(a, b leak.ReportWorker) int {
		return cmp.Or(cmp.Compare(len(a.Worker), len(b.Worker)), cmp.Compare(a.Worker, b.Worker))
	})
	return out
}

// stretch is the time from the first to the last point.
func stretch(all []series.Series, from, to int64) (first, last time.Time) {
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for _, s := range all {
		if n := len(s.Points); n > 0 && s.Key.Metric != series.Log {
			low, high = min(low, s.Points[0].At), max(high, s.Points[n-1].At)
		}
	}
	if low > high {
		low, high = from, to
	}
	return time.UnixMilli(low).UTC(), time.UnixMilli(high).UTC()
}

// report makes the report of services that were judged: ranked, with a finding
// for each trend that grows.
func (h *historian) report(services []leak.ReportService) *leak.Report {
	slices.SortStableFunc(services, func(a, b leak.ReportService) int {
		switch {
		case len(a.Trends) == 0 || len(b.Trends) == 0:
			return cmp.Compare(len(b.Trends), len(a.Trends))
		}
		return cmp.Or(trend.Order(&a.Trends[0], &b.Trends[0]), cmp.Compare(a.Name, b.Name))
	})
	r := &leak.Report{Services: services}
	ids := map[string]int{}
	for i := range services {
		for j := range services[i].Trends {
			t := &services[i].Trends[j]
			key := services[i].Name + "\x00" + t.Worker
			if trend.Grows(t.Verdict) && ids[key] == 0 {
				ids[key] = len(r.Targets) + 1
				r.Targets = append(r.Targets, targetOf(&services[i], t, ids[key]))
			}
		}
	}
	r.Findings = trend.Findings(services, func(service, worker string) int { return ids[service+"\x00"+worker] })
	first, last := h.to, h.from
	for i := range services {
		first, last = min(first, services[i].From.UnixMilli()), max(last, services[i].To.UnixMilli())
	}
	r.Observed.Start = time.UnixMilli(first).UTC()
	r.Observed.DurationS = float64(max(last-first, 0)) / 1000
	return r
}

// targetOf is the process of a trend.
func targetOf(s *leak.ReportService, t *leak.ReportTrend, id int) leak.ReportTarget {
	program, _, _ := strings.Cut(s.Name, " ")
	out := leak.ReportTarget{ID: id, PID: t.PID, Comm: program}
	for _, w := range s.Workers {
		if w.Worker == t.Worker && !w.Started.IsZero() {
			up := s.To.Sub(w.Started).Seconds()
			out.UptimeS = &up
		}
	}
	return out
}

// named finds the services that a word of a user means: the name itself, the
// name of a unit without .service, the name of a program, or the PID of a
// worker. Services are those of names.
func (h *historian) named(ctx context.Context, names []string, word string) ([]string, error) {
	if slices.Contains(names, word) {
		return []string{word}, nil
	}
	if pid, err := strconv.Atoi(word); err == nil {
		return h.ofPID(ctx, names, pid)
	}
	var exact, part []string
	for _, n := range names {
		program, _, _ := strings.Cut(n, " ")
		switch {
		case strings.TrimSuffix(n, ".service") == word || program == word:
			exact = append(exact, n)
		case strings.Contains(n, word):
			part = append(part, n)
		}
	}
	if len(exact) > 0 {
		return exact, nil
	}
	return part, nil
}

// ofPID finds the service that has, or had last, a worker with this PID.
func (h *historian) ofPID(ctx context.Context, names []string, pid int) ([]string, error) {
	all, err := h.past.Select(ctx, tsdb.Match{Metrics: []series.Metric{series.PID}, Step: thinStep}, h.from, h.to)
	if err != nil {
		return nil, err
	}
	var found []string
	var newest int64
	for _, s := range all {
		for _, p := range slices.Backward(s.Points) {
			if int(p.Value) != pid {
				continue
			}
			if p.At > newest && slices.Contains(names, s.Key.Service) {
				found, newest = []string{s.Key.Service}, p.At
			}
			break
		}
	}
	return found, nil
}

// noService says that nothing is called so, and what there is.
func noService(word string, names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("nothing was recorded in that time; see --since")
	}
	var shown []string
	for _, n := range names[:min(len(names), 8)] {
		shown = append(shown, clip(n, 32))
	}
	if more := len(names) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("no service, program or pid %q was seen in that time; there are %s", word, strings.Join(shown, ", "))
}
