package ptrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// TestWatchClose: what still runs when the family is closed ends, and leaves
// nothing behind.
func TestWatchClose(t *testing.T) {
	f := watched(t, newNotes(), nil, build(t, "watched", "-static"), "tree", "wait")
	go func() {
		for e := range f.Events() {
			_ = f.Resume(e.Target) // it may be closed by now
		}
	}()
	pids := treeOf(t, f.PID())
	f.Close()
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("process %d is left: %v", pid, err)
		}
	}
}

// TestWatchKilled: what a killed stanch watched ends with it.
func TestWatchKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, helperWord, "watch", build(t, "watched", "-static"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, scanErr := fmt.Fscan(out, &pid)
	var pids []int
	if scanErr == nil {
		pids = treeOf(t, pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if scanErr != nil {
		t.Fatal(scanErr)
	}
	for _, pid := range pids {
		eventually(t, "all are gone", func() bool {
			// Whoever inherits them may leave them as zombies.
			st, err := readThreadStat(proc.Default.Path(pid))
			return err != nil || st.state == 'Z'
		})
	}
}

// helperWatch watches a program that goes on for ever, and never ends.
func helperWatch(exe string) {
	null, _ := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	f, err := Launch(Command{Path: exe, Args: []string{exe, "tree", "wait"}, Files: []*os.File{null, null, os.Stderr}, Watch: &Watch{Calls: watchedCalls, Watcher: newNotes()}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(f.PID())
	for e := range f.Events() {
		if e.Moment != Ended && e.Moment != Replaced {
			_ = f.Resume(e.Target)
		}
	}
}

// treeOf waits until the program has its children and lists all of them.
func treeOf(t *testing.T, pid int) []int {
	t.Helper()
	pids := []int{pid}
	eventually(t, "two children", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		pids = pids[:1]
		for _, f := range strings.Fields(string(b)) {
			child, _ := strconv.Atoi(f)
			pids = append(pids, child)
		}
		return len(pids) == 3
	})
	return pids
}

// TestWatchUnprivileged: without CAP_SYS_ADMIN the program gets no_new_privs.
func TestWatchUnprivileged(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(outDir, "helper")
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(exe, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, helperWord, "unprivileged", build(t, "watched", "-static"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "true 2000 2000\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// helperUnprivileged watches a program as who it is, makes a call inside, and
// prints what it saw.
func helperUnprivileged(exe string) {
	null, _ := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	n := newNotes()
	f, err := Launch(Command{Path: exe, Args: []string{exe, "threads=500"}, Files: []*os.File{null, null, os.Stderr}, Watch: &Watch{Calls: watchedCalls, Watcher: n}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	confined := false
	for e := range f.Events() {
		if e.Moment == Ready {
			st, err := e.Target.Status()
			confined = err == nil && st.NoNewPrivs
			stop, err := Start(context.Background(), e.Target, Options{})
			if err == nil {
				_, err = stop.Call(unix.SYS_GETPID)
				_ = stop.Release()
			}
			if err != nil {
				fmt.Println(err)
			}
		}
		if e.Moment != Ended && e.Moment != Replaced {
			_ = f.Resume(e.Target)
		}
	}
	fmt.Println(confined, n.begun[unix.SYS_OPENAT], n.ended[unix.SYS_OPENAT])
}
