// Package example makes histories to draw: what a watch of a host could have
// found. It is support for the tests of what shows reports.
package example

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"stanch/internal/leak"
)

// Now is when the watch of each example ended.
var Now = time.Date(2026, 11, 21, 3, 12, 40, 0, time.UTC)

// Hostile is a name that would take over a terminal or a page that did not
// guard itself.
const Hostile = "\x1b[31m</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>"

// Reports gives all examples by name. Each call makes them anew.
func Reports() map[string]*leak.Report {
	all := map[string]*leak.Report{
		"host":        report(host()...),
		"steps":       report(collectd()),
		"descriptors": report(proxy()),
		"cache":       report(cache()),
		"undecided":   report(young()),
		"restarts":    report(flaky()),
		"load":        report(gateway()),
		"steady":      report(steady("cron.service", 611, 4e6), steady("sshd.service", 702, 9e6), cache()),
		"one_steady":  report(steady("cron.service", 611, 4e6)),
		"hostile":     report(hostile()),
		"odd":         report(odd()),
		"bare":        report(leak.ReportService{Name: "new.service", Kind: "unit", From: Now, To: Now}),
	}
	for _, r := range all {
		r.Normalize()
	}
	return all
}

func report(services ...leak.ReportService) *leak.Report {
	return &leak.Report{
		Observed: leak.Observed{Start: Now.Add(-24 * time.Hour), DurationS: 24 * 3600},
		Services: services,
	}
}

func host() []leak.ReportService {
	out := []leak.ReportService{proxy(), collectd(), gateway(), young(), flaky(), cache(), daily()}
	for i, name := range []string{"cron.service", "sshd.service", "systemd-journald.service", "nginx.service", "docker/1f2e3d4c5b6a"} {
		out = append(out, steady(name, 600+40*i, float64(3+5*i)*1e6))
	}
	// Of a service that was only counted there is nothing to draw.
	plain := steady("dbus.service", 588, 3e6)
	plain.Charts, plain.Trends = nil, []leak.ReportTrend{{Resource: "all", Verdict: leak.VerdictSteady}}
	return append(out, plain)
}

// history is a service that was watched for so long, one point in each interval.
type history struct {
	leak.ReportService
	noise *rand.Rand
	every time.Duration
}

func watched(name, kind string, pid int, lasted, every time.Duration) *history {
	from := Now.Add(-lasted)
	return &history{
		ReportService: leak.ReportService{
			Name: name, Kind: kind, From: from, To: Now,
			Workers: []leak.ReportWorker{{Worker: "0", PID: pid, Started: from.Add(-52 * time.Hour)}},
		},
		noise: rand.New(rand.NewPCG(uint64(pid), 7)),
		every: every,
	}
}

// chart draws what value says of each moment; one that is not a number is a
// moment without a point.
func (h *history) chart(metric, title string, value func(at time.Time) float64) *leak.ReportChart {
	c := leak.ReportChart{Metric: metric, Title: title, Worker: "0", Bytes: metric != fds && metric != threads && metric != sockets}
	for at := h.From; !at.After(h.To); at = at.Add(h.every) {
		if v := value(at); !math.IsNaN(v) {
			c.Points = append(c.Points, [2]float64{float64(at.UnixMilli()) / 1000, math.Round(v)})
		}
	}
	h.Charts = append(h.Charts, c)
	return &h.Charts[len(h.Charts)-1]
}

func (h *history) flat(metric, title string, n float64) {
	h.chart(metric, title, func(time.Time) float64 { return n })
}

func (h *history) mark(at time.Time, kind, metric string, size float64, text string) {
	h.Marks = append(h.Marks, leak.ReportMark{At: at, Kind: kind, Metric: metric, Worker: "0", Size: size, Text: text})
}

const (
	rss     = "stanch_process_resident_memory_bytes"
	fds     = "stanch_process_open_fds"
	threads = "stanch_process_threads"
	sockets = "stanch_process_tcp_sockets"
	cpu     = "stanch_process_cpu_seconds_total"
)

func ptr[T any](v T) *T { return &v }

// collectd leaks at each failed poll: steps that log lines announce. The host
// slept for an hour, and collectd was restarted twice.
func collectd() leak.ReportService {
	h := watched("collectd.service", "unit", 4802, 24*time.Hour, time.Minute)
	slept, woke := Now.Add(-14*time.Hour), Now.Add(-13*time.Hour)
	restarts := []time.Time{Now.Add(-19 * time.Hour), Now.Add(-17 * time.Hour)}
	const step = 31.5e6
	const polls = 32 * time.Minute
	var steps []time.Time
	for at := h.From.Add(9 * time.Minute); at.Before(h.To); at = at.Add(polls + time.Duration(h.noise.IntN(120))*time.Second) {
		if at.Before(slept) || at.After(woke) {
			steps = append(steps, at)
		}
	}
	level := func(at time.Time) float64 {
		born := h.From.Add(-52 * time.Hour)
		for _, r := range restarts {
			if !at.Before(r) {
				born = r
			}
		}
		v := 205e6
		if born.Before(h.From) {
			v += 640e6
		}
		for _, s := range steps {
			if !s.Before(born) && !s.After(at) {
				v += step
			}
		}
		return v + 1e6*h.noise.NormFloat64()
	}
	asleep := func(at time.Time) bool { return at.After(slept) && at.Before(woke) }
	c := h.chart(rss, "resident memory", func(at time.Time) float64 {
		if asleep(at) {
			return math.NaN()
		}
		return level(at)
	})
	c.Limit, c.LimitName = ptr(1.5e9), "memory.max"
	open := h.chart(fds, "descriptors", func(at time.Time) float64 {
		if asleep(at) {
			return math.NaN()
		}
		return 31 + float64(h.noise.IntN(4))
	})
	open.Limit, open.LimitName = ptr(1024.0), "RLIMIT_NOFILE"
	h.flat(threads, "threads", 12)
	h.flat("stanch_process_swap_bytes", "swapped memory", 0)
	h.flat("stanch_process_zombie_children", "zombie children", 0)
	const example = "collecting from 10.0.0.7 failed: data truncated"
	before := 0
	for i, s := range steps {
		if i != 6 && i != 20 && i != 31 {
			h.mark(s.Add(-400*time.Millisecond), leak.MarkLog, "", 0, example)
			before++
		}
		h.mark(s, leak.MarkStep, rss, step, "resident memory +31.5 MB")
		if i == 9 {
			h.mark(restarts[0], leak.MarkRestart, "", 0, "restarted, pid 4388 -> 4711")
		}
		if i == 13 {
			h.mark(restarts[1], leak.MarkRestart, "", 0, "restarted, pid 4711 -> 4802")
		}
		if s.Before(slept) && i+1 < len(steps) && steps[i+1].After(woke) {
			h.mark(woke, leak.MarkSleep, "", 3600, "the host slept for 1 h")
		}
	}
	sortMarks(h.Marks)
	h.Restarts = 2
	h.Workers[0].Started = restarts[1]
	h.Trends = []leak.ReportTrend{
		{
			Metric: rss, Resource: "memory", Worker: "0", PID: 4802, Bytes: true, Verdict: leak.VerdictStepping, Now: last(c),
			PerHour: ptr(58e6), PerHourLow: ptr(54e6), PerHourHigh: ptr(62e6), Strength: 0.9999,
			Exhaustion: &leak.Exhaustion{Limit: "memory.max", InS: 5.1 * 3600, LowS: ptr(4.7 * 3600), HighS: ptr(5.6 * 3600)},
			Detectors:  []string{"steps"},
			Evidence: []string{
				fmt.Sprintf("steps: %d of about 31.5 MB in 24 h, and nothing was given back between them", len(steps)),
				"limit: 1.5 GB of memory.max, 1.2 GB in use",
			},
		},
		{Metric: fds, Resource: "descriptors", Worker: "0", PID: 4802, Verdict: leak.VerdictSteady, Now: last(open), PerHour: ptr(0.0), Strength: 0.98},
		{Metric: threads, Resource: "threads", Worker: "0", PID: 4802, Verdict: leak.VerdictSteady, Now: 12, PerHour: ptr(0.0), Strength: 1},
	}
	h.Logs = []leak.ReportLog{{
		Template: "collecting from * failed: data truncated", Example: example,
		Steps: len(steps), Before: before, Lines: before, LeadS: 0.4, P: 3.1e-12,
	}}
	return h.ReportService
}

// proxy forgets three sockets an hour.
func proxy() leak.ReportService {
	h := watched("edge-proxy.service", "unit", 1291, 24*time.Hour, 2*time.Minute)
	began := Now.Add(-20 * time.Hour)
	leaked := func(at time.Time) float64 { return math.Floor(max(0, at.Sub(began).Hours()) * 3) }
	open := h.chart(fds, "descriptors", func(at time.Time) float64 { return 951 + leaked(at) + float64(h.noise.IntN(3)) })
	open.Limit, open.LimitName = ptr(1024.0), "RLIMIT_NOFILE"
	h.chart(sockets, "TCP sockets CLOSE_WAIT", func(at time.Time) float64 { return 2 + leaked(at) })
	m := h.chart(rss, "resident memory", func(at time.Time) float64 { return 48e6 + 0.4e6*h.noise.NormFloat64() })
	m.Limit, m.LimitName = ptr(16.8e9), "host memory"
	load := h.chart(cpu, "CPU time per second", func(time.Time) float64 { return 30 + 5*h.noise.NormFloat64() })
	load.Bytes = false
	for i := range load.Points {
		load.Points[i][1] /= 1000
	}
	open = &h.Charts[0]
	h.Trends = []leak.ReportTrend{
		{
			Metric: fds, Resource: "descriptors", Worker: "0", PID: 1291, Verdict: leak.VerdictGrowing, Now: last(open), Since: &began,
			PerHour: ptr(3.0), PerHourLow: ptr(2.9), PerHourHigh: ptr(3.1), Strength: 0.99999, PerUnit: ptr(0.012), Unit: "connection",
			Exhaustion: &leak.Exhaustion{Limit: "RLIMIT_NOFILE", InS: 4.3 * 3600, LowS: ptr(4.1 * 3600), HighS: ptr(4.5 * 3600)},
			Detectors:  []string{"growth"},
			Evidence: []string{
				"trend: the lowest of each 10 min rose in 118 of 119 cases",
				"limit: 1,011 of 1,024 in use",
			},
		},
		{Metric: rss, Resource: "memory", Worker: "0", PID: 1291, Bytes: true, Verdict: leak.VerdictSteady, Now: last(&h.Charts[2]), PerHour: ptr(0.0), Strength: 0.97},
	}
	return h.ReportService
}

// gateway keeps something of each connection.
func gateway() leak.ReportService {
	h := watched("docker/8c2f91ab6d3e", "container", 20417, 24*time.Hour, 2*time.Minute)
	held := 310e6
	c := h.chart(rss, "resident memory", func(at time.Time) float64 {
		busy := max(0, math.Sin((at.Sub(h.From).Hours()-5)/24*2*math.Pi))
		held += busy * 0.35e6
		return held + 0.6e6*h.noise.NormFloat64()
	})
	h.Trends = []leak.ReportTrend{{
		Metric: rss, Resource: "memory", Worker: "0", PID: 20417, Bytes: true, Verdict: leak.VerdictWithLoad, Now: last(c),
		PerHour: ptr(3.3e6), PerHourLow: ptr(0.6e6), PerHourHigh: ptr(7.1e6), PerUnit: ptr(2048.0), Unit: "connection", Strength: 0.998,
		Exhaustion: &leak.Exhaustion{Limit: "host memory", InS: 61 * 86400, LowS: ptr(28 * 86400.0)},
		Detectors:  []string{"load"},
		Evidence:   []string{"load: 2 KB are kept for each connection, and nothing grows in hours without any"},
	}}
	return h.ReportService
}

// young has not been watched for long enough.
func young() leak.ReportService {
	h := watched("postgresql@15-main.service", "unit", 30118, 25*time.Minute, 10*time.Second)
	c := h.chart(rss, "resident memory", func(at time.Time) float64 { return 880e6 + 30e3*at.Sub(h.From).Minutes() + 4e6*h.noise.NormFloat64() })
	h.Trends = []leak.ReportTrend{{
		Metric: rss, Resource: "memory", Worker: "0", PID: 30118, Bytes: true, Verdict: leak.VerdictUnknown, Now: last(c), NeedsS: ptr(2400.0), Strength: 0.4,
		Evidence: []string{"noise: it goes up and down by 4 MB, more than it has risen"},
	}}
	return h.ReportService
}

// flaky is started again every few minutes by whoever watches over it.
func flaky() leak.ReportService {
	h := watched("metrics-agent --config /etc/agent.yml", "command", 31990, 24*time.Hour, time.Minute)
	const life = 290 * time.Second
	pid := 31990 - 7*297
	for at := h.From.Add(life); at.Before(h.To); at = at.Add(life) {
		h.mark(at, leak.MarkRestart, "", 0, fmt.Sprintf("restarted, pid %d -> %d", pid, pid+7))
		pid += 7
		h.Restarts++
	}
	h.Workers[0].PID, h.Workers[0].Started = pid, h.Marks[len(h.Marks)-1].At
	c := h.chart(rss, "resident memory", func(at time.Time) float64 {
		lived := time.Duration(int64(at.Sub(h.From)) % int64(life))
		return 42e6 + 0.9e6*lived.Seconds()
	})
	h.Trends = []leak.ReportTrend{{
		Metric: rss, Resource: "memory", Worker: "0", PID: pid, Bytes: true, Verdict: leak.VerdictWarming, Now: last(c), PerHour: ptr(0.0), Strength: 0.6,
	}}
	return h.ReportService
}

// cache fills to what it was given and stops.
func cache() leak.ReportService {
	h := watched("redis-server *:6379", "command", 944, 24*time.Hour, 2*time.Minute)
	c := h.chart(rss, "resident memory", func(at time.Time) float64 {
		return 1.02e9 - 0.98e9*math.Exp(-at.Sub(h.From).Hours()/3.5) + 2e6*h.noise.NormFloat64()
	})
	c.Limit, c.LimitName = ptr(16.8e9), "host memory"
	h.Trends = []leak.ReportTrend{{
		Metric: rss, Resource: "memory", Worker: "0", PID: 944, Bytes: true, Verdict: leak.VerdictSaturating, Now: last(c), PerHour: ptr(0.0), Strength: 0.99,
		Detectors: []string{"saturation"}, Evidence: []string{"level: it comes to rest at 1 GB and has been there for 9 h"},
	}}
	return h.ReportService
}

// daily follows the day.
func daily() leak.ReportService {
	h := watched("php-fpm.service", "unit", 1830, 72*time.Hour, 5*time.Minute)
	h.Workers = append(h.Workers, leak.ReportWorker{Worker: "1", PID: 1831, Started: h.Workers[0].Started})
	wave := func(at time.Time) float64 {
		return 120e6 + 60e6*math.Sin(at.Sub(h.From).Hours()/24*2*math.Pi) + 2e6*h.noise.NormFloat64()
	}
	h.chart(rss, "resident memory", wave)
	h.chart(rss, "resident memory", wave).Worker = "1"
	for i, w := range h.Workers {
		h.Trends = append(h.Trends, leak.ReportTrend{
			Metric: rss, Resource: "memory", Worker: w.Worker, PID: w.PID, Bytes: true, Verdict: leak.VerdictPeriodic, Now: last(&h.Charts[i]), PerHour: ptr(0.0), Strength: 0.99,
		})
	}
	return h.ReportService
}

func steady(name string, pid int, size float64) leak.ReportService {
	h := watched(name, "unit", pid, 24*time.Hour, 5*time.Minute)
	c := h.chart(rss, "resident memory", func(time.Time) float64 { return size + size/200*h.noise.NormFloat64() })
	h.flat(fds, "descriptors", 9)
	h.Trends = []leak.ReportTrend{
		{Metric: rss, Resource: "memory", Worker: "0", PID: pid, Bytes: true, Verdict: leak.VerdictSteady, Now: last(c), PerHour: ptr(0.0), Strength: 0.99},
		{Metric: fds, Resource: "descriptors", Worker: "0", PID: pid, Verdict: leak.VerdictSteady, Now: 9, PerHour: ptr(0.0), Strength: 1},
	}
	return h.ReportService
}

// hostile has foreign text wherever a report may hold some.
func hostile() leak.ReportService {
	s := collectd()
	s.Name, s.Kind = Hostile, "command"
	s.Logs[0].Template, s.Logs[0].Example = Hostile, Hostile+" & `more`\u2028"
	s.Trends[0].Evidence = append(s.Trends[0].Evidence, Hostile)
	s.Trends[0].Exhaustion.Limit = Hostile
	s.Charts[0].LimitName, s.Charts[0].Title, s.Charts[0].Worker = Hostile, Hostile, "</script>"
	for i := range s.Marks {
		s.Marks[i].Text = Hostile
	}
	return s
}

// odd has what is allowed and seldom: one point, values below zero and beyond
// all measure, marks outside the time shown, no names.
func odd() leak.ReportService {
	h := watched("", "", 0, time.Hour, time.Minute)
	h.chart(rss, "", func(at time.Time) float64 { return -3e6 * at.Sub(h.From).Minutes() })
	h.chart(fds, "huge", func(at time.Time) float64 { return 1e17 * at.Sub(h.From).Minutes() })
	h.chart(threads, "tiny", func(at time.Time) float64 { return 1 }).Points[3][1] = 1 + 1e-9
	h.chart(rss, "one point", func(at time.Time) float64 { return 7e6 })
	h.Charts[3].Points = h.Charts[3].Points[:1]
	h.Charts[2].Limit, h.Charts[0].Limit = ptr(0.0), ptr(-5.0)
	h.Charts[1].Limit, h.Charts[1].LimitName = ptr(6.5e18), "the end"
	h.mark(h.From.Add(-time.Hour), leak.MarkRestart, "", 0, "")
	h.mark(time.Time{}, leak.MarkGap, "", -1, "")
	h.mark(h.To.Add(time.Hour), leak.MarkOOM, "", 0, "")
	h.mark(h.From, "", "", 0, "")
	h.Workers[0].Started = h.To.Add(time.Hour)
	h.Trends = []leak.ReportTrend{
		{Verdict: leak.VerdictGrowing, Now: -1, PerHour: ptr(-0.3), Exhaustion: &leak.Exhaustion{InS: 1e30, LowS: ptr(-1.0), HighS: ptr(1e300)}, Strength: 1},
		{Verdict: "something new", Now: 1e30},
		{Verdict: leak.VerdictUnknown},
	}
	h.Logs = []leak.ReportLog{{P: 2}}
	return h.ReportService
}

func last(c *leak.ReportChart) float64 { return c.Points[len(c.Points)-1][1] }

func sortMarks(marks []leak.ReportMark) {
	slices.SortStableFunc(marks, func(a, b leak.ReportMark) int { return a.At.Compare(b.At) })
}
