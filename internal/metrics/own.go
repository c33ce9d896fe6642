package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats are what a watch says of itself. All counts are since it began.
type Stats struct {
	Sweep     time.Duration // how long the last look at the host took
	SweptAt   time.Time     // when it ended, wall time; zero before the first
	Sweeps    uint64
	Samples   uint64 // values noted
	Processes int    // watched now
	Denied    int    // of them, those of which some files may not be read
	Store     StoreStats
	Remote    RemoteStats
}

// StoreStats are the numbers of the store of history.
type StoreStats struct {
	Series int    // that have a value in the newest block
	Bytes  int64  // on disk
	Errors uint64 // writes that failed
}

// RemoteStats are the numbers of remote write. Without one they are zero and
// not shown.
type RemoteStats struct {
	Used    bool
	Pending int    // samples that wait
	Sent    uint64 // samples that the server took
	Failed  uint64 // samples that were given up
}

var (
	buildDesc    = prometheus.NewDesc("stanch_build_info", "1, with the version of stanch.", []string{"version", "goversion"}, nil)
	leftDesc     = prometheus.NewDesc("stanch_series_left_out", "Series that are not shown because there are too many.", nil, nil)
	sweepDesc    = prometheus.NewDesc("stanch_watch_sweep_seconds", "How long the last look at the host took.", nil, nil)
	sweptDesc    = prometheus.NewDesc("stanch_watch_last_sweep_timestamp_seconds", "When the last look at the host ended, Unix time.", nil, nil)
	sweepsDesc   = prometheus.NewDesc("stanch_watch_sweeps_total", "Looks at the host.", nil, nil)
	samplesDesc  = prometheus.NewDesc("stanch_watch_samples_total", "Values noted.", nil, nil)
	watchedDesc  = prometheus.NewDesc("stanch_watch_processes", "Processes that are watched.", nil, nil)
	deniedDesc   = prometheus.NewDesc("stanch_watch_processes_denied", "Watched processes of which some files may not be read.", nil, nil)
	storeDesc    = prometheus.NewDesc("stanch_store_series", "Series in the newest block of the store.", nil, nil)
	bytesDesc    = prometheus.NewDesc("stanch_store_bytes", "Size of the store on disk.", nil, nil)
	storeErrDesc = prometheus.NewDesc("stanch_store_errors_total", "Writes to the store that failed.", nil, nil)
	pendingDesc  = prometheus.NewDesc("stanch_remote_write_pending_samples", "Samples that wait to be sent.", nil, nil)
	sentDesc     = prometheus.NewDesc("stanch_remote_write_sent_samples_total", "Samples that the server took.", nil, nil)
	failedDesc   = prometheus.NewDesc("stanch_remote_write_failed_samples_total", "Samples that were given up.", nil, nil)
)

// Watching replaces what the watch says of itself.
func (p *Page) Watching(s Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats = s
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
	s := p.stats
	gauge(buildDesc, 1, label(p.options.Version), runtime.Version())
	gauge(leftDesc, float64(left))
	gauge(sweepDesc, s.Sweep.Seconds())
	if !s.SweptAt.IsZero() {
		gauge(sweptDesc, float64(s.SweptAt.UnixMilli())/1e3)
	}
	count(sweepsDesc, s.Sweeps)
	count(samplesDesc, s.Samples)
	gauge(watchedDesc, float64(s.Processes))
	gauge(deniedDesc, float64(s.Denied))
	gauge(storeDesc, float64(s.Store.Series))
	gauge(bytesDesc, float64(s.Store.Bytes))
	count(storeErrDesc, s.Store.Errors)
	if s.Remote.Used {
		gauge(pendingDesc, float64(s.Remote.Pending))
		count(sentDesc, s.Remote.Sent)
		count(failedDesc, s.Remote.Failed)
	}
	return all
}
