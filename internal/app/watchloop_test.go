package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/source/sampler"
)

// newTestWatch makes a watch of which nothing runs.
func newTestWatch(ctx context.Context, t *testing.T, data string) (*watch, *heard) {
	t.Helper()
	a := &app{std: Streams{Out: io.Discard, Err: io.Discard}, version: "test"}
	f := &watchFlags{data: data, every: 10 * time.Second, minAge: time.Minute, maxSize: 2 << 30, retention: 30 * 24 * time.Hour, diagnoseOn: "none", diagnoseFor: time.Minute}
	if err := f.verify(); err != nil {
		t.Fatal(err)
	}
	w, err := a.newWatch(ctx, "", f)
	if err != nil {
		t.Fatal(err)
	}
	out := &heard{}
	w.say = out.say
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w, out
}

// TestFullDiskIsSaidOnce: how much is free changes from tick to tick.
func TestFullDiskIsSaidOnce(t *testing.T) {
	w, out := newTestWatch(t.Context(), t, t.TempDir())
	for range 2 {
		for free := range 50 {
			w.kept(fmt.Errorf("the disk is full: %d.0 MB free: %w", free, tsdb.ErrFull))
		}
		w.kept(errors.New("input/output error"))
		w.kept(errors.New("input/output error"))
		for range 3 {
			w.kept(nil)
		}
	}
	want := []string{"the history is not written: the disk is full: 0.0 MB free: the disk is full", "the history is not written: input/output error", "the history is written again"}
	if !slices.Equal(out.list, append(want, want...)) {
		t.Errorf("it says %q", out.list)
	}
}

// TestPassingServices: of services that come and go under ever new names, as
// containers do, nothing is remembered but for an hour.
func TestPassingServices(t *testing.T) {
	w, _ := newTestWatch(t.Context(), t, t.TempDir())
	const every = 10_000
	now := int64(1_800_000_000_000)
	tick := func(names []string, ended ...sampler.Process) {
		now += every
		samples := []series.Sample{{Key: series.Key{Metric: series.HostAvailable}, At: now, Value: 4e9}}
		for _, name := range names {
			for m, v := range map[series.Metric]float64{series.PID: 1, series.Started: 1, series.RSS: 1e6, series.FDs: 3} {
				samples = append(samples, series.Sample{Key: series.Key{Metric: m, Service: name, Worker: "0"}, At: now, Value: v})
			}
			for _, m := range []series.Metric{series.CgroupMemory, series.CgroupTasks} {
				samples = append(samples, series.Sample{Key: series.Key{Metric: m, Service: name}, At: now, Value: 1})
			}
		}
		w.page.Update(samples)
		_, left := w.gone(samples, ended)
		w.jury.note(samples)
		w.jury.leave(left, now)
	}
	const stays = "nginx.service"
	for i := range 100 {
		name := fmt.Sprintf("docker/%012x", i)
		tick([]string{stays, name})
		tick([]string{stays}, sampler.Process{Service: name, Worker: "0"})
	}
	// One that is back within the hour keeps its lows.
	tick([]string{}, sampler.Process{Service: stays, Worker: "0"})
	began := w.jury.lows[series.Key{Metric: series.CgroupMemory, Service: stays}]
	for range 3700 / 10 {
		tick([]string{stays})
	}
	if w.jury.lows[series.Key{Metric: series.CgroupMemory, Service: stays}] != began {
		t.Error("the lows of a restarted service are forgotten")
	}
	tick([]string{stays}, sampler.Process{Service: "docker/none", Worker: "0"})
	if len(w.keys) != 3 || len(w.jury.lows) != 4 || len(w.jury.starts) != 1 || len(w.jury.services) > 2 || len(w.jury.gone) > 2 {
		t.Errorf("%d places with series, %d lows, %d starts, %d services, %d gone", len(w.keys), len(w.jury.lows), len(w.jury.starts), len(w.jury.services), len(w.jury.gone))
	}
}

// TestChangeWords: a line of the log says what grows, and of whom.
func TestChangeWords(t *testing.T) {
	perHour := 1164.0
	for _, test := range []struct {
		change change
		want   string
	}{
		{change{hostName, leak.ReportTrend{Metric: string(series.HostSockets), Resource: "sockets", Verdict: leak.VerdictGrowing, Now: 807, PerHour: &perHour}},
			"host sockets: growing, now 807, +1,164/h"},
		{change{"a.service", leak.ReportTrend{Metric: string(series.CgroupTasks), Resource: "tasks", Verdict: leak.VerdictGrowing, Now: 807, PerHour: &perHour}},
			"a.service tasks of the cgroup: growing, now 807, +1,164/h"},
		{change{"a.service", leak.ReportTrend{Metric: string(series.FDs), Resource: "descriptors", Worker: "0", PID: 4711, Verdict: leak.VerdictSteady}},
			"a.service[4711] descriptors: grows no longer (steady)"},
		{change{"a.service", leak.ReportTrend{Metric: string(series.FDs), Resource: "descriptors", Worker: "0", PID: 4711, Verdict: leak.VerdictUnknown}},
			"a.service[4711] descriptors: it is not sure any more that it grows"},
	} {
		if got := test.change.String(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// longHistory keeps a day of some processes that grow.
func longHistory(t *testing.T, processes int) (dir string, samples int) {
	t.Helper()
	dir = t.TempDir()
	store, err := tsdb.Open(dir, tsdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const every, ticks = 10_000, 8640
	from := time.Now().UnixMilli() - every*ticks
	for i := range int64(ticks) {
		var all []series.Sample
		for p := range processes {
			for _, m := range []series.Metric{series.PID, series.Started} {
				all = append(all, series.Sample{Key: series.Key{Metric: m, Service: "a.service", Worker: fmt.Sprint(p)}, At: from + i*every, Value: float64(i / 1000 * int64(p+1))})
			}
		}
		samples += len(all)
		if err := store.Append(all); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, samples
}

// TestResume: the places that an earlier watch gave are known by the last that
// was seen there; to learn that takes little of the memory of all that was kept.
func TestResume(t *testing.T) {
	const processes = 20
	dir, samples := longHistory(t, processes)
	w, _ := newTestWatch(t.Context(), t, dir)
	if len(w.host.Known) != processes {
		t.Fatalf("%d places are known, want %d", len(w.host.Known), processes)
	}
	for _, p := range w.host.Known {
		var worker int
		if _, err := fmt.Sscan(p.Worker, &worker); err != nil || p.ID.PID != 8*(worker+1) {
			t.Errorf("worker %s was PID %d last", p.Worker, p.ID.PID)
		}
	}
	w.host.Known = nil
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := w.resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(samples)*16/4 {
		t.Errorf("it took %d bytes, of %d samples of 16", took, samples)
	}
}

// TestEndedAtStart: a watch that is ended while it reads its history ends as at
// any other time.
func TestEndedAtStart(t *testing.T) {
	dir, _ := longHistory(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out heard
	a := &app{std: Streams{Out: io.Discard, Err: lines(out.say)}, version: "test"}
	f := &watchFlags{data: dir, every: time.Second, maxSize: 1 << 30, retention: time.Hour, diagnoseOn: "none", diagnoseFor: time.Minute}
	if err := f.verify(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(t.TempDir(), "run"))
	for _, word := range []string{"", fmt.Sprint(os.Getppid())} {
		if err := a.runWatch(ctx, word, f); err != nil {
			t.Errorf("of %q: %v; it says %q", word, err, out.list)
		}
	}
}

// TestListenUnix: a socket is its owner's alone, whatever the umask; a dead one
// is replaced, and one that answers is not.
func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", socketName)
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
	if _, err := listenUnix(path); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another stanch watch listens on") {
		t.Errorf("a second watch: %v", err)
	}
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false) // as if it was killed
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := listenUnix(path)
	if err != nil {
		t.Fatalf("the socket of a dead watch: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := listenUnix("/tmp/" + strings.Repeat("x", longestPath)); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a long path: %v", err)
	}
}

// TestSilentWatch: who asks a watch that is stopped learns it.
func TestSilentWatch(t *testing.T) {
	defer func(d time.Duration) { answerWithin = d }(answerWithin)
	answerWithin = 50 * time.Millisecond
	path := filepath.Join(t.TempDir(), socketName)
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // nobody came
	if _, err := ask(t.Context(), path, question{Since: time.Hour}); err == nil || !strings.Contains(err.Error(), "has not answered for 50ms") || errors.Is(err, errNoWatch) {
		t.Errorf("it says %v", err)
	}
}

// TestAnswersInTurn: of many questions at once one is worked on at a time, and
// who goes away meanwhile is forgotten.
func TestAnswersInTurn(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	h := answer(func(ctx context.Context, _ question) (*leak.Report, error) {
		select {
		case begun <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		<-end
		return &leak.Report{}, nil
	})
	get := func(ctx context.Context) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, reportPath+"?since=1h", nil))
		return rec
	}
	const questions = 8
	var asked sync.WaitGroup
	for range questions {
		asked.Go(func() {
			if rec := get(t.Context()); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "stanch.report/v1") {
				t.Errorf("status %d: %s", rec.Code, rec.Body)
			}
		})
	}
	<-begun
	left, leave := context.WithCancel(t.Context())
	leave()
	if rec := get(left); rec.Body.Len() > 0 { // else it waits for its turn forever
		t.Errorf("who left is told %q", rec.Body)
	}
	for n := range questions {
		select {
		case <-begun:
			t.Fatal("two are worked on at a time")
		case <-time.After(20 * time.Millisecond):
		}
		end <- struct{}{}
		if n < questions-1 {
			<-begun
		}
	}
	asked.Wait()
}

// TestLongQuery: a form that would fill the disk is refused.
func TestLongQuery(t *testing.T) {
	store, err := tsdb.Open(t.TempDir(), tsdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(queryAPI(store))
	defer server.Close()
	for n, want := range map[int]int{10: http.StatusOK, longestQuery: http.StatusBadRequest} {
		resp, err := http.Post(server.URL+"/api/v1/query", "application/x-www-form-urlencoded", strings.NewReader("query=1"+strings.Repeat("+", n)))
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%d bytes: %s", n, resp.Status)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// TestSayer: lines have the time unless the journal adds it, whatever variable
// was inherited.
func TestSayer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	a := &app{std: Streams{Err: file}}
	for _, stream := range []string{"", "8:12345", fmt.Sprintf("%d:%d", st.Dev, st.Ino)} {
		t.Setenv("JOURNAL_STREAM", stream)
		a.sayer()("grows")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(string(text), "\n"); len(got) != 4 || len(got[0]) != len("2006-01-02 15:04:05 grows") || len(got[1]) != len(got[0]) || got[2] != "grows" {
		t.Errorf("it writes %q", got)
	}
}
