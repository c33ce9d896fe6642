package series

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func near(a, b, within float64) bool { return math.Abs(a-b) <= within }

// TestMannKendall holds numbers that were reckoned by hand, and how often noise
// alone is called a trend.
func TestMannKendall(t *testing.T) {
	if k := MannKendall([]float64{1, 2, 3, 4, 5, 6}, 1); k.S != 15 || k.Tau != 1 || !near(k.P, 0.0043, 0.0001) {
		t.Errorf("six that rise: %+v", k)
	}
	if k := MannKendall([]float64{1, 1, 1, 1}, 1); k.S != 0 || k.P != 1 {
		t.Errorf("four that are equal: %+v", k)
	}
	if k := MannKendall([]float64{4, 3, 2, 1, 0}, 1); k.S != -10 || k.P < 0.98 {
		t.Errorf("five that fall: %+v", k)
	}
	r := rand.New(rand.NewPCG(1, 2))
	low := 0
	for range 2000 {
		v := make([]float64, 30)
		for i := range v {
			v[i] = r.NormFloat64()
		}
		if MannKendall(v, 1).P < 0.05 {
			low++
		}
	}
	if low < 60 || low > 140 {
		t.Errorf("p < 0.05 in %d of 2000 tries of noise, want about 100", low)
	}
}

func TestTheilSen(t *testing.T) {
	var x, y []float64
	for i := range 40 {
		x, y = append(x, float64(i)), append(y, 7+3*float64(i))
	}
	for i := range 10 {
		y[4*i] += 1000 * float64(i%3-1)
	}
	if l := TheilSen(x, y); !near(l.Slope, 3, 1e-9) || !near(l.Intercept, 7, 1e-9) {
		t.Errorf("a line with every fourth value anywhere: %g + %g x", l.Intercept, l.Slope)
	}
	if l := TheilSen([]float64{1, 1}, []float64{1, 5}); l.Slope != 0 || len(l.Residuals) != 2 {
		t.Errorf("two values at one place: %+v", l)
	}
	if l := LeastSquares([]float64{0, 1, 2, 3}, []float64{1, 3, 4, 6}); !near(l.Slope, 1.6, 1e-9) || !near(l.Intercept, 1.1, 1e-9) {
		t.Errorf("least squares: %+v", l)
	}
}

// TestPersistence holds that the correction makes up for the line that was
// taken away.
func TestPersistence(t *testing.T) {
	for _, keep := range []float64{0, 0.5, 0.8} {
		sum := 0.0
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 3))
			x, y := make([]float64, 48), make([]float64, 48)
			v := 0.0
			for i := range y {
				v = keep*v + math.Sqrt(1-keep*keep)*r.NormFloat64()
				x[i], y[i] = float64(i), v
			}
			sum += Persistence(LeastSquares(x, y).Residuals, true)
		}
		if got := sum / 200; !near(got, keep, 0.05) {
			t.Errorf("persistence %g is estimated as %.3f", keep, got)
		}
	}
	if Inflation(0) != 1 || Inflation(-1) != 1 || Inflation(0.5) != 3 {
		t.Error("inflation is wrong")
	}
}

func TestSteps(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	at := map[int]float64{100: 50, 300: -30, 420: 80, 777: 25}
	var ps []Point
	level := 1000.0
	for i := range 1000 {
		level += at[i] + 0.3
		ps = append(ps, Point{At: int64(1000 * i), Value: level + r.NormFloat64()})
	}
	steps := Steps(ps, 1)
	if len(steps) != len(at) {
		t.Fatalf("%d steps, want %d: %v", len(steps), len(at), steps)
	}
	for _, s := range steps {
		if size := at[int(s.At/1000)]; size == 0 || !near(s.Size, size, 4) || s.Before != s.At-1000 {
			t.Errorf("step %+v, want %g", s, size)
		}
	}
	if s := Steps(append(slices.Clone(ps[:200]), ps[400:]...), 1); slices.ContainsFunc(s, func(s Step) bool { return s.At == 400_000 }) {
		t.Error("a change over a gap is a step")
	}
	for i := range ps {
		ps[i].Value = float64(i) * 1e6
	}
	if s := Steps(ps, 1); len(s) != 0 {
		t.Errorf("a steep slope has steps: %v", s)
	}
}

// TestStepsOfThinned finds the steps of what the store has thinned out to the
// first, the last and the extremes of each minute, as for long windows.
func TestStepsOfThinned(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	var ps, minute []Point
	level, steps, next := 20.0, 0, 100
	for i := range 24 * 360 {
		if i == next {
			level, steps, next = level+1, steps+1, i+20+r.IntN(40)
		}
		p := Point{At: int64(10_000 * i), Value: level}
		if len(minute) > 0 && p.At/60_000 != minute[0].At/60_000 {
			byValue := func(a, b Point) int { return cmp.Compare(a.Value, b.Value) }
			kept := []Point{minute[0], slices.MinFunc(minute, byValue), slices.MaxFunc(minute, byValue), minute[len(minute)-1]}
			slices.SortFunc(kept, func(a, b Point) int { return cmp.Compare(a.At, b.At) })
			ps, minute = append(ps, slices.Compact(kept)...), nil
		}
		minute = append(minute, p)
	}
	if found := Steps(ps, 0.5); len(found) < steps*9/10 || len(found) > steps {
		t.Errorf("%d of %d steps are found", len(found), steps)
	}
}

func TestBestHinge(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	var x, y []float64
	for i := range 60 {
		x, y = append(x, float64(i)), append(y, 5*math.Min(float64(i), 25)+r.NormFloat64())
	}
	h, ok := BestHinge(x, y, 4)
	if !ok || h.At < 23 || h.At > 27 || !near(h.Before, 5, 0.1) || !near(h.After, 0, 3*h.AfterError) || h.T > -20 {
		t.Errorf("hinge %+v", h)
	}
	if _, ok := BestHinge(x[:5], y[:5], 3); ok {
		t.Error("five values have a hinge")
	}
	for i := range x {
		y[i] = 7 + 4096*x[i]
	}
	if h, ok := BestHinge(x, y, 4); !ok || h.T != 0 || h.Before != 4096 || h.After != 4096 {
		t.Errorf("a straight line is bent: %+v", h)
	}
	for i := range x {
		y[i] = 4096 * max(0, x[i]-30)
	}
	if h, ok := BestHinge(x, y, 4); !ok || h.T < 1e6 || h.At < 29 || h.At > 31 {
		t.Errorf("a bend without noise is not found: %+v", h)
	}
}

func TestFitColumns(t *testing.T) {
	ones, x, y := []float64{1, 1, 1, 1, 1}, []float64{0, 1, 2, 3, 4}, []float64{1, 3, 5, 7, 9}
	f, ok := FitColumns(y, ones, x)
	if !ok || !near(f.Coefficients[0], 1, 1e-9) || !near(f.Coefficients[1], 2, 1e-9) || f.Squares > 1e-18 {
		t.Errorf("fit %+v", f)
	}
	if _, ok := FitColumns(y, ones, x, x); ok {
		t.Error("a column twice is fitted")
	}
	if _, ok := FitColumns(y, ones, make([]float64, 5)); ok {
		t.Error("a column of zeros is fitted")
	}
}

func TestFindRhythm(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	var x, y, noise []float64
	for i := range 192 {
		x = append(x, float64(i)/8)
		y = append(y, 0.5*x[i]+4*math.Sin(2*math.Pi*x[i]/6.3)+r.NormFloat64())
		noise = append(noise, r.NormFloat64())
	}
	if got, ok := FindRhythm(x, y); !ok || !near(got.Period, 6.3, 0.2) || got.Share < 0.7 {
		t.Errorf("rhythm of %g, share %g", got.Period, got.Share)
	}
	if got, ok := FindRhythm(x, noise); ok {
		t.Errorf("noise has a rhythm of %g", got.Period)
	}
}

func TestWindows(t *testing.T) {
	var ps []Point
	for i := range 100 {
		ps = append(ps, Point{At: int64(i), Value: float64(i % 10)})
	}
	ws := Windows(ps, 10)
	if len(ws) != 10 {
		t.Fatalf("%d windows", len(ws))
	}
	for i, w := range ws {
		if w.Low != 0 || w.High != 9 || w.Mean != 4.5 || w.Count != 10 || w.LowAt != int64(10*i) || !near(w.Variance, 8.25, 1e-9) {
			t.Errorf("window %d: %+v", i, w)
		}
	}
	if Windows(nil, 3) != nil {
		t.Error("nothing has windows")
	}
}

func TestClean(t *testing.T) {
	odd := []Point{{3, 1}, {1, 1}, {2, math.NaN()}, {3, 2}, {2, math.Inf(1)}}
	if got := Clean(odd); !slices.Equal(got, []Point{{1, 1}, {3, 2}}) {
		t.Errorf("%v", got)
	}
	if odd[0].At != 3 {
		t.Error("the argument was changed")
	}
}
