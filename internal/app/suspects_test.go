package app

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/render"
	"stanch/internal/series"
)

// loopFile writes what a shell loop would have written in ten minutes.
func loopFile(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "%d %d\n", 50_000+i*300, 200_000+i*300)
	}
	path := filepath.Join(t.TempDir(), "memory.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFileSince reads all of a file, or as much of its end as is asked for.
func TestFileSince(t *testing.T) {
	path := loopFile(t)
	for _, c := range []struct {
		args []string
		want float64 // seconds
	}{
		{nil, 590},
		{[]string{"--since", "2m"}, 120},
		{[]string{"--since", "100h"}, 590},
	} {
		var out, errs bytes.Buffer
		args := append([]string{"suspects", "--from", path, "--format", "json"}, c.args...)
		if code := Main(context.Background(), Streams{Out: &out, Err: &errs}, "test", args); code != ExitOK {
			t.Fatalf("%q: exit code %d: %s", c.args, code, errs.String())
		}
		r := report(t, &out)
		if got := r.Observed.DurationS; got != c.want {
			t.Errorf("%q: %v s of the file, want %v", c.args, got, c.want)
		}
	}
}

// TestSuspectsNumbers ends also where numbers are so large that one step of an
// axis would not change them, and where a file is of more years than there are
// nanoseconds for.
func TestSuspectsNumbers(t *testing.T) {
	for _, text := range []string{
		"9007199254740992 1\n9007199254740994 1\n",
		"1971-01-01 00:00:00 5000 6000\n9999-01-01 00:00:00 5300 6100\n",
	} {
		path := filepath.Join(t.TempDir(), "huge.txt")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"text", "json", "html"} {
			var out, errs bytes.Buffer
			if code := Main(context.Background(), Streams{Out: &out, Err: &errs}, "test", []string{"suspects", "--from", path, "--format", format}); code != ExitOK {
				t.Errorf("%s of %q: exit code %d: %s", format, text, code, errs.String())
			}
			if format == "text" && !strings.Contains(out.String(), "memory: ") {
				t.Errorf("%q: %s", text, out.String())
			}
		}
	}
}

// TestClosed tells a directory that may not be read from one that may, and
// from none.
func TestClosed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if !closed(filepath.Join(dir, "none"), dir) {
			t.Error("a directory of others is not closed")
		}
		if closed("/nonexistent/stanch", "/") {
			t.Error("a directory that is open to all is closed")
		}
	})
}

// asNobody runs f on a thread that opens files with the rights of nobody, and
// without those of root (setfsuid(2)).
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(65534); err != nil {
				t.Error(err)
				return
			}
		}
		f()
	}()
	<-done
}

// TestChartTitles says the unit of what is no number of things.
func TestChartTitles(t *testing.T) {
	var all []series.Series
	for _, m := range []series.Metric{series.CPU, series.Minor, series.Sent, series.RSS} {
		s := series.Series{Key: series.Key{Service: "demo", Worker: "0", Metric: m}}
		for i := range 30 {
			s.Points = append(s.Points, series.Point{At: int64(i) * 10_000, Value: float64(i)})
		}
		all = append(all, s)
	}
	var got []string
	for _, c := range chartsOf(all) {
		got = append(got, c.Title)
	}
	want := "resident memory, CPU time in seconds per second, minor page faults per second, bytes written per second"
	if strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(got, ", "), want)
	}
}

func report(t *testing.T, out *bytes.Buffer) *leak.Report {
	t.Helper()
	r, err := render.ReadJSON(out)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestManyMeant gives the charts of all services that a word means while they
// are few, and of those that grow when they are many.
func TestManyMeant(t *testing.T) {
	const samples = 600
	for _, c := range []struct{ services, want int }{{1, 1}, {mostDrawn, mostDrawn}, {mostDrawn + 1, 2}} {
		m := &sampled{}
		for n := range c.services {
			name := fmt.Sprintf("worker-%02d", n)
			for i := range samples {
				v := 64e6
				if n < 2 {
					v += 1e5 * float64(i)
				}
				at := int64(i) * 10_000
				m.sample(series.Sample{Key: series.Key{Service: name, Worker: "0", Metric: series.PID}, At: at, Value: float64(100 + n)})
				m.sample(series.Sample{Key: series.Key{Service: name, Worker: "0", Metric: series.RSS}, At: at, Value: v})
			}
		}
		r, err := history(context.Background(), m, m.newest, question{Service: "worker", Charts: true, Since: samples * 10 * time.Second}, nil)
		if err != nil {
			t.Fatal(err)
		}
		drawn := 0
		for i := range r.Services {
			if len(r.Services[i].Charts) > 0 {
				drawn++
			}
		}
		if len(r.Services) != c.services || drawn != c.want {
			t.Errorf("%d services: %d with charts, want %d", len(r.Services), drawn, c.want)
		}
	}
}
