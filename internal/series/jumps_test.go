package series

import (
	"math/rand/v2"
	"testing"
)

func TestJumps(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	const n = 600
	make := func(each func(i int) float64) []Point {
		var ps []Point
		v := 0.0
		for i := range n {
			v += each(i)
			ps = append(ps, Point{At: int64(i) * 1000, Value: v})
		}
		return ps
	}
	jump := func(i int) bool { return i > 0 && i%37 == 0 }
	for name, c := range map[string]struct {
		each func(int) float64
		want int
	}{
		"jumps alone": {func(i int) float64 {
			if jump(i) {
				return 1000
			}
			return 0
		}, n / 37},
		"jumps of several sizes in noise": {func(i int) float64 {
			noise := 4 * random.NormFloat64()
			if jump(i) {
				return noise + 300 + 900*random.Float64()
			}
			return noise
		}, n / 37},
		"steady growth":    {func(int) float64 { return 10 }, 0},
		"growth and noise": {func(int) float64 { return 10 + 20*random.NormFloat64() }, 0},
		"flat":             {func(int) float64 { return 0 }, 0},
		"two jumps": {func(i int) float64 {
			if i == 100 || i == 300 {
				return 50
			}
			return 0
		}, 0},
		"sawtooth": {func(i int) float64 {
			if i%20 == 19 {
				return -190
			}
			return 10
		}, 0},
	} {
		got := Jumps(make(c.each))
		if len(got) != c.want {
			t.Errorf("%s: %d jumps, want %d", name, len(got), c.want)
		}
		for _, p := range got {
			if c.want > 0 && !jump(int(p.At/1000)) {
				t.Errorf("%s: a jump at %d, where none is", name, p.At)
			}
		}
	}
	if Jumps(nil) != nil || Jumps([]Point{{1, 1}}) != nil {
		t.Error("jumps of nothing")
	}
}
