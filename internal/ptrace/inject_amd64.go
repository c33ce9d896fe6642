package ptrace

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// Call makes one system call inside the target and returns its result; an
// error of the call itself is an unix.Errno. The call must not block: the
// target stands still meanwhile. It is refused, untouched, when the target's
// seccomp filters do not surely allow it.
//
// If stanch dies meanwhile, the call is finished, its result is lost, and the
// thread goes on as if nothing had been.
func (s *Stop) Call(nr uint64, args ...uint64) (uint64, error) {
	var ret uint64
	if forbidden[nr] {
		return 0, fmt.Errorf("system call %d cannot be made for another: %w", nr, proc.ErrUnsupported)
	}
	err := s.held(func() error {
		if s.left() <= 0 {
			return ErrPause
		}
		in := injection{nr: nr}
		copy(in.args[:], args)
		var err error
		ret, err = s.inject(&in)
		return err
	})
	return ret, err
}

// forbidden are calls after which the thread, or a second one, would not come
// out of the stub as it went in.
var forbidden = map[uint64]bool{
	unix.SYS_CLONE: true, unix.SYS_CLONE3: true, unix.SYS_FORK: true, unix.SYS_VFORK: true,
	unix.SYS_EXECVE: true, unix.SYS_EXECVEAT: true, unix.SYS_EXIT: true, unix.SYS_EXIT_GROUP: true,
	unix.SYS_RT_SIGRETURN: true, unix.SYS_RESTART_SYSCALL: true,
}

// inject runs one call in a suitable thread, on the tracing thread.
func (s *Stop) inject(in *injection) (uint64, error) {
	th, prog, err := s.host(in)
	if err != nil {
		return 0, err
	}
	return s.injectIn(th, prog, in.forks)
}

// injectIn runs one call in th. Every state between two steps is one in which
// the thread can be left alone:
//
//   - until its registers are written, it is where it was;
//   - from then on it enters the stub, or is inside it;
//   - once its own registers are back, it is where it was.
//
// The signal mask is changed only while the thread is on its way through the
// stub, which sets it and restores it anyway. Signals are blocked so that no
// handler runs in the stub, and so that clone does not ask to be restarted.
func (s *Stop) injectIn(th *thread, prog *program, forks bool) (uint64, error) {
	if err := s.place(prog); err != nil {
		return 0, err
	}
	if forks {
		// The child is attached before it runs. No option that kills is among
		// these: the child would share it with the thread that makes it.
		options := seizeOptions | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
		if s.family != nil {
			options = s.family.options
		}
		if err := setOptions(th.TID, options); err != nil {
			return 0, s.lost(th, err)
		}
	}
	if err := s.enter(th); err != nil {
		return 0, err
	}
	if err := setMask(th.TID, ^uint64(0)); err != nil {
		return 0, s.lost(th, err)
	}
	ret, err := s.through(th, prog, forks)
	if err != nil {
		return 0, err
	}
	if err := s.takeBack(th); err != nil {
		return 0, err
	}
	if e := -int64(ret); e > 0 && e < 4096 {
		return 0, unix.Errno(e)
	}
	return ret, nil
}

// enter moves th into the stub. From here it comes back by itself.
func (s *Stop) enter(th *thread) error {
	r := th.restore
	r.Rip = uint64(s.stub.entry())
	r.Orig_rax = noSyscall // not a system call to restart
	if err := setRegs(th.TID, &r); err != nil {
		return s.lost(th, err)
	}
	th.busy = true
	return nil
}

// patience is how long an injected call may take: the rest of the pause, and a
// little more for the stub to be left in order. After that the other threads
// go on, and the stub brings this one home.
func (s *Stop) patience() time.Time {
	return time.Now().Add(max(s.left(), 0) + 100*time.Millisecond)
}

// through lets th run the stub up to the exit of the injected call and
// returns the call's result. Stops on the way: into and out of the call that
// blocks signals, into the injected call, the news of a child, out of it.
func (s *Stop) through(th *thread, prog *program, forks bool) (uint64, error) {
	entry := uint64(s.stub.entry())
	deadline := s.patience()
	signal, syscalls := 0, 0
	for {
		if err := contToSyscall(th.TID, signal); err != nil {
			return 0, s.lost(th, err)
		}
		n, err := s.await(th, deadline)
		if err != nil {
			return 0, err
		}
		signal = 0
		switch {
		case n.event == unix.PTRACE_EVENT_CLONE || n.event == unix.PTRACE_EVENT_FORK || n.event == unix.PTRACE_EVENT_VFORK:
			child, err := eventMessage(th.TID)
			if err != nil || !forks {
				return 0, s.lost(th, fmt.Errorf("unexpected child: %w", err))
			}
			s.child = child
		case n.signal == syscallStop:
			syscalls++
			r, err := getRegs(th.TID)
			if err != nil {
				return 0, s.lost(th, err)
			}
			if syscalls == 4 && r.Rip == entry+uint64(prog.call) {
				return r.Rax, nil
			}
			if syscalls >= 4 {
				return 0, s.astray(th, &r)
			}
		case n.event == 0:
			// SIGSTOP and SIGKILL cannot be blocked; the former is delivered,
			// and the thread goes on all the same. Anything else here comes
			// from an instruction of the stub itself.
			if n.signal != int(unix.SIGSTOP) {
				return 0, s.astray(th, nil)
			}
			signal = n.signal
		}
	}
}

// await waits for the next stop of a thread that runs the stub.
func (s *Stop) await(th *thread, deadline time.Time) (news, error) {
	for try := 0; ; try++ {
		n := look(th.TID)
		if !n.stopped && !n.ended && try > 50 {
			n = lookAgain(th.TID)
		}
		switch {
		case n.ended:
			th.state = ended
			return n, fmt.Errorf("pid %d ended during a system call: %w", s.target.ID.PID, proc.ErrGone)
		case n.stopped:
			return n, nil
		case time.Now().After(deadline):
			// The stub brings the thread home without us.
			th.state = running
			return n, fmt.Errorf("a system call in thread %d does not return: %w", th.TID, ErrStuck)
		}
		breathe(try)
	}
}

// takeBack stops th on its way out of the stub's call and gives it its own
// registers. It must stand at an event stop then, not at the exit of a system
// call: only there does the kernel go on to decide about pending signals and
// the restart of the call that was interrupted.
func (s *Stop) takeBack(th *thread) error {
	if err := interrupt(th.TID); err != nil {
		return s.lost(th, err)
	}
	deadline := s.patience()
	for signal := 0; ; {
		if err := cont(th.TID, signal); err != nil {
			return s.lost(th, err)
		}
		n, err := s.await(th, deadline)
		if err != nil {
			return err
		}
		if n.event == eventStop {
			break
		}
		signal = 0
		if n.event == 0 && n.signal == int(unix.SIGSTOP) {
			signal = n.signal
		}
	}
	if err := setMask(th.TID, th.mask); err != nil {
		return s.lost(th, err)
	}
	if err := setRegs(th.TID, &th.restore); err != nil {
		return s.lost(th, err)
	}
	th.busy = false
	return nil
}

// astray brings a thread back that did not follow the stub.
func (s *Stop) astray(th *thread, at *unix.PtraceRegs) error {
	err := errors.New("a system call stub did not run as written")
	if at != nil {
		err = fmt.Errorf("%w: at %#x, result %d", err, at.Rip, result(at))
	}
	if e := s.takeBack(th); e != nil {
		return e
	}
	return err
}

// lost says why a thread could not be moved: it was killed, or an error.
func (s *Stop) lost(th *thread, err error) error {
	if errors.Is(err, unix.ESRCH) {
		th.state = ended
		return fmt.Errorf("thread %d ended while it was held: %w", th.TID, proc.ErrGone)
	}
	return fmt.Errorf("thread %d: %w", th.TID, err)
}
