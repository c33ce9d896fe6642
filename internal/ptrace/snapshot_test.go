package ptrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// TestSnapshotUnderLoad takes snapshots of a program that checks all it does:
// heap blocks, registers, restartable sequences, a signal each millisecond,
// threads that come and go.
func TestSnapshotUnderLoad(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks", "blocks", "regs", "rseq", "rseq", "timer", "churn")
	first := s.check()
	for range 40 {
		s.snapshot()
	}
	last := s.check()
	if first == last {
		t.Errorf("no progress: %s", last)
	}
}

// TestSnapshotOfWaiting takes snapshots of a program whose threads wait in
// every system call that can block: none may return.
func TestSnapshotOfWaiting(t *testing.T) {
	s := launch(t, build(t, "waits"), t.TempDir())
	for range 20 {
		s.snapshot()
	}
	s.check()
}

// TestEveryHost makes calls and a fork in each of the waiting threads.
func TestEveryHost(t *testing.T) {
	s := launch(t, build(t, "waits"), t.TempDir())
	for name, tid := range s.tids() {
		stop := s.hold()
		stop.prefer = tid
		if got, err := stop.Call(unix.SYS_GETTID); err != nil || int(got) != tid {
			t.Errorf("%s: gettid: %d, %v", name, got, err)
		}
		if _, err := stop.Call(unix.SYS_CLOSE, 12345); !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: close of nothing: %v", name, err)
		}
		snap, err := stop.Snapshot(SnapshotOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, errors.Join(err, stop.Release()))
		}
		if err := snap.Close(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := s.check(); t.Failed() {
			t.Fatalf("after a snapshot by the thread in %s: %s", name, got)
		}
	}
}

// TestEveryHostLeftAlone lets the stub finish by itself in each of the waiting
// threads, as after the death of stanch.
func TestEveryHostLeftAlone(t *testing.T) {
	s := launch(t, build(t, "waits"), t.TempDir())
	for name, tid := range s.tids() {
		s.leave(tid, injection{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_FILES | unix.CLONE_FS}, forks: true})
		if _, err := Clean(context.Background(), s.Target); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := s.check(); t.Failed() {
			t.Fatalf("after the stub ran alone in the thread in %s: %s", name, got)
		}
	}
}

// TestBusyHostLeftAlone does the same with threads that compute.
func TestBusyHostLeftAlone(t *testing.T) {
	s := launch(t, build(t, "busy"), "regs", "blocks", "rseq")
	for i := range 60 {
		tids, err := s.Threads()
		if err != nil {
			t.Fatal(err)
		}
		if !s.leave(tids[i%len(tids)], injection{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_FILES | unix.CLONE_FS}, forks: true}) {
			continue
		}
		if _, err := Clean(context.Background(), s.Target); err != nil {
			t.Fatal(err)
		}
		if s.check(); t.Failed() {
			t.FailNow()
		}
	}
}

// leave puts a thread into a stub and lets go. It returns false when the
// thread cannot be moved just now.
func (s *subject) leave(tid int, in injection) bool {
	s.t.Helper()
	stop := s.hold()
	stop.prefer = tid
	err := stop.held(func() error {
		th, prog, err := stop.host(&in)
		if err != nil {
			return err
		}
		if err := stop.place(prog); err != nil {
			return err
		}
		return stop.enter(th)
	})
	if e := stop.Release(); e != nil {
		s.t.Fatal(e)
	}
	if errors.Is(err, errUnmovable) {
		return false
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return true
}

// tids asks the program for its threads by name.
func (s *subject) tids() map[string]int {
	s.t.Helper()
	out := map[string]int{}
	for line := s.ask("tids"); line != "end"; line = s.line() {
		var name string
		var tid int
		if _, err := fmt.Sscan(line, &name, &tid); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		out[name] = tid
	}
	return out
}

// TestSnapshotIsFrozen reads mappings of every kind from a snapshot.
func TestSnapshotIsFrozen(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	var private, shared, notForked leak.Addr
	if _, err := fmt.Sscanf(s.ask("mappings"), "%x %x %x", &notForked, &shared, &private); err != nil {
		t.Fatal(err)
	}
	snap := s.open()
	defer func() { _ = snap.Close() }()
	read := func(a leak.Addr) string {
		b := make([]byte, 16)
		n, _ := snap.ReadAt(b, a)
		text, _, _ := strings.Cut(string(b[:n]), "\x00")
		return text
	}
	if got := read(private + 8192); got != "private" {
		t.Errorf("private memory holds %q", got)
	}
	if got := read(shared); got != "shared" {
		t.Errorf("shared memory holds %q", got)
	}
	if got := read(notForked); got != "" {
		t.Errorf("MADV_DONTFORK memory holds %q", got)
	}
	missing := map[leak.Addr]bool{}
	for _, r := range snap.Missing() {
		missing[r.Start] = true
	}
	if !missing[shared] || !missing[notForked] || missing[private] {
		t.Errorf("missing: %v; want %v and %v", snap.Missing(), shared, notForked)
	}
	have, err := snap.Resident(leak.Range{Start: private, End: private + 1<<20})
	if want := (leak.Range{Start: private + 8192, End: private + 12288}); err != nil || len(have) != 1 || have[0] != want {
		t.Errorf("resident: %v, %v; want %v", have, err, want)
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := snap.ReadAt(make([]byte, 1), private); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := snap.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	s.check()
}

// TestCopy reads the same while the target stands still.
func TestCopy(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	var private, shared, notForked leak.Addr
	if _, err := fmt.Sscanf(s.ask("mappings"), "%x %x %x", &notForked, &shared, &private); err != nil {
		t.Fatal(err)
	}
	stop := s.hold()
	snap, err := stop.Copy([]leak.Range{{Start: private, End: private + 1<<20}, {Start: notForked, End: notForked + 4096}})
	if err != nil {
		t.Fatal(errors.Join(err, stop.Release()))
	}
	b := make([]byte, 12288+16)
	if n, err := snap.ReadAt(b, private); err != nil || string(b[8192:8199]) != "private" || b[0] != 0 || b[12288] != 0 {
		t.Errorf("private memory: %d, %v, %q", n, err, b[8192:8199])
	}
	if n, err := snap.ReadAt(b[:10], notForked); err != nil || string(b[:10]) != "not forked" {
		t.Errorf("MADV_DONTFORK memory: %d, %v", n, err)
	}
	if n, err := snap.ReadAt(b, notForked+4000); n != 96 || err == nil {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	if err := errors.Join(snap.Close(), stop.Release()); err != nil {
		t.Error(err)
	}
	s.check()

	// A gigabyte does not fit into a pause of a millisecond.
	big := launch(t, build(t, "busy"), "hold=64")
	stop, err = Start(context.Background(), big.Target, Options{MaxPause: 20e6, StopWait: 5e9})
	if err != nil {
		t.Fatal(err)
	}
	var all []leak.Range
	for _, m := range stop.Maps() {
		if m.Read && m.Write {
			all = append(all, leak.Range{Start: m.Start, End: m.End})
		}
	}
	if _, err := stop.Copy(all); !errors.Is(err, ErrPause) {
		t.Errorf("copy of 64 MiB within 20 ms: %v", err)
	}
	if err := stop.Release(); err != nil {
		t.Error(err)
	}
	big.check()
}
