package ptrace

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests that x/sys/unix does not name, from include/uapi/linux/ptrace.h.
const (
	requestGetSyscallDispatch = 0x4211                   // PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4
	requestGetRseq            = 0x420f                   // PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13
	eventStop                 = unix.PTRACE_EVENT_STOP   // 128
	syscallStop               = int(unix.SIGTRAP) | 0x80 // with PTRACE_O_TRACESYSGOOD
	sigsetSize                = 8                        // sizeof(kernel_sigset_t)
)

// seizeOptions apply to every thread of a target. No option that kills is
// among them.
const seizeOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC

// request makes one ptrace request that changes something. Each is a step: a
// point at which a test build can kill stanch.
func request(name string, req, tid int, addr, data uintptr) error {
	step(name)
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	return errno(e)
}

// ask makes a ptrace request with a buffer of stanch as its data. Those that
// write into the tracee are marked as steps by their callers.
func ask(req, tid int, addr uintptr, data unsafe.Pointer) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, uintptr(data), 0, 0)
	return int(n), errno(e)
}

func errno(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func seize(tid, options int) error {
	return request("seize", unix.PTRACE_SEIZE, tid, 0, uintptr(options))
}

func interrupt(tid int) error { return request("interrupt", unix.PTRACE_INTERRUPT, tid, 0, 0) }

func detach(tid int) error { return request("detach", unix.PTRACE_DETACH, tid, 0, 0) }

func cont(tid, signal int) error {
	return request("continue", unix.PTRACE_CONT, tid, 0, uintptr(signal))
}

func contToSyscall(tid, signal int) error {
	return request("continue to system call", unix.PTRACE_SYSCALL, tid, 0, uintptr(signal))
}

func setOptions(tid, options int) error {
	return request("set options", unix.PTRACE_SETOPTIONS, tid, 0, uintptr(options))
}

func getRegs(tid int) (unix.PtraceRegs, error) {
	var r unix.PtraceRegs
	_, err := ask(unix.PTRACE_GETREGS, tid, 0, unsafe.Pointer(&r))
	return r, err
}

// setRegs writes all general registers. The kernel copies them in before it
// changes the first, so a death of this process leaves all or none.
func setRegs(tid int, r *unix.PtraceRegs) error {
	step("write registers")
	_, err := ask(unix.PTRACE_SETREGS, tid, 0, unsafe.Pointer(r))
	return err
}

// getMask reads the signal mask the thread has outside of sigsuspend, ppoll
// and their like, which replace it for their duration.
func getMask(tid int) (uint64, error) {
	var mask uint64
	_, err := ask(unix.PTRACE_GETSIGMASK, tid, sigsetSize, unsafe.Pointer(&mask))
	return mask, err
}

func setMask(tid int, mask uint64) error {
	step("write signal mask")
	_, err := ask(unix.PTRACE_SETSIGMASK, tid, sigsetSize, unsafe.Pointer(&mask))
	return err
}

func eventMessage(tid int) (int, error) {
	var msg uint64
	_, err := ask(unix.PTRACE_GETEVENTMSG, tid, 0, unsafe.Pointer(&msg))
	return int(msg), err
}

// siginfo is the head of struct siginfo on 64-bit Linux.
type siginfo struct {
	Signo int32
	Errno int32
	Code  int32
	_     [116]byte
}

// stopInfo reads why a thread stands still; ESRCH when it does not. It never
// consumes anything, unlike wait4.
func stopInfo(tid int) (siginfo, error) {
	var si siginfo
	_, err := ask(unix.PTRACE_GETSIGINFO, tid, 0, unsafe.Pointer(&si))
	return si, err
}

// poke writes through PTRACE_POKETEXT, which forces its way also where the
// kernel restricts /proc/PID/mem (6.12's proc_mem.force_override).
func poke(tid int, addr uint64, p []byte) error {
	for len(p) > 0 {
		var word [8]byte
		if _, err := ask(unix.PTRACE_PEEKTEXT, tid, uintptr(addr), unsafe.Pointer(&word)); err != nil {
			return err
		}
		n := copy(word[:], p)
		if err := request("poke", unix.PTRACE_POKETEXT, tid, uintptr(addr), uintptr(binary.LittleEndian.Uint64(word[:]))); err != nil {
			return err
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// rseqConfig is struct ptrace_rseq_configuration.
type rseqConfig struct {
	Pointer   uint64
	Size      uint32
	Signature uint32
	Flags     uint32
	_         uint32
}

// rseqOf says where a thread registered its restartable sequence area, zero
// when it did not; an error when the kernel cannot tell (before 5.13, or built
// without CONFIG_RSEQ).
func rseqOf(tid int) (uint64, error) {
	var c rseqConfig
	_, err := ask(requestGetRseq, tid, unsafe.Sizeof(c), unsafe.Pointer(&c))
	return c.Pointer, err
}

// dispatchConfig is struct ptrace_sud_config.
type dispatchConfig struct {
	Mode, Selector, Offset, Len uint64
}

// redirectsSyscalls reports whether system calls made outside of a chosen
// range raise SIGSYS in this thread (prctl PR_SET_SYSCALL_USER_DISPATCH, used
// by Wine).
func redirectsSyscalls(tid int) bool {
	var c dispatchConfig
	_, err := ask(requestGetSyscallDispatch, tid, unsafe.Sizeof(c), unsafe.Pointer(&c))
	return err == nil && c.Mode != 0
}

// news is what a thread did: one of stopped, ended, or neither (still runs).
type news struct {
	stopped bool
	ended   bool
	event   int             // PTRACE_EVENT_*, or 0
	signal  int             // of the stop: a signal, SIGTRAP, or syscallStop
	status  unix.WaitStatus // of the end
}

// look asks, without waiting, what a tracee did since it last ran. The news that
// a signal is about to be delivered is not consumed: the kernel forgets the
// signal with it, which would be lost if stanch died before it let the thread
// go on.
func look(tid int) news {
	var si waitInfo
	const peek = unix.WSTOPPED | unix.WEXITED | unix.WNOHANG | unix.WNOWAIT | unix.WALL | unix.WNOTHREAD
	err := unix.Waitid(unix.P_PID, tid, (*unix.Siginfo)(unsafe.Pointer(&si)), peek, nil)
	switch {
	case errors.Is(err, unix.EINTR) || err == nil && si.Signo == 0:
		return news{}
	case err != nil:
		return news{ended: true} // ECHILD: ended, and seen by another waiter
	}
	n := news{stopped: si.Code == cldTrapped || si.Code == cldStopped}
	if n.stopped {
		n.event, n.signal = int(si.Status>>8)&0xff, int(si.Status)&0xff
		step("stopped")
		if n.event == 0 && n.signal != syscallStop {
			return n
		}
	}
	n.ended = !n.stopped
	// It changes nothing for a thread that was killed meanwhile: its end is the
	// next news.
	_, _ = unix.Wait4(tid, &n.status, unix.WNOHANG|unix.WALL|unix.WNOTHREAD, nil)
	return n
}

// Values of si_code of a stop, beside those of an end.
const (
	cldTrapped = 4
	cldStopped = 5
)

// waitInfo is what waitid puts into struct siginfo.
type waitInfo struct {
	Signo, Errno, Code, _ int32
	PID                   int32
	UID                   uint32
	Status                int32 // of a stop: signal, and PTRACE_EVENT_* << 8
	_                     [100]byte
}

// lookAgain is look for a tracee whose news may have gone to another waiter
// of this process: it asks the thread itself.
func lookAgain(tid int) news {
	if n := look(tid); n.stopped || n.ended {
		return n
	}
	si, err := stopInfo(tid)
	if err != nil {
		return news{}
	}
	// ptrace_do_notify puts the exit code, event<<8 | signal, into si_code;
	// a signal-delivery-stop shows the signal's own information.
	if si.Signo == int32(unix.SIGTRAP) && si.Code>>8 != 0 || int(si.Code) == syscallStop {
		return news{stopped: true, event: int(si.Code>>8) & 0xff, signal: int(si.Code) & 0xff}
	}
	return news{stopped: true, signal: int(si.Signo)}
}
