package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats are what a watch says of itself after each look at the host. All
// counts are since it began.
type Stats struct {
	Sweep   time.Duration // how long the look took
	Samples uint64        // values noted
	Store   StoreStats
	Remote  *RemoteStats // nil without remote write
}

// StoreStats are the numbers of the store of history.
type StoreStats struct {
	Series   uint64 // in memory
	Bytes    int64  // on disk
	Appended uint64 // samples that it took
	Dropped  uint64 // samples that it did not take: too old, twice, or of too many series
	Failed   uint64 // samples that were lost to errors, as a full disk
}

// RemoteStats are the numbers of remote write.
type RemoteStats struct {
	Pending int    // samples that wait
	Sent    uint64 // samples that the server took
	Dropped uint64 // samples that were given up
}

var (
	buildDesc    = prometheus.NewDesc("stanch_build_info", "1, with the version of stanch.", []string{"version", "goversion"}, nil)
	leftDesc     = prometheus.NewDesc("stanch_series_left_out", "Series that are not shown because there are too many.", nil, nil)
	sweepDesc    = prometheus.NewDesc("stanch_watch_sweep_seconds", "How long the last look at the host took.", nil, nil)
	sweptDesc    = prometheus.NewDesc("stanch_watch_last_sweep_timestamp_seconds", "When the last look at the host ended, Unix time.", nil, nil)
	sweepsDesc   = prometheus.NewDesc("stanch_watch_sweeps_total", "Looks at the host.", nil, nil)
	samplesDesc  = prometheus.NewDesc("stanch_watch_samples_total", "Values noted.", nil, nil)
	watchedDesc  = prometheus.NewDesc("stanch_watch_processes", "Processes of which values are shown.", nil, nil)
	storeDesc    = prometheus.NewDesc("stanch_store_series", "Series that the store has in memory.", nil, nil)
	bytesDesc    = prometheus.NewDesc("stanch_store_bytes", "Size of the store on disk.", nil, nil)
	appendedDesc = prometheus.NewDesc("stanch_store_samples_total", "Samples that the store took.", nil, nil)
	droppedDesc  = prometheus.NewDesc("stanch_store_dropped_samples_total", "Samples that the store did not take: too old, twice, or of too many series.", nil, nil)
	lostDesc     = prometheus.NewDesc("stanch_store_failed_samples_total", "Samples that the store lost to errors, as a full disk.", nil, nil)
	pendingDesc  = prometheus.NewDesc("stanch_remote_write_pending_samples", "Samples that wait to be sent.", nil, nil)
	sentDesc     = prometheus.NewDesc("stanch_remote_write_sent_samples_total", "Samples that the server took.", nil, nil)
	givenUpDesc  = prometheus.NewDesc("stanch_remote_write_dropped_samples_total", "Samples that were given up.", nil, nil)
)

// Watching replaces what the watch says of itself. It is called after each
// look at the host, and once it is not called any more the page says how long
// ago the last was: stanch_watch_last_sweep_timestamp_seconds.
func (p *Page) Watching(s Stats) {
	now := p.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats, p.swept = s, now
	p.sweeps++
}

// collectOwn makes the series of the watch itself; left is the number of
// series that are not shown. The lock is held.
func (p *Page) collectOwn(left int) []prometheus.Metric {
	var all []prometheus.Metric
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	count := func(d *prometheus.Desc, v uint64) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v)))
	}
	gauge(buildDesc, 1, label(p.options.Version), runtime.Version())
	gauge(leftDesc, float64(left))
	processes := 0
	for at := range p.places {
		if at.worker != "" {
			processes++
		}
	}
	gauge(watchedDesc, float64(processes))
	count(sweepsDesc, p.sweeps)
	if p.sweeps == 0 {
		return all
	}
	s := p.stats
	gauge(sweepDesc, s.Sweep.Seconds())
	gauge(sweptDesc, float64(p.swept.UnixMilli())/1e3)
	count(samplesDesc, s.Samples)
	gauge(storeDesc, float64(s.Store.Series))
	gauge(bytesDesc, float64(s.Store.Bytes))
	count(appendedDesc, s.Store.Appended)
	count(droppedDesc, s.Store.Dropped)
	count(lostDesc, s.Store.Failed)
	if r := s.Remote; r != nil {
		gauge(pendingDesc, float64(r.Pending))
		count(sentDesc, r.Sent)
		count(givenUpDesc, r.Dropped)
	}
	return all
}
