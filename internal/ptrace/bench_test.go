package ptrace

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"stanch/internal/leak"
)

// BenchmarkPause measures how long a target of 1 GiB in 4 KiB pages stands
// still for a snapshot: by our clock, by the delay that a 1 kHz thread in it
// sees beyond its idle delay, and how much of that its fork spends on a
// processor. Medians of all runs.
func BenchmarkPause(b *testing.B) {
	s := launch(b, build(b, "busy"), "hold=1024", "heart")
	var pause, gap, fork, rate []float64
	for b.Loop() {
		s.gap()
		time.Sleep(100 * time.Millisecond) // the idle delay
		idle := s.gap()
		stop := s.hold()
		stop.prefer = s.ID.PID
		before := s.onProcessor(s.ID.PID)
		snap, err := stop.Snapshot(SnapshotOptions{})
		if err != nil {
			b.Fatal(err)
		}
		pause = append(pause, snap.Pause().Seconds()*1e3)
		gap = append(gap, max(0, s.gap()-idle))
		fork = append(fork, s.onProcessor(s.ID.PID)-before)
		rate = append(rate, readAll(snap))
		if err := snap.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for name, values := range map[string][]float64{"pause-ms": pause, "gap-ms": gap, "fork-cpu-ms": fork, "read-GB/s": rate} {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], name)
	}
	b.ReportMetric(0, "ns/op")
}

// gap is the longest delay of the 1 kHz thread since the last question, in ms.
func (s *subject) gap() float64 {
	s.t.Helper()
	var us float64
	if _, err := fmt.Sscanf(s.ask("gap"), "gap %f", &us); err != nil {
		s.t.Fatal(err)
	}
	return us / 1000
}

// onProcessor is how long a thread has run, in ms.
func (s *subject) onProcessor(tid int) float64 {
	var ns float64
	b, _ := os.ReadFile(s.Path("task", fmt.Sprint(tid), "schedstat"))
	_, _ = fmt.Sscan(string(b), &ns)
	return ns / 1e6
}

// readAll reads all that the snapshot may write to, and says how fast in GB/s.
func readAll(snap *Snapshot) float64 {
	buf := make([]byte, 1<<18)
	began, n := time.Now(), 0
	for _, m := range snap.Maps() {
		for a := m.Start; m.Write && a < m.End; a += leak.Addr(len(buf)) {
			k, _ := snap.ReadAt(buf[:min(len(buf), int(m.End-a))], a)
			n += k
		}
	}
	return float64(n) / 1e9 / time.Since(began).Seconds()
}
