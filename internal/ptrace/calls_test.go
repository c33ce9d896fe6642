package ptrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// notes is a Watcher that counts.
type notes struct {
	mu     sync.Mutex
	begun  map[uint64]int
	ended  map[uint64]int
	broken int // calls that a signal broke off
	born   int
	execs  int
	gone   int
	open   map[int]map[int64]bool // descriptors by process
	errs   []error
}

func newNotes() *notes {
	return &notes{begun: map[uint64]int{}, ended: map[uint64]int{}, open: map[int]map[int64]bool{}}
}

func (n *notes) Begins(c *Call) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begun[c.Nr]++
	if c.Nr == unix.SYS_CLOSE {
		delete(n.open[c.Target.ID.PID], int64(c.Args[0]))
		return false
	}
	return true
}

func (n *notes) Ends(c *Call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended[c.Nr]++
	if c.Result <= -512 {
		n.broken++
	}
	if c.Nr == unix.SYS_OPENAT {
		path := make([]byte, 4)
		if _, err := c.ReadAt(path, addr(c.Args[1])); err != nil {
			n.errs = append(n.errs, err)
		}
		if c.Result >= 0 {
			if n.open[c.Target.ID.PID] == nil {
				n.open[c.Target.ID.PID] = map[int64]bool{}
			}
			n.open[c.Target.ID.PID][c.Result] = true
		}
	}
}

func (n *notes) Born(parent, child *proc.Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.born++
	if parent == nil {
		n.errs = append(n.errs, fmt.Errorf("nobody bore %d", child.ID.PID))
	}
}

func (n *notes) Replaced(t *proc.Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.execs++
	delete(n.open, t.ID.PID)
}

func (n *notes) Loaded(*proc.Target) {}

func (n *notes) Ended(*proc.Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone++
}

var watchedCalls = []Watched{
	{Nr: unix.SYS_OPENAT}, {Nr: unix.SYS_CLOSE}, {Nr: unix.SYS_SOCKET}, {Nr: unix.SYS_ACCEPT},
	{Nr: unix.SYS_FCNTL, Arg: 1, Values: []uint32{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC}},
}

// watched starts a program under a Family that tells w of its calls.
func watched(t testing.TB, w Watcher, out *os.File, exe string, args ...string) *Family {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	if out == nil {
		out = null
	}
	c := Command{Path: exe, Args: append([]string{exe}, args...), Env: os.Environ(), Files: []*os.File{null, out, os.Stderr}}
	if w != nil {
		c.Watch = &Watch{Calls: watchedCalls, Watcher: w}
	}
	f, err := Launch(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// followed resumes every process until the family has ended, and gives how the
// program did. At each moment what is asked first, where it is not nil.
func followed(t testing.TB, f *Family, what func(Event)) syscall.WaitStatus {
	t.Helper()
	var status syscall.WaitStatus
	deadline := time.After(testPatience)
	for {
		select {
		case e, ok := <-f.Events():
			if !ok {
				return status
			}
			if what != nil {
				what(e)
			}
			switch e.Moment {
			case Replaced:
			case Ended:
				if e.Target.ID.PID == f.PID() {
					status = e.Status
				}
			default:
				if e.Err != nil {
					t.Error(e.Err)
				} else if err := f.Resume(e.Target); err != nil {
					t.Error(err)
				}
			}
		case <-deadline:
			t.Error("the family does not end")
			return status
		}
	}
}

// TestWatch has programs that make raw system calls in threads, forks, spawns
// and under filters of their own.
func TestWatch(t *testing.T) {
	n := newNotes()
	exe := build(t, "watched", "-static")
	f := watched(t, n, nil, exe, "pairs=100", "threads=200", "forks=20", "spawns=10", "accepts", "filter", "pairs=10", "leak=3", "exec")
	status := followed(t, f, nil)
	if !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("ended with %#x", status)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	const opens = 100 + 4*200 + 20*10 + 10*10 + 10 + 3 + 5
	if n.begun[unix.SYS_OPENAT] != opens || n.ended[unix.SYS_OPENAT] != opens {
		t.Errorf("openat: %d begun, %d ended of %d", n.begun[unix.SYS_OPENAT], n.ended[unix.SYS_OPENAT], opens)
	}
	if got := n.begun[unix.SYS_CLOSE]; got != opens-3+3 || n.ended[unix.SYS_CLOSE] != 0 {
		t.Errorf("close: %d begun", got)
	}
	if n.begun[unix.SYS_ACCEPT] != 3 || n.broken != 2 {
		t.Errorf("accept: %d begun, %d broken off", n.begun[unix.SYS_ACCEPT], n.broken)
	}
	if n.begun[unix.SYS_SOCKET] != 2 {
		t.Errorf("socket: %d begun; the program's own filter comes first", n.begun[unix.SYS_SOCKET])
	}
	if n.born != 20+10+1 || n.execs != 1+10+1 || n.gone != n.born+1 || len(n.errs) > 0 {
		t.Errorf("%d born, %d programs, %d ended, %v", n.born, n.execs, n.gone, n.errs)
	}
}

// TestWatchStops has a watched program that a signal stops and continues, and
// that is stopped by Start, in the middle of its calls.
func TestWatchStops(t *testing.T) {
	n := newNotes()
	f := watched(t, n, nil, build(t, "watched", "-static"), "threads=3000")
	over := make(chan syscall.WaitStatus, 1)
	go func() { over <- followed(t, f, nil) }()
	target, err := proc.Default.Open(f.PID())
	if err != nil {
		t.Fatal(err)
	}
	begun := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.begun[unix.SYS_OPENAT]
	}
	stopped := func() bool {
		tids, err := target.Threads()
		for _, tid := range tids {
			st, err := readThreadStat(target.Path("task", fmt.Sprint(tid)))
			if err != nil || st.state != 't' && st.state != 'T' {
				return false
			}
		}
		return err == nil
	}
	for range 5 {
		eventually(t, "calls", func() bool { return begun() > 20 })
		if err := unix.Kill(f.PID(), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all threads stop", stopped)
		before := begun()
		if err := unix.Kill(f.PID(), unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it goes on", func() bool { return begun() > before })
		stop, err := Start(context.Background(), target, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := stop.Call(unix.SYS_GETPID); err != nil || int(got) != f.PID() {
			t.Errorf("a call inside: %d, %v", got, err)
		}
		if err := stop.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if status := <-over; status != 0 {
		t.Errorf("ended with %#x", status)
	}
	if opens := 4 * 3000; n.begun[unix.SYS_OPENAT] != opens || n.ended[unix.SYS_OPENAT] != opens {
		t.Errorf("openat: %d begun, %d ended of %d", n.begun[unix.SYS_OPENAT], n.ended[unix.SYS_OPENAT], opens)
	}
}

// TestWatchAccept stops a program while it waits in a watched call, which goes
// on waiting, and takes a snapshot of it.
func TestWatchAccept(t *testing.T) {
	n := newNotes()
	f := watched(t, n, nil, build(t, "watched", "-static"), "waits")
	over := make(chan syscall.WaitStatus, 1)
	go func() { over <- followed(t, f, nil) }()
	target, err := proc.Default.Open(f.PID())
	if err != nil {
		t.Fatal(err)
	}
	waits := func() bool {
		b, err := os.ReadFile(target.Path("syscall"))
		return err == nil && bytes.HasPrefix(b, fmt.Appendf(nil, "%d ", unix.SYS_ACCEPT))
	}
	for range 3 {
		eventually(t, "it waits", waits)
		stop, err := Start(context.Background(), target, Options{})
		if err != nil {
			t.Fatal(err)
		}
		snap, err := stop.Snapshot(SnapshotOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "it waits", waits)
	if err := f.Release(target); !errors.Is(err, proc.ErrUnsupported) {
		t.Errorf("it is let go: %v", err)
	}
	if err := unix.Kill(f.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := <-over; !status.Signaled() || status.Signal() != unix.SIGTERM {
		t.Errorf("ended with %#x", status)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begun[unix.SYS_ACCEPT] < 4 || n.broken != n.begun[unix.SYS_ACCEPT] {
		t.Errorf("accept: %d begun, %d broken off", n.begun[unix.SYS_ACCEPT], n.broken)
	}
}

// BenchmarkWatch prints what a pair of a watched open and a watched close
// costs, and a call that is not watched.
func BenchmarkWatch(b *testing.B) {
	exe := build(b, "watched", "-static")
	for _, w := range []Watcher{nil, newNotes()} {
		f := watched(b, w, nil, exe, "idle=1000000", "time=20000", "time=20000")
		followed(b, f, nil)
	}
}
