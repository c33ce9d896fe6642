package ptrace

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// instruction is one classic BPF instruction, struct sock_filter.
type instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// seccompData is struct seccomp_data, what a filter sees of a system call.
type seccompData struct {
	nr   uint32
	arch uint32
	ip   uint64
	args [6]uint64
}

// word is the 32-bit word at a byte offset, as BPF_LD|BPF_W|BPF_ABS reads it.
func (d *seccompData) word(off uint32) (uint32, bool) {
	const size = 64 // sizeof(struct seccomp_data)
	if off%4 != 0 || off >= size {
		return 0, false
	}
	half := func(v uint64) uint32 { // little endian: the low half first
		return uint32(v >> (8 * (off & 4)))
	}
	switch {
	case off == 0:
		return d.nr, true
	case off == 4:
		return d.arch, true
	case off < 16:
		return half(d.ip), true
	}
	return half(d.args[(off-16)/8]), true
}

// errFilter: a filter holds something that the kernel's seccomp_check_filter
// would not have let through.
var errFilter = errors.New("seccomp filter is not understood")

// Classic BPF encoding, from include/uapi/linux/bpf_common.h.
const (
	bpfLD, bpfLDX, bpfST, bpfSTX, bpfALU, bpfJMP, bpfRET, bpfMISC = 0, 1, 2, 3, 4, 5, 6, 7

	bpfClass = 0x07
	bpfOp    = 0xf0
	bpfX     = 0x08 // the operand is X, not K
	bpfRetA  = 0x10
	bpfTXA   = 0x80
)

// run evaluates one filter and returns its SECCOMP_RET value.
func run(prog []instruction, d *seccompData) (uint32, error) {
	var a, x uint32
	var scratch [16]uint32 // BPF_MEMWORDS
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		operand := in.K
		if in.Code&bpfX != 0 {
			operand = x
		}
		var err error
		switch in.Code & bpfClass {
		case bpfLD:
			a, err = load(in, d, &scratch)
		case bpfLDX:
			x, err = load(in, d, &scratch)
		case bpfST, bpfSTX:
			v := a
			if in.Code&bpfClass == bpfSTX {
				v = x
			}
			if in.K >= uint32(len(scratch)) {
				return 0, errFilter
			}
			scratch[in.K] = v
		case bpfALU:
			a, err = compute(in.Code&bpfOp, a, operand)
		case bpfJMP:
			var skip int
			skip, err = jump(in, a, operand)
			pc += skip
		case bpfRET:
			if in.Code&0x18 == bpfRetA {
				return a, nil
			}
			return in.K, nil
		case bpfMISC:
			if in.Code&0xf8 == bpfTXA {
				a = x
			} else {
				x = a
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errFilter // ran off its end
}

// load is the value of BPF_LD and BPF_LDX.
func load(in instruction, d *seccompData, scratch *[16]uint32) (uint32, error) {
	const imm, abs, mem, length = 0x00, 0x20, 0x60, 0x80
	switch in.Code & 0xe0 {
	case imm:
		return in.K, nil
	case abs:
		if v, ok := d.word(in.K); ok && in.Code&0x18 == 0 {
			return v, nil
		}
	case mem:
		if in.K < uint32(len(scratch)) {
			return scratch[in.K], nil
		}
	case length:
		return 64, nil // sizeof(struct seccomp_data)
	}
	return 0, errFilter
}

func compute(op uint16, a, v uint32) (uint32, error) {
	const add, sub, mul, div, or, and, lsh, rsh, neg, xor = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0xa0
	switch op {
	case add:
		return a + v, nil
	case sub:
		return a - v, nil
	case mul:
		return a * v, nil
	case div:
		if v == 0 {
			return 0, errFilter // the kernel returns 0, which kills the thread
		}
		return a / v, nil
	case or:
		return a | v, nil
	case and:
		return a & v, nil
	case lsh:
		return a << (v & 31), nil // the kernel masks the shift
	case rsh:
		return a >> (v & 31), nil
	case neg:
		return -a, nil
	case xor:
		return a ^ v, nil
	}
	return 0, errFilter
}

// jump is how many instructions are skipped.
func jump(in instruction, a, v uint32) (int, error) {
	const always, equal, greater, notLess, set = 0x00, 0x10, 0x20, 0x30, 0x40
	var yes bool
	switch in.Code & bpfOp {
	case always:
		if in.K > 1<<16 {
			return 0, errFilter
		}
		return int(in.K), nil
	case equal:
		yes = a == v
	case greater:
		yes = a > v
	case notLess:
		yes = a >= v
	case set:
		yes = a&v != 0
	default:
		return 0, errFilter
	}
	if yes {
		return int(in.Jt), nil
	}
	return int(in.Jf), nil
}

// verdict is the action of the most restrictive filter, as the kernel's
// seccomp_run_filters finds it: the lowest action, read as a signed number.
func verdict(filters [][]instruction, d *seccompData) (uint32, error) {
	worst := uint32(unix.SECCOMP_RET_ALLOW)
	for _, f := range filters {
		v, err := run(f, d)
		if err != nil {
			return 0, err
		}
		if int32(v&unix.SECCOMP_RET_ACTION_FULL) < int32(worst&unix.SECCOMP_RET_ACTION_FULL) {
			worst = v
		}
	}
	return worst, nil
}

// actionName says what a filter does with a call.
func actionName(v uint32) string {
	switch v & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_KILL_PROCESS:
		return "kill the process"
	case unix.SECCOMP_RET_KILL_THREAD:
		return "kill the thread"
	case unix.SECCOMP_RET_TRAP:
		return "raise SIGSYS"
	case unix.SECCOMP_RET_ERRNO:
		return fmt.Sprintf("return error %d", v&unix.SECCOMP_RET_DATA)
	case unix.SECCOMP_RET_USER_NOTIF:
		return "ask a supervisor"
	case unix.SECCOMP_RET_TRACE:
		return "ask a tracer"
	case unix.SECCOMP_RET_LOG:
		return "log it"
	case unix.SECCOMP_RET_ALLOW:
		return "allow it"
	}
	return fmt.Sprintf("action %#x", v)
}
