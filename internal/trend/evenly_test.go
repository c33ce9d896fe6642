package trend_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/trend"
)

// TestAnotherInterval holds that what is steady does not grow where the watch
// was begun anew with another interval, and that a leak is found all the same.
func TestAnotherInterval(t *testing.T) {
	for _, paces := range [][]int64{{1, 10}, {10, 1}, {10, 60}, {10, 300}, {1, 5, 20, 60}} {
		wrong := map[string]int{}
		for seed := range uint64(12) {
			r := rand.New(rand.NewPCG(seed, 33))
			leaks := seed%2 == 0
			s := series.Series{Key: series.Key{Metric: series.Anonymous, Service: "s", Worker: "0"}}
			for at := int64(0); at < 4*hour; {
				v := 80e6 + 2e6*r.NormFloat64()
				if leaks {
					v += 20e6 * float64(at) / (4 * hour)
				}
				s.Points = append(s.Points, series.Point{At: begin + at, Value: v})
				at += 1000 * paces[int(at)*len(paces)/(4*hour)]
			}
			if got := only(t, history(s)).Verdict; trend.Grows(got) != leaks {
				wrong[got]++
			}
			if gaps := marksOf(trend.Judge(history(s)), leak.MarkGap); len(gaps) > 0 {
				wrong[gaps[0].Text]++
			}
		}
		if len(wrong) > 0 {
			t.Errorf("intervals of %v seconds one after the other: %v", paces, wrong)
		}
	}
}

// TestAnotherIntervalThinned holds the same of a long window, of which the
// store gives the first, the lowest, the highest and the last point of each minute.
func TestAnotherIntervalThinned(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 32))
		s := series.Series{Key: series.Key{Metric: series.Anonymous, Service: "s", Worker: "0"}}
		for minute := range int64(20 * 60) {
			pace := int64(1)
			if minute >= 10*60 {
				pace = 10
			}
			var all []series.Point
			for at := int64(0); at < 60; at += pace {
				all = append(all, series.Point{At: begin + minute*60_000 + at*1000, Value: 80e6 + 2e6*r.NormFloat64()})
			}
			byValue := func(a, b series.Point) int { return cmp.Compare(a.Value, b.Value) }
			kept := []series.Point{all[0], slices.MinFunc(all, byValue), slices.MaxFunc(all, byValue), all[len(all)-1]}
			s.Points = append(s.Points, series.Clean(kept)...)
		}
		if got := only(t, history(s)); got.Verdict != leak.VerdictSteady {
			t.Errorf("seed %d: %s: %q", seed, got.Verdict, got.Evidence)
		}
	}
}
