package descriptors

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestWatch holds that a watch sees what is opened meanwhile, and says all once
// more when it ends.
func TestWatch(t *testing.T) {
	var lock sync.Mutex
	s := &seen{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		l := &Lister{Clock: proc.NewClock(), Every: time.Millisecond, ListEvery: time.Millisecond}
		done <- l.Watch(ctx, self(t), leak.SerialBy(&lock, s))
	}()
	listed := func(num int) bool {
		lock.Lock()
		defer lock.Unlock()
		_, ok := s.open()[num]
		return ok
	}
	until(t, func() string {
		if !listed(0) {
			return "nothing is listed"
		}
		return ""
	})
	num, err := unix.Eventfd(0, 0)
	num = opened(t, num, err)
	until(t, func() string {
		if !listed(num) {
			return "what was opened later is not listed"
		}
		return ""
	})
	lock.Lock()
	lists, usages := len(s.Lists), len(s.Usages)
	cancel()
	lock.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(s.Lists) <= lists || len(s.Usages) <= usages {
		t.Errorf("%d listings and %d limits became %d and %d at the end", lists, usages, len(s.Lists), len(s.Usages))
	}
	gaps := map[string]int{}
	for _, g := range s.Gaps {
		if gaps[g.What]++; gaps[g.What] > 1 {
			t.Errorf("said again: %s", g.What)
		}
	}
}

// TestWatchEnds holds that the end of the target ends the watch without an
// error.
func TestWatchEnds(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	target, err := proc.Default.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	s := &seen{}
	go func() {
		done <- (&Lister{Clock: proc.NewClock(), Every: time.Millisecond}).Watch(context.Background(), target, s)
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
	case <-time.After(patience):
		t.Fatal("the watch goes on after its target")
	}
	if err := (&Lister{Clock: proc.NewClock()}).Scan(context.Background(), target, s); err == nil {
		t.Error("a process that is gone can be looked at")
	}
}

// TestLimits holds the limits of a process that has some.
func TestLimits(t *testing.T) {
	cmd := exec.Command("prlimit", "--nofile=100:200", "--as=3000000000", "--data=1000000000:2000000000", "--nproc=5000", "setpriv", "--reuid=65534", "--clear-groups", "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close() // it ends with its input, and is waited for
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	target, err := proc.Default.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("ready\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	s := scan(t, target)
	for _, want := range []leak.Usage{
		{Name: leak.UsageDescriptors, Max: 100, Hard: 200, Limit: "RLIMIT_NOFILE"},
		{Name: leak.UsageAddressSpace, Max: 3000000000, Hard: 3000000000, Limit: "RLIMIT_AS", Bytes: true},
		{Name: leak.UsageData, Max: 1000000000, Hard: 2000000000, Limit: "RLIMIT_DATA", Bytes: true},
		{Name: leak.UsageUserTasks, Scope: "uid 65534", Max: 5000, Hard: 5000, Limit: "RLIMIT_NPROC"},
		{Name: leak.UsageHostMemory, Limit: "host memory", Bytes: true},
		{Name: leak.UsageMappings, Limit: "vm.max_map_count"},
	} {
		got := s.usage(want.Name, "")
		if got.Used == 0 || got.Used >= got.Max {
			t.Errorf("%+v", got)
		}
		if want.Used == 0 {
			got.Used = 0
		}
		if want.Max == 0 {
			got.Max = 0
		}
		if got != want {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	}
	if u := s.usage(leak.UsageMappings, ""); u.Used != mapCount(t, target) {
		t.Errorf("%d mappings, want %d", u.Used, mapCount(t, target))
	}
	for _, name := range []leak.UsageName{leak.UsageConntrack, leak.UsagePorts, leak.UsageTCPMemory, leak.UsageListenDropped, leak.UsageBacklog} {
		if u := s.usage(name, ""); u.Name != "" {
			t.Errorf("without a socket: %+v", u)
		}
	}
}

// mapCount counts the mappings of a process from their text.
func mapCount(t *testing.T, target *proc.Target) uint64 {
	b, err := os.ReadFile(target.Path("maps"))
	if err != nil {
		t.Fatal(err)
	}
	return uint64(strings.Count(string(b), "\n") - strings.Count(string(b), "[vsyscall]"))
}

// TestCancelled holds that a look that is not wanted any more ends with the
// reason and not with half a listing.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := &seen{}
	if err := (&Lister{Clock: proc.NewClock()}).Scan(ctx, self(t), s); !errors.Is(err, context.Canceled) || len(s.Lists) != 0 {
		t.Errorf("%v, %d listings", err, len(s.Lists))
	}
}
