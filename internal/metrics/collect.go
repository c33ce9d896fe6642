package metrics

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"stanch/internal/series"
)

// scrapesAtOnce is how many are answered at a time: a second Prometheus, and a
// person beside them. More are told to come again.
const scrapesAtOnce = 4

// Handler answers scrapes: the text format or OpenMetrics, compressed when the
// client takes it. Where there are more series than Options.MaxSeries, whole
// metrics are left out, those of the host never and the rarely needed ones
// first, so that what is shown is there for every worker; how many are missing
// is stanch_series_left_out.
func (p *Page) Handler() http.Handler {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             30 * time.Second,
		// What can be said is said: one series that the registry refuses
		// must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// exposed is a metric as the registry knows it.
type exposed struct {
	info series.Info
	kind prometheus.ValueType
	desc map[int]*prometheus.Desc // by the number of labels in front of its own: 0, 1 or 2
	rank int                      // the smaller, the later it is left out
}

// shown are the metrics of the page.
var shown = exposeAll()

// first are kept before all others of processes, in this order.
var first = []series.Metric{series.RSS, series.FDs, series.Started, series.PID, series.FDLimit, series.Anonymous, series.Threads, series.CPU}

func exposeAll() map[series.Metric]exposed {
	all := map[series.Metric]exposed{}
	for i, info := range series.Metrics {
		if info.Metric == series.Log {
			continue
		}
		e := exposed{info: info, kind: prometheus.GaugeValue, desc: map[int]*prometheus.Desc{}, rank: len(series.Metrics) + i}
		if info.Total {
			e.kind = prometheus.CounterValue
		}
		if at := slices.Index(first, info.Metric); at >= 0 {
			e.rank = at
		}
		for n := range 3 {
			names := slices.Clone([]string{"service", "worker"}[:n])
			if info.Part != "" {
				names = append(names, info.Part)
			}
			e.desc[n] = prometheus.NewDesc(string(info.Metric), info.Help, names, nil)
		}
		all[info.Metric] = e
	}
	return all
}

// series makes the series of a value. An empty label is the same as none, so
// a service's cgroup has no label "worker" and the host neither.
func (e exposed) series(at place, part string, number float64) prometheus.Metric {
	labels := make([]string, 0, 3)
	switch {
	case at.worker != "":
		labels = append(labels, at.service, at.worker)
	case at.service != "":
		labels = append(labels, at.service)
	}
	desc := e.desc[len(labels)]
	if e.info.Part != "" {
		labels = append(labels, part)
	}
	return prometheus.MustNewConstMetric(desc, e.kind, number, labels...)
}

// unchecked hands the page's series to the registry. It describes none
// beforehand: which there are changes with every process.
type unchecked struct{ *Page }

// Describe says nothing, which makes the collector an unchecked one.
func (unchecked) Describe(chan<- *prometheus.Desc) {}

// Collect sends what the page shows now.
func (u unchecked) Collect(out chan<- prometheus.Metric) {
	for _, m := range u.collect() {
		out <- m
	}
}

// collect makes all series while the lock is held, and sends none: whoever
// reads them may be slow.
func (p *Page) collect() []prometheus.Metric {
	now := p.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	keep, left := p.within(p.options.MaxSeries)
	var all []prometheus.Metric
	for at, v := range p.places {
		for w, value := range v.of {
			if keep[w.metric] {
				all = append(all, shown[w.metric].series(at, w.part, value.number))
			}
		}
	}
	all = append(all, p.collectSuspects()...)
	return append(all, p.collectOwn(left)...)
}

// within chooses the metrics whose series together are at most limit, and
// counts the series of the others. The lock is held.
func (p *Page) within(limit int) (keep map[series.Metric]bool, left int) {
	type count struct {
		metric    series.Metric
		processes bool // it is said of workers
		n         int
	}
	counts := map[series.Metric]count{}
	for at, v := range p.places {
		for w := range v.of {
			c := counts[w.metric]
			counts[w.metric] = count{w.metric, c.processes || at.worker != "", c.n + 1}
		}
	}
	order := make([]count, 0, len(counts))
	for _, c := range counts {
		order = append(order, c)
	}
	slices.SortFunc(order, func(a, b count) int {
		if a.processes != b.processes { // the host and the cgroups are few
			if b.processes {
				return -1
			}
			return 1
		}
		return cmp.Compare(shown[a.metric].rank, shown[b.metric].rank)
	})
	keep = map[series.Metric]bool{}
	room := limit
	for _, c := range order {
		if c.n > room {
			left, room = left+c.n, 0
			continue
		}
		keep[c.metric] = true
		room -= c.n
	}
	return keep, left
}
