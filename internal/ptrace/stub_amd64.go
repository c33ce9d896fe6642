package ptrace

import (
	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// injection is one system call to be made by a stopped thread.
type injection struct {
	nr      uint64
	args    [6]uint64
	forks   bool             // the call is clone: two threads come out of it
	regs    *unix.PtraceRegs // what the thread goes on with
	mask    uint64           // its signal mask
	caught  uint64           // signals for which the program has a handler
	pending bool             // rt_sigpending may be called
}

// exitStatus is the exit status of a child that is not held by a tracer: it
// tells Clean that the zombie is ours.
const exitStatus = 86

// program is the machine code of an injection, and where its parts are,
// relative to its start. It is position-independent and 8-aligned.
type program struct {
	code   []byte
	block  int // behind the syscall instruction that blocks signals
	call   int // behind the syscall instruction of the injected call
	sigs   int // behind that of rt_sigpending
	mask   int // behind that which restores the mask
	exit   int // behind that of exit_group in a child that is not held
	finish int // where the thread starts to put itself back
}

// assemble writes the stub for one injection. The thread enters at the start
// with all its own registers but rip, and a stack pointer that a signal
// handler could use. What the stub does:
//
//	block all signals
//	make the call                          <- a living tracer stops it here
//	child, not held by a tracer: exit_group(exitStatus)
//	a pending signal with a handler would have broken off the call that was
//	interrupted: then that returns EINTR, else it is made again
//	restore flags, stack pointer, signal mask, the other registers
//	jump to where the thread was
//
// Nothing is written to the target's memory but eight bytes below the red
// zone, where a signal frame could have come as well; the flags are popped
// from the stub's own data. There is no call and no ret, so a shadow stack
// stays right, and no rt_sigreturn, which would reset the vector registers.
func (in *injection) assemble() (*program, error) {
	e, p := newEmitter(), &program{}
	all := e.word(^uint64(0))
	mask := e.word(in.mask)

	sigmask := func(set int) { // rt_sigprocmask(SIG_SETMASK, set, NULL, 8); flags stay as they are
		e.imm(rax, unix.SYS_RT_SIGPROCMASK)
		e.imm(rdi, unix.SIG_SETMASK)
		e.lea(rsi, set)
		e.imm(rdx, 0)
		e.imm(r10, sigsetSize)
		e.syscall()
	}
	sigmask(all)
	p.block = len(e.code)

	for i, reg := range []int{rdi, rsi, rdx, r10, r8, r9} {
		e.load(reg, e.word(in.args[i]))
	}
	e.load(rax, e.word(in.nr))
	e.syscall()
	p.call = len(e.code)
	if in.forks {
		e.bytes(0x48, 0x85, 0xc0)       // test rax, rax
		e.branch("finish", 0x0f, 0x85)  // jnz: the parent, or an error
		e.label("child")                //
		e.imm(rax, unix.SYS_EXIT_GROUP) //
		e.imm(rdi, exitStatus)          //
		e.syscall()                     //
		p.exit = len(e.code)            //
		e.branch("child", 0xe9)         // never reached
	}
	e.label("finish")
	p.finish = len(e.code)
	r := in.regs
	again, rerun := *r, in.rerun()
	if rerun {
		again.Rip -= syscallInsnSize
		again.Rax = r.Orig_rax
		if result(r) == -restartByBlock {
			again.Rax = unix.SYS_RESTART_SYSCALL
		}
	}
	e.imm(rbx, 0) // 1: EINTR instead of making the call again
	if rerun && result(r) == -restartNoHand && in.pending {
		e.bytes(0x48, 0x8d, 0xbc, 0x24) // lea rdi, [rsp-136]: below the red zone
		below := int32(-136)
		e.bytes(byte(below), byte(below>>8), byte(below>>16), byte(below>>24))
		e.imm(rsi, sigsetSize)
		e.imm(rax, unix.SYS_RT_SIGPENDING)
		e.syscall()
		p.sigs = len(e.code)
		e.bytes(0x85, 0xc0)          // test eax, eax
		e.branch("back", 0x0f, 0x85) // jnz: no room below the stack; make the call again
		e.bytes(0x48, 0x8b, 0x07)    // mov rax, [rdi]
		e.bytes(0x48, 0x23, 0x05)    // and rax, [rip+deliverable]
		e.ref(fixup{word: e.word(in.caught &^ in.mask)})
		e.branch("back", 0x0f, 0x84) // jz
		e.imm(rbx, 1)
		e.label("back")
	}
	e.lea(rsp, e.word(r.Eflags))
	e.bytes(0x9d) // popfq; no instruction below changes the flags
	e.load(rsp, e.word(r.Rsp))
	sigmask(mask)
	p.mask = len(e.code)
	// From here signal handlers may run; they come back.
	for _, l := range []struct {
		reg   int
		value uint64
	}{
		{r15, r.R15}, {r14, r.R14}, {r13, r.R13}, {r12, r.R12}, {rbp, r.Rbp}, {r11, r.R11},
		{r10, r.R10}, {r9, r.R9}, {r8, r.R8}, {rdx, r.Rdx}, {rsi, r.Rsi}, {rdi, r.Rdi},
	} {
		e.load(l.reg, e.word(l.value))
	}
	e.bytes(0x48, 0x89, 0xd9) // mov rcx, rbx
	e.load(rbx, e.word(r.Rbx))
	e.bytes(0xe3, 5) // jrcxz +5, over the jmp: keeps the flags
	e.branch("interrupted", 0xe9)
	e.load(rcx, e.word(r.Rcx))
	e.load(rax, e.word(again.Rax))
	e.jump(e.word(again.Rip))
	e.label("interrupted")
	e.load(rcx, e.word(r.Rcx))
	eintr := int64(unix.EINTR)
	e.load(rax, e.word(uint64(-eintr)))
	e.jump(e.word(r.Rip))

	var err error
	p.code, err = e.finish()
	return p, err
}

// rerun reports whether the thread was inside a system call that is to be
// made again.
func (in *injection) rerun() bool {
	if !fromKernel(in.regs) {
		return false
	}
	switch -result(in.regs) {
	case restartSys, restartNoIntr, restartNoHand, restartByBlock:
		return true
	}
	return false
}

// Which of a stub's calls are meant.
const (
	neededCalls = iota
	sigpendingCalls
)

// calls lists the system calls the stub at entry makes, as a filter sees them.
func (in *injection) calls(p *program, entry leak.Addr, which int) []stubCall {
	at := func(off int) uint64 { return uint64(entry) + uint64(off) }
	if which == sigpendingCalls {
		below := in.regs.Rsp - 136
		return []stubCall{{Syscall{unix.SYS_RT_SIGPENDING, [6]uint64{below, sigsetSize}}, at(p.sigs)}}
	}
	data := uint64(entry) // the sets lie in the stub; their exact place is no business of a filter
	block := [6]uint64{unix.SIG_SETMASK, data, 0, sigsetSize}
	out := []stubCall{
		{Syscall{unix.SYS_RT_SIGPROCMASK, block}, at(p.block)},
		{Syscall{in.nr, in.args}, at(p.call)},
		{Syscall{unix.SYS_RT_SIGPROCMASK, block}, at(p.mask)},
	}
	if in.forks {
		out = append(out, stubCall{Syscall{unix.SYS_EXIT_GROUP, [6]uint64{exitStatus}}, at(p.exit)})
	}
	return out
}
