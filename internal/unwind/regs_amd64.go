package unwind

// DWARF numbers of the registers, System V ABI for x86-64, figure 3.36.
const (
	regRAX = iota
	regRDX
	regRCX
	regRBX
	regRSI
	regRDI
	regBP
	regSP
	regR8
	regR9
	regR10
	regR11
	regR12
	regR13
	regR14
	regR15
	regRA // rip of the caller
	regCount
)

// Regs are the registers of a stopped thread.
type Regs struct {
	PC, SP, BP uint64
	// General are all general registers by DWARF number (rax rdx rcx rbx rsi rdi
	// rbp rsp r8 to r15), or nil when only the three above are known. The three
	// win. Without General, a thread stopped in one of the few places where the
	// CFA is in another register has no callers.
	General *[16]uint64
}

// userOrder is where each DWARF register is in struct user_regs_struct
// (sys/user.h, x86-64): r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi
// rdi orig_rax rip cs eflags rsp ss.
var userOrder = [16]int{10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0}

// UserRegs converts the words of a struct user_regs_struct, as ptrace and the
// NT_PRSTATUS note of a core file give them. There must be at least 20.
func UserRegs(words []uint64) Regs {
	var general [16]uint64
	for i, at := range userOrder {
		general[i] = words[at]
	}
	return Regs{PC: words[16], SP: words[19], BP: words[4], General: &general}
}

// set is the registers that are known at one frame of a walk.
type set struct {
	r     [regCount]uint64
	known uint32 // bit per register
}

func (s *set) has(reg uint8) bool { return s.known>>reg&1 != 0 }

func (s *set) put(reg uint8, v uint64) {
	s.r[reg] = v
	s.known |= 1 << reg
}

func (r *Regs) set() set {
	var s set
	if r.General != nil {
		copy(s.r[:], r.General[:])
		s.known = 1<<regRA - 1
	}
	s.put(regRA, r.PC)
	s.put(regSP, r.SP)
	s.put(regBP, r.BP)
	return s
}
