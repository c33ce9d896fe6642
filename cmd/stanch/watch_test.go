package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
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
	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
)

// daemon is a running demo daemon with its log.
type daemon struct {
	pid     int
	log     string
	service string
	started time.Time
}

// startDaemon starts testdata/leaky/demo under a name with these arguments.
func startDaemon(tb testing.TB, name string, args ...string) daemon {
	tb.Helper()
	d := daemon{log: filepath.Join(tb.TempDir(), "demo.log"), started: time.Now()}
	args = append(args, "-l", d.log)
	exe := filepath.Join(tb.TempDir(), name)
	if err := os.Link(fixture.Build(tb, "demo", "-O2"), exe); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	d.pid = cmd.Process.Pid
	d.service = strings.Join(append([]string{name}, args...), " ")
	return d
}

// grown writes an hour of history in which the daemon grew by steps, each after
// a line of its log, and a healthy service beside it did not.
func grown(tb testing.TB, dir string, d daemon) {
	tb.Helper()
	store, err := tsdb.Open(dir, tsdb.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	const every, ticks = 10_000, 360
	from := time.Now().UnixMilli() - every*ticks
	anon := 3e6
	for i := range int64(ticks) {
		at := from + i*every
		var samples []series.Sample
		say := func(service string, m series.Metric, v float64) {
			samples = append(samples, series.Sample{Key: series.Key{Metric: m, Service: service, Worker: "0"}, At: at, Value: v})
		}
		line := func(before int64, template string) {
			samples = append(samples, series.Sample{Key: series.Key{Metric: series.Log, Part: template}, At: at - before, Value: 1})
		}
		line(int64(1000+100*random.IntN(50)), "collected from host* in * ms")
		if i%9 == 4 || i%13 == 7 {
			line(400, "collecting from host* failed: data truncated")
			anon += 2 << 20
		}
		for service, size := range map[string]float64{d.service: anon, "calm": 5e6} {
			say(service, series.Anonymous, size)
			say(service, series.RSS, size+2e6)
			say(service, series.FDs, 6)
			say(service, series.Threads, 1)
			say(service, series.PID, float64(d.pid))
			say(service, series.Started, float64(d.started.UnixMilli())/1000)
		}
		if err := store.Append(samples); err != nil {
			tb.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		tb.Fatal(err)
	}
}

// TestWatch goes the whole way of a leak: a watch finds the daemon's history,
// says that it grows, diagnoses it, answers suspects, /metrics and queries, and
// what it leaves behind answers once it has ended.
func TestWatch(t *testing.T) {
	privileged(t)
	t.Parallel()
	d := startDaemon(t, "demowatch", "-f", "0.4", "-k", "300")
	data := filepath.Join(t.TempDir(), "data")
	grown(t, data, d)
	address := freeAddress(t)
	w := begin(t, "watch", "--data", data, "--every", "500ms", "--judge-every", "1s", "--min-age", "0s", "--listen", address, "--log", d.log,
		"--diagnose-on", "leak", "--diagnose-for", "12s")
	w.await("memory: ")
	w.await("diagnosing demowatch")
	suspected(t, data, d)
	if page := get(t, "http://"+address+"/metrics"); !strings.Contains(page, "stanch_suspect{") || !strings.Contains(page, d.service) {
		t.Errorf("/metrics does not name the suspect:\n%.2000s", page)
	}
	var answer struct{ Status string }
	query := get(t, "http://"+address+"/api/v1/query?query="+url.QueryEscape(`count(stanch_process_resident_memory_bytes)`))
	if err := json.Unmarshal([]byte(query), &answer); err != nil || answer.Status != "success" {
		t.Errorf("a query answers %s, %v", query, err)
	}
	w.await("diagnose of pid " + strconv.Itoa(d.pid) + ": leak:")
	if reports, err := filepath.Glob(filepath.Join(data, "reports", "*.json")); err != nil || len(reports) != 1 {
		t.Errorf("reports of diagnoses: %q, %v; want one", reports, err)
	}
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.wait().wantCode(t, 0)
	if text := suspected(t, data, d); !strings.Contains(text, "no watch runs") {
		t.Errorf("nothing says that nobody watches any more:\n%s", text)
	}
}

// suspected asks suspects about all and about the daemon, in each format, and
// gives the text.
func suspected(t *testing.T, data string, d daemon) string {
	t.Helper()
	all := stanch(t, "suspects", "--data", data, "--format", "json", "--fail-on", "growth")
	all.wantCode(t, 3)
	r := all.report(t)
	if len(r.Findings) == 0 || !strings.Contains(r.Findings[0].Title, "memory of demo") {
		t.Errorf("the first finding is not the daemon's memory: %+v", r.Findings)
	}
	for _, f := range r.Findings {
		if strings.Contains(f.Title, "calm") {
			t.Errorf("a healthy service is suspected: %s", f.Title)
		}
	}
	one := stanch(t, "suspects", "--data", data, "--format", "json", strconv.Itoa(d.pid)).report(t)
	if len(one.Services) != 1 || one.Services[0].Name != d.service {
		t.Fatalf("by its PID: %d services", len(one.Services))
	}
	s := one.Services[0]
	if len(s.Logs) == 0 || s.Logs[0].Template != "collecting from host* failed: data truncated" {
		t.Errorf("the log line before the steps is not named: %+v", s.Logs)
	}
	if len(s.Charts) == 0 || len(s.Marks) == 0 || len(s.Trends) == 0 {
		t.Errorf("%d charts, %d marks, %d trends", len(s.Charts), len(s.Marks), len(s.Trends))
	}
	page := filepath.Join(t.TempDir(), "week.html")
	stanch(t, "suspects", "--data", data, "-o", page, "demowatch").wantCode(t, 0)
	if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "data truncated") {
		t.Errorf("the page lacks the log line: %d bytes, %v", len(html), err)
	}
	text := stanch(t, "suspects", "--data", data, "demowatch")
	text.wantCode(t, 0)
	for _, words := range []string{"GROWTH", "data truncated", "anonymous memory"} {
		if !strings.Contains(text.out, words) {
			t.Errorf("the text lacks %q:\n%s", words, text.out)
		}
	}
	return text.out
}

// TestWatchKilled kills a watch at 20 random moments. What it had taken a
// second before is there, and nothing is damaged.
func TestWatchKilled(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "demokilled", "-n", "1")
	data := filepath.Join(t.TempDir(), "data")
	random := rand.New(rand.NewPCG(11, uint64(os.Getpid())))
	const every = 100 * time.Millisecond
	type run struct{ from, to time.Time }
	var runs []run
	for range 20 {
		w := begin(t, "watch", "--data", data, "--every", every.String(), "--min-age", "0s", "--listen", "", strconv.Itoa(d.pid))
		w.await("watching")
		r := run{from: time.Now()}
		time.Sleep(time.Duration(200+random.IntN(900)) * time.Millisecond) // the moment
		r.to = time.Now()
		if o := w.kill(); o.code != -1 {
			t.Fatalf("the watch ended by itself: %d\n%s", o.code, o.err)
		}
		runs = append(runs, r)
	}
	store, err := tsdb.OpenReadOnly(data)
	if err != nil {
		t.Fatal(err)
	}
	all, err := store.Select(context.Background(), tsdb.Match{Service: d.service, Metrics: []series.Metric{series.PID}}, 0, math.MaxInt64)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d series, %v", len(all), err)
	}
	for i, r := range runs {
		// What was taken in the last moments may be lost.
		to := r.to.Add(-time.Second)
		long := to.Sub(r.from)
		if long < 4*every {
			continue
		}
		kept := all[0].Between(r.from.UnixMilli(), to.UnixMilli()).Points
		if want := int(long/every) / 2; len(kept) < want {
			t.Errorf("run %d: %d points of %v are kept, want %d at least", i, len(kept), long, want)
		}
	}
	for i := 1; i < len(all[0].Points); i++ {
		if p := all[0].Points[i]; int(p.Value) != d.pid || p.At <= all[0].Points[i-1].At {
			t.Fatalf("point %d is %v after %v", i, p, all[0].Points[i-1])
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	stanch(t, "suspects", "--data", data, "demokilled").wantCode(t, 0)
}

// TestSuspectsWithoutWatch looks itself, and says that this proves nothing.
func TestSuspectsWithoutWatch(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "demoquick", "-f", "0.2", "-k", "4000")
	o := beginAs(t, alone, "suspects", "--for", "5s", "--format", "json", strconv.Itoa(d.pid)).wait()
	o.wantCode(t, 0)
	r := o.report(t)
	if len(r.Services) != 1 || r.Services[0].Name != d.service {
		t.Fatalf("%+v", r.Services)
	}
	for _, trend := range r.Services[0].Trends {
		if trend.Verdict != leak.VerdictUnknown || trend.NeedsS == nil {
			t.Errorf("%s is %s after five seconds", trend.Resource, trend.Verdict)
		}
	}
	if !strings.Contains(fmt.Sprint(r.Notes), "proves nothing") {
		t.Errorf("notes: %q", r.Notes)
	}
}

// alone gives a stanch places of its own, so that it finds no watch but those
// that it is told of.
func alone(cmd *exec.Cmd) {
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY=/nonexistent/run", "STATE_DIRECTORY=/nonexistent/state")
}
