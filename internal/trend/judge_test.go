package trend_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/trend"
	"stanch/internal/trend/corpus"
)

const (
	minute = 60_000
	hour   = 60 * minute
	begin  = 1_767_571_200_000
)

// of makes a series of a worker's metric, a point each step.
func of(m series.Metric, n int, step int64, f func(i int) float64) series.Series {
	s := series.Series{Key: series.Key{Metric: m, Service: "s", Worker: "0"}}
	for i := range n {
		s.Points = append(s.Points, series.Point{At: begin + int64(i)*step, Value: f(i)})
	}
	return s
}

func history(s ...series.Series) *trend.History {
	h := &trend.History{Service: "s", Series: s, From: begin, To: begin}
	for _, x := range s {
		if p, ok := x.Last(); ok {
			h.To = max(h.To, p.At)
		}
	}
	return h
}

func only(t *testing.T, h *trend.History) leak.ReportTrend {
	t.Helper()
	r := trend.Judge(h)
	if len(r.Trends) != 1 {
		t.Fatalf("%d trends, want one: %v", len(r.Trends), r.Trends)
	}
	return r.Trends[0]
}

func noisy(level, slope, sigma float64, seed uint64) func(i int) float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(i int) float64 { return math.Round((level+slope*float64(i)+sigma*r.NormFloat64())/4096) * 4096 }
}

// TestGrowing tells a leak by its numbers: slope, interval, limit, evidence.
func TestGrowing(t *testing.T) {
	h := history(of(series.Anonymous, 2160, 10_000, noisy(210e6, 125_000, 2e6, 1)))
	h.Host = []series.Series{
		{Key: series.Key{Metric: series.HostAvailable}, Points: []series.Point{{At: begin, Value: 4e9}}},
		{Key: series.Key{Metric: series.CgroupMemory}},
	}
	h.Series = append(h.Series,
		series.Series{Key: series.Key{Metric: series.CgroupMemory, Service: "s"}, Points: []series.Point{{At: begin, Value: 500e6}}},
		series.Series{Key: series.Key{Metric: series.CgroupLimit, Service: "s"}, Points: []series.Point{{At: begin, Value: 1000e6}}})
	r := trend.Judge(h)
	i := slices.IndexFunc(r.Trends, func(x leak.ReportTrend) bool { return x.Resource == "memory" })
	if i < 0 {
		t.Fatal("no trend of memory")
	}
	got := r.Trends[i]
	if got.Verdict != leak.VerdictGrowing || got.Detectors[0] != "trend.monotone" {
		t.Fatalf("verdict %q by %v: %v", got.Verdict, got.Detectors, got.Evidence)
	}
	if want := 125_000.0 * 360; math.Abs(*got.PerHour-want) > 0.02*want || *got.PerHourLow > want || *got.PerHourHigh < want {
		t.Errorf("%g (%g to %g) an hour, want %g", *got.PerHour, *got.PerHourLow, *got.PerHourHigh, want)
	}
	if e := got.Exhaustion; e == nil || e.Limit != "cgroup memory limit" || math.Abs(e.InS-40_000) > 1000 || *e.LowS > e.InS || *e.HighS < e.InS {
		t.Errorf("exhaustion %+v, want the cgroup's in 40,000 s", e)
	}
	if got.Strength < 0.999 || !strings.Contains(got.Evidence[0], "the lowest value of each of") {
		t.Errorf("strength %g, evidence %q", got.Strength, got.Evidence)
	}
}

// TestShort holds that ten seconds never make a verdict, but may have a rate.
func TestShort(t *testing.T) {
	fast := only(t, history(of(series.RSS, 10, 1000, func(i int) float64 { return 100e6 + float64(i)*5e6 })))
	if fast.Verdict != leak.VerdictUnknown || fast.PerHour == nil || math.Abs(*fast.PerHour-18e9) > 1e9 || fast.NeedsS == nil || *fast.NeedsS < 10 {
		t.Errorf("ten seconds of growth: %+v", fast)
	}
	flat := only(t, history(of(series.RSS, 10, 1000, func(int) float64 { return 100e6 })))
	if flat.Verdict != leak.VerdictUnknown || flat.PerHour != nil || flat.NeedsS == nil {
		t.Errorf("ten seconds of nothing: %+v", flat)
	}
}

// TestSteps tells growth by steps, and when they were.
func TestSteps(t *testing.T) {
	at := []int{70, 181, 244, 367, 423, 529, 611, 702, 788, 861}
	noise := noisy(50e6, 0, 30_000, 3)
	h := history(of(series.Anonymous, 900, 10_000, func(i int) float64 {
		v := noise(i)
		for _, a := range at {
			if i >= a {
				v += 1.5e6
			}
		}
		return v
	}))
	r := trend.Judge(h)
	if r.Trends[0].Verdict != leak.VerdictStepping {
		t.Fatalf("verdict %q: %v", r.Trends[0].Verdict, r.Trends[0].Evidence)
	}
	if said := r.Trends[0].Evidence[0]; strings.Contains(said, "-0") {
		t.Errorf("it says %q", said)
	}
	var seen []int
	for _, m := range r.Marks {
		if m.Kind == leak.MarkStep {
			seen = append(seen, int((m.At.UnixMilli()-begin)/10_000))
		}
	}
	if !slices.Equal(seen, at) {
		t.Errorf("steps at %v, want %v", seen, at)
	}
}

// TestStepsBesideGap holds that a time in which nobody looked is no time
// without steps, wherever it lies.
func TestStepsBesideGap(t *testing.T) {
	const n, gap = 1560, 89
	for _, from := range []int{100, 700, 1400, n - gap - 30} {
		r := rand.New(rand.NewPCG(8, uint64(from)))
		v := 20e6
		s := of(series.Anonymous, n, 1000, func(int) float64 {
			if r.Float64() < 1.0/8 {
				v += 2_101_248
			}
			return v
		})
		s.Points = slices.Delete(s.Points, from, from+gap)
		got := only(t, history(s))
		if !trend.Grows(got.Verdict) {
			t.Errorf("nobody looked from second %d on: %s: %v", from, got.Verdict, got.Evidence)
		}
		if want := 2_101_248.0 * 3600 / 8; *got.PerHourLow > want || *got.PerHourHigh < want {
			t.Errorf("%g to %g an hour, want %g", *got.PerHourLow, *got.PerHourHigh, want)
		}
	}
}

// TestWithConnections tells growth by what the host accepted, where CPU time
// does not explain it.
func TestWithConnections(t *testing.T) {
	done, total := 0.0, []float64{}
	for i := range 2160 {
		done += 5 * math.Pow(math.Sin(float64(i)/180), 2)
		total = append(total, math.Round(done))
	}
	noise := noisy(80e6, 0, 200_000, 4)
	h := history(
		of(series.Anonymous, 2160, 10_000, func(i int) float64 { return noise(i) + 10_000*total[i] }),
		of(series.CPU, 2160, 10_000, func(i int) float64 { return float64(i) / 10 }))
	accepted := of(series.HostAccepted, 2160, 10_000, func(i int) float64 { return total[i] })
	accepted.Key = series.Key{Metric: series.HostAccepted}
	h.Host = []series.Series{accepted}
	got := trend.Judge(h).Trends[0]
	if got.Verdict != leak.VerdictWithLoad || got.PerUnit == nil || math.Abs(*got.PerUnit-10_000) > 500 || got.Unit != "connection" {
		t.Errorf("verdict %q, %v for each %q: %v", got.Verdict, got.PerUnit, got.Unit, got.Evidence)
	}
}

// TestHostLimits judges the table of connections always, and what is promised
// only near its limit.
func TestHostLimits(t *testing.T) {
	for _, limit := range []float64{9e9, 20e9} {
		series := []series.Series{
			of(series.HostConntrack, 720, 10_000, func(i int) float64 { return float64(20_000 + 10*i) }), of(series.HostConntrackMax, 2, 10_000, func(int) float64 { return 65_536 }),
			of(series.HostCommitted, 720, 10_000, noisy(8e9, 1e6, 20e6, 2)), of(series.HostCommitLimit, 2, 10_000, func(int) float64 { return limit }),
		}
		for i := range series {
			series[i].Key.Worker = ""
		}
		h := history(series...)
		h.Service = "host"
		got := map[string]string{}
		for _, x := range trend.Judge(h).Trends {
			if x.Verdict == leak.VerdictGrowing && x.Exhaustion != nil {
				got[x.Resource] = x.Exhaustion.Limit
			}
		}
		if near := got["committed memory"] == "commit limit"; got["tracked connections"] != "nf_conntrack_max" || near != (limit < 10e9) {
			t.Errorf("commit limit %g: %v", limit, got)
		}
	}
}

// TestWithLoad tells growth by work from growth by time.
func TestWithLoad(t *testing.T) {
	done := 0.0
	var total []float64
	for i := range 2160 {
		done += 0.4 * math.Pow(math.Sin(float64(i)/180), 2)
		total = append(total, done)
	}
	noise := noisy(80e6, 0, 200_000, 4)
	r := trend.Judge(history(
		of(series.Anonymous, 2160, 10_000, func(i int) float64 { return noise(i) + 100_000*total[i] }),
		of(series.CPU, 2160, 10_000, func(i int) float64 { return math.Round(100*total[i]) / 100 })))
	got := r.Trends[0]
	if got.Verdict != leak.VerdictWithLoad || got.PerUnit == nil || math.Abs(*got.PerUnit-100_000) > 5000 || got.Unit != "second of CPU" {
		t.Errorf("verdict %q, %v for each %s: %v", got.Verdict, got.PerUnit, got.Unit, got.Evidence)
	}
}

// TestMarks holds the moments: restarts, gaps, sleeps, jumps of the clock, kills.
func TestMarks(t *testing.T) {
	memory := of(series.Anonymous, 720, 10_000, noisy(80e6, 0, 200_000, 5))
	memory.Points = slices.Delete(memory.Points, 100, 140)
	pid := of(series.PID, 2, 300*10_000, func(i int) float64 { return []float64{4711, 4802}[i] })
	kills := series.Series{Key: series.Key{Metric: series.CgroupEvents, Service: "s", Part: "oom_kill"}, Points: []series.Point{{At: begin, Value: 0}, {At: begin + hour, Value: 1}}}
	h := history(memory, pid, kills)
	h.Host = []series.Series{
		{Key: series.Key{Metric: series.Suspended}, Points: []series.Point{{At: begin + 5_000_000, Value: 600}}},
		{Key: series.Key{Metric: series.ClockJumps}, Points: []series.Point{{At: begin + 6_000_000, Value: -30}}},
	}
	want := map[string]string{
		leak.MarkRestart: "restarted, pid 4711 -> 4802", leak.MarkGap: "nobody was watching for 6 min 50 s",
		leak.MarkSleep: "the host was suspended for 10 min", leak.MarkClock: "the clock was set by -30 s", leak.MarkOOM: "the kernel killed 1 process for lack of memory",
	}
	marks := trend.Judge(h).Marks
	for _, m := range marks {
		if m.Text != want[m.Kind] {
			t.Errorf("%s: %q, want %q", m.Kind, m.Text, want[m.Kind])
		}
		delete(want, m.Kind)
	}
	if len(want) > 0 {
		t.Errorf("no mark for %v", want)
	}
	if !slices.IsSortedFunc(marks, func(a, b leak.ReportMark) int { return a.At.Compare(b.At) }) {
		t.Error("marks are not in order of time")
	}
}

// TestHost judges what the host itself has, where its series have no service.
func TestHost(t *testing.T) {
	var all []series.Series
	for _, part := range []string{"all", "tcp", "udp"} {
		s := of(series.HostSockets, 720, 10_000, func(i int) float64 { return float64(400 + i/5) })
		s.Key = series.Key{Metric: series.HostSockets, Part: part}
		all = append(all, s)
	}
	h := history(all...)
	h.Service = "host"
	got := only(t, h)
	if got.Resource != "sockets" || got.Verdict != leak.VerdictGrowing || got.Now != 400+719/5 {
		t.Errorf("%+v", got)
	}
}

// TestNothingChangesTheVerdict moves and scales traces.
func TestNothingChangesTheVerdict(t *testing.T) {
	for _, f := range corpus.Families() {
		c := corpus.Make(f, corpus.Shapes[4], 6, 11)
		if c == nil || c.Metric != series.Anonymous {
			continue
		}
		verdict := func(value func(v float64) float64, shift int64) string {
			h := &trend.History{Service: "demo", From: c.From() + shift, To: c.To() + shift}
			move := func(from []series.Series) (out []series.Series) {
				for _, s := range from {
					moved := series.Series{Key: s.Key}
					for _, p := range s.Points {
						v := p.Value
						switch s.Key.Metric {
						case c.Metric:
							v = value(v)
						case series.Started:
							v += float64(shift) / 1000
						}
						moved.Points = append(moved.Points, series.Point{At: p.At + shift, Value: v})
					}
					out = append(out, moved)
				}
				return out
			}
			h.Series, h.Host = move(c.Series), move(c.Host)
			return trend.Judge(h).Trends[0].Verdict
		}
		same := func(v float64) float64 { return v }
		want := verdict(same, 0)
		if got := verdict(same, 1234*hour); got != want {
			t.Errorf("%s: %s, later %s", f.Name, want, got)
		}
		if got := verdict(func(v float64) float64 { return 64 * v }, 0); got != want && trend.Grows(want) {
			t.Errorf("%s: %s, 64 times as large %s", f.Name, want, got)
		}
	}
}

// TestOddInput gives Judge what no sampler says.
func TestOddInput(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, values := range map[string][]float64{
		"none": nil, "one": {1}, "two": {1, 2}, "nan": {nan, nan, nan}, "infinite": {inf, -inf, inf, 1, 2}, "huge": {math.MaxFloat64, -math.MaxFloat64, math.MaxFloat64},
	} {
		r := trend.Judge(history(of(series.RSS, len(values), 1000, func(i int) float64 { return values[i] })))
		for _, x := range r.Trends {
			if trend.Grows(x.Verdict) {
				t.Errorf("%s: %s", name, x.Verdict)
			}
		}
	}
	turned := of(series.RSS, 400, 10_000, noisy(80e6, 100_000, 300_000, 6))
	straight := only(t, history(turned)).Verdict
	slices.Reverse(turned.Points)
	turned.Points = append(turned.Points, turned.Points[:200]...)
	h := history(turned)
	h.To = begin + 400*10_000
	if got := only(t, h).Verdict; got != straight {
		t.Errorf("backwards and half of it twice: %s, want %s", got, straight)
	}
}

// FuzzJudge looks for input that stops it.
func FuzzJudge(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, int64(1000), 1.0)
	f.Add([]byte{200, 0, 200, 0, 255, 255, 1}, int64(-5), 1e300)
	f.Fuzz(func(t *testing.T, data []byte, step int64, scale float64) {
		s := series.Series{Key: series.Key{Metric: series.Anonymous, Service: "s", Worker: "0"}}
		c := series.Series{Key: series.Key{Metric: series.CPU, Service: "s", Worker: "0"}}
		pid := series.Series{Key: series.Key{Metric: series.PID, Service: "s", Worker: "0"}}
		for i := range 40 * len(data) {
			b := data[i%len(data)]
			at := int64(i)*step + int64(b)
			s.Points = append(s.Points, series.Point{At: at, Value: float64(b) * scale * float64(i)})
			c.Points = append(c.Points, series.Point{At: at, Value: float64(i) * float64(b)})
			pid.Points = append(pid.Points, series.Point{At: at, Value: float64(b / 100)})
		}
		h := &trend.History{Service: "s", Series: []series.Series{s, c, pid}, From: math.MinInt64 / 4, To: math.MaxInt64 / 4}
		for _, x := range trend.Judge(h).Trends {
			if x.Verdict == "" || math.IsNaN(x.Strength) || x.PerHour != nil && math.IsNaN(*x.PerHour) {
				t.Errorf("%+v", x)
			}
		}
	})
}

// TestDetectors holds the list: names as rules have them, and an assumption
// each.
func TestDetectors(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range trend.Detectors {
		if !strings.HasPrefix(d.Name, "trend.") || seen[d.Name] || d.Doc == "" || d.Assumes == "" {
			t.Errorf("%+v", *d)
		}
		seen[d.Name] = true
	}
}

// TestWeekIsQuick judges a week of one service: 12 series of 60,480 points.
func TestWeekIsQuick(t *testing.T) {
	h := week()
	best := time.Hour
	for range 3 {
		start := time.Now()
		trend.Judge(h)
		best = min(best, time.Since(start))
	}
	t.Logf("a week of %d series: %v", len(h.Series), best)
	if best > time.Second {
		t.Errorf("a week of one service takes %v", best)
	}
}

func BenchmarkWeek(b *testing.B) {
	h := week()
	for b.Loop() {
		trend.Judge(h)
	}
}

func week() *trend.History {
	const n = 60_480
	var all []series.Series
	for i, m := range []series.Metric{series.Anonymous, series.RSS, series.Virtual, series.FDs, series.Threads, series.CPU, series.Received, series.Sent, series.Swap, series.Minor} {
		all = append(all, of(m, n, 10_000, noisy(80e6, float64(100*i), 300_000, uint64(i))))
	}
	for _, m := range []series.Metric{series.CgroupMemory, series.CgroupTasks} {
		s := of(m, n, 10_000, noisy(200e6, 50, 400_000, 9))
		s.Key.Worker = ""
		all = append(all, s)
	}
	return history(all...)
}
