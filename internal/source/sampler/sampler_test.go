package sampler

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// gauges keeps the last value of each gauge and how often it was said.
type gauges struct {
	leak.Ignore
	last  map[leak.GaugeName]float64
	times map[leak.GaugeName]int
}

func newGauges() *gauges {
	return &gauges{last: map[leak.GaugeName]float64{}, times: map[leak.GaugeName]int{}}
}

func (g *gauges) Gauge(v leak.Gauge) {
	g.last[v.Name] = v.Value
	g.times[v.Name]++
}

func TestScan(t *testing.T) {
	self, err := proc.Default.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	s := &Sampler{Clock: proc.NewClock()}
	before, after := newGauges(), newGauges()
	if err := s.Scan(context.Background(), self, before); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := s.Scan(context.Background(), self, after); err != nil {
		t.Fatal(err)
	}
	for _, name := range []leak.GaugeName{leak.GaugeRSS, leak.GaugeVirtual, leak.GaugeAnon, leak.GaugeThreads, leak.GaugeFDs, leak.GaugeHostMemory, leak.GaugeMemAvailable} {
		if after.last[name] <= 0 {
			t.Errorf("%s is %v", name, after.last[name])
		}
	}
	if got := after.last[leak.GaugeFDPipes] - before.last[leak.GaugeFDPipes]; got != 2 {
		t.Errorf("a pipe added %v descriptors of pipes, want 2", got)
	}
}

// TestWatchEnds ends with the target, without an error.
func TestWatchEnds(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	target, err := proc.Default.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	g := newGauges()
	go func() {
		done <- (&Sampler{Clock: proc.NewClock(), Every: 10 * time.Millisecond}).Watch(context.Background(), target, g)
	}()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the watch goes on after its target")
	}
}
