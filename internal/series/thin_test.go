package series

import (
	"math"
	"testing"
)

func TestThin(t *testing.T) {
	var ps []Point
	for i := range int64(10_000) {
		ps = append(ps, Point{At: 10 * i, Value: math.Sin(float64(i) / 300)})
	}
	ps[4321].Value, ps[7001].Value = 9, -9
	got := Thin(ps, 500)
	if len(got) > 500 || len(got) < 300 {
		t.Errorf("%d points of 10,000 are left, want about 500", len(got))
	}
	seen := map[Point]bool{}
	for i, p := range got {
		seen[p] = true
		if i > 0 && p.At <= got[i-1].At {
			t.Fatalf("point %d is not later than the one before it", i)
		}
	}
	for _, i := range []int{0, 4321, 7001, 9999} {
		if !seen[ps[i]] {
			t.Errorf("point %d is gone: %v", i, ps[i])
		}
	}
	if few := ps[:7]; len(Thin(few, 500)) != 7 {
		t.Error("a few points are not kept as they are")
	}
	if same := []Point{{5, 1}, {5, 2}, {5, 3}, {5, 4}, {5, 5}, {5, 6}}; len(Thin(same, 4)) > 4 {
		t.Error("points of one time are not thinned")
	}
}

func TestRate(t *testing.T) {
	ps := []Point{{0, 100}, {1000, 110}, {2000, 120}, {3000, 5}, {4000, 25}, {5000, 45}}
	got := Rate(ps, 2000)
	if len(got) != 2 || got[0] != (Point{2000, 10}) || got[1] != (Point{5000, 20}) {
		t.Errorf("rates are %v", got)
	}
}

func TestBetween(t *testing.T) {
	s := Series{Points: []Point{{10, 1}, {20, 2}, {30, 3}}}
	for _, c := range []struct {
		from, to int64
		want     int
	}{{0, 100, 3}, {10, 30, 3}, {11, 29, 1}, {31, 40, 0}, {30, 10, 0}} {
		if got := s.Between(c.from, c.to); len(got.Points) != c.want {
			t.Errorf("between %d and %d: %v", c.from, c.to, got.Points)
		}
	}
}

// TestMetrics holds the table: no metric twice, names as Prometheus wants them.
func TestMetrics(t *testing.T) {
	seen := map[Metric]bool{}
	for _, m := range Metrics {
		if seen[m.Metric] {
			t.Errorf("%s is there twice", m.Metric)
		}
		seen[m.Metric] = true
		if m.Help == "" || m.Title == "" {
			t.Errorf("%s has no help or no title", m.Metric)
		}
		if got, ok := Describe(m.Metric); !ok || got != m {
			t.Errorf("%s is described as %v", m.Metric, got)
		}
	}
}
