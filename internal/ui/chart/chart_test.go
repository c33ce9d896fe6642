package chart

import (
	"math"
	"slices"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ui/example"
)

func TestOrdered(t *testing.T) {
	s := &example.Reports()["descriptors"].Services[0]
	var got []string
	for _, c := range Ordered(s) {
		got = append(got, c.Title)
	}
	want := []string{"descriptors", "TCP sockets CLOSE_WAIT", "CPU time per second", "resident memory"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s = &example.Reports()["steps"].Services[0]
	all := Ordered(s)
	if low, high := Extent(all[len(all)-1]); low != high {
		t.Errorf("%s comes last, want what never changes", all[len(all)-1].Title)
	}
}

// TestLines breaks lines where the process was another or the host slept.
func TestLines(t *testing.T) {
	s := &example.Reports()["steps"].Services[0]
	if n := len(Lines(s, &s.Charts[0])); n != 4 {
		t.Errorf("%d lines, want 4: two restarts and a sleep", n)
	}
	points := 0
	for _, l := range Lines(s, &s.Charts[0]) {
		points += len(l)
	}
	if points != len(s.Charts[0].Points) {
		t.Errorf("%d points of %d", points, len(s.Charts[0].Points))
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		low, high, limit float64
		want             Axis
	}{
		{0, 90, 0, Axis{Low: 0, High: 100, Step: 50}},
		{951, 1013, 1024, Axis{Low: 950, High: 1050, Step: 50, Limit: true}},
		{951, 1013, 65536, Axis{Low: 940, High: 1020, Step: 20}},
		{12, 12, 0, Axis{Low: 0, High: 15, Step: 5}},
		{0, 0, 0, Axis{Low: 0, High: 1, Step: 1}},
		{1e9, 1.2e9, 8e9, Axis{Low: 1e9, High: 1.2e9, Step: 50e6}},
	} {
		chart := &leak.ReportChart{Points: [][2]float64{{0, c.low}, {1, c.high}}}
		if c.limit > 0 {
			chart.Limit = &c.limit
		}
		if got := Values(&leak.ReportService{}, chart, 4); math.Abs(got.Low-c.want.Low) > 1e-6 || math.Abs(got.High-c.want.High) > 1e-6 || got.Step != c.want.Step || got.Limit != c.want.Limit {
			t.Errorf("%v to %v, limit %v: %+v, want %+v", c.low, c.high, c.limit, got, c.want)
		}
	}
}

// TestTimes counts moments of the clock on the wall, also on the days on which
// clocks are turned.
func TestTimes(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to time.Time
		most     int
		want     []string
	}{
		{time.Date(2026, 11, 20, 3, 12, 40, 0, time.UTC), time.Date(2026, 11, 21, 3, 12, 40, 0, time.UTC), 5, []string{"06:00", "12:00", "18:00", "21 Nov"}},
		{time.Date(2026, 10, 24, 20, 0, 0, 0, berlin), time.Date(2026, 10, 25, 13, 0, 0, 0, berlin), 5, []string{"25 Oct", "06:00", "12:00"}},
		{time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC), time.Date(2026, 11, 20, 3, 0, 20, 0, time.UTC), 5, []string{"03:00:00", "03:00:05", "03:00:10", "03:00:15", "03:00:20"}},
		{time.Date(2026, 11, 1, 3, 0, 0, 0, time.UTC), time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC), 5, []string{"8 Nov", "15 Nov", "22 Nov", "29 Nov"}},
	} {
		var got []string
		for _, tick := range Times(unix(c.from), unix(c.to), c.from.Location(), c.most) {
			got = append(got, tick.Label)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v to %v: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

func TestLabel(t *testing.T) {
	for _, c := range []struct {
		v     float64
		bytes bool
		want  string
	}{{0, true, "0"}, {0, false, "0"}, {1024, false, "1,024"}, {-12, false, "-12"}, {0.0312, false, "0.0312"}, {0.1 + 0.2, false, "0.3"}, {1234.5, false, "1,235"}, {1.5e9, true, "1.5 GB"}} {
		if got := Label(c.v, c.bytes); got != c.want {
			t.Errorf("%v: %s, want %s", c.v, got, c.want)
		}
	}
}

// TestNeverEmpty holds for whatever a report may say.
func TestNeverEmpty(t *testing.T) {
	for name, r := range example.Reports() {
		for i := range r.Services {
			s := &r.Services[i]
			if from, to := Span(s); from >= to {
				t.Errorf("%s: from %v to %v", name, from, to)
			}
			for _, c := range Ordered(s) {
				if a := Values(s, c, 4); a.Low >= a.High || a.Step <= 0 {
					t.Errorf("%s: %+v", name, a)
				}
			}
		}
	}
}

// TestValuesEnd counts from the low end of a scale to the high one, as whoever
// draws it does, for values that differ by less than a step can, and for the
// largest there are.
func TestValuesEnd(t *testing.T) {
	for _, c := range [][2]float64{
		{1 << 63, 1<<63 + 1<<11}, // the next number there is
		{1e18, 1e18 + 1024},
		{-1e18 - 1024, -1e18},
		{-math.MaxFloat64, math.MaxFloat64},
		{-1, 1},
		{0, math.MaxFloat64},
		{0, math.SmallestNonzeroFloat64},
	} {
		for _, steps := range []int{0, 1, 2, 4, 10} {
			a := Values(&leak.ReportService{}, &leak.ReportChart{Bytes: true, Points: [][2]float64{{0, c[0]}, {1, c[1]}}}, steps)
			n := 0
			for v := a.Low; v <= a.High+a.Step/2 && n < 100; v += a.Step {
				n++
			}
			if n > max(steps, 2)+1 {
				t.Errorf("%v to %v in %d steps: %+v has %d numbers or more", c[0], c[1], steps, a, n)
			}
		}
	}
}

// TestUrgent puts the chart first of what runs out first, whatever the order of
// the metrics.
func TestUrgent(t *testing.T) {
	s := &leak.ReportService{}
	for _, m := range []string{"memory", "threads", "descriptors"} {
		s.Charts = append(s.Charts, leak.ReportChart{Metric: m, Title: m, Points: [][2]float64{{0, 1}, {1, 2}}})
	}
	for _, m := range []string{"descriptors", "memory"} {
		s.Trends = append(s.Trends, leak.ReportTrend{Metric: m, Verdict: leak.VerdictGrowing})
	}
	var got []string
	for _, c := range Ordered(s) {
		got = append(got, c.Title)
	}
	if want := []string{"descriptors", "memory", "threads"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestStill says "all the time" and "always" of nothing that was measured once.
func TestStill(t *testing.T) {
	s := &leak.ReportService{To: time.Unix(3600, 0).UTC()}
	var charts []*leak.ReportChart
	for _, c := range []leak.ReportChart{
		{Title: "threads", Points: [][2]float64{{0, 4}, {10, 4}}},
		{Title: "zombies", Points: [][2]float64{{0, 0}, {10, 0}}},
		{Title: "proportional memory", Bytes: true, Points: [][2]float64{{10, 6.5e6}}},
		{Title: "swapped memory", Bytes: true, Points: [][2]float64{{10, 0}}},
	} {
		charts = append(charts, &c)
	}
	want := []string{"threads: 4 all the time", "always 0: zombies", "proportional memory: 6.5 MB at 1 Jan 00:00:10, measured once", "swapped memory: 0 at 1 Jan 00:00:10, measured once"}
	if got := Still(s, charts); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
