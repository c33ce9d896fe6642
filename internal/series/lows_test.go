package series

import "testing"

func TestLows(t *testing.T) {
	shapes := map[string]struct {
		value func(i int) float64
		rises bool
	}{
		"flat":             {func(int) float64 { return 7 }, false},
		"growing":          {func(i int) float64 { return float64(i) }, true},
		"sawtooth":         {func(i int) float64 { return float64(i % 500) }, false},
		"growing sawtooth": {func(i int) float64 { return float64(i/50 + 200*(i%500)) }, true},
		"falling":          {func(i int) float64 { return float64(-i) }, false},
		"filled":           {func(i int) float64 { return float64(min(i, 500)) }, false},
	}
	for name, c := range shapes {
		for _, ticks := range []int{2000, 10_000, 100_000} {
			var l Lows
			for i := range ticks {
				l.Add(Point{At: int64(i) * 10_000, Value: c.value(i)})
			}
			if got := l.Rise() > 0; got != c.rises {
				t.Errorf("%s for %d ticks: rises %v, want %v", name, ticks, got, c.rises)
			}
			if len(l.bins) > lowBins {
				t.Errorf("%s: %d stretches are kept", name, len(l.bins))
			}
		}
	}
	var l Lows
	if l.Rise() != 0 {
		t.Error("nothing rises")
	}
	l.Add(Point{At: 0, Value: 1})
	l.Add(Point{At: 1 << 50, Value: 2}) // after a very long pause
	l.Add(Point{At: 5, Value: 0})       // older: it belongs to what is past
	if len(l.bins) > lowBins {
		t.Errorf("%d stretches after a long pause", len(l.bins))
	}
}
