// Package metrics is what other monitoring sees of a watch: a page of metrics
// to be scraped, the alert rules that go with it, and the server that shows the
// page. It holds the newest values and no history.
package metrics

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"stanch/internal/series"
)

// How long a value is shown after it was said last, as long as anything is
// said of its worker. What has a slower pace than the ticks stays longer.
// Prometheus itself looks back 5 min for the newest value.
const (
	keepTick = 5 * time.Minute
	keepSlow = time.Hour
)

// DefaultMaxSeries is the bound of a Page of which nothing else is said:
// Prometheus scrapes that many in a fraction of a second.
const DefaultMaxSeries = 10_000

// Options of a Page. The zero value is ready.
type Options struct {
	MaxSeries int              // most series of samples that are shown; 0 means DefaultMaxSeries
	Version   string           // of stanch, a label of stanch_build_info
	Now       func() time.Time // nil means time.Now
}

// Page is what /metrics shows: the newest value of each series, the verdicts,
// and what the watch costs. Its labels are a service, a worker and the metric's
// own one: never a PID, a path or a line of a log. All methods may be called
// from several goroutines.
//
// It remembers one value of each series that is said; which of them are shown
// is decided at a scrape, see [Page.Handler].
type Page struct {
	options  Options
	registry *prometheus.Registry

	mu       sync.Mutex
	places   map[place]*values
	suspects []suspect
	leftOut  int // suspects
	stats    Stats
	sweeps   uint64
	swept    time.Time // when stats came
}

// place is a worker of a service, or with no worker the service itself, or
// with no service the host.
type place struct{ service, worker string }

// values are the newest values of a place.
type values struct {
	seen time.Time // when the newest came
	of   map[what]value
}

type what struct {
	metric series.Metric
	part   string
}

type value struct {
	number float64
	seen   time.Time
}

// NewPage gives a page that shows stanch itself and nothing else yet.
func NewPage(o Options) *Page {
	if o.MaxSeries <= 0 {
		o.MaxSeries = DefaultMaxSeries
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Page{options: o, registry: prometheus.NewRegistry(), places: map[place]*values{}}
	p.registry.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
		unchecked{p},
	)
	return p
}

// Update notes the newest value of each series. A log's lines and metrics that
// are not in [series.Metrics] are not for this page. A value disappears 5 min
// after it was said last (1 h for those with a slower pace, if their worker is
// still there).
func (p *Page) Update(samples []series.Sample) {
	now := p.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range samples {
		if _, ok := shown[s.Key.Metric]; !ok {
			continue
		}
		at := place{label(s.Key.Service), label(s.Key.Worker)}
		v := p.places[at]
		if v == nil {
			v = &values{of: map[what]value{}}
			p.places[at] = v
		}
		v.seen = now
		v.of[what{s.Key.Metric, label(s.Key.Part)}] = value{s.Value, now}
	}
	p.expire(now)
}

// expire drops what was not said for too long. The lock is held.
func (p *Page) expire(now time.Time) {
	for at, v := range p.places {
		if now.Sub(v.seen) > keepTick {
			delete(p.places, at)
			continue
		}
		for w, value := range v.of {
			keep := keepTick
			if shown[w.metric].info.Slow {
				keep = keepSlow
			}
			if now.Sub(value.seen) > keep {
				delete(v.of, w)
			}
		}
	}
}

// Forget drops the values of a worker that is gone, or with worker "" of a
// service and all its workers, without waiting for them to age.
func (p *Page) Forget(service, worker string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	service, worker = label(service), label(worker)
	for at := range p.places {
		if at.service == service && (worker == "" || at.worker == worker) {
			delete(p.places, at)
		}
	}
}

// label makes a text that comes from a command line fit for a label, which
// must be UTF-8: one bad byte would fail the whole scrape.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
