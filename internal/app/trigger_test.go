package app

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestTriggerRefused has a suspect that another tracer holds: stanch could not
// touch it, so no diagnosis is begun, and it is said once in an interval.
func TestTriggerRefused(t *testing.T) {
	strace := exec.Command("strace", "-f", "-o", "/dev/null", "sleep", "60")
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = strace.Process.Kill()
		_ = strace.Wait() // killed
	})
	pid := traced(t, strace.Process.Pid)
	var out heard
	tr := &trigger{dir: t.TempDir(), every: time.Hour, long: 2 * time.Second, say: out.say}
	suspect := change{service: "sleep 60", trend: leak.ReportTrend{PID: pid, Resource: "memory", Verdict: leak.VerdictGrowing}}
	now := time.Now()
	for _, at := range []time.Duration{0, time.Minute, 59 * time.Minute} {
		tr.pull(context.Background(), suspect, now.Add(at))
	}
	if got := out.lines("is not diagnosed: "); len(got) != 1 || len(out.list) != 1 {
		t.Errorf("within an hour it says %q, want one refusal", out.list)
	}
	tr.pull(context.Background(), suspect, now.Add(61*time.Minute))
	if got := out.lines("is not diagnosed: "); len(got) != 2 {
		t.Errorf("after an hour it says %q, want a second refusal", out.list)
	}
	if reports, err := filepath.Glob(filepath.Join(tr.dir, "*")); err != nil || len(reports) > 0 {
		t.Errorf("reports: %q, %v", reports, err)
	}
	if target, err := proc.Default.Open(pid); err != nil || target.Check() != nil {
		t.Errorf("the suspect has ended: %v", err)
	}
	if err := tr.end(); err != nil {
		t.Error(err)
	}
}

// traced waits for the process that a tracer has started and holds.
func traced(t *testing.T, tracer int) int {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		pids, err := proc.Default.PIDs()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range pids {
			target, err := proc.Default.Open(pid)
			if err != nil {
				continue // it has ended
			}
			if st, err := target.Status(); err == nil && st.TracerPID == tracer && st.Name == "sleep" {
				return pid
			}
		}
	}
	t.Fatal("strace holds nothing")
	return 0
}
