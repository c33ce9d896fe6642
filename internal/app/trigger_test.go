package app

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/proc"
	"stanch/internal/source/sampler"
)

// seen is a process as the sampler has it.
func seen(t *testing.T, pid int) sampler.Process {
	t.Helper()
	target, err := proc.Default.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	return sampler.Process{ID: target.ID, Service: "sleep 60", Worker: "0"}
}

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
	suspect := seen(t, pid)
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

// asleep starts a process that a diagnosis may be begun of, and what takes the
// place of stanch: a script.
func asleep(t *testing.T, script string) (p sampler.Process, exe string) {
	t.Helper()
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait() // killed
	})
	exe = filepath.Join(t.TempDir(), "stanch")
	if err := os.WriteFile(exe, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return seen(t, sleep.Process.Pid), exe
}

// eventually waits until ok.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// TestTriggerOnce: a process is diagnosed once in an interval, also by watches
// that follow one another, which a diagnosis may have ended; one that has its PID
// is another.
func TestTriggerOnce(t *testing.T) {
	p, exe := asleep(t, "exit 1\n")
	dir := filepath.Join(t.TempDir(), "data [1]", "reports")
	var out heard
	now := time.Now()
	pull := func(p sampler.Process, after time.Duration) {
		t.Helper()
		tr := &trigger{dir: dir, every: time.Hour, long: 2 * time.Second, exe: exe, say: out.say}
		for range 3 {
			tr.pull(context.Background(), p, now.Add(after))
		}
		if tr.running != nil {
			<-tr.running.done
		}
	}
	expect := func(when string, n int) {
		t.Helper()
		if got := out.lines("diagnosing sleep"); len(got) != n {
			t.Errorf("%s: %d diagnoses, want %d: %q", when, len(got), n, out.list)
		}
	}
	other := p
	other.ID.Start--
	pull(other, 0)
	expect("another process had the PID", 0)
	pull(p, 0)
	pull(p, time.Minute)
	pull(p, 58*time.Minute)
	expect("within an hour", 1)
	pull(p, 62*time.Minute)
	expect("after an hour", 2)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%d marks, %v; want that of the last", len(files), err)
	}
	// The clock was set back: it does not wait until it has caught up.
	pull(p, -24*time.Hour)
	expect("a day before", 3)
}

// TestTriggerEnds: a diagnosis is interrupted, once, when the watch is, and not
// only when its turn comes to be waited for.
func TestTriggerEnds(t *testing.T) {
	heardOf := filepath.Join(t.TempDir(), "heard")
	p, exe := asleep(t, "trap 'echo interrupted >>"+heardOf+"' INT\necho begun >"+heardOf+"\nuntil grep -q interrupted "+heardOf+"; do sleep 0.01; done\nsleep 0.3\n")
	var out heard
	ctx, cancel := context.WithCancel(context.Background())
	tr := &trigger{dir: t.TempDir(), every: time.Hour, long: 2 * time.Second, exe: exe, say: out.say}
	tr.pull(ctx, p, time.Now())
	has := func(text string) bool {
		b, err := os.ReadFile(heardOf)
		return err == nil && string(b) == text
	}
	eventually(t, func() bool { return has("begun\n") })
	cancel()
	eventually(t, func() bool { return has("begun\ninterrupted\n") })
	if err := tr.end(); err != nil {
		t.Error(err)
	}
	if !has("begun\ninterrupted\n") {
		t.Error("it is interrupted twice")
	}
}

// TestTriggerSays: what became of a diagnosis is said so that one knows what to
// do.
func TestTriggerSays(t *testing.T) {
	for script, want := range map[string]string{
		"echo no room >&2; kill -9 $$\n": "was killed (signal: killed), and may have left its probe in it; take that out with: stanch detach PID; no room",
		"echo no room >&2; exit 1\n":     "diagnose of pid PID: exit status 1: no room",
		"exit 3\n":                       "no such file or directory; see: stanch report ", // it wrote none
		`for f; do case $f in *.json) echo '{"schema": "stanch.report/v1", "findings": [{"severity": "leak", "title": "lost"}]}' >"$f";; esac; done
exit 3
`: "diagnose of pid PID: leak: lost; see: stanch report ",
	} {
		p, exe := asleep(t, script)
		var out heard
		tr := &trigger{dir: t.TempDir(), every: time.Hour, long: 2 * time.Second, exe: exe, say: out.say}
		tr.pull(context.Background(), p, time.Now())
		if tr.running != nil {
			<-tr.running.done
		}
		if got := out.lines(strings.ReplaceAll(want, "PID", strconv.Itoa(p.ID.PID))); len(got) != 1 || len(out.list) != 2 {
			t.Errorf("of %q it says %q, want %q", script, out.list, want)
		}
	}
}

// TestTriggerKeeps: of many reports the newest are kept, whatever they are
// called and wherever they are.
func TestTriggerKeeps(t *testing.T) {
	tr := &trigger{dir: filepath.Join(t.TempDir(), "data [1]"), say: func(f string, a ...any) { t.Errorf(f, a...) }}
	if err := os.Mkdir(tr.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range keptReports + 5 {
		name := fmt.Sprintf("%c-%d-%s.json", 'z'-rune(i%26), i, time.Unix(int64(i)*3600, 0).UTC().Format("20060102T150405Z"))
		if err := os.WriteFile(filepath.Join(tr.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tr.clean()
	kept := tr.files()
	oldest := slices.ContainsFunc(kept, func(f os.DirEntry) bool { return strings.Contains(f.Name(), "-4-") })
	if len(kept) != keptReports || oldest {
		t.Errorf("%d reports are kept, the fifth oldest too: %v", len(kept), oldest)
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
