package ptrace

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tracing thread of a family whose calls are watched waits for news by
// itself: SIGCHLD is blocked in it and taken with sigtimedwait. The kernel
// prefers the tracing thread for that signal, so that neither a signal handler
// nor another thread is between a stop and its answer.

// setOfChild is the set of SIGCHLD alone.
var setOfChild = unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGCHLD - 1)}}

// attendItself makes the tracing thread call turn whenever it has nothing else
// to do. It runs on that thread.
func (t *tracer) attendItself(turn func()) error {
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &setOfChild, nil); err != nil {
		return err
	}
	t.turn = turn
	t.sleeps.Store(true)
	return nil
}

// nudge ends a sleep of the tracing thread, or its next one.
func (t *tracer) nudge() {
	if t.sleeps.Load() {
		_ = unix.Tgkill(unix.Getpid(), t.tid, unix.SIGCHLD)
	}
}

// seldom is how often tracees are looked after without a signal.
const seldom = 50 * time.Millisecond

// sleep waits for news of a tracee, a nudge, or a while.
func (t *tracer) sleep() (timeout bool) {
	ts := unix.NsecToTimespec(int64(seldom))
	_, _, e := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&setOfChild)), 0, uintptr(unsafe.Pointer(&ts)), sigsetSize, 0, 0)
	return errors.Is(e, unix.EAGAIN)
}

// turn takes some news and, when there is none, waits for more.
func (f *Family) turn() {
	const several = 64 // then it is the turn of those who wait for the tracer
	for range several {
		tid := someoneWithNews()
		if tid == 0 {
			if f.uneasy {
				f.uneasy = false
				f.lookRound()
			}
			f.uneasy = f.tracer.sleep()
			return
		}
		tr := f.tracees[tid]
		if tr == nil || tr.state != runs {
			f.lookRound()
			f.uneasy = f.tracer.sleep()
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

// someoneWithNews finds a tracee that has stopped or ended, 0 when there is
// none.
func someoneWithNews() int {
	var si waitInfo
	const peek = unix.WSTOPPED | unix.WEXITED | unix.WNOHANG | unix.WNOWAIT | unix.WALL | unix.WNOTHREAD
	if err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&si)), peek, nil); err != nil || si.Signo == 0 {
		return 0
	}
	return int(si.PID)
}
