package ptrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// group makes a cgroup of one controller, version 1 or 2, for a test.
func group(t *testing.T, controller string) (dir string, v2 bool) {
	t.Helper()
	for _, base := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		dir = filepath.Join(base, fmt.Sprintf("stanch-%d-%s", os.Getpid(), controller))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		v2 = base == "/sys/fs/cgroup"
		if v2 {
			// A controller must be handed down; where it is not, there are no files.
			if _, err := os.Stat(filepath.Join(dir, controller+".max")); err != nil {
				_ = os.Remove(dir)
				continue
			}
		}
		t.Cleanup(func() {
			for end := time.Now().Add(5 * time.Second); os.Remove(dir) != nil; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("cannot remove %s", dir)
					return
				}
			}
		})
		return dir, v2
	}
	t.Skipf("no %s controller can be used here", controller)
	return "", false
}

func put(t *testing.T, dir, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, dir, file string) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNearlyFullMemory takes snapshots of a target that fills 90 % of its
// memory cgroup and writes all the time: each is refused, abandoned or done,
// and the target never dies for it.
func TestNearlyFullMemory(t *testing.T) {
	dir, v2 := group(t, "memory")
	limitFile, usageFile := "memory.limit_in_bytes", "memory.usage_in_bytes"
	if v2 {
		limitFile, usageFile = "memory.max", "memory.current"
	}
	put(t, dir, limitFile, fmt.Sprint(300<<20))
	big := launchIn(t, dir, "grow=100")
	eventually(t, "it has touched all its memory", func() bool {
		st, err := big.Status()
		return err == nil && st.RSSAnon >= 100<<20
	})
	for _, percent := range []uint64{90, 50, 30} {
		used := get(t, dir, usageFile)
		put(t, dir, limitFile, fmt.Sprint(used*100/percent))
		refused, abandoned, done := 0, 0, 0
		for range 4 {
			stop := big.hold()
			snap, err := stop.Snapshot(SnapshotOptions{})
			if err != nil {
				if !errors.Is(err, ErrNoFork) {
					t.Fatal(errors.Join(err, stop.Release()))
				}
				refused++
				if err := stop.Release(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			buf := make([]byte, 1<<16)
			for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end) && err == nil; {
				_, err = snap.ReadAt(buf[:64], leak.Addr(snap.Threads()[0].Regs.Rsp))
			}
			switch {
			case errors.Is(err, ErrAbandoned):
				abandoned++
			case err == nil:
				done++
			default:
				t.Error(err)
			}
			if err := snap.Close(); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("at %d %% of the limit: %d refused, %d abandoned, %d done", percent, refused, abandoned, done)
		big.check()
	}
}

// TestAbandoned has a target that writes more than it has room for while a
// snapshot lives: the snapshot goes, the target stays.
func TestAbandoned(t *testing.T) {
	dir, v2 := group(t, "memory")
	limitFile, usageFile := "memory.limit_in_bytes", "memory.usage_in_bytes"
	if v2 {
		limitFile, usageFile = "memory.max", "memory.current"
	}
	s := launchIn(t, dir, "grow=450")
	eventually(t, "it has touched all its memory", func() bool {
		st, err := s.Status()
		return err == nil && st.RSSAnon >= 450<<20
	})
	put(t, dir, limitFile, fmt.Sprint(get(t, dir, usageFile)+355<<20))
	snap := s.open()
	buf := make([]byte, 64)
	eventually(t, "the snapshot is given up", func() bool {
		_, err := snap.ReadAt(buf, leak.Addr(snap.Threads()[0].Regs.Rsp))
		if err != nil && (!errors.Is(err, ErrAbandoned) || !strings.Contains(err.Error(), "memory")) {
			t.Fatal(err)
		}
		return err != nil
	})
	s.ask("check") // answers before anybody closes the snapshot
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
	s.check()
}

// launchIn starts busy inside a cgroup.
func launchIn(t *testing.T, dir string, args ...string) *subject {
	t.Helper()
	script := fmt.Sprintf("echo $$ > %s/cgroup.procs; exec %s %s", dir, build(t, "busy"), strings.Join(args, " "))
	return launch(t, "/bin/sh", "-c", script)
}

// TestFullPids has a target whose group allows no further task.
func TestFullPids(t *testing.T) {
	dir, _ := group(t, "pids")
	s := launch(t, build(t, "busy"), "blocks")
	put(t, dir, "cgroup.procs", fmt.Sprint(s.ID.PID))
	put(t, dir, "pids.max", fmt.Sprint(get(t, dir, "pids.current")))
	stop := s.hold()
	_, err := stop.Snapshot(SnapshotOptions{})
	if !errors.Is(err, ErrNoFork) || !strings.Contains(err.Error(), "pids.max") {
		t.Errorf("snapshot: %v", err)
	}
	// Without looking first, the kernel refuses, and that is survived too.
	if err := stop.held(func() error {
		_, err := stop.inject(&injection{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_FILES | unix.CLONE_FS}, forks: true})
		return err
	}); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("clone: %v", err)
	}
	snap, err := stop.Copy([]leak.Range{{Start: addr(stop.Threads()[0].Regs.Rsp &^ 4095), End: addr(stop.Threads()[0].Regs.Rsp&^4095 + 4096)}})
	if err != nil {
		t.Fatal(errors.Join(err, stop.Release()))
	}
	readStack := make([]byte, 8)
	if _, err := snap.ReadAt(readStack, addr(stop.Threads()[0].Regs.Rsp)); err != nil {
		t.Error(err)
	}
	s.check()
	plan, err := Preflight(s.Target, Options{})
	if err != nil || plan.Fork || len(plan.Notes) == 0 {
		t.Errorf("plan: %+v, %v", plan, err)
	}
}

// TestPauseEnds holds a target for longer than allowed.
func TestPauseEnds(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks")
	stop, err := Start(context.Background(), s.Target, Options{MaxPause: 100 * time.Millisecond, StopWait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s.ask("check") // answers although nobody released it
	if _, err := stop.Call(unix.SYS_GETPID); !errors.Is(err, ErrPause) {
		t.Errorf("call after the pause: %v", err)
	}
	if err := stop.Write([]byte{0}, addr(stop.Threads()[0].Regs.Rsp)); !errors.Is(err, ErrPause) {
		t.Errorf("write after the pause: %v", err)
	}
	if _, err := stop.Snapshot(SnapshotOptions{}); !errors.Is(err, ErrPause) {
		t.Errorf("snapshot after the pause: %v", err)
	}
	if p := stop.Pause(); p < 90*time.Millisecond {
		t.Errorf("pause: %v", p)
	}
	if err := errors.Join(stop.Release(), stop.Release()); err != nil {
		t.Error(err)
	}
	if _, err := stop.Call(unix.SYS_GETPID); !errors.Is(err, ErrPause) {
		t.Errorf("call after the release: %v", err)
	}
	s.check()
}

// TestRefusals starts on what must not be touched.
func TestRefusals(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks")
	stop := s.hold()
	if _, err := Start(context.Background(), s.Target, Options{}); !errors.Is(err, proc.ErrDenied) || !strings.Contains(err.Error(), "traced") {
		t.Errorf("a second tracer: %v", err)
	}
	if err := stop.Release(); err != nil {
		t.Fatal(err)
	}
	s.check()
	for pid, want := range map[int]error{2: proc.ErrUnsupported, os.Getpid(): proc.ErrUnsupported} {
		target, err := proc.Default.Open(pid)
		if err != nil {
			continue // no kernel threads are visible
		}
		if _, err := Start(context.Background(), target, Options{}); !errors.Is(err, want) {
			t.Errorf("pid %d: %v", pid, err)
		}
		if _, err := Clean(context.Background(), target); !errors.Is(err, want) {
			t.Errorf("clean pid %d: %v", pid, err)
		}
	}
	gone := *s.Target
	gone.ID.Start--
	if _, err := Start(context.Background(), &gone, Options{}); !errors.Is(err, proc.ErrGone) {
		t.Errorf("a PID with a new owner: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if stop, err := Start(ctx, s.Target, Options{}); err == nil {
		_ = stop.Release()
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	s.check()
}

// TestPreflight predicts without touching.
func TestPreflight(t *testing.T) {
	s := launch(t, build(t, "busy"), "hold=100")
	p, err := Preflight(s.Target, Options{})
	if err != nil || !p.Fork || len(p.Refusals) > 0 || p.Pause < time.Millisecond || p.Pause > 100*time.Millisecond || p.Memory == 0 || p.Headroom == 0 || p.HeadroomBy == "" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = Preflight(s.Target, Options{MaxPause: time.Millisecond}); err != nil || len(p.Refusals) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	stop := s.hold()
	if p, err = Preflight(s.Target, Options{}); err != nil || len(p.Refusals) != 1 {
		t.Errorf("traced: %+v, %v", p, err)
	}
	if err := stop.Release(); err != nil {
		t.Error(err)
	}
}
