package sampler

import (
	"context"
	"errors"
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

// TestScanOfTheDead says nothing of a zombie: its zeros would be a growth that
// ended.
func TestScanOfTheDead(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	target, err := proc.Default.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for target.Check() == nil {
		if time.Now().After(deadline) {
			t.Fatal("it lives on")
		}
		time.Sleep(time.Millisecond)
	}
	g := newGauges()
	if err := (&Sampler{Clock: proc.NewClock()}).Scan(context.Background(), target, g); !errors.Is(err, proc.ErrGone) || len(g.last) != 0 {
		t.Errorf("%v, said are %v", err, g.last)
	}
	_ = cmd.Wait() // killed
}

// TestScanOfCache takes a control group that is full of page cache for one that
// has room.
func TestScanOfCache(t *testing.T) {
	f := newTree(t)
	f.write("self/mountinfo", "35 31 0:32 / "+f.dir+"/fs rw - cgroup2 cgroup2 rw\n")
	f.run(fake{pid: 10, comm: "x", cgroup: "0::/a/b\n"})
	f.write("10/status", "Name:\tx\nVmSize:\t 4000 kB\nVmRSS:\t 200 kB\n")
	for dir, max := range map[string]string{"a": "800000", "a/b": "max"} {
		f.write("fs/"+dir+"/memory.current", "790000\n")
		f.write("fs/"+dir+"/memory.max", max+"\n")
		f.write("fs/"+dir+"/memory.stat", "anon 5\ninactive_file 300000\nactive_file 200000\nfile_dirty 40000\n")
	}
	target, err := proc.Root(f.dir).Open(10)
	if err != nil {
		t.Fatal(err)
	}
	g := newGauges()
	if err := (&Sampler{Clock: proc.NewClock()}).Scan(context.Background(), target, g); err != nil {
		t.Fatal(err)
	}
	if used, limit := g.last[leak.GaugeCgroupMemory], g.last[leak.GaugeCgroupMax]; used != 330000 || limit != 800000 {
		t.Errorf("%v of %v are used", used, limit)
	}
}
