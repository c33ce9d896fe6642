package ptrace

import (
	"time"

	"golang.org/x/sys/unix"
)

// rescue guards against a deadlock of the kernel: a thread in execve waits
// until the traced threads it killed are reaped by their tracer, while it
// holds the lock that PTRACE_SEIZE of another thread waits for. So while we
// seize, another thread of ours reaps what has ended, and nothing else. The
// result stops it.
func (s *Stop) rescue() func() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			tids, err := s.target.Threads()
			if err != nil {
				continue
			}
			for _, tid := range tids {
				reapEnded(tid)
			}
		}
	}()
	return func() { close(stop); <-done }
}

// reapEnded reaps a tracee that is a zombie; it leaves news of a stop alone.
func reapEnded(tid int) {
	var si unix.Siginfo
	const peek = unix.WEXITED | unix.WNOHANG | unix.WNOWAIT | unix.WALL
	if err := unix.Waitid(unix.P_PID, tid, &si, peek, nil); err != nil || si.Signo == 0 {
		return
	}
	switch si.Code {
	case cldExited, cldKilled, cldDumped:
		var status unix.WaitStatus
		_, _ = unix.Wait4(tid, &status, unix.WNOHANG|unix.WALL, nil)
	}
}

// Values of si_code with SIGCHLD, from include/uapi/asm-generic/siginfo.h.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)
