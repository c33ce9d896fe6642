package metrics

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"stanch/internal/leak"
	"stanch/internal/series"
)

// clock is a time that only the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// scrape reads the page as text. No test may have a page that the registry
// refuses in part, so every line must be there and no error.
func scrape(t testing.TB, p *Page) string {
	t.Helper()
	if _, err := p.registry.Gather(); err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	p.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("status %d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// lines are those of the page that begin with one of the prefixes.
func lines(page string, prefixes ...string) string {
	var out strings.Builder
	for line := range strings.Lines(page) {
		for _, prefix := range prefixes {
			if strings.HasPrefix(line, prefix) {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

func sample(m series.Metric, service, worker, part string, v float64) series.Sample {
	return series.Sample{Key: series.Key{Metric: m, Service: service, Worker: worker, Part: part}, At: 1_800_000_000_000, Value: v}
}

func number(v float64) *float64 { return &v }

// services are verdicts of every sort.
func services() []leak.ReportService {
	return []leak.ReportService{
		{Name: "nginx.service", Trends: []leak.ReportTrend{
			{Metric: string(series.RSS), Resource: "memory", Worker: "1", Verdict: leak.VerdictGrowing, Now: 5e8, PerHour: number(1e6),
				Strength: 0.999, Exhaustion: &leak.Exhaustion{Limit: "cgroup memory.max", InS: 7200}, Detectors: []string{"trend.monotone"}},
			{Metric: string(series.Anonymous), Resource: "memory", Worker: "1", Verdict: leak.VerdictStepping, Now: 4e8, Detectors: []string{"trend.steps"}},
			{Metric: string(series.FDs), Resource: "descriptors", Worker: "1", Verdict: leak.VerdictSteady, Now: 12},
		}},
		{Name: "host", Trends: []leak.ReportTrend{
			{Metric: string(series.HostSlab), Resource: "memory", Verdict: leak.VerdictStepping, Now: 1e8, Strength: 0.97},
			{Metric: string(series.HostFiles), Resource: "descriptors", Verdict: leak.VerdictUnknown, NeedsS: number(600)},
		}},
	}
}

func TestPage(t *testing.T) {
	c := newClock()
	p := NewPage(Options{Version: "1.2", Now: c.now})
	p.Update([]series.Sample{
		sample(series.RSS, "nginx.service", "1", "", 1e6),
		sample(series.RSS, "nginx.service", "1", "", 2e6), // the newest of two
		sample(series.CPU, "nginx.service", "1", "", 1.5),
		sample(series.FDKinds, "nginx.service", "1", "socket", 7),
		sample(series.CgroupMemory, "nginx.service", "", "", 3e6),
		sample(series.HostAvailable, "", "", "", 4e9),
		sample(series.HostSockets, "", "", "tcp", 11),
		sample(series.Log, "nginx.service", "", "collecting from * failed", 1),
		sample("stanch_unheard_of", "nginx.service", "1", "", 1),
		sample(series.RSS, "bad\xff \"quoted\" \\ \n", "0", "", 1),
	})
	p.Verdicts(services())
	p.Watching(Stats{Sweep: 20 * time.Millisecond, Samples: 30, Store: StoreStats{Series: 10, Bytes: 4096, Appended: 29, Dropped: 1},
		Remote: &RemoteStats{Pending: 4, Sent: 26}})
	got := lines(scrape(t, p), "stanch_", "# TYPE stanch_process_cpu", "# HELP stanch_process_cpu")
	want := `# HELP stanch_process_cpu_seconds_total CPU time used, user and system, in seconds.
# TYPE stanch_process_cpu_seconds_total counter
stanch_build_info{goversion="` + runtime.Version() + `",version="1.2"} 1
stanch_cgroup_memory_bytes{service="nginx.service"} 3e+06
stanch_host_memory_available_bytes 4e+09
stanch_host_sockets{protocol="tcp"} 11
stanch_process_cpu_seconds_total{service="nginx.service",worker="1"} 1.5
stanch_process_open_fds_by_kind{kind="socket",service="nginx.service",worker="1"} 7
stanch_process_resident_memory_bytes{service="bad� \"quoted\" \\ \n",worker="0"} 1
stanch_process_resident_memory_bytes{service="nginx.service",worker="1"} 2e+06
stanch_remote_write_dropped_samples_total 0
stanch_remote_write_pending_samples 4
stanch_remote_write_sent_samples_total 26
stanch_series_left_out 0
stanch_store_bytes 4096
stanch_store_dropped_samples_total 1
stanch_store_failed_samples_total 0
stanch_store_samples_total 29
stanch_store_series 10
stanch_suspect{detector="",resource="memory",service="host",verdict="stepping",worker=""} 1
stanch_suspect{detector="trend.monotone",resource="memory",service="nginx.service",verdict="growing",worker="1"} 1
stanch_suspect_exhaustion_seconds{limit="cgroup memory.max",resource="memory",service="nginx.service",worker="1"} 7200
stanch_suspect_growth_per_hour{resource="memory",service="nginx.service",worker="1"} 1e+06
stanch_suspect_strength{resource="memory",service="host",worker=""} 0.97
stanch_suspect_strength{resource="memory",service="nginx.service",worker="1"} 0.999
stanch_suspect_value{resource="memory",service="host",worker=""} 1e+08
stanch_suspect_value{resource="memory",service="nginx.service",worker="1"} 5e+08
stanch_suspects_left_out 0
stanch_watch_last_sweep_timestamp_seconds 1.8e+09
stanch_watch_processes 2
stanch_watch_samples_total 30
stanch_watch_sweep_seconds 0.02
stanch_watch_sweeps_total 1
`
	if got := sorted(got); got != sorted(want) {
		t.Errorf("got\n%s\nwant\n%s", got, sorted(want))
	}
}

// sorted ignores the order of families and series, which is the registry's.
func sorted(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// TestExpiry: what is not said any more disappears; what is said at a slow
// pace stays while its worker does.
func TestExpiry(t *testing.T) {
	c := newClock()
	p := NewPage(Options{Now: c.now})
	both := []series.Sample{sample(series.RSS, "a", "0", "", 1), sample(series.Threads, "a", "0", "", 1), sample(series.PSS, "a", "0", "", 1)}
	p.Update(append(both, sample(series.RSS, "b", "0", "", 1), sample(series.PSS, "b", "0", "", 1)))
	expect := func(want string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(lines(scrape(t, p), "stanch_process_")) {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "stanch_process_"), "{")
			_, service, _ := strings.Cut(line, `service="`)
			got = append(got, service[:1]+" "+name)
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	expect("a proportional_memory_bytes, b proportional_memory_bytes, a resident_memory_bytes, b resident_memory_bytes, a threads")
	for range 6 {
		c.pass(time.Minute)
		p.Update(both[:1])
	}
	expect("a proportional_memory_bytes, a resident_memory_bytes")
	for range 60 {
		c.pass(time.Minute)
		p.Update(both[:1])
	}
	expect("a resident_memory_bytes")
	c.pass(6 * time.Minute) // nobody updates at all
	expect("")

	p.Update([]series.Sample{sample(series.RSS, "a", "0", "", 1), sample(series.RSS, "a", "1", "", 1), sample(series.Threads, "b", "0", "", 1)})
	p.Forget("a", "1")
	expect("a resident_memory_bytes, b threads")
	p.Forget("a", "")
	expect("b threads")
}

// crowd are the samples of n workers, 25 each.
func crowd(n int) []series.Sample {
	var all []series.Sample
	for i := range n {
		service := fmt.Sprintf("service-%d.service", i/4)
		for _, info := range series.Metrics[:19] {
			if info.Part == "" {
				all = append(all, sample(info.Metric, service, fmt.Sprint(i%4), "", float64(i)*1.5))
			}
		}
		for _, kind := range []string{"file", "socket", "pipe", "eventfd", "eventpoll", "other"} {
			all = append(all, sample(series.FDKinds, service, fmt.Sprint(i%4), kind, 3))
		}
		for _, state := range []string{"ESTABLISHED", "CLOSE_WAIT"} {
			all = append(all, sample(series.Sockets, service, fmt.Sprint(i%4), state, 2))
		}
	}
	return append(all, sample(series.HostAvailable, "", "", "", 1e9), sample(series.CgroupMemory, "service-0.service", "", "", 1))
}

// TestBound: whole metrics are left out, the host's and the most needed last.
func TestBound(t *testing.T) {
	all := crowd(100)
	p := NewPage(Options{MaxSeries: 450})
	p.Update(all)
	page := scrape(t, p)
	samples := lines(page, "stanch_process_", "stanch_host_", "stanch_cgroup_")
	got := strings.Count(samples, "\n")
	if got > 450 || got < 350 {
		t.Errorf("%d series", got)
	}
	for metric, n := range map[series.Metric]int{series.HostAvailable: 1, series.CgroupMemory: 1, series.RSS: 100, series.FDs: 100, series.Minor: 0} {
		if got := strings.Count(samples, string(metric)+"{") + strings.Count(samples, string(metric)+" "); got != n {
			t.Errorf("%d of %s, want %d", got, metric, n)
		}
	}
	if want := fmt.Sprintf("stanch_series_left_out %d\n", len(all)-got); !strings.Contains(page, want) {
		t.Errorf("got %s, want %s", lines(page, "stanch_series_left_out"), want)
	}

	var many []leak.ReportService
	for i := range maxSuspects + 7 {
		many = append(many, leak.ReportService{Name: fmt.Sprint(i), Trends: []leak.ReportTrend{{Resource: "memory", Verdict: leak.VerdictGrowing}}})
	}
	p.Verdicts(many)
	page = scrape(t, p)
	if n := strings.Count(page, "\nstanch_suspect{"); n != maxSuspects {
		t.Errorf("%d suspects", n)
	}
	if !strings.Contains(page, "stanch_suspects_left_out 7\n") {
		t.Error(lines(page, "stanch_suspects_left_out"))
	}
	p.Verdicts(nil)
	if page = scrape(t, p); strings.Contains(page, "stanch_suspect{") {
		t.Error("suspects stay after a round without any")
	}
}

// everything is a page that shows each metric there is.
func everything() *Page {
	p := NewPage(Options{Version: "1.2"})
	var all []series.Sample
	for _, info := range series.Metrics {
		part := ""
		if info.Part != "" {
			part = "part"
		}
		all = append(all, sample(info.Metric, "a.service", "0", part, 1))
	}
	p.Update(all)
	p.Verdicts(services())
	p.Watching(Stats{Remote: &RemoteStats{}})
	return p
}

// TestLint: names, units and helps are as Prometheus wants them, by the linter
// of its Go client and by Debian's promtool.
func TestLint(t *testing.T) {
	p := everything()
	problems, err := testutil.GatherAndLint(p.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	page := scrape(t, p)
	for _, info := range series.Metrics {
		if has := strings.Contains(page, "# HELP "+string(info.Metric)+" "+info.Help+"\n"); has != (info.Metric != series.Log) {
			t.Errorf("%s is on the page: %v", info.Metric, has)
		}
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestFormats: OpenMetrics for who asks for it, and compression.
func TestFormats(t *testing.T) {
	server := httptest.NewServer(everything().Handler())
	defer server.Close()
	get := func(accept, encoding string) (header http.Header, body string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v", resp.StatusCode, err)
		}
		return resp.Header, string(data)
	}
	header, body := get("application/openmetrics-text; version=1.0.0", "identity")
	if !strings.HasPrefix(header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("%s, ends in %q", header.Get("Content-Type"), body[max(0, len(body)-20):])
	}
	header, zipped := get("", "gzip")
	if header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("encoding %q", header.Get("Content-Encoding"))
	}
	r, err := gzip.NewReader(bytes.NewReader([]byte(zipped)))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || !strings.Contains(string(text), "stanch_suspect{") {
		t.Errorf("%v, %d bytes", err, len(text))
	}
}
