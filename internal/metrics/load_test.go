package metrics

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"
)

// raceEnabled says that the race detector runs: it is not held to times.
var raceEnabled bool

// TestTogether updates, concludes, forgets and scrapes at the same time.
func TestTogether(t *testing.T) {
	p := NewPage(Options{MaxSeries: 300})
	all := crowd(40)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 20 {
				p.Update(all)
				p.Verdicts(services())
				p.Watching(Stats{Samples: uint64(i)})
				p.Forget("service-1.service", "")
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			for range 20 {
				scrape(t, p)
			}
		})
	}
	wg.Wait()
}

// TestManyScrapes: 10,000 series are answered in well below 200 ms, and
// scraping does not make the program grow.
func TestManyScrapes(t *testing.T) {
	p := NewPage(Options{})
	all := crowd(400)[:DefaultMaxSeries]
	p.Update(all)
	h := p.Handler()
	once := func() time.Duration {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		req.Header.Set("Accept-Encoding", "gzip")
		start := time.Now()
		h.ServeHTTP(rec, req)
		return time.Since(start)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	fastest := time.Hour
	for range 5 {
		fastest = min(fastest, once())
	}
	before := heap()
	for range 12 {
		p.Update(all)
		fastest = min(fastest, once())
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("12 scrapes cost %d bytes for good", grown)
	}
	// The race detector makes it some ten times slower.
	if t.Logf("%d series in %v", len(all), fastest); fastest > 200*time.Millisecond && !raceEnabled {
		t.Errorf("%d series take %v", len(all), fastest)
	}
}
