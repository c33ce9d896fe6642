package series

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestReadPlainTools reads what the tools of this machine write of a process
// that only waits, in the ways people write their loops: all must say the same.
func TestReadPlainTools(t *testing.T) {
	sleeper := exec.Command("sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	})
	pid := strconv.Itoa(sleeper.Process.Pid)
	run := func(script string) string {
		text, err := exec.Command("sh", "-c", strings.ReplaceAll(script, "PID", pid)).Output()
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return string(text)
	}
	// It has the size of sh until it has become sleep, and grows until it waits.
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(run("cat /proc/PID/comm; cut -d' ' -f3 /proc/PID/stat"), "sleep\nS"); {
		if time.Now().After(deadline) {
			t.Fatal("sleep does not sleep")
		}
	}
	fields := strings.Fields(run("ps -o rss=,vsz= -p PID"))
	want := fmt.Sprint(fields[0], " ", fields[1])

	for _, tt := range []struct {
		loop   string
		points int
	}{
		{"for i in 1 2 3; do ps -o rss,vsz -p PID; done", 3},
		{"for i in 1 2 3; do ps -o rss=,vsz= -p PID; done", 3},
		{"for i in 1 2; do echo $(date +%T.%N) $(ps -o rss=,vsz= -p PID); done", 2},
		{"for i in 1 2; do echo $(date +%s.%N) $(ps -o rss=,vsz= -p PID); done", 2},
		{"for i in 1 2; do echo $(date -Ins) $(ps -o rss=,vsz= -p PID); done", 2},
		{"date; ps -o rss,vsz -p PID", 1},
		{"date -R; ps -o vsz,pid,rss,comm -p PID", 1},
		{"LC_ALL=C.UTF-8 date; ps -o vsz,rss,args -p PID", 1},
		{"ps u -p PID", 1},
		{"ps aux | awk '$2 == PID'", 1},
		{"ps -o pid,etime,rss,vsz,nlwp -p PID", 1},
		{"ps -o pid,time,rss,vsz,tty -p PID", 1},
		{"TERM=dumb top -b -d 0.2 -n 2 -p PID", 1}, // both may be of the same second
		{"TERM=dumb top -b -n 1 -p PID | grep -w PID", 1},
		{"for i in 1 2; do grep -E 'VmRSS|VmSize' /proc/PID/status; done", 2},
		{"for i in 1 2; do cat /proc/PID/status; done", 2},
		{"echo \"$(date '+%F %T') rss=$(ps -o rss= -p PID) vsz=$(ps -o vsz= -p PID)\"", 1},
	} {
		text := run(tt.loop)
		p, err := ReadPlain(strings.NewReader(text), PlainOptions{Name: "sleep.txt", Written: time.Now()})
		if err != nil {
			t.Errorf("%s: %v\n%s", tt.loop, err, text)
			continue
		}
		got := map[Metric]Point{}
		for _, s := range p.Series {
			got[s.Key.Metric], _ = s.Last()
			if s.Key.Metric == RSS && len(s.Points) < tt.points {
				t.Errorf("%s: %d points", tt.loop, len(s.Points))
			}
		}
		if have := fmt.Sprint(got[RSS].Value/1024, " ", got[Virtual].Value/1024); have != want {
			t.Errorf("%s: read %s, want %s from\n%s\n%s", tt.loop, have, want, text, sketch(p))
		}
		if age := time.Since(time.UnixMilli(got[RSS].At)); age < -2*time.Second || age > 5*time.Minute {
			t.Errorf("%s: it is %v old", tt.loop, age)
		}
	}
}
