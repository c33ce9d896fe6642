package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/fixture"
)

// TestPrometheus joins a watch with Debian's Prometheus in all three ways: it
// scrapes the page, it takes what the watch sends, and an alert of the printed
// rules fires on the daemon of the demo, with words that a person can use.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const every = "500ms"

	rules := filepath.Join(dir, "rules.yml")
	printed := stanch(t, "watch", "--print-rules", "--every", every)
	printed.wantCode(t, 0)
	writeFile(t, rules, printed.out)
	tool(t, "", "promtool", "check", "rules", "--lint-fatal", rules)

	page, server := freeAddress(t), freeAddress(t)
	config := filepath.Join(dir, "prometheus.yml")
	writeFile(t, config, fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: stanch
    static_configs: [{targets: [%q]}]
`, rules, page))
	tool(t, "", "promtool", "check", "config", config)
	prometheus(t, server, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.enable-remote-write-receiver")

	// Its descriptors climb to 400 and some within seconds.
	daemon := fixture.StartCmd(t, exec.Command("prlimit", "--nofile=450:450", fixture.Build(t, "collector", "-pthread"), "-s", "-r", "400"))
	watch := begin(t, "watch", "--data", filepath.Join(dir, "data"), "--listen", page, "--every", every, "--min-age", "0", "--judge-every", "5s",
		"--remote-write", "http://"+server+"/api/v1/write", pid(daemon))
	watch.await("watching")

	of := ""
	eventually(t, func() bool { of = place(get(t, "http://"+page+"/metrics"), pid(daemon)); return of != "" })
	for _, expr := range []string{
		`up{job="stanch"} == 1`,
		`stanch_build_info{job="stanch"}`,
		`stanch_process_open_fds{job="stanch",` + of + `}`,                     // scraped
		`count_over_time(stanch_process_open_fds{job="",` + of + `}[1m]) > 10`, // sent
		`stanch_host_memory_available_bytes{job=""}`,
		`stanch_process_pid{job="",` + of + `} == ` + pid(daemon),
		`ALERTS{alertname="StanchDescriptorsNearLimit",alertstate="firing",` + of + `}`,
	} {
		awaitQuery(t, watch, server, expr)
	}

	var targets struct {
		Active []struct{ Health, LastError, ScrapeURL string } `json:"activeTargets"`
	}
	ask(t, server, "/api/v1/targets", &targets)
	if len(targets.Active) != 1 || targets.Active[0].Health != "up" || targets.Active[0].LastError != "" {
		t.Errorf("targets: %+v", targets)
	}
	var fired struct {
		Alerts []struct{ Labels, Annotations map[string]string }
	}
	ask(t, server, "/api/v1/alerts", &fired)
	told := false
	for _, a := range fired.Alerts {
		text := fmt.Sprint(a.Annotations)
		if strings.Contains(text, "error expanding") || strings.Contains(text, "{{") {
			t.Errorf("%s: %s", a.Labels["alertname"], text)
		}
		told = told || strings.Contains(a.Annotations["next"], "stanch diagnose "+pid(daemon))
	}
	if !told {
		t.Errorf("no alert says to diagnose pid %s: %+v", pid(daemon), fired.Alerts)
	}

	text := get(t, "http://"+page+"/metrics")
	if out := tool(t, text, "promtool", "check", "metrics"); out != "" {
		t.Errorf("promtool check metrics: %s", out)
	}
	for _, line := range []string{"stanch_remote_write_dropped_samples_total 0\n", "stanch_store_failed_samples_total 0\n", "stanch_series_left_out 0\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("the page lacks %q", line)
		}
	}
	if err := watch.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	watch.wait().wantCode(t, 0)
	daemon.Quit()
}

// place gives the labels under which a page of metrics tells of a process; "" if
// it does not. The service may be shared: with the same program run by another
// test, or with all that a container runs, stanch too.
func place(page, pid string) string {
	for line := range strings.Lines(page) {
		labels, value, ok := strings.Cut(strings.TrimPrefix(line, "stanch_process_pid{"), "} ")
		if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); ok && err == nil && strconv.Itoa(int(n)) == pid {
			return labels
		}
	}
	return ""
}

// prometheus runs one at an address of loopback until the test ends.
func prometheus(t *testing.T, addr string, args ...string) {
	t.Helper()
	log := &strings.Builder{}
	cmd := exec.Command("prometheus", append(args, "--web.listen-address="+addr)...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("prometheus: %v\n%s", err, log)
		}
	})
	eventually(t, func() bool {
		resp, err := http.Get("http://" + addr + "/-/ready")
		if err != nil {
			return false // it does not listen yet
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// awaitQuery waits until a query has a result.
func awaitQuery(t *testing.T, watch *session, server, expr string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		var data struct{ Result []json.RawMessage }
		ask(t, server, "/api/v1/query?query="+url.QueryEscape(expr), &data)
		if len(data.Result) > 0 {
			return
		}
		if time.Now().After(deadline) || !watch.running() {
			var all struct{ Result json.RawMessage }
			ask(t, server, "/api/v1/query?query="+url.QueryEscape(`ALERTS or stanch_process_open_fds or stanch_process_max_fds or up`), &all)
			t.Fatalf("no result of %s\nthere are %s\nthe watch said %s", expr, all.Result, watch.stderr())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ask reads the data of an answer of Prometheus's API.
func ask(t *testing.T, server, path string, data any) {
	t.Helper()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal([]byte(get(t, "http://"+server+path)), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v, %+v", path, err, answer)
	}
	if err := json.Unmarshal(answer.Data, data); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// tool runs a program that must succeed, and gives what it says.
func tool(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// freeAddress is one of loopback that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
