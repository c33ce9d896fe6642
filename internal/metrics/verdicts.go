package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"stanch/internal/leak"
)

// maxSuspects bounds the series of verdicts. Suspects are few; a host where
// thousands of workers grow at once has one cause, and the first show it.
const maxSuspects = 1000

// suspect is a trend that says that something grows without end.
type suspect struct {
	who                   who
	verdict, detector     string
	now, perHour          float64
	exhaustion, strength  float64
	limit                 string
	hasRate, hasExhausted bool
}

// who is the identity of a suspect. Its numbers have no other labels, so that
// they go on when the verdict changes.
type who struct{ service, worker, resource string }

var (
	whoLabels = []string{"service", "worker", "resource"}

	suspectDesc = prometheus.NewDesc("stanch_suspect",
		"1 for each resource of a worker, or of a service, that grows without end as far as was seen.", append(slices.Clip(whoLabels), "verdict", "detector"), nil)
	nowDesc = prometheus.NewDesc("stanch_suspect_value",
		"What a suspect holds now: bytes for memory and address space, else a number.", whoLabels, nil)
	rateDesc = prometheus.NewDesc("stanch_suspect_growth_per_hour",
		"By how much a suspect grows in an hour: bytes for memory and address space, else a number.", whoLabels, nil)
	exhaustionDesc = prometheus.NewDesc("stanch_suspect_exhaustion_seconds",
		"Time until a suspect meets its nearest limit if it goes on like this.", append(slices.Clip(whoLabels), "limit"), nil)
	strengthDesc = prometheus.NewDesc("stanch_suspect_strength",
		"Strength of the evidence, 0 to 1: 1 minus the chance that noise looks so.", whoLabels, nil)
	suspectsLeftDesc = prometheus.NewDesc("stanch_suspects_left_out",
		"Suspects that are not shown because there are too many.", nil, nil)
)

// Verdicts replaces what is concluded of all services; those that do not grow
// may be left out. Of the trends that say growth without end, the first of each resource of a worker is shown: a
// report has first what meets its limit first.
func (p *Page) Verdicts(services []leak.ReportService) {
	var suspects []suspect
	left := 0
	had := map[who]bool{}
	for _, s := range services {
		for _, t := range s.Trends {
			id := who{label(s.Name), label(t.Worker), label(t.Resource)}
			if !endless(t.Verdict) || had[id] {
				continue
			}
			had[id] = true
			if len(suspects) == maxSuspects {
				left++
				continue
			}
			suspects = append(suspects, newSuspect(id, t))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspects, p.leftOut = suspects, left
}

// endless reports whether a verdict says growth without end.
func endless(verdict string) bool {
	return verdict == leak.VerdictGrowing || verdict == leak.VerdictStepping || verdict == leak.VerdictWithLoad
}

func newSuspect(id who, t leak.ReportTrend) suspect {
	s := suspect{who: id, verdict: t.Verdict, now: t.Now, strength: t.Strength}
	if len(t.Detectors) > 0 {
		s.detector = label(t.Detectors[0])
	}
	if t.PerHour != nil {
		s.perHour, s.hasRate = *t.PerHour, true
	}
	if t.Exhaustion != nil {
		s.exhaustion, s.limit, s.hasExhausted = t.Exhaustion.InS, label(t.Exhaustion.Limit), true
	}
	return s
}

// collectSuspects makes the series of the verdicts. The lock is held.
func (p *Page) collectSuspects() []prometheus.Metric {
	var all []prometheus.Metric
	add := func(d *prometheus.Desc, v float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	for _, s := range p.suspects {
		who := []string{s.who.service, s.who.worker, s.who.resource}
		add(suspectDesc, 1, append(slices.Clip(who), s.verdict, s.detector)...)
		add(nowDesc, s.now, who...)
		add(strengthDesc, s.strength, who...)
		if s.hasRate {
			add(rateDesc, s.perHour, who...)
		}
		if s.hasExhausted {
			add(exhaustionDesc, s.exhaustion, append(slices.Clip(who), s.limit)...)
		}
	}
	add(suspectsLeftDesc, float64(p.leftOut))
	return all
}
