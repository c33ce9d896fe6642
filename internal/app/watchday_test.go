package app

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/series"
	"stanch/internal/series/tsdb"
	"stanch/internal/source/sampler"
)

// A day of a host, played in seconds: a procfs made of files, and clocks that
// go ten seconds each tick.
type day struct {
	t   testing.TB
	dir string
	now sampler.Clocks
}

// dayBoot is when the played host was started.
var dayBoot = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func newDay(t testing.TB) *day {
	dir, err := os.MkdirTemp("/dev/shm", "stanch-day-") // files that are written again and again
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &day{t: t, dir: dir, now: sampler.Clocks{Wall: dayBoot.Add(time.Hour), Boot: time.Hour, Mono: time.Hour}}
	d.write("self/mountinfo", "")
	d.write("meminfo", "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\nCommitted_AS: 3000000 kB\nCommitLimit: 4000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nSUnreclaim: 90000 kB\n")
	d.write("stat", fmt.Sprintf("cpu 1 2 3 4\nbtime %d\n", dayBoot.Unix()))
	return d
}

func (d *day) write(path, text string) {
	full := filepath.Join(d.dir, path)
	err := os.WriteFile(full, []byte(text), 0o644)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(full), 0o755); err == nil {
			err = os.WriteFile(full, []byte(text), 0o644)
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// set makes a process, or what it has grown to.
func (d *day) set(pid int, start time.Duration, comm string, pages int) {
	dir := strconv.Itoa(pid)
	if _, err := os.Stat(filepath.Join(d.dir, dir)); err != nil {
		d.write(dir+"/cmdline", comm+"\x00")
		d.write(dir+"/cgroup", "0::/\n")
		d.write(dir+"/status", "Name:\tx\nVmData:\t     512 kB\nVmSwap:\t       0 kB\n")
		d.write(dir+"/limits", "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 4096                 files     \nMax address space         unlimited            unlimited            bytes     \n")
		if err := os.MkdirAll(filepath.Join(d.dir, dir, "fd"), 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	d.write(dir+"/stat", fmt.Sprintf("%d (%s) S 1 1 1 0 -1 0 100 0 7 0 %d 50 0 0 20 0 3 0 %d 4096 1\n", pid, comm, int(d.now.Boot/time.Second), start/(10*time.Millisecond)))
	d.write(dir+"/statm", fmt.Sprintf("%d %d 40 9 0 99 0\n", 20_000+pages, pages+40))
}

// pass lets time pass.
func (d *day) pass(long time.Duration) {
	d.now.Wall = d.now.Wall.Add(long)
	d.now.Boot += long
	d.now.Mono += long
}

// footprint is what this process itself holds.
type footprint struct {
	heap       uint64
	goroutines int
	fds        int
}

// footprintNow leaves out the files below a directory.
func footprintNow(t testing.TB, without string) footprint {
	runtime.GC()
	runtime.GC() // what finalizers gave back
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	fds = slices.DeleteFunc(fds, func(e os.DirEntry) bool {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		return err != nil || strings.HasPrefix(link, without)
	})
	return footprint{m.HeapAlloc, runtime.NumGoroutine(), len(fds)}
}

// heard are the lines of a watch.
type heard struct {
	mu   sync.Mutex
	list []string
}

func (s *heard) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf(format, args...))
}

func (s *heard) lines(with string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.list), func(l string) bool { return !strings.Contains(l, with) })
}

// TestWatchDay lets a watch go through a day, with a program that grows by 12
// MB a day, one that a nanny restarts every half hour under the same PID, a
// cache that fills, and healthy ones; with a suspend, and a clock that is set
// forward and back. The watch itself must not grow, and must say who does.
func TestWatchDay(t *testing.T) {
	d := newDay(t)
	var out heard
	a := &app{std: Streams{Out: io.Discard, Err: io.Discard}, version: "test"}
	f := &watchFlags{data: t.TempDir(), every: 10 * time.Second, minAge: time.Minute, maxSize: 2 << 30, retention: 30 * 24 * time.Hour, diagnoseOn: "none", diagnoseFor: time.Minute}
	if err := f.verify(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	w, err := a.newWatch(ctx, "", f)
	if err != nil {
		t.Fatal(err)
	}
	w.say = out.say
	w.host.Root = proc.Root(d.dir)
	w.stamps.Read = func() sampler.Clocks { return d.now }

	const (
		ticks = 24 * 360
		nanny = 180 // ticks
	)
	noise := func(i int) int { return int(20 * math.Sin(float64(i)*1.7) * math.Sin(float64(i)*0.3)) }
	var early footprint
	var born time.Duration // of the one that is restarted
	for i := range ticks {
		switch i {
		case 5 * 360:
			d.now.Wall = d.now.Wall.Add(time.Hour) // the clock is set
		case 10 * 360:
			d.now.Wall, d.now.Boot = d.now.Wall.Add(2*time.Hour), d.now.Boot+2*time.Hour // asleep
		case 15 * 360:
			d.now.Wall = d.now.Wall.Add(-10 * time.Minute)
		case 6 * 360:
			early = footprintNow(t, f.data)
		}
		d.set(101, time.Minute, "slowleak", 5000+i*3000/ticks+noise(i))
		d.set(102, time.Minute, "healthy", 8000+noise(i))
		d.set(103, time.Minute, "cache", 2000+int(9000*(1-math.Exp(-float64(i)/700)))+noise(i))
		d.set(104, time.Minute, "gc", 4000+(i%90)*30)
		if i%nanny == 3 { // it takes half a minute until the next one is there
			born = d.now.Boot
		}
		if i%nanny >= 3 {
			d.set(105, born, "nannied", 1000+(i%nanny)*40)
		} else if err := os.RemoveAll(filepath.Join(d.dir, "105")); err != nil {
			t.Fatal(err)
		}
		// Short lives, with ever new PIDs.
		if i > 0 {
			if err := os.RemoveAll(filepath.Join(d.dir, strconv.Itoa(1000+i-1))); err != nil {
				t.Fatal(err)
			}
		}
		d.set(1000+i, d.now.Boot, "short", 500)
		if err := w.tick(ctx); err != nil {
			t.Fatal(err)
		}
		d.pass(10 * time.Second)
	}
	late := footprintNow(t, f.data)
	if late.heap > early.heap+early.heap/4+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes in 18 hours", early.heap, late.heap)
	}
	// The store opens the files of what it keeps; there are more of these later.
	if late.goroutines > early.goroutines || late.fds > early.fds {
		t.Errorf("goroutines %d -> %d, descriptors %d -> %d", early.goroutines, late.goroutines, early.fds, late.fds)
	}
	if got := out.lines("slowleak[101] memory: growing"); len(got) == 0 {
		t.Errorf("nobody says that slowleak grows: %q", out.list)
	}
	for _, clock := range []string{"set forward by 60 min", "suspended for 2 h", "set back by 10 min"} {
		if got := out.lines(clock); len(got) != 1 {
			t.Errorf("of the clock it says %q %d times, want once", clock, len(got))
		}
	}
	for _, healthy := range []string{"healthy", "cache", "gc[", "short"} {
		if got := out.lines(healthy); len(got) > 0 {
			t.Errorf("said of a healthy program: %q", got)
		}
	}
	dayKept(t, w.store, ticks)
	dayReported(t, w)
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// dayKept holds the store against what was played.
func dayKept(t *testing.T, store *tsdb.Store, ticks int) {
	ctx := context.Background()
	of := func(m series.Metric, service string) []series.Point {
		all, err := store.Select(ctx, tsdb.Match{Service: service, Metrics: []series.Metric{m}}, 0, math.MaxInt64)
		if err != nil || len(all) != 1 {
			t.Fatalf("%s of %s: %d series, %v", m, service, len(all), err)
		}
		return all[0].Points
	}
	rss := of(series.RSS, "slowleak")
	if len(rss) < ticks-1 {
		t.Errorf("%d points of %d are kept", len(rss), ticks)
	}
	// A PID that is used again is another process at the same place.
	starts := map[float64]bool{}
	for _, p := range of(series.Started, "nannied") {
		starts[math.Round(p.Value)] = true
	}
	if len(starts) < 45 {
		t.Errorf("%d lives of the process that is restarted every half hour are seen, want some 48", len(starts))
	}
	host, err := store.Select(ctx, tsdb.Match{Host: true, Metrics: []series.Metric{series.ClockJumps, series.Suspended}}, 0, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	var jumps []float64
	for _, s := range host {
		for _, p := range s.Points {
			jumps = append(jumps, math.Round(p.Value/60))
		}
	}
	slices.Sort(jumps)
	if !slices.Equal(jumps, []float64{-10, 60, 120}) {
		t.Errorf("clock jumps and sleeps of %v minutes, want -10, 60 and 120", jumps)
	}
	short, err := store.Select(ctx, tsdb.Match{Service: "short"}, 0, math.MaxInt64)
	if err != nil || len(short) > 0 {
		t.Errorf("processes that lived ten seconds have %d series, %v", len(short), err)
	}
}

// dayReported asks for what suspects would.
func dayReported(t *testing.T, w *watch) {
	r, err := w.answer(context.Background(), question{Since: 7 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, f := range r.Findings {
		titles = append(titles, f.Title)
	}
	if want := []string{"memory of nannied grows steadily", "memory of slowleak grows steadily"}; !slices.Equal(titles, want) {
		t.Errorf("the findings are %q, want %q", titles, want)
	}
	one, err := w.answer(context.Background(), question{Service: "nannied", Since: 7 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if n := one.Services[0].Restarts; n < 40 {
		t.Errorf("%d restarts of the nannied service are told, want some 47", n)
	}
	if !slices.ContainsFunc(one.Services[0].Marks, func(m leak.ReportMark) bool { return m.Kind == leak.MarkSleep }) {
		t.Error("the sleep of the host is not marked")
	}
}
