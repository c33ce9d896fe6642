package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Codes with which the kernel asks itself to restart a system call, from
// include/linux/errno.h. A tracer sees them, a program never does.
const (
	restartSys      = 512 // ERESTARTSYS: restarted unless a handler without SA_RESTART runs
	restartNoIntr   = 513 // ERESTARTNOINTR: always restarted
	restartNoHand   = 514 // ERESTARTNOHAND: restarted if no handler runs
	restartByBlock  = 516 // ERESTART_RESTARTBLOCK: by restart_syscall, if no handler runs
	syscallInsnSize = 2   // 0f 05
	noSyscall       = ^uint64(0)
)

// result is the value a system call is about to return.
func result(r *unix.PtraceRegs) int64 { return int64(r.Rax) }

// fromKernel reports whether a thread at an event stop came into the kernel by
// a system call that the kernel may still want to restart. It is also true at
// the entry of a signal handler and where a call is about to be made again.
func fromKernel(r *unix.PtraceRegs) bool { return int64(r.Orig_rax) >= 0 }

// inSyscall reports whether a thread at an event stop is on its way out of a
// system call: the instruction before its rip is syscall. Calls that were made
// with int 0x80, whose numbers are others, do not count.
func inSyscall(tid int, r *unix.PtraceRegs) bool {
	if !fromKernel(r) {
		return false
	}
	var text [8]byte
	_, err := ask(unix.PTRACE_PEEKTEXT, tid, uintptr(r.Rip-syscallInsnSize), unsafe.Pointer(&text))
	return err == nil && text[0] == 0x0f && text[1] == 0x05
}

// brokenOff reports whether our interrupt made the system call a thread is in
// return EINTR although it would have gone on waiting.
func brokenOff(r *unix.PtraceRegs) bool {
	return result(r) == -int64(unix.EINTR) && resumable[r.Orig_rax]
}

// restartable turns EINTR into ERESTARTNOHAND. At an event stop the thread is
// inside the kernel's signal code, which decides when it goes on: if a handler
// runs, the program sees EINTR, as it would have without us; if none does, the
// call starts again. The kernel makes that decision in one piece, so no signal
// falls between.
func restartable(r unix.PtraceRegs) unix.PtraceRegs {
	code := int64(restartNoHand)
	r.Rax = uint64(-code)
	return r
}

// spawns reports whether a system call can wait, unable to stop, for a child:
// vfork, or clone and clone3 with CLONE_VFORK.
func spawns(nr int) bool {
	return nr == unix.SYS_VFORK || nr == unix.SYS_CLONE || nr == unix.SYS_CLONE3
}

// resumable are the system calls that return EINTR when a thread stops even
// though no handler runs, and that have done nothing when they say EINTR, so
// that they can be made again. signal(7) lists them under "Interruption of
// system calls and library functions by stop signals"; sockets belong to them
// when they have a timeout (SO_RCVTIMEO, SO_SNDTIMEO). A call with a timeout
// starts it afresh. close is never among them: it has closed.
var resumable = map[uint64]bool{
	unix.SYS_EPOLL_WAIT:      true,
	unix.SYS_EPOLL_WAIT_OLD:  true,
	unix.SYS_EPOLL_PWAIT:     true,
	unix.SYS_EPOLL_PWAIT2:    true,
	unix.SYS_RT_SIGTIMEDWAIT: true,
	unix.SYS_SEMOP:           true,
	unix.SYS_SEMTIMEDOP:      true,
	unix.SYS_MSGRCV:          true,
	unix.SYS_MSGSND:          true,
	unix.SYS_IO_GETEVENTS:    true,
	unix.SYS_IO_PGETEVENTS:   true,
	unix.SYS_IO_URING_ENTER:  true,
	unix.SYS_FUTEX:           true,
	unix.SYS_FUTEX_WAITV:     true,
	unix.SYS_POLL:            true,
	unix.SYS_PPOLL:           true,
	unix.SYS_SELECT:          true,
	unix.SYS_PSELECT6:        true,
	unix.SYS_NANOSLEEP:       true,
	unix.SYS_CLOCK_NANOSLEEP: true,
	unix.SYS_READ:            true,
	unix.SYS_READV:           true,
	unix.SYS_PREADV2:         true,
	unix.SYS_WRITE:           true,
	unix.SYS_WRITEV:          true,
	unix.SYS_PWRITEV2:        true,
	unix.SYS_SENDFILE:        true,
	unix.SYS_SPLICE:          true,
	unix.SYS_RECVFROM:        true,
	unix.SYS_RECVMSG:         true,
	unix.SYS_RECVMMSG:        true,
	unix.SYS_SENDTO:          true,
	unix.SYS_SENDMSG:         true,
	unix.SYS_SENDMMSG:        true,
	unix.SYS_ACCEPT:          true,
	unix.SYS_ACCEPT4:         true,
	unix.SYS_CONNECT:         true,
	unix.SYS_FLOCK:           true,
	unix.SYS_FCNTL:           true,
	unix.SYS_MQ_TIMEDSEND:    true,
	unix.SYS_MQ_TIMEDRECEIVE: true,
	unix.SYS_WAIT4:           true,
	unix.SYS_WAITID:          true,
	unix.SYS_GETRANDOM:       true,
}
