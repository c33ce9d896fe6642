package ptrace

import (
	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

const (
	pageSize   = 4096
	auditArch  = 0xc000003e // AUDIT_ARCH_X86_64
	userCode64 = 0x33       // __USER_CS: the code segment of 64-bit programs
)

// native reports whether a thread runs 64-bit code.
func native(r *unix.PtraceRegs) bool { return r.Cs == userCode64 }

func pc(r *unix.PtraceRegs) leak.Addr           { return leak.Addr(r.Rip) }
func stackPointer(r *unix.PtraceRegs) leak.Addr { return leak.Addr(r.Rsp) }

func syscallNumber(r *unix.PtraceRegs) uint64 { return r.Orig_rax }

// syscallArg is the i-th argument, from 0, of the system call a thread is in.
func syscallArg(r *unix.PtraceRegs, i int) uint64 {
	return [...]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}[i]
}

// interruptedSize is how many bytes interrupted looks at.
const interruptedSize = 24

// interrupted reads the saved rip of a signal frame, if these bytes are one:
// it is followed by the flags and by a word with the code segment (struct
// sigcontext_64 in arch/x86/include/uapi/asm/sigcontext.h).
func interrupted(b []byte) (leak.Addr, bool) {
	return leak.Addr(order.Uint64(b)), order.Uint16(b[16:]) == userCode64
}
