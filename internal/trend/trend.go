// Package trend concludes from a service's history what grows without end,
// since when, how fast, and when it meets a limit. It is pure: a history in, a
// result out, no clock.
//
// A verdict that something grows is believed at night by people who are woken
// by it. So each detector first asks what else makes such a curve, and when the
// data does not tell, the verdict is "not decided", with the time that is
// missing.
package trend

import (
	"slices"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// History is what is known of one service in a window of time.
type History struct {
	Service  string
	Series   []series.Series // of all its workers and its cgroup
	Host     []series.Series // of the host: limits, load, clock jumps, sleeps
	From, To int64           // Unix ms; To is "now"
}

// Result is what is concluded.
type Result struct {
	Trends []leak.ReportTrend // in the order of Order
	Marks  []leak.ReportMark  // in order of time
}

// Detector looks for one way to behave.
type Detector struct {
	Name    string // it is forever: an alert, a metric label, a rule of a report
	Doc     string // one line
	Assumes string // what must hold for its verdicts to be right
	Run     func(*Pass)
}

// Detectors are all of them, in the order in which they are asked. The first
// that concludes ends the asking; one that does not may leave behind what it
// has understood: the life that is judged, steps, a rhythm, the load.
var Detectors = []*Detector{Restart, Step, Follow, Periodic, Warmup, Saturation, Load, Idle, Monotone}

// Judge concludes: a trend for each resource of each worker and of the cgroup
// (of the host, when h is of the host itself), and the marks.
func Judge(h *History) Result {
	b := newBooks(h)
	r := Result{Marks: b.marks()}
	for i := range resources {
		for _, worker := range b.workers {
			p := newPass(b, &resources[i], worker)
			if p == nil {
				continue
			}
			for _, d := range Detectors {
				p.detector = d
				if d.Run(p); p.trend.Verdict != "" {
					break
				}
			}
			p.finish()
			r.Trends = append(r.Trends, p.trend)
			r.Marks = append(r.Marks, p.marks...)
		}
	}
	slices.SortStableFunc(r.Trends, func(x, y leak.ReportTrend) int { return Order(&x, &y) })
	slices.SortStableFunc(r.Marks, func(x, y leak.ReportMark) int { return x.At.Compare(y.At) })
	return r
}

// conclude gives the verdict.
func (p *Pass) conclude(verdict string, evidence ...string) {
	p.trend.Verdict = verdict
	p.trend.Detectors = append([]string{p.detector.Name}, p.trend.Detectors...)
	p.trend.Evidence = append(evidence, p.trend.Evidence...)
}

// note leaves something behind that explains a later verdict.
func (p *Pass) note(evidence string) {
	p.trend.Detectors = append(p.trend.Detectors, p.detector.Name)
	p.trend.Evidence = append(p.trend.Evidence, evidence)
}
