package ptrace

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// member is a process of a family.
type member struct {
	target  *proc.Target
	parent  leak.ProcID
	traps   []*trap // breakpoints in it
	swallow int     // a signal that we caused ourselves and that the program does not get
	shares  bool    // its memory is its parent's: between vfork and exec
	ending  bool    // exit_group was called, or a signal ends it
	said    bool    // Exiting was said
	status  unix.WaitStatus
}

// tracee is a thread of a member.
type tracee struct {
	tid   int
	of    *member
	state traceeState
	born  bool // its first stop, which tells nothing, is still to come
	say   *Event
	call  *Call // a watched one that it is inside of
}

type traceeState uint8

const (
	runs    traceeState = iota
	parked              // stands at an event stop until Resume
	leaving             // stands at PTRACE_EVENT_EXIT until Resume
)

// launch starts the program, on the tracing thread. A child that asks to be
// traced (PTRACE_TRACEME) stands still after execve, but PTRACE_INTERRUPT works
// only with one that was seized: it is let go into a stop of its own and
// seized there.
func (f *Family) launch(c Command) error {
	files := make([]uintptr, len(c.Files))
	for i, file := range c.Files {
		files[i] = ^uintptr(0)
		if file != nil {
			files[i] = file.Fd()
		}
	}
	var pid int
	var err error
	f.tracer.calm(func() {
		pid, err = syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{Env: c.Env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
	})
	if err != nil {
		return err
	}
	f.first = pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return fmt.Errorf("wait for the program: %w", err)
	}
	if !status.Stopped() {
		return fmt.Errorf("the program ended before it began: %w", proc.ErrGone)
	}
	err = request("detach", unix.PTRACE_DETACH, pid, 0, uintptr(unix.SIGSTOP))
	if err == nil {
		err = seize(pid, f.options)
	}
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // it is not reaped yet, so the number is its own
		return fmt.Errorf("follow the program: %w", err)
	}
	for try := 0; ; try++ {
		n := look(pid)
		if n.ended {
			return fmt.Errorf("the program was killed before it began: %w", proc.ErrGone)
		}
		if n.stopped && n.event == eventStop {
			break
		}
		breathe(try)
	}
	m, err := f.join(pid, nil)
	if err != nil {
		return err
	}
	if f.watch != nil {
		if err := f.beginWatch(m); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			return err
		}
	}
	// The signal that ends its stop is ours.
	m.swallow = int(unix.SIGCONT)
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		return err
	}
	f.load(m)
	return cont(pid, 0)
}

// join makes pid a member, with its main thread.
func (f *Family) join(pid int, parent *member) (*member, error) {
	t, err := proc.Default.Open(pid)
	if err != nil {
		return nil, err
	}
	m := &member{target: t}
	if parent != nil {
		m.parent = parent.target.ID
	}
	f.members[pid] = m
	f.tracees[pid] = &tracee{tid: pid, of: m}
	return m, nil
}

// lookRound takes the news of all tracees.
func (f *Family) lookRound() {
	for again := true; again; {
		again = false
		for _, tr := range f.tracees {
			if tr.state != runs {
				if tr.state == leaving && f.killed(tr) {
					again = true
				}
				continue
			}
			if n := look(tr.tid); n.stopped || n.ended {
				f.handle(tr, n)
				again = true
			}
		}
	}
	f.strays()
	f.gather()
	f.bury()
}

// strays takes in what was forked by a thread that was killed before it could
// tell: it is traced, stands still, and nobody knows it.
func (f *Family) strays() {
	for {
		var si waitInfo
		const peek = unix.WSTOPPED | unix.WNOHANG | unix.WNOWAIT | unix.WALL | unix.WNOTHREAD
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&si)), peek, nil)
		tid := int(si.PID)
		if err != nil || si.Signo == 0 || f.tracees[tid] != nil {
			return // nobody, or somebody whose news the next round takes
		}
		t, err := proc.Default.Open(tid)
		if err != nil {
			return
		}
		st, err := t.Status()
		if err != nil {
			return
		}
		if of := f.members[st.Tgid]; of != nil {
			f.tracees[tid] = &tracee{tid: tid, of: of, born: true}
		} else if m, err := f.join(tid, f.members[st.PPID]); err == nil {
			parent := f.members[st.PPID]
			if parent != nil {
				m.inherit(parent)
			}
			f.tellBorn(parent, m)
			f.tracees[tid].born = true
		} else {
			return
		}
		f.handle(f.tracees[tid], look(tid))
	}
}

// bury reaps the children of snapshots that outlived the process they were made
// in: they are stanch's own then.
func (f *Family) bury() {
	for pid := range f.orphans {
		var status unix.WaitStatus
		got, _ := unix.Wait4(pid, &status, unix.WNOHANG|unix.WALL, nil)
		if _, err := os.Stat(proc.Default.Path(pid)); got == pid || err != nil {
			delete(f.orphans, pid)
		}
	}
}

// killed takes the end of a thread that was killed where it stood.
func (f *Family) killed(tr *tracee) bool {
	n := look(tr.tid)
	if n.ended {
		f.handle(tr, n)
	}
	return n.ended
}

// handle takes one piece of news and lets the thread go on, unless it is to
// stand still.
func (f *Family) handle(tr *tracee, n news) {
	switch {
	case n.ended:
		f.ended(tr, n.status)
	case n.event == eventStop:
		f.atEventStop(tr, n)
	case n.event == unix.PTRACE_EVENT_FORK, n.event == unix.PTRACE_EVENT_VFORK, n.event == unix.PTRACE_EVENT_CLONE:
		f.multiplied(tr, n.event)
		_ = cont(tr.tid, 0) // fails for one that was killed, and only then; so everywhere here
	case n.event == unix.PTRACE_EVENT_SECCOMP:
		f.begins(tr)
	case tr.call != nil && n.event == 0 && n.signal == syscallStop:
		f.ends(tr)
	case n.event == unix.PTRACE_EVENT_EXEC:
		f.replaced(tr)
	case n.event == unix.PTRACE_EVENT_EXIT:
		f.leaves(tr)
	case n.event != 0 || n.signal == syscallStop:
		_ = cont(tr.tid, 0)
	case n.signal == int(unix.SIGTRAP) && f.trapped(tr):
	case n.signal == tr.of.swallow:
		tr.of.swallow = 0
		_ = cont(tr.tid, 0)
	default:
		if tr.of.target.ID.PID == f.first {
			f.heard[syscall.Signal(n.signal)] = time.Now()
		}
		_ = cont(tr.tid, n.signal)
	}
}

// atEventStop: a thread's first stop, the one that park waits for, one that
// another Stop of ours had asked for and given up, or a stop by a signal.
func (f *Family) atEventStop(tr *tracee, n news) {
	switch {
	case tr.say != nil:
		tr.state = parked
		f.say(*tr.say)
		tr.say = nil
	case tr.born:
		tr.born = false
		if tr.of.target.ID.PID == tr.tid && !tr.of.shares && tr.of.parent.PID != 0 {
			tr.state = parked
			f.say(Event{Moment: Born, Target: tr.of.target, Parent: tr.of.parent})
			return
		}
		_ = cont(tr.tid, 0)
	default:
		f.goOn(tr.tid, n.signal)
	}
}

// goOn lets a thread run on from an event stop: one that a signal has stopped
// stays so, and a system call that the interrupt broke off is made again.
func (f *Family) goOn(tid, signal int) {
	if signal != int(unix.SIGTRAP) && signal != 0 {
		f.stoppedBySignal(tid, unix.Signal(signal))
		_ = request("listen", unix.PTRACE_LISTEN, tid, 0, 0)
		return
	}
	if r, err := getRegs(tid); err == nil && brokenOff(&r) && inSyscall(tid, &r) {
		r = restartable(r)
		_ = setRegs(tid, &r)
	}
	_ = cont(tid, 0)
}

// stoppedBySignal makes stanch stop with the program, so that the shell that
// started it sees its job stopped (Ctrl-Z) and can continue both.
func (f *Family) stoppedBySignal(tid int, sig unix.Signal) {
	if tid != f.first || sig == unix.SIGSTOP {
		return
	}
	group, err := unix.Getpgid(f.first)
	if err != nil || group != unix.Getpgrp() {
		return
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
}

// multiplied takes the news of a new thread or process.
func (f *Family) multiplied(tr *tracee, event int) {
	child, err := eventMessage(tr.tid)
	if err != nil || child == 0 {
		return
	}
	defer f.bore(tr, child)
	if have := f.tracees[child]; have != nil {
		return // Start came across it first
	}
	if event == unix.PTRACE_EVENT_CLONE && isThread(child, tr.of.target.ID.PID) {
		f.tracees[child] = &tracee{tid: child, of: tr.of, born: true}
		return
	}
	m, err := f.join(child, tr.of)
	if err == nil {
		f.tellBorn(tr.of, m)
	} else {
		// Killed before we could look. Its end still has to be taken.
		m = &member{target: &proc.Target{ID: leak.ProcID{PID: child}, Root: proc.Default}}
		f.members[child] = m
		f.tracees[child] = &tracee{tid: child, of: m}
	}
	m.shares = event != unix.PTRACE_EVENT_FORK
	m.inherit(tr.of)
	f.tracees[child].born = true
}

// inherit notes the breakpoints in a copy of a process's memory.
func (m *member) inherit(parent *member) {
	for _, t := range parent.traps {
		own := *t
		m.traps = append(m.traps, &own)
	}
}

// isThread reports whether tid is a thread of the process pid.
func isThread(tid, pid int) bool {
	_, err := os.Stat(proc.Default.Path(pid, "task", strconv.Itoa(tid)))
	return err == nil
}

// replaced takes the news of execve. All other threads are gone, and the one
// that called it has the number of the process now.
func (f *Family) replaced(tr *tracee) {
	m := tr.of
	pid := m.target.ID.PID
	for tid, other := range f.tracees {
		if other.of == m && tid != pid {
			delete(f.tracees, tid)
		}
	}
	f.tracees[pid] = &tracee{tid: pid, of: m}
	m.shares, m.ending, m.said = false, false, false
	f.say(Event{Moment: Replaced, Target: m.target})
	if f.watch != nil {
		f.watch.Replaced(m.target)
	}
	f.load(m)
	_ = cont(pid, 0)
}

// leaves takes the news that a thread is about to end. When only the thread
// ends, it goes on; when the process does, it waits for the others.
func (f *Family) leaves(tr *tracee) {
	m := tr.of
	code, _ := eventMessage(tr.tid)
	status := unix.WaitStatus(code)
	r, err := getRegs(tr.tid)
	last := f.running(m) == 1
	switch {
	case err != nil:
		return // killed; its end comes next
	case status.Signaled(), r.Orig_rax == unix.SYS_EXIT_GROUP, last:
		if !m.ending {
			m.ending, m.status = true, status
		}
	case r.Orig_rax == unix.SYS_EXIT && !m.ending, !m.ending && f.executing(m, tr.tid):
		_ = cont(tr.tid, 0)
		return
	}
	tr.state = leaving
}

// running counts the threads of a process that are not about to end.
func (f *Family) running(m *member) int {
	tids, err := m.target.Threads()
	if err != nil {
		return 0
	}
	n := 0
	for _, tid := range tids {
		if tr := f.tracees[tid]; tr == nil || tr.state != leaving {
			if st, err := readThreadStat(m.target.Path("task", strconv.Itoa(tid))); err == nil && st.state != 'Z' && st.state != 'X' {
				n++
			}
		}
	}
	return n
}

// executing reports whether another thread of the process is inside execve,
// which ends all the others.
func (f *Family) executing(m *member, not int) bool {
	tids, err := m.target.Threads()
	if err != nil {
		return false
	}
	for _, tid := range tids {
		if tid == not {
			continue
		}
		b, err := os.ReadFile(m.target.Path("task", strconv.Itoa(tid), "syscall"))
		nr, _, _ := strings.Cut(string(b), " ")
		if err == nil && (nr == strconv.Itoa(unix.SYS_EXECVE) || nr == strconv.Itoa(unix.SYS_EXECVEAT)) {
			return true
		}
	}
	return false
}

// gather says Exiting of each process all of whose threads stand at their end.
func (f *Family) gather() {
	for _, m := range f.members {
		if !m.ending || m.said || m.shares {
			if m.ending && m.shares {
				f.letLeave(m) // its memory is its parent's
			}
			continue
		}
		tids, err := m.target.Threads()
		if err != nil {
			continue
		}
		all := true
		for _, tid := range tids {
			tr := f.tracees[tid]
			if tr == nil {
				// Made by a thread that was killed before it could tell.
				f.tracees[tid] = &tracee{tid: tid, of: m, born: true}
				all = false
				continue
			}
			if tr.state == leaving {
				continue
			}
			st, err := readThreadStat(m.target.Path("task", strconv.Itoa(tid)))
			if err == nil && st.state != 'Z' && st.state != 'X' {
				all = false
			}
		}
		if all {
			m.said = true
			f.say(Event{Moment: Exiting, Target: m.target, Status: syscall.WaitStatus(m.status)})
		}
	}
}

// letLeave lets the threads go on that stand at their end.
func (f *Family) letLeave(m *member) {
	for _, tr := range f.tracees {
		if tr.of == m && tr.state == leaving {
			tr.state = runs
			_ = cont(tr.tid, 0)
		}
	}
}

// ended forgets a thread, and the process with its last one.
func (f *Family) ended(tr *tracee, status unix.WaitStatus) {
	delete(f.tracees, tr.tid)
	m := tr.of
	pid := m.target.ID.PID
	if tr.tid != pid || f.members[pid] != m {
		return
	}
	// The main thread's end is told when all others are gone.
	for tid, other := range f.tracees {
		if other.of == m {
			delete(f.tracees, tid)
		}
	}
	delete(f.members, pid)
	if f.watch != nil {
		f.watch.Ended(m.target)
	}
	f.say(Event{Moment: Ended, Target: m.target, Status: syscall.WaitStatus(status)})
}

// park makes a thread that stands at a signal go to an event stop, from which
// alone it can be made to do things, and says e when it is there.
func (f *Family) park(tr *tracee, e Event) {
	tr.say = &e
	if interrupt(tr.tid) == nil {
		_ = cont(tr.tid, 0)
	}
}

func (f *Family) resume(t *proc.Target) error {
	m := f.members[t.ID.PID]
	if m == nil || m.target.ID != t.ID {
		return fmt.Errorf("pid %d: %w", t.ID.PID, proc.ErrGone)
	}
	found := false
	for _, tr := range f.tracees {
		if tr.of == m && tr.state != runs {
			tr.state, found = runs, true
			_ = cont(tr.tid, 0)
		}
	}
	if !found {
		return fmt.Errorf("pid %d: %w", t.ID.PID, errNotHeld)
	}
	return nil
}

func (f *Family) threads(t *proc.Target) ([]Thread, error) {
	var out []Thread
	for _, tr := range f.tracees {
		if tr.of.target.ID != t.ID || tr.state != leaving {
			continue
		}
		r, err := getRegs(tr.tid)
		if errors.Is(err, unix.ESRCH) {
			continue // killed where it stood
		}
		if err != nil {
			return nil, fmt.Errorf("read registers of thread %d: %w", tr.tid, err)
		}
		out = append(out, Thread{TID: tr.tid, Regs: r, InSyscall: fromKernel(&r)})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("pid %d: %w", t.ID.PID, errNotHeld)
	}
	return out, nil
}

// letGo lets the chosen threads go on untraced.
func (f *Family) letGo(chosen func(*tracee) bool) {
	var list []*tracee
	for _, tr := range f.tracees {
		if !chosen(tr) {
			continue
		}
		list = append(list, tr)
		if tr.state == runs && interrupt(tr.tid) != nil {
			tr.state = leaving // ended
		}
	}
	deadline := time.Now().Add(afterwards)
	for try := 0; len(list) > 0 && time.Now().Before(deadline); try++ {
		var rest []*tracee
		for _, tr := range list {
			if !f.letGoOne(tr) {
				rest = append(rest, tr)
			}
		}
		list = rest
		breathe(try)
	}
}

// letGoOne detaches a thread that stands still, and reports whether it is done
// with. A breakpoint must not stay behind.
func (f *Family) letGoOne(tr *tracee) bool {
	if tr.state == runs {
		n := look(tr.tid)
		switch {
		case n.ended:
			delete(f.tracees, tr.tid)
			return true
		case !n.stopped:
			return false
		case n.event == 0 && n.signal == int(unix.SIGTRAP) && tr.of.hit(tr.tid) != nil:
			if r, err := getRegs(tr.tid); err == nil {
				r.Rip-- // the instruction under the breakpoint
				_ = setRegs(tr.tid, &r)
			}
			tr.of.clear(tr.tid)
			_ = cont(tr.tid, 0)
			return false
		case n.event == 0 && n.signal != syscallStop:
			_ = cont(tr.tid, n.signal)
			return false
		case n.event != eventStop:
			_ = cont(tr.tid, 0)
			_ = interrupt(tr.tid) // any other stop forgets an interrupt before it
			return false
		}
		if r, err := getRegs(tr.tid); err == nil && brokenOff(&r) && inSyscall(tr.tid, &r) {
			r = restartable(r)
			_ = setRegs(tr.tid, &r)
		}
	}
	tr.of.clear(tr.tid)
	_ = detach(tr.tid)
	delete(f.tracees, tr.tid)
	return true
}
