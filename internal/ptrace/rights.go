package ptrace

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// refuse looks, from outside, whether t can be traced at all.
func refuse(t *proc.Target) error {
	if following(t.ID) != nil {
		return nil // it is traced by this very stanch
	}
	if t.ID.PID == os.Getpid() {
		return fmt.Errorf("pid %d is stanch itself: %w", t.ID.PID, proc.ErrUnsupported)
	}
	return t.Usable()
}

// refused explains why the kernel denied PTRACE_SEIZE of a thread, from what
// can be seen.
func (s *Stop) refused(tid int, err error) error {
	if gone := s.target.Check(); gone != nil {
		return gone
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("attach to pid %d: %w", s.target.ID.PID, err)
	}
	if len(s.threads) > 0 {
		// Others of the same process were let through: no right is missing.
		return fmt.Errorf("%w: %s cannot be attached to while it starts another program", ErrStuck, describe(s.target, tid))
	}
	if e := s.target.Usable(); e != nil {
		return e // traced by another since, or not permitted at all
	}
	return fmt.Errorf("attach to pid %d: %s: %w", s.target.ID.PID, whyDenied(s.target), proc.ErrDenied)
}

// whyDenied names the check that refuses to attach to a process that may be
// looked at, and what to do.
func whyDenied(t *proc.Target) string {
	if mayTrace(t.Root) {
		return "a security module (SELinux, AppArmor, Landlock, a BPF program) forbids it; look into the kernel's log"
	}
	switch scope, _ := t.Root.Sysctl("kernel/yama/ptrace_scope"); scope {
	case 1:
		return "kernel.yama.ptrace_scope is 1, which lets a process be traced by its ancestors alone; run stanch as root (sudo stanch ...)"
	case 2:
		return "kernel.yama.ptrace_scope is 2, which reserves tracing for the administrator; run stanch as root (sudo stanch ...)"
	case 3:
		return "kernel.yama.ptrace_scope is 3, which forbids tracing until the next boot"
	}
	return "a security module or its user namespace forbids it; run stanch as root (sudo stanch ...), outside of a container"
}

// mayTrace reports whether stanch has CAP_SYS_PTRACE.
func mayTrace(r proc.Root) bool {
	self, err := r.Self()
	if err != nil {
		return false
	}
	st, err := self.Status()
	return err == nil && st.CapEffective>>unix.CAP_SYS_PTRACE&1 != 0
}
