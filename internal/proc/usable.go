package proc

import (
	"errors"
	"fmt"
	"os"
)

// Usable returns an error of one line when stanch cannot look into this process
// at all: it is gone, a zombie, a thread of another process, a kernel thread,
// runs 32-bit or foreign code, is traced by another program, or may not be
// looked at. The error says what to do and wraps ErrGone, ErrDenied or
// ErrUnsupported. It reads /proc alone and touches nothing.
func (t *Target) Usable() error {
	stat, err := t.Stat()
	if err != nil {
		return err
	}
	if stat.Start != t.ID.Start {
		return fmt.Errorf("pid %d: %w", t.ID.PID, ErrGone)
	}
	who := fmt.Sprintf("%s[%d]", stat.Comm, t.ID.PID)
	switch {
	case stat.Kernel():
		return refuse(ErrUnsupported, "%s is a kernel thread: it has no memory of its own to look into", who)
	case stat.State == 'Z' && stat.Threads > 1:
		return refuse(ErrUnsupported, "the main thread of %s has ended while others run on: the kernel shows no memory of such a process", who)
	case stat.State == 'Z' || stat.State == 'X':
		return refuse(ErrGone, "%s has ended and is a zombie: its parent, pid %d, has not waited for it; nothing is left to look into", who, stat.PPID)
	}
	status, err := t.Status()
	if err != nil {
		return err
	}
	if status.Tgid != 0 && status.Tgid != t.ID.PID {
		return refuse(ErrUnsupported, "%d is a thread of process %d (%s): name that process", t.ID.PID, status.Tgid, stat.Comm)
	}
	if status.TracerPID != 0 {
		return refuse(ErrDenied, "%s is already traced by %s, and a process can have one tracer only: end that first", who, t.Root.tracer(status.TracerPID))
	}
	return t.usableProgram(who, status)
}

// UsableProgram is the part of Usable that is about the executable: whether it
// can be looked at, and is a 64-bit x86-64 program.
func (t *Target) UsableProgram() error {
	stat, err := t.Stat()
	if err != nil {
		return err
	}
	status, err := t.Status()
	if err != nil {
		return err
	}
	return t.usableProgram(fmt.Sprintf("%s[%d]", stat.Comm, t.ID.PID), status)
}

// tracer names the process of a tracing thread.
func (r Root) tracer(tid int) string {
	b, err := os.ReadFile(r.Path(tid, "status"))
	if err != nil {
		return fmt.Sprintf("pid %d", tid)
	}
	s := parseStatus(string(b))
	if st, err := r.stat(s.Tgid); err == nil {
		return fmt.Sprintf("%s[%d]", st.Comm, s.Tgid)
	}
	return fmt.Sprintf("%s[%d]", s.Name, s.Tgid)
}

// usableProgram judges the executable.
func (t *Target) usableProgram(who string, s *Status) error {
	if _, err := os.Readlink(t.Path("exe")); err != nil {
		if !errors.Is(err, os.ErrPermission) {
			return gone(t.ID.PID, err)
		}
		return refuse(ErrDenied, "%s: %s", who, whyDenied(s))
	}
	f, err := t.OpenExe()
	if err != nil {
		return nil // an executable that may be run but not read; its memory tells later
	}
	defer f.Close()
	h, err := readHead(f)
	switch {
	case err != nil:
		return refuse(ErrUnsupported, "%s runs a file that is no ELF executable", who)
	case h.machine == emX8664 && h.class != elfClass64:
		return refuse(ErrUnsupported, "%s is an x32 program (32-bit pointers): stanch looks into 64-bit x86-64 programs alone", who)
	case h.class != elfClass64:
		return refuse(ErrUnsupported, "%s is a 32-bit program (%s): stanch looks into 64-bit x86-64 programs alone", who, machineName(h.machine))
	case h.machine != emX8664:
		return refuse(ErrUnsupported, "%s is a program for %s: stanch looks into x86-64 programs alone", who, machineName(h.machine))
	}
	return nil
}

// Rights is which of root's rights to read other processes stanch has.
type Rights struct {
	User   int  // the effective one
	Ptrace bool // CAP_SYS_PTRACE: what the kernel guards as it does memory
	Files  bool // CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE: files and directories of /proc/PID that are open to their user alone
}

// OwnRights reads the rights of stanch itself; what cannot be read is absent.
func OwnRights() Rights {
	const capDACOverride, capDACReadSearch, capSysPtrace = 1 << 1, 1 << 2, 1 << 19
	rights := Rights{User: os.Geteuid()}
	if own, err := Default.ownStatus(); err == nil {
		rights.Ptrace = own.CapEffective&capSysPtrace != 0
		rights.Files = own.CapEffective&(capDACOverride|capDACReadSearch) != 0
	}
	return rights
}

// whyDenied tells which part of the kernel's check (__ptrace_may_access in
// kernel/ptrace.c) refused stanch, as far as /proc shows it, and what to do.
func whyDenied(s *Status) string {
	rights := OwnRights()
	self := rights.User
	switch {
	case rights.Ptrace:
		return "the kernel refuses although stanch has CAP_SYS_PTRACE: the process is in another user namespace, or a security module (AppArmor, SELinux) protects it; run stanch on the host, unconfined"
	case self == 0:
		return "stanch is root without CAP_SYS_PTRACE, as in a container; run it on the host, or give the container that capability (--cap-add SYS_PTRACE)"
	}
	for _, uid := range s.UID[:3] {
		if uid != self {
			return fmt.Sprintf("it runs as %s, stanch as %s; run stanch as root (sudo stanch ...)", userName(uid), userName(self))
		}
	}
	gid := os.Getegid()
	for _, g := range s.GID[:3] {
		if g != gid {
			return fmt.Sprintf("its group (%d) is not stanch's (%d); run stanch as root (sudo stanch ...)", g, gid)
		}
	}
	if s.CapPermitted != 0 {
		return "it holds capabilities that stanch does not hold; run stanch as root (sudo stanch ...)"
	}
	return "it is not dumpable (prctl PR_SET_DUMPABLE, or it changed its user or came from a set-user-id file), so only root may look into it; run stanch as root (sudo stanch ...)"
}

// ownStatus is the status of the calling thread.
func (r Root) ownStatus() (*Status, error) {
	b, err := os.ReadFile(string(r) + "/thread-self/status")
	if err != nil {
		return nil, err
	}
	return parseStatus(string(b)), nil
}

func userName(uid int) string {
	if uid == 0 {
		return "root"
	}
	return fmt.Sprintf("uid %d", uid)
}
