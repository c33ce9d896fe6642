package sampler

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// sleepers starts n processes that do nothing, and ends them with the test.
func sleepers(tb testing.TB, n int) map[int]bool {
	tb.Helper()
	pids := map[int]bool{}
	for range n {
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			tb.Fatal(err)
		}
		pids[cmd.Process.Pid] = true
		tb.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
		})
	}
	return pids
}

// cpu is what this process has used so far, user and system.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkSweep says what a sweep of 1,000 processes costs, at a pace of 10 s:
// what is done once in Slow has its part in it. Where there are too few
// descriptors to hold them, their files are opened each time.
func BenchmarkSweep(b *testing.B) {
	mine := sleepers(b, 1000)
	b.Run("held", func(b *testing.B) { sweeps(b, mine, true) })
	b.Run("opened", func(b *testing.B) { sweeps(b, mine, false) })
}

func sweeps(b *testing.B, mine map[int]bool, hold bool) {
	h := &Host{MinAge: -1, Only: func(p *Process) bool { return mine[p.ID.PID] }}
	b.Cleanup(func() { _ = h.Close() })
	if err := h.open(); err != nil {
		b.Fatal(err)
	}
	if !hold {
		h.mostGrips = 0
	}
	now, _ := new(Stamper).Now()
	samples := 0
	sweep := func() {
		s, err := h.Sweep(context.Background(), now)
		if err != nil {
			b.Fatal(err)
		}
		samples += len(s.Samples)
		now.At += 10_000
		now.Boot += 10 * time.Second
	}
	before := cpu(b)
	sweep()
	b.ReportMetric(float64(cpu(b)-before)/1e6, "cpu-ms/first-sweep")
	for range 30 {
		sweep()
	}
	samples = 0
	before = cpu(b)
	for b.Loop() {
		sweep()
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1e6, "cpu-ms/sweep")
	b.ReportMetric(float64(samples)/float64(b.N), "samples/sweep")
}
