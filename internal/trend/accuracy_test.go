package trend_test

import (
	"path/filepath"
	"strings"
	"testing"

	"stanch/internal/series"
	"stanch/internal/trend/accuracy"
	"stanch/internal/trend/corpus"
)

// The seeds of the test are fixed, and none of them was used while the
// detectors were made. make accuracy runs more, and others.
var testSeeds = []uint64{1_000_003, 1_000_033, 1_000_037}

const (
	leastPrecision = 0.98
	leastRecall    = 0.95
)

func TestAccuracy(t *testing.T) {
	recorded, err := accuracy.Recorded(filepath.Join("..", "..", "testdata", "series", "real"))
	if err != nil {
		t.Fatal(err)
	}
	if len(recorded) == 0 {
		t.Error("no recordings of real programs")
	}
	outs := accuracy.Run(accuracy.Jobs(corpus.Shapes[:7], testSeeds))
	outs = append(outs, accuracy.Run(accuracy.Jobs(corpus.Shapes[7:], testSeeds[:1]))...)
	outs = append(outs, recorded...)
	s := accuracy.Count(outs, accuracy.Stanch)
	t.Logf("%d traces, %d leaks: precision %.4f, recall %.4f", s.Traces, s.Leaks, s.Precision(), s.Recall())
	if s.Precision() < leastPrecision || s.Recall() < leastRecall {
		var b strings.Builder
		accuracy.Print(&b, outs)
		t.Errorf("precision %.4f, want %g; recall %.4f, want %g\n%s", s.Precision(), leastPrecision, s.Recall(), leastRecall, &b)
	}
	for i := range outs {
		if tr := &outs[i].Trend; outs[i].Positive && tr.PerHourLow != nil && *tr.PerHourLow <= 0 {
			t.Errorf("%s: %s, with %g to %g an hour", outs[i].Trace.Name, tr.Verdict, *tr.PerHourLow, *tr.PerHourHigh)
		}
	}
	hit, all := 0, 0
	for i := range outs {
		hit, all = hit+outs[i].StepsHit, all+outs[i].StepsAll
	}
	if all < 100 || float64(hit) < 0.95*float64(all) {
		t.Errorf("%d of %d steps were found within one sample", hit, all)
	}
	// The other methods must not be better in both, or the work is in vain.
	for name, method := range map[string]func(*accuracy.Outcome) bool{"predict_linear": accuracy.PredictLinear, "regression": accuracy.Regression} {
		if r := accuracy.Count(outs, method); r.Precision() >= s.Precision() {
			t.Errorf("%s has a precision of %.3f", name, r.Precision())
		}
	}
}

// TestHours judges recordings of two hours that were made when the detectors
// were done: nothing healthy is called growing, and most leaks are found. What
// is missed says so: docs/ACCURACY.md lists it.
func TestHours(t *testing.T) {
	outs, err := accuracy.Recorded(filepath.Join("..", "..", "testdata", "series", "real", "hours"))
	if err != nil {
		t.Fatal(err)
	}
	s := accuracy.Count(outs, accuracy.Stanch)
	t.Logf("%d traces, %d leaks: precision %.4f, recall %.4f", s.Traces, s.Leaks, s.Precision(), s.Recall())
	if s.Leaks < 30 || s.Precision() < 1 || s.Recall() < 0.8 {
		t.Errorf("%d traces, %d leaks: precision %.4f, recall %.4f", s.Traces, s.Leaks, s.Precision(), s.Recall())
	}
}

// TestCorpusIsReproducible holds that a seed gives the same trace, and that
// signal and noise are what the trace says.
func TestCorpusIsReproducible(t *testing.T) {
	for _, f := range corpus.Families() {
		a, b := corpus.Make(f, corpus.Shapes[4], 6, 5), corpus.Make(f, corpus.Shapes[4], 6, 5)
		if a == nil {
			continue
		}
		if string(corpus.Text(a)) != string(corpus.Text(b)) {
			t.Errorf("%s: two traces of one seed differ", f.Name)
		}
		if other := corpus.Make(f, corpus.Shapes[4], 6, 6); string(corpus.Text(a)) == string(corpus.Text(other)) {
			t.Errorf("%s: two seeds give one trace", f.Name)
		}
		if f.Leak != (a.Signal > 0) {
			t.Errorf("%s: leak is %v, signal %g", f.Name, f.Leak, a.Signal)
		}
		back, err := accuracy.Parse(corpus.Text(a))
		if err != nil || len(back) != 1 || back[0].Leak != f.Leak || len(back[0].Series[0].Points) != len(a.Series[0].Points) {
			t.Errorf("%s: written and read it is %v, %v", f.Name, back, err)
		}
	}
}

// TestThinnedAlike holds that what the store gives of a long window, the first,
// the lowest, the highest and the last point of each minute, is judged as all
// its points are.
func TestThinnedAlike(t *testing.T) {
	traces, other := 0, 0
	for _, job := range accuracy.Jobs(corpus.Shapes[6:7], testSeeds[:1]) {
		whole := job()
		if whole == nil {
			continue
		}
		thin := *whole
		thin.Series = nil
		for _, s := range whole.Series {
			thin.Series = append(thin.Series, thinned(s))
		}
		if len(thin.Series[0].Points) > 3*len(whole.Series[0].Points)/4 {
			t.Errorf("%s: %d points of %d are left", thin.Name, len(thin.Series[0].Points), len(whole.Series[0].Points))
		}
		traces++
		if a, b := accuracy.Judge(whole), accuracy.Judge(&thin); a.Positive != b.Positive {
			other++
			t.Logf("%s: %s, thinned %s", thin.Name, a.Trend.Verdict, b.Trend.Verdict)
		}
	}
	if traces < 50 || other > 1 {
		t.Errorf("%d of %d traces are judged otherwise when they are thinned", other, traces)
	}
}

// thinned is what the store gives of a series with a step of a minute.
func thinned(s series.Series) series.Series {
	out := series.Series{Key: s.Key}
	for rest := s.Points; len(rest) > 0; {
		n := 1
		low, high := rest[0], rest[0]
		for ; n < len(rest) && rest[n].At/60_000 == rest[0].At/60_000; n++ {
			if rest[n].Value < low.Value {
				low = rest[n]
			}
			if rest[n].Value > high.Value {
				high = rest[n]
			}
		}
		out.Points = append(out.Points, series.Clean([]series.Point{rest[0], low, high, rest[n-1]})...)
		rest = rest[n:]
	}
	return out
}
