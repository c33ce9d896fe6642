// Package accuracy measures how often package trend is right: on the traces of
// package corpus and on recordings of real programs. It is test support.
//
// What the words mean, exactly:
//
//   - Positive is a trace whose judged series has a verdict that says that it
//     grows without end: growing, stepping, with load.
//   - Not decided is not positive. It lowers recall, and not precision.
//   - The signal to noise of a recording is estimated: see recorded.go.
//   - Precision is the part of all positives that leak. Recall is the part of
//     the leaks that are positive; it is asked of those whose signal is at least
//     four times their noise, as package corpus defines them.
package accuracy

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/trend"
	"stanch/internal/trend/corpus"
)

// Enough is the ratio of signal to noise from which on a leak must be found.
const Enough = 4

// tooLong is how long a judgement takes that is measured again.
const tooLong = 30 * time.Millisecond

// Outcome is what was said of one trace.
type Outcome struct {
	Trace    *corpus.Trace // without its series
	Real     bool
	SNR      float64
	Trend    leak.ReportTrend
	Positive bool
	// Predict and Regression say whether the two other methods would raise an
	// alarm: see rivals.go.
	Predict, Regression bool
	StepsHit, StepsAll  int           // true steps whose time was found within one sample
	Holds               *bool         // whether the interval of the slope holds the true one; nil where there is none, or too little signal
	Took                time.Duration // to judge
}

// Judge says what is concluded of a trace.
func Judge(t *corpus.Trace) Outcome {
	h := &trend.History{Service: "demo", Series: t.Series, Host: t.Host, From: t.From(), To: t.To()}
	begin := time.Now()
	r := trend.Judge(h)
	o := Outcome{SNR: t.SNR(), Took: time.Since(begin)}
	for range 3 {
		if o.Took < tooLong {
			break
		}
		begin = time.Now() // others may have had the processor
		trend.Judge(h)
		o.Took = min(o.Took, time.Since(begin))
	}
	for _, tr := range r.Trends {
		if tr.Metric == string(t.Metric) {
			o.Trend = tr
			o.Positive = trend.Grows(tr.Verdict)
		}
	}
	points := t.Series[0].Points
	o.Predict, o.Regression = predictLinear(points), regression(points)
	o.steps(t, r.Marks)
	if t.PerHour != 0 && t.SNR() >= Enough-1e-9 && o.Trend.PerHourLow != nil && o.Trend.PerHourHigh != nil && o.Positive {
		holds := *o.Trend.PerHourLow <= t.PerHour && t.PerHour <= *o.Trend.PerHourHigh
		o.Holds = &holds
	}
	bare := *t
	bare.Series, bare.Host = nil, nil
	o.Trace = &bare
	return o
}

// steps compares the marks with the true steps.
func (o *Outcome) steps(t *corpus.Trace, marks []leak.ReportMark) {
	if o.Trend.Verdict != leak.VerdictStepping {
		return
	}
	for _, at := range t.Steps {
		o.StepsAll++
		if slices.ContainsFunc(marks, func(m leak.ReportMark) bool {
			return m.Kind == leak.MarkStep && math.Abs(float64(m.At.UnixMilli()-at)) <= 1.05*float64(t.Interval.Milliseconds())
		}) {
			o.StepsHit++
		}
	}
}

// Job makes a trace, or nil.
type Job func() *corpus.Trace

// Run judges all, in the order of the jobs.
func Run(jobs []Job) []Outcome {
	out := make([]Outcome, len(jobs))
	made := make([]bool, len(jobs))
	var next sync.Mutex
	var wait sync.WaitGroup
	k := 0
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				next.Lock()
				i := k
				k++
				next.Unlock()
				if i >= len(jobs) {
					return
				}
				if t := jobs[i](); t != nil {
					out[i], made[i] = Judge(t), true
				}
			}
		})
	}
	wait.Wait()
	kept := out[:0]
	for i, o := range out {
		if made[i] {
			kept = append(kept, o)
		}
	}
	return kept
}

// Jobs are traces of all families in the shapes: of each, one for each seed
// and, of leaks, one ratio of signal to noise for each seed in turn.
func Jobs(shapes []corpus.Shape, seeds []uint64) (jobs []Job) {
	for _, s := range shapes {
		for i, f := range corpus.Families() {
			for k, seed := range seeds {
				snr := corpus.SNRs[(k*3+i)%len(corpus.SNRs)]
				jobs = append(jobs, func() *corpus.Trace { return corpus.Make(f, s, snr, seed) })
			}
		}
	}
	return jobs
}

// Score counts.
type Score struct {
	Traces, Leaks, Positives, True int
	Strong, Found                  int // leaks of enough signal, and of them positive
}

// Precision is the part of the positives that leak; 1 of none.
func (s Score) Precision() float64 { return part(s.True, s.Positives) }

// Recall is the part of the strong leaks that are positive; 1 of none.
func (s Score) Recall() float64 { return part(s.Found, s.Strong) }

func part(a, b int) float64 {
	if b == 0 {
		return 1
	}
	return float64(a) / float64(b)
}

// Count scores the outcomes by a method.
func Count(outs []Outcome, method func(*Outcome) bool) (s Score) {
	for i := range outs {
		o := &outs[i]
		positive := method(o)
		s.Traces++
		if positive {
			s.Positives++
		}
		if !o.Trace.Leak {
			continue
		}
		s.Leaks++
		if positive {
			s.True++
		}
		if o.SNR >= Enough-1e-9 {
			s.Strong++
			if positive {
				s.Found++
			}
		}
	}
	return s
}

// Stanch is the verdict of package trend, as a method.
func Stanch(o *Outcome) bool { return o.Positive }

// PredictLinear is Prometheus' predict_linear, as a method.
func PredictLinear(o *Outcome) bool { return o.Predict }

// Regression is a plain regression, as a method.
func Regression(o *Outcome) bool { return o.Regression }

func values(ps []series.Point) (x, y []float64) {
	for _, p := range ps {
		x, y = append(x, float64(p.At-ps[0].At)/3_600_000), append(y, p.Value)
	}
	return x, y
}
