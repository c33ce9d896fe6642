package heap

import (
	"golang.org/x/sys/unix"
)

// threadOf makes a Thread of a thread's registers. They may be interrupted in a
// system call: orig_rax is its number then, and -1 otherwise.
func threadOf(tid int, r *unix.PtraceRegs) Thread {
	return Thread{
		TID: tid, PC: r.Rip, SP: r.Rsp, BP: r.Rbp, FSBase: r.Fs_base,
		InSyscall: int64(r.Orig_rax) >= 0, Syscall: r.Orig_rax,
		Regs: []uint64{
			r.Rax, r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp, r.Rsp,
			r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
			r.Rip, r.Orig_rax, r.Fs_base, r.Gs_base,
		},
	}
}
