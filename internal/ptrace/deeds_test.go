package ptrace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// number is the second word of an answer.
func number(t *testing.T, answer string) int {
	t.Helper()
	var word string
	var n int
	if _, err := fmt.Sscan(answer, &word, &n); err != nil {
		t.Fatalf("%q: %v", answer, err)
	}
	return n
}

// TestCloseCloses closes things in the target while a snapshot lives: they
// must be gone for epoll, peers, locks and ports.
func TestCloseCloses(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	file := t.TempDir() + "/lock"
	for _, kind := range []string{"flock", "posix"} {
		s.ask(kind + " " + file)
		snap := s.open()
		if got := s.ask("closing"); got != "ok 0" {
			t.Errorf("while a snapshot lives: %s", got)
		}
		if err := lock(file); err == nil {
			t.Errorf("%s: not locked", kind)
		}
		s.ask("close")
		if err := lock(file); err != nil {
			t.Errorf("%s: still locked after close: %v", kind, err)
		}
		port := number(t, s.ask("listen"))
		s.ask("close")
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("port of a closed socket: %v", err)
		} else {
			_ = l.Close()
		}
		if got := s.ask("limit"); number(t, got) != -1 {
			t.Errorf("waitpid in the target sees a child: %s", got)
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
		s.check()
	}
}

// lock tries both kinds of file locks.
func lock(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// TestSignalsWhileStopped queues signals with values while the target stands
// still, before and after calls are made in it: all arrive, in their handlers,
// with what they carry, and end the waits they would have ended.
func TestSignalsWhileStopped(t *testing.T) {
	for _, wait := range []string{"pause", "sigsuspend", "epoll"} {
		t.Run(wait, func(t *testing.T) {
			s := launch(t, build(t, "deeds"))
			tid := number(t, s.ask(wait))
			eventually(t, "the thread waits", func() bool {
				st, err := readThreadStat(s.Path("task", fmt.Sprint(tid)))
				return err == nil && st.state == 'S'
			})
			s.fds = s.count(t)
			sent, sum, before := 0, 0, 0
			send := func() {
				t.Helper()
				sent++
				sum += sent
				if err := sigqueue(s.ID.PID, tid, 34+sent%8, sent); err != nil {
					t.Fatal(err)
				}
			}
			for round := range 20 {
				stop := s.hold()
				stop.prefer = tid
				if round%2 == 0 {
					send()
				}
				if got, err := stop.Call(unix.SYS_GETTID); err != nil || int(got) != tid {
					t.Fatalf("gettid: %d, %v", got, err)
				}
				if round%4 > 0 {
					send()
				}
				if round%5 == 0 {
					if err := stop.Release(); err != nil {
						t.Fatal(err)
					}
				} else {
					snap, err := stop.Snapshot(SnapshotOptions{})
					if err != nil {
						t.Fatal(errors.Join(err, stop.Release()))
					}
					send()
					if err := snap.Close(); err != nil {
						t.Fatal(err)
					}
				}
				var woken int
				eventually(t, fmt.Sprintf("%d signals, and the wait ended", sent), func() bool {
					var queued, added int
					_, err := fmt.Sscanf(s.ask("check"), "ok %d %d %d", &queued, &added, &woken)
					return err == nil && queued == sent && added == sum && woken > before
				})
				before = woken
			}
			s.check()
		})
	}
}

// TestSignalWhileLeftAlone has a signal pending when the stub finishes without
// us: the handler runs, and the wait ends as it would have.
func TestSignalWhileLeftAlone(t *testing.T) {
	for _, wait := range []string{"pause", "sigsuspend", "epoll"} {
		t.Run(wait, func(t *testing.T) {
			s := launch(t, build(t, "deeds"))
			tid := number(t, s.ask(wait))
			s.fds = s.count(t)
			for sent := 1; sent <= 10; sent++ {
				eventually(t, "the thread waits", func() bool {
					st, err := readThreadStat(s.Path("task", fmt.Sprint(tid)))
					return err == nil && st.state == 'S'
				})
				stop := s.hold()
				stop.prefer = tid
				in := injection{nr: unix.SYS_GETPID}
				if err := stop.held(func() error {
					th, prog, err := stop.host(&in)
					if err != nil {
						return err
					}
					if err := errors.Join(stop.place(prog), stop.enter(th), setMask(tid, ^uint64(0))); err != nil {
						return err
					}
					return sigqueue(s.ID.PID, tid, 35, 1)
				}); err != nil {
					t.Fatal(errors.Join(err, stop.Release()))
				}
				if err := stop.Release(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the wait ended", func() bool {
					return s.ask("check") == fmt.Sprintf("ok %d %d %d", sent, sent, sent)
				})
				if _, err := Clean(context.Background(), s.Target); err != nil {
					t.Fatal(err)
				}
				s.check()
			}
		})
	}
}

// sigqueue sends a real-time signal with a value to one thread.
func sigqueue(pid, tid, signal, value int) error {
	info := struct {
		signo, errno, code, _ int32
		pid, uid              int32
		value                 int64
		_                     [96]byte
	}{signo: int32(signal), code: -1 /* SI_QUEUE */, pid: int32(os.Getpid()), value: int64(value)}
	_, _, e := unix.Syscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(pid), uintptr(tid), uintptr(signal), uintptr(unsafe.Pointer(&info)), 0, 0)
	return errno(e)
}

// TestGroupStop takes snapshots of a target that SIGSTOP has stopped, stops it
// while it is held, and continues it while it is held.
func TestGroupStop(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks", "timer")
	stopped := func() bool { return s.allIn("T") }
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(s.ID.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		signal(syscall.SIGSTOP)
		eventually(t, "the target stops", stopped)
		for range 3 {
			s.snapshot()
			eventually(t, "the target is still stopped", stopped)
		}
		signal(syscall.SIGCONT)
		s.check()

		stop := s.hold()
		signal(syscall.SIGSTOP)
		if _, err := stop.Call(unix.SYS_GETPID); err != nil {
			t.Fatal(err)
		}
		if err := stop.Release(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a stop signal sent meanwhile acts", stopped)

		stop = s.hold()
		signal(syscall.SIGCONT)
		if _, err := stop.Call(unix.SYS_GETPID); err != nil {
			t.Fatal(err)
		}
		if err := stop.Release(); err != nil {
			t.Fatal(err)
		}
		s.check() // answers only when it runs again
	}
}

// allIn reports whether all threads are in one of the states.
func (s *subject) allIn(states string) bool {
	tids, err := s.Threads()
	for _, tid := range tids {
		st, e := readThreadStat(s.Path("task", fmt.Sprint(tid)))
		if e == nil && !strings.Contains(states, string(st.state)) {
			return false
		}
	}
	return err == nil
}

// TestVforkParent has a thread that cannot stop: all are released in time, and
// the error names it.
func TestVforkParent(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	pipe := number(t, s.ask("vfork"))
	s.fds = s.count(t)
	eventually(t, "the thread waits for its child", func() bool { return !s.allIn("SRt") })
	began := time.Now()
	_, err := Start(context.Background(), s.Target, Options{})
	if !errors.Is(err, ErrStuck) || !strings.Contains(err.Error(), "vfork") {
		t.Errorf("Start: %v", err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("the refusal took %v", d)
	}
	s.clean()
	s.ask("closing")
	s.ask(fmt.Sprintf("write %d", pipe))
	eventually(t, "the child has ended", func() bool { return s.ask("check") == "ok 0 0 1" })
	s.snapshot()
	s.check()
}

// TestWorkerThreads has a thread of the kernel's own among those of the target:
// it is no part of the stop, and what it waits for is not broken off.
func TestWorkerThreads(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	answer := s.ask("uring")
	if strings.HasPrefix(answer, "errno") {
		t.Skip("io_uring: ", answer)
	}
	pipe := number(t, answer)
	s.fds = s.count(t)
	eventually(t, "a worker waits", func() bool {
		tids, err := s.Threads()
		return err == nil && len(tids) > 1 && s.allIn("S")
	})
	tids, err := s.Threads()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		snap := s.open()
		if n := len(snap.Threads()); n != 1 {
			t.Errorf("%d threads of %v are stopped, not 1", n, tids)
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
		s.check()
	}
	s.ask(fmt.Sprintf("write %d", pipe))
	if got := s.ask("completion"); got != "result 1" {
		t.Errorf("the read ends with %s", got)
	}
}

// TestTargetEnds kills the target while it is held and while a snapshot of it
// lives, and lets it start another program then.
func TestTargetEnds(t *testing.T) {
	s := launch(t, build(t, "deeds"))
	stop := s.hold()
	if err := syscall.Kill(s.ID.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := stop.Call(unix.SYS_GETPID); !errors.Is(err, proc.ErrGone) {
		t.Errorf("call in a killed target: %v", err)
	}
	if _, err := stop.Snapshot(SnapshotOptions{}); !errors.Is(err, proc.ErrGone) {
		t.Errorf("snapshot of a killed target: %v", err)
	}
	if err := stop.Release(); err != nil {
		t.Errorf("release: %v", err)
	}
	if _, err := Start(context.Background(), s.Target, Options{}); !errors.Is(err, proc.ErrGone) {
		t.Errorf("start: %v", err)
	}

	s = launch(t, build(t, "deeds"))
	port := number(t, s.ask("listen"))
	snap := s.open()
	sp := addr(snap.Threads()[0].Regs.Rsp)
	if err := syscall.Kill(s.ID.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the port is free again", func() bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close()
		}
		return err == nil
	})
	if _, err := snap.ReadAt(make([]byte, 8), sp); !errors.Is(err, ErrAbandoned) || !errors.Is(err, proc.ErrGone) {
		t.Errorf("read after the target's end: %v", err)
	}
	if err := snap.Close(); err != nil {
		t.Errorf("close: %v", err)
	}

	s = launch(t, build(t, "deeds"))
	s.ask("listen")
	snap = s.open()
	if got := s.ask("exec"); got != "again" {
		t.Fatal(got)
	}
	eventually(t, "the snapshot of the old program is given up", func() bool {
		_, err := snap.ReadAt(make([]byte, 8), sp)
		return errors.Is(err, ErrAbandoned)
	})
	if err := snap.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	s.fds = s.count(t)
	s.check()
	s.snapshot()
}
