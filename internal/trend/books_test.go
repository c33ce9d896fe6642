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
)

// ofHost makes a series of the host from that of a worker.
func ofHost(s series.Series) series.Series {
	s.Key = series.Key{Metric: s.Key.Metric}
	return s
}

func marksOf(r trend.Result, kind string) (out []leak.ReportMark) {
	for _, m := range r.Marks {
		if m.Kind == kind {
			out = append(out, m)
		}
	}
	return out
}

// TestWorkOfEarlierLives holds that what a process has done is not told of the
// one that comes after it.
func TestWorkOfEarlierLives(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	const life = 2160
	done, total := 0.0, []float64{}
	for i := range 2 * life {
		if i == life {
			done = 0
		}
		done += 4 * math.Pow(math.Sin(float64(i)/180), 2)
		total = append(total, done)
	}
	got := only(t, history(
		of(series.Anonymous, 2*life, 10_000, func(i int) float64 { return 80e6 + 10_000*total[i] + 200_000*r.NormFloat64() }),
		of(series.CPU, 2*life, 10_000, func(i int) float64 { return math.Round(100*total[i]) / 100 }),
		of(series.PID, 2*life, 10_000, func(i int) float64 { return float64(4711 + i/life) })))
	if got.Verdict != leak.VerdictWithLoad || got.PerUnit == nil || math.Abs(*got.PerUnit-10_000) > 500 {
		t.Errorf("verdict %q by %v: %v", got.Verdict, got.Detectors, got.Evidence)
	}
}

// TestClockSetBack holds that a leak is as fast as before while the stamps of
// its points go on at half the pace, until the clock has caught up.
func TestClockSetBack(t *testing.T) {
	const n, set, back = 2160, 1080, 3600
	r := rand.New(rand.NewPCG(22, 1))
	behind, at := 0.0, int64(begin)
	s := of(series.Anonymous, n, 10_000, func(i int) float64 { return 200e6 + 20_000*float64(i) + 2e6*r.NormFloat64() })
	jumps := series.Series{Key: series.Key{Metric: series.ClockJumps}}
	for i := range s.Points {
		if i == set {
			behind = back
			jumps.Points = []series.Point{{At: at, Value: -back}}
		}
		s.Points[i].At = at
		pace := 10.0 - min(behind, 5)
		behind -= 10 - pace
		at += int64(1000 * pace)
	}
	h := history(s)
	h.Host = []series.Series{jumps}
	result := trend.Judge(h)
	got := result.Trends[0]
	if got.Verdict != leak.VerdictGrowing || math.Abs(*got.PerHour-7.2e6) > 0.03*7.2e6 || *got.PerHourLow < 6.8e6 || *got.PerHourHigh > 7.6e6 {
		t.Errorf("%s, %g (%g to %g) an hour, want 7.2e6", got.Verdict, *got.PerHour, *got.PerHourLow, *got.PerHourHigh)
	}
	if gaps := marksOf(result, leak.MarkGap); len(gaps) > 0 {
		t.Errorf("gaps where there was none: %v", gaps)
	}
}

// TestMarkedByTheClock holds that steps are marked at the times that a clock
// showed, which was set or slept.
func TestMarkedByTheClock(t *testing.T) {
	const n, shift = 900, 600
	for _, lost := range []struct {
		metric  series.Metric
		seconds float64
	}{{series.Suspended, shift}, {series.ClockJumps, shift}, {series.ClockJumps, -shift}} {
		behind, at := 0.0, int64(begin)
		said := series.Series{Key: series.Key{Metric: lost.metric}}
		noise := noisy(50e6, 0, 30_000, 3)
		s := of(series.Anonymous, n, 10_000, func(i int) float64 { return noise(i) + 1.5e6*float64(i/60) })
		want := map[int64]bool{}
		for i := range s.Points {
			if i == 300 {
				at += int64(1000 * max(0, lost.seconds))
				behind = max(0, -lost.seconds)
				said.Points = []series.Point{{At: at, Value: lost.seconds}}
			}
			s.Points[i].At = at
			if i > 0 && i%60 == 0 {
				want[at] = true
			}
			pace := 10.0 - min(behind, 5)
			behind -= 10 - pace
			at += int64(1000 * pace)
		}
		h := history(s)
		h.Host = []series.Series{said}
		found := 0
		for _, m := range marksOf(trend.Judge(h), leak.MarkStep) {
			if !want[m.At.UnixMilli()] {
				t.Errorf("%s %g: a step at %v", lost.metric, lost.seconds, m.At)
			}
			found++
		}
		if found < len(want)-1 { // one may lie at the moment itself
			t.Errorf("%s %g: %d of %d steps", lost.metric, lost.seconds, found, len(want))
		}
	}
}

// TestClockSetUnwatched holds that a process whose start time is said anew,
// since the clock was set while nobody watched, was not restarted.
func TestClockSetUnwatched(t *testing.T) {
	for _, again := range []bool{false, true} {
		h := history(
			of(series.Anonymous, 720, 10_000, noisy(80e6, 0, 200_000, 5)),
			of(series.PID, 720, 10_000, func(int) float64 { return 4711 }),
			of(series.Started, 720, 10_000, func(i int) float64 { return begin/1000 - 86_400 + 120*float64(i/360) }),
			of(series.CPU, 720, 10_000, func(i int) float64 {
				if again {
					i %= 360
				}
				return float64(i) / 10
			}))
		want := 0
		if again {
			want = 1
		}
		if got := marksOf(trend.Judge(h), leak.MarkRestart); len(got) != want {
			t.Errorf("its CPU time begins anew: %v; restarts %v", again, got)
		}
	}
}

// TestTitles holds that a finding is a sentence.
func TestTitles(t *testing.T) {
	s := leak.ReportService{Name: "web", Trends: []leak.ReportTrend{
		{Resource: "descriptors", Verdict: leak.VerdictGrowing},
		{Resource: "address space", Verdict: leak.VerdictStepping, Bytes: true},
		{Resource: "tracked connections", Verdict: leak.VerdictWithLoad, Unit: "connection"},
		{Resource: "threads", Verdict: leak.VerdictSteady},
	}}
	var got []string
	for _, f := range trend.Findings([]leak.ReportService{s}, func(string, string) int { return 1 }) {
		got = append(got, f.Title)
	}
	if want := []string{"descriptors of web grow steadily", "address space of web grows by steps", "tracked connections of web grow with each connection"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestManyMoments holds that a report is not filled with moments, and a clock
// that is set each minute costs no time to speak of.
func TestManyMoments(t *testing.T) {
	const most = 200
	r := trend.Judge(history(of(series.FDs, 20_000, 10_000, func(i int) float64 { return float64(20 + i/12) })))
	if n := len(marksOf(r, leak.MarkStep)); n != most || r.Trends[0].Verdict != leak.VerdictStepping {
		t.Errorf("%d steps are marked, want %d: %+v", n, most, r.Trends[0])
	}
	for _, jump := range []float64{3, -3} {
		h := week()
		s := of(series.ClockJumps, 10_000, 60_000, func(int) float64 { return jump })
		h.Host = []series.Series{ofHost(s)}
		start := time.Now()
		r := trend.Judge(h)
		if n := len(marksOf(r, leak.MarkClock)); n != most {
			t.Errorf("%d clock jumps are marked, want %d", n, most)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("a week with 10,000 clock jumps takes %v", took)
		}
	}
}

// TestNotRunning tells a time in which a service did not run from one in which
// nobody watched.
func TestNotRunning(t *testing.T) {
	service := of(series.Anonymous, 720, 10_000, noisy(80e6, 0, 200_000, 5))
	service.Points = append(service.Points[:300:300], service.Points[400:]...)
	host := ofHost(of(series.HostAvailable, 720, 10_000, noisy(8e9, 0, 1e6, 6)))
	h := history(service)
	h.Host = []series.Series{host}
	if gaps := marksOf(trend.Judge(h), leak.MarkGap); len(gaps) != 0 {
		t.Errorf("the host was watched, and it says %q", gaps[0].Text)
	}
	host.Points = append(host.Points[:340:340], host.Points[370:]...)
	h.Host = []series.Series{host}
	if gaps := marksOf(trend.Judge(h), leak.MarkGap); len(gaps) != 1 || gaps[0].At.UnixMilli() != begin+339*10_000 || gaps[0].Size != 310 {
		t.Errorf("gaps %v, want one of 310 s", gaps)
	}
}

// TestThinned gives what the store says of long windows: the first, the last
// and the extremes of each minute. No minute of that is a gap.
func TestThinned(t *testing.T) {
	for hours := 13; hours <= 168; hours += 5 {
		for _, from := range []int{0, 1} {
			s := series.Series{Key: series.Key{Metric: series.RSS, Service: "s", Worker: "0"}}
			for i := from; i < 2*60*hours; i++ {
				s.Points = append(s.Points, series.Point{At: begin + int64(i/2)*60_000 + int64(i%2)*59_000, Value: 80e6})
			}
			if gaps := marksOf(trend.Judge(history(s)), leak.MarkGap); len(gaps) > 0 {
				t.Errorf("%d hours: %d gaps, the first %q", hours, len(gaps), gaps[0].Text)
			}
		}
	}
}

// TestSwapSaidLater holds that swap, which is said more seldom, does not seem
// to come when it is said first.
func TestSwapSaidLater(t *testing.T) {
	swap := of(series.Swap, 120, 60_000, func(int) float64 { return 500e6 })
	for i := range swap.Points {
		swap.Points[i].At += 8_000
	}
	r := rand.New(rand.NewPCG(23, 1))
	got := only(t, history(of(series.Anonymous, 720, 10_000, func(i int) float64 { return 80e6 + 20_000*float64(i) + 1e6*r.NormFloat64() }), swap))
	if got.Verdict != leak.VerdictGrowing || *got.PerHourHigh-*got.PerHourLow > 0.2**got.PerHour {
		t.Errorf("%s, %g to %g an hour, want 7.2e6", got.Verdict, *got.PerHourLow, *got.PerHourHigh)
	}
}

// TestStepUnseen holds that what rose while nobody watched, and neither before
// nor since, is not called growing, and that a leak is which has a gap.
func TestStepUnseen(t *testing.T) {
	for _, gap := range []int64{hour, 6 * hour} {
		for seed := range uint64(8) {
			for _, leaks := range []bool{false, true} {
				r := rand.New(rand.NewPCG(seed, 42))
				s := series.Series{Key: series.Key{Metric: series.Anonymous, Service: "s", Worker: "0"}}
				for at := int64(0); at < gap+hour; at += 10_000 {
					if at >= hour/2 && at < hour/2+gap {
						continue
					}
					v := 80e6 + 1e6*r.NormFloat64()
					switch {
					case leaks:
						v += 5e6 * float64(at) / hour
					case at > hour/2:
						v += 6e6
					}
					s.Points = append(s.Points, series.Point{At: begin + at, Value: v})
				}
				got := only(t, history(s))
				if trend.Grows(got.Verdict) != leaks || got.Verdict == leak.VerdictUnknown && !strings.Contains(got.Evidence[0], "while nobody was watching") {
					t.Errorf("gap of %d h, leak %v: %s: %q", gap/hour, leaks, got.Verdict, got.Evidence)
				}
			}
		}
	}
}

// TestSwappedOut holds that memory which goes to swap is not missing until swap
// is said again.
func TestSwappedOut(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 24))
		swapped := 0.0
		swap := series.Series{Key: series.Key{Metric: series.Swap, Service: "s", Worker: "0"}}
		memory := of(series.Anonymous, 2160, 10_000, func(i int) float64 {
			if r.IntN(150) == 0 {
				swapped += 50e6
			}
			if i%6 == 3 {
				swap.Points = append(swap.Points, series.Point{At: begin + int64(i)*10_000, Value: swapped})
			}
			return 800e6 + 10_000*float64(i) + 1e6*r.NormFloat64() - swapped
		})
		got := only(t, history(memory, swap))
		if got.Verdict != leak.VerdictGrowing || *got.PerHourLow > 3.6e6 || *got.PerHourHigh < 3.6e6 {
			t.Errorf("%s, want growing by 3.6 MB an hour: %q", got.Verdict, got.Evidence)
		}
	}
}
