package ptrace

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// callFilter is the program that hands the chosen calls of 64-bit code to the
// tracer. The kernel keeps a table of the numbers that it allows without a look
// at the arguments (Linux 5.11), so others do not run it.
func callFilter(calls []Watched) []instruction {
	const (
		loadWord  = bpfLD | 0x20  // BPF_LD | BPF_W | BPF_ABS
		ifEqual   = bpfJMP | 0x10 // BPF_JMP | BPF_JEQ | BPF_K
		atNr      = 0             // offsets in struct seccomp_data
		atArch    = 4
		atArgs    = 16
		tell      = unix.SECCOMP_RET_TRACE
		allow     = unix.SECCOMP_RET_ALLOW
		perTested = 2 // instructions for each value
	)
	ret := func(action uint32) instruction { return instruction{Code: bpfRET, K: action} }
	prog := []instruction{
		{Code: loadWord, K: atArch},
		{Code: ifEqual, K: auditArch, Jt: 1},
		ret(allow),
		{Code: loadWord, K: atNr},
	}
	for _, c := range calls {
		if c.Values == nil {
			prog = append(prog, instruction{Code: ifEqual, K: uint32(c.Nr), Jf: 1}, ret(tell))
			continue
		}
		prog = append(prog,
			instruction{Code: ifEqual, K: uint32(c.Nr), Jf: uint8(perTested*len(c.Values) + 2)},
			instruction{Code: loadWord, K: atArgs + 8*uint32(c.Arg)})
		for _, v := range c.Values {
			prog = append(prog, instruction{Code: ifEqual, K: v, Jf: 1}, ret(tell))
		}
		prog = append(prog, ret(allow))
	}
	return append(prog, ret(allow))
}

var syscallInsn = []byte{0x0f, 0x05}

// confine makes a process install a filter. It stands before the first
// instruction of its program and has one thread, so that its code, its stack
// and its registers can be borrowed. A death of stanch meanwhile ends it.
func confine(tid int, filter []instruction) error {
	r, err := getRegs(tid)
	if err != nil {
		return err
	}
	if !native(&r) {
		return nil // its calls have other numbers
	}
	mask, err := getMask(tid)
	if err != nil {
		return err
	}
	text, err := peek(tid, r.Rip)
	if err != nil {
		return err
	}
	if err := setMask(tid, ^uint64(0)); err != nil {
		return err
	}
	if err := poke(tid, r.Rip, syscallInsn); err != nil {
		return err
	}
	header, err := lend(tid, r.Rsp, filter)
	if err != nil {
		return err
	}
	install := func() error {
		// Without SPEC_ALLOW, kernels before 5.16 slow a filtered program down.
		return borrow(tid, r, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, header)
	}
	err = install()
	if errors.Is(err, unix.EACCES) {
		if err = borrow(tid, r, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err == nil {
			err = install()
		}
	}
	if err != nil {
		return fmt.Errorf("install a seccomp filter (CONFIG_SECCOMP_FILTER, Linux 4.17): %w: %w", err, proc.ErrUnsupported)
	}
	var old [2]byte
	order.PutUint16(old[:], uint16(text))
	return errors.Join(poke(tid, r.Rip, old[:]), setRegs(tid, &r), setMask(tid, mask))
}

// lend writes a filter below the stack pointer and gives the address of its
// struct sock_fprog.
func lend(tid int, sp uint64, filter []instruction) (uint64, error) {
	const redZone, headerSize = 128, 16
	at := (sp - redZone - uint64(8*len(filter))) &^ 15
	b := order.AppendUint64(nil, uint64(len(filter)))
	b = order.AppendUint64(b, at)
	for _, in := range filter {
		b = order.AppendUint16(b, in.Code)
		b = append(b, in.Jt, in.Jf)
		b = order.AppendUint32(b, in.K)
	}
	return at - headerSize, poke(tid, at-headerSize, b)
}

// borrow makes a thread whose next instruction is syscall make one.
func borrow(tid int, r unix.PtraceRegs, nr uint64, args ...uint64) error {
	var a [6]uint64
	copy(a[:], args)
	r.Orig_rax, r.Rax = noSyscall, nr
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	if err := setRegs(tid, &r); err != nil {
		return err
	}
	for stops := 0; stops < 2; {
		if err := contToSyscall(tid, 0); err != nil {
			return err
		}
		n := await(tid)
		if n.ended {
			return proc.ErrGone
		}
		if n.event == 0 && n.signal == syscallStop {
			stops++
		}
	}
	after, err := getRegs(tid)
	if err != nil {
		return err
	}
	if e := -result(&after); e > 0 && e < 4096 {
		return unix.Errno(e)
	}
	return nil
}

// await waits for the next stop or the end of a thread.
func await(tid int) news {
	for try := 0; ; try++ {
		if n := look(tid); n.stopped || n.ended {
			return n
		}
		breathe(try)
	}
}
