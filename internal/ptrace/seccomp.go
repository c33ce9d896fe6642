package ptrace

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// Syscall is one system call as a seccomp filter sees it.
type Syscall struct {
	Nr   uint64
	Args [6]uint64
}

// stubCall is a call with the instruction pointer that a filter sees.
type stubCall struct {
	Syscall
	ip uint64
}

// filterSet is what confines one thread.
type filterSet struct {
	mode    int // of /proc/PID/task/TID/status Seccomp: 0 off, 1 strict, 2 filters
	filters [][]instruction
	err     error // why the filters cannot be read
}

// Allowed reports whether some thread of the target can make all of these
// calls, with exactly these arguments: a nil error means that Call will not
// be refused for them. Arguments that are pointers cannot be followed by a
// filter, so any value serves for them.
func (s *Stop) Allowed(calls ...Syscall) error {
	return s.held(func() error {
		if len(calls) == 0 {
			return nil
		}
		in := injection{nr: calls[0].Nr, args: calls[0].Args}
		_, _, err := s.host(&in, calls[1:]...)
		return err
	})
}

// allows evaluates the filters of th for calls made from the stub.
func (s *Stop) allows(th *thread, calls []stubCall) error {
	set, ok := s.filters[th.TID]
	if !ok {
		set = s.readFilters(th.TID)
		s.filters[th.TID] = set
	}
	switch {
	case set.mode == 0:
		return nil
	case set.mode == 1:
		return fmt.Errorf("thread %d is in strict seccomp mode, which kills it for any other system call: %w", th.TID, proc.ErrUnsupported)
	case set.err != nil:
		return fmt.Errorf("the seccomp filters of thread %d cannot be read (%w), so no system call is tried: %w", th.TID, set.err, proc.ErrUnsupported)
	}
	for _, c := range calls {
		d := seccompData{nr: uint32(c.Nr), arch: auditArch, ip: c.ip, args: c.Args}
		v, err := verdict(set.filters, &d)
		if err != nil {
			return fmt.Errorf("thread %d: %w: %w", th.TID, err, proc.ErrUnsupported)
		}
		switch v & unix.SECCOMP_RET_ACTION_FULL {
		case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
		default:
			return fmt.Errorf("the seccomp filter of thread %d would %s at system call %d: %w", th.TID, actionName(v), c.Nr, proc.ErrUnsupported)
		}
	}
	return nil
}

// readFilters fetches the filters of a stopped thread. It needs CAP_SYS_ADMIN,
// a kernel with CONFIG_CHECKPOINT_RESTORE, and no seccomp filter on stanch.
func (s *Stop) readFilters(tid int) filterSet {
	st, err := s.target.ThreadStatus(tid)
	if err != nil {
		return filterSet{mode: 2, err: err}
	}
	set := filterSet{mode: st.Seccomp}
	if set.mode != 2 {
		return set
	}
	if s.family != nil && s.family.filter != nil && st.SeccompFilters == 1 {
		set.filters = [][]instruction{s.family.filter} // what a thread inherits, no other can take away
		return set
	}
	for i := uintptr(0); ; i++ {
		n, err := ask(unix.PTRACE_SECCOMP_GET_FILTER, tid, i, nil)
		switch {
		case errors.Is(err, unix.ENOENT) && i > 0:
			return set
		case errors.Is(err, unix.EACCES):
			set.err = errors.New("that needs CAP_SYS_ADMIN, and no seccomp filter on stanch itself")
			return set
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EIO):
			set.err = errors.New("the kernel is built without CONFIG_CHECKPOINT_RESTORE")
			return set
		case err != nil:
			set.err = err
			return set
		case n == 0 || n > 1<<16:
			set.err = errFilter
			return set
		}
		prog := make([]instruction, n)
		if _, err := ask(unix.PTRACE_SECCOMP_GET_FILTER, tid, i, unsafe.Pointer(&prog[0])); err != nil {
			set.err = err
			return set
		}
		set.filters = append(set.filters, prog)
	}
}
