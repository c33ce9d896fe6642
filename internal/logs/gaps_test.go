package logs

import (
	"math/rand/v2"
	"testing"
	"time"

	"stanch/internal/series"
)

func TestWithout(t *testing.T) {
	w := newWithout([]Gap{{50, 60}, {10, 20}, {15, 30}, {70, 70}})
	for _, c := range []struct {
		at, want int64
		ok       bool
	}{{0, 0, true}, {10, 10, true}, {11, 10, false}, {29, 10, false}, {30, 10, true}, {45, 25, true}, {55, 30, false}, {60, 30, true}, {100, 70, true}} {
		if got, ok := w.at(c.at); got != c.want || ok != c.ok {
			t.Errorf("%d is moved to %d, %v; want %d, %v", c.at, got, ok, c.want, c.ok)
		}
	}
}

// TestGaps has a line that is written all the time, and long times in which
// nobody read it: it is before each step, and causes none.
func TestGaps(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 9))
	gaps := []Gap{{From: 400_000, To: 900_000}, {From: 1_500_000, To: 2_400_000}}
	const end = 3_000_000
	unread := newWithout(gaps)
	template := func(name string) series.Series { return series.Series{Key: series.Key{Metric: series.Log, Part: name}} }
	always, cause := template("collected from * in * ms"), template("collecting from * failed")
	var steps []int64
	for at := int64(0); at < end; at += 500 {
		if _, ok := unread.at(at); !ok {
			continue
		}
		if random.Float64() < 0.06 {
			cause.Points = append(cause.Points, series.Point{At: at, Value: 1})
			steps = append(steps, at+300+random.Int64N(700))
			continue
		}
		always.Points = append(always.Points, series.Point{At: at, Value: 1})
	}
	found := Rank([]series.Series{always, cause}, steps, RankOptions{To: end, Sample: time.Second, Gaps: gaps})
	if len(found) != 1 || found[0].Template != cause.Key.Part {
		t.Errorf("claimed: %+v", found)
	}
}
