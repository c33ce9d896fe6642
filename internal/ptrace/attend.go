package ptrace

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tracing thread of a family whose calls are watched waits for news by
// itself, in waitid: the kernel wakes it on the very processor that the tracee
// leaves, which halves the time of a stop (measured, kernel 6.18, against SIGCHLD
// taken with sigtimedwait). Whoever needs the thread ends that wait by a signal.

// wakeUp is a real-time signal that neither libc nor the Go runtime uses for
// itself (32 to 34 are theirs).
const wakeUp = syscall.Signal(41)

// wakesUp prepares wakeUp, once: its handler is Go's, which does nothing with
// it, but a system call that it interrupts is not made again.
var wakesUp = sync.OnceValue(func() error {
	signal.Notify(make(chan os.Signal, 1), wakeUp)
	const restart = 0x10000000 // SA_RESTART
	return changeAction(wakeUp, func(flags uint64) uint64 { return flags &^ restart })
})

// hearStops turns SIGCHLD for stops of children on or off, in all of stanch.
// It is sent for each stop of a tracee too, and nobody needs it who waits.
func hearStops(on bool) error {
	const noStops = 1 // SA_NOCLDSTOP
	return changeAction(syscall.SIGCHLD, func(flags uint64) uint64 {
		if on {
			return flags &^ noStops
		}
		return flags | noStops
	})
}

// changeAction changes the flags of what is done at a signal.
func changeAction(sig syscall.Signal, change func(flags uint64) uint64) error {
	var act struct{ handler, flags, restorer, mask uint64 } // struct kernel_sigaction
	_, _, e := unix.Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&act)), sigsetSize, 0, 0)
	if e == 0 {
		act.flags = change(act.flags)
		_, _, e = unix.Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, sigsetSize, 0, 0)
	}
	return errno(e)
}

// attendItself makes the tracing thread call turn whenever it has nothing else
// to do. It runs on that thread.
func (t *tracer) attendItself(turn func()) error {
	if err := errors.Join(wakesUp(), hearStops(false)); err != nil {
		return err
	}
	// At the tracees' own priority, the scheduler keeps both on one processor.
	t.ease()
	t.turn = turn
	t.sleeps.Store(true)
	return nil
}

// easeTracer takes back the hurry of a stop where the tracing thread has none
// otherwise.
func (s *Stop) easeTracer() {
	if s.tracer.turn != nil {
		s.tracer.ease()
	}
}

// nudge ends a wait of the tracing thread. It is done again until it helps,
// since the signal may come just before the wait.
func (t *tracer) nudge() { _ = unix.Tgkill(unix.Getpid(), t.tid, wakeUp) }

// reach waits until the tracing thread takes a call; false when it has ended.
func (t *tracer) reach(call func()) bool {
	t.waiting.Add(1)
	var again <-chan time.Time
	if t.sleeps.Load() {
		t.nudge()
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		again = tick.C
	}
	for {
		select {
		case t.calls <- call:
			return true
		case <-t.gone:
			return false
		case <-again:
			t.nudge()
		}
	}
}

// seldom is how often tracees are looked after without news.
const seldom = 50 * time.Millisecond

// turn takes some news, and waits for the first.
func (f *Family) turn() {
	const several = 64 // then it is the turn of those who wait for the tracer
	for range several {
		tid := someoneWithNews(!f.uneasy)
		tr := f.tracees[tid]
		if tr == nil || tr.state != runs {
			f.uneasy = false
			f.lookRound()
			return
		}
		n := look(tid)
		if !n.stopped && !n.ended {
			return
		}
		f.uneasy = f.uneasy || n.event != unix.PTRACE_EVENT_SECCOMP && n.signal != syscallStop
		f.handle(tr, n)
	}
}

// someoneWithNews finds a tracee that has stopped or ended; 0 when there is
// none, or the wait was ended.
func someoneWithNews(wait bool) int {
	var si waitInfo
	how := unix.WSTOPPED | unix.WEXITED | unix.WNOWAIT | unix.WALL | unix.WNOTHREAD
	if !wait {
		how |= unix.WNOHANG
	}
	if err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&si)), how, nil); err != nil || si.Signo == 0 {
		return 0
	}
	return int(si.PID)
}
