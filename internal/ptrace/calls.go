package ptrace

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// Watched is a system call that a Watcher is told of: each one, or with Values
// only one whose argument Arg, its lower 32 bits, is among them.
type Watched struct {
	Nr     uint64
	Arg    int
	Values []uint32
}

// Watch makes a Family tell of chosen system calls, those of raw syscall
// instructions too. A seccomp filter (SECCOMP_RET_TRACE) stops a thread at the
// chosen calls only; all others take 40 nanoseconds more. A stop takes as long
// as the kernel needs to change to stanch and back, and 4 microseconds of work;
// a call whose end is asked for has two.
//
// It is the last resort, for what it does to the program:
//
//   - Without its tracer, a call that the filter hands over returns ENOSYS for
//     ever. So no process is let go: all end with stanch, even by SIGKILL
//     (PTRACE_O_EXITKILL), Close ends them, and Release is refused.
//   - It waits for stanch at each of these calls: while stanch is stopped, so is
//     the program.
//   - No process of the family can be traced by another: ptrace is refused.
//   - Without CAP_SYS_ADMIN the filter needs no_new_privs, which the program
//     and what it starts keep: set-user-ID programs run without their rights,
//     as they do under any tracer that is not root.
//   - Calls of 32-bit and x32 code are not seen.
//
// A program's own filters work as they did: what they forbid fails before
// anybody is told, and what they allow is told of. It needs Linux 4.17.
type Watch struct {
	Calls   []Watched
	Watcher Watcher
}

// Watcher is told what the processes of a Family do, while the thread that
// does it stands still. Its methods are called on the tracing thread, one at a
// time: the program waits for them, and they must not call the Family.
type Watcher interface {
	// Begins: a thread is about to make a call. It returns whether Ends is
	// wanted.
	Begins(c *Call) (end bool)
	// Ends: the call has a result. A call that is broken off by a signal ends
	// with -512 to -516 (ERESTARTSYS and its like); when it is made again, it
	// begins again. It is said of fork, vfork, clone and clone3 that made a
	// process or a thread too, after Born and without Begins.
	Ends(c *Call)
	// Born: parent has made a process, which has not run yet. Parent is nil
	// when nobody knows who did.
	Born(parent, child *proc.Target)
	// Replaced: a program was started in a process that runs none of its code
	// yet. Close-on-exec descriptors are closed, and all other threads gone.
	Replaced(t *proc.Target)
	// Loaded: what it has mapped has changed: it is ready, or dlopen or dlclose
	// was called.
	Loaded(t *proc.Target)
	// Ended: it is gone.
	Ended(t *proc.Target)
}

// Call is a system call of a thread that stands still. Its memory is read with
// ReadAt, as leak.Memory says, and only until the method that it is given to
// returns. The registers are those at its begin.
type Call struct {
	Target *proc.Target
	TID    int
	Nr     uint64
	Args   [6]uint64
	Regs   unix.PtraceRegs
	Result int64 // negative: an error number
}

func newCall(tr *tracee, r *unix.PtraceRegs) *Call {
	c := &Call{Target: tr.of.target, TID: tr.tid, Nr: syscallNumber(r), Regs: *r}
	for i := range c.Args {
		c.Args[i] = syscallArg(r, i)
	}
	return c
}

// ReadAt reads the memory of who makes the call.
func (c *Call) ReadAt(p []byte, a leak.Addr) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	n, err := unix.ProcessVMReadv(c.TID, local, []unix.RemoteIovec{{Base: uintptr(a), Len: len(p)}}, 0)
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	return max(n, 0), err
}

// begins takes a thread that is about to make a chosen call.
func (f *Family) begins(tr *tracee) {
	r, err := getRegs(tr.tid)
	if err != nil {
		return // killed
	}
	c := newCall(tr, &r)
	if f.watch == nil || !f.watch.Begins(c) {
		_ = cont(tr.tid, 0)
		return
	}
	tr.call = c
	_ = contToSyscall(tr.tid, 0)
}

// ends takes a thread that has made one.
func (f *Family) ends(tr *tracee) {
	c := tr.call
	tr.call = nil
	if r, err := getRegs(tr.tid); err == nil {
		c.Result = result(&r)
		f.watch.Ends(c)
	}
	_ = cont(tr.tid, 0)
}

// tellBorn tells of a new process; parent is nil when it is not known.
func (f *Family) tellBorn(parent, child *member) {
	if f.watch == nil {
		return
	}
	var from *proc.Target
	if parent != nil {
		from = parent.target
	}
	f.watch.Born(from, child.target)
}

// bore tells of the call that made a child. It has not returned yet.
func (f *Family) bore(tr *tracee, child int) {
	if f.watch == nil {
		return
	}
	if r, err := getRegs(tr.tid); err == nil {
		c := newCall(tr, &r)
		c.Result = int64(child)
		f.watch.Ends(c)
	}
}

// beginWatch makes the program watched before its first instruction.
func (f *Family) beginWatch(m *member) error {
	pid := m.target.ID.PID
	if err := confine(pid, f.filter); err != nil {
		return fmt.Errorf("watch the system calls of the program: %w", err)
	}
	if err := f.tracer.attendItself(f.turn); err != nil {
		return fmt.Errorf("prepare signals: %w", err)
	}
	f.watch.Replaced(m.target)
	return nil
}

// killAll ends all processes and waits until they are gone.
func (f *Family) killAll() {
	deadline := time.Now().Add(afterwards)
	killed := map[int]bool{}
	for left := 1; left > 0 && time.Now().Before(deadline); {
		f.tracer.do(func() {
			// Again each time: what a process made before it died comes late.
			for pid := range f.members {
				_ = unix.Kill(pid, unix.SIGKILL) // it is not reaped yet, so the number is its own
				killed[pid] = true
			}
			for _, tr := range f.tracees {
				if tr.state != runs {
					tr.state = runs
					_ = cont(tr.tid, 0)
				}
			}
			f.lookRound()
			left = len(f.members)
			if left > 0 {
				breathe(1 << 10)
			}
		})
	}
	for pid := range killed { // those whose parents did not live to reap them are stanch's own
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
	}
}

// errWatched: without stanch a watched process could not go on.
var errWatched = errors.New("its system calls are watched, which ends when it does")
