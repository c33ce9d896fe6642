package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/arch/x86/x86asm"
)

// jumpSize is the length of jmp rel32, what a detour writes.
const jumpSize = 5

// maxTrampoline is the room for displaced instructions and the jump back in
// the text, TRAMPOLINE of probe/entry_amd64.S.
const maxTrampoline = 64

// errDetour says that a function cannot be hooked safely; wrapped with why.
var errDetour = errors.New("cannot be redirected")

// function is the machine code of one function of the target.
type function struct {
	addr uint64
	code []byte // from addr to its end, or as much of it as is looked at
}

// displaced are the whole instructions under a jump at the start of a function.
type displaced struct {
	at    uint64 // where the jump goes: the start, after an endbr64
	bytes []byte // of whole instructions, jumpSize or more
	insts []inst
	calls bool // the last one is a call, which returns behind them
}

// inst is one decoded instruction.
type inst struct {
	at    uint64
	bytes []byte
	x86   x86asm.Inst
}

func (i *inst) next() uint64 { return i.at + uint64(len(i.bytes)) }

// relative reports whether the instruction has a branch target relative to
// itself, and that target.
func (i *inst) relative() (uint64, bool) {
	for _, a := range i.x86.Args {
		if rel, ok := a.(x86asm.Rel); ok {
			return i.next() + uint64(int64(rel)), true
		}
	}
	return 0, false
}

// ends reports whether execution never continues behind the instruction.
func (i *inst) ends() bool {
	switch i.x86.Op {
	case x86asm.JMP, x86asm.RET, x86asm.UD2, x86asm.HLT, x86asm.INT:
		return true
	}
	return false
}

// endbr64 is decoded here: x86asm does not know it.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

func hasEndbr(code []byte) bool { return len(code) >= 4 && string(code[:4]) == string(endbr64) }

// decode reads one instruction at offset off of f.
func (f *function) decode(off int) (inst, error) {
	code := f.code[off:]
	at := f.addr + uint64(off)
	if hasEndbr(code) {
		return inst{at: at, bytes: code[:4], x86: x86asm.Inst{Op: x86asm.NOP, Len: 4}}, nil
	}
	x, err := x86asm.Decode(code, 64)
	if err != nil {
		return inst{}, fmt.Errorf("instruction at %#x: %w", at, err)
	}
	if x.Len <= 0 || x.Len > len(code) {
		return inst{}, fmt.Errorf("instruction at %#x has no length", at)
	}
	return inst{at: at, bytes: code[:x.Len], x86: x}, nil
}

// displace finds the instructions that a jump at the start of f takes the
// place of, and makes sure that nothing in f jumps between them.
func (f *function) displace() (*displaced, error) {
	if hasEndbr(f.code) {
		return f.displaceAt(4) // it stays: an indirect call must find it
	}
	return f.displaceAt(0)
}

// displaceAt is displace for a jump at offset off.
func (f *function) displaceAt(off int) (*displaced, error) {
	d := &displaced{at: f.addr + uint64(off)}
	if d.at>>12 != (d.at+jumpSize-1)>>12 {
		return nil, fmt.Errorf("%w: its first bytes lie on two pages, which cannot be written at once", errDetour)
	}
	end := off
	for end-off < jumpSize {
		if end >= len(f.code) {
			return nil, fmt.Errorf("%w: it is shorter than %d bytes", errDetour, jumpSize)
		}
		in, err := f.decode(end)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDetour, err)
		}
		end += len(in.bytes)
		if in.ends() && end-off < jumpSize {
			return nil, fmt.Errorf("%w: it is shorter than %d bytes", errDetour, jumpSize)
		}
		d.insts = append(d.insts, in)
	}
	d.bytes = f.code[off:end]
	if len(d.bytes) > patchBytes {
		return nil, fmt.Errorf("%w: %d bytes of instructions would move", errDetour, len(d.bytes))
	}
	last := &d.insts[len(d.insts)-1]
	d.calls = last.x86.Op == x86asm.CALL
	if from, ok := f.entersAt(d.at+1, d.at+uint64(len(d.bytes))); ok {
		return nil, fmt.Errorf("%w: the code at %#x jumps behind its first instruction", errDetour, from)
	}
	return d, nil
}

// end is the address behind the displaced instructions.
func (d *displaced) end() uint64 { return d.at + uint64(len(d.bytes)) }

// entersAt looks for a branch in f to an address in [lo, hi).
func (f *function) entersAt(lo, hi uint64) (uint64, bool) {
	for off := 0; off < len(f.code); {
		in, err := f.decode(off)
		if err != nil {
			// An instruction that the decoder does not know. Short branches
			// reach 128 bytes: look at every byte that could be one.
			return f.mayEnter(off, lo, hi)
		}
		if to, ok := in.relative(); ok && to >= lo && to < hi {
			return in.at, true
		}
		off += len(in.bytes)
	}
	return 0, false
}

// mayEnter looks from off on for bytes that read as a short branch to [lo,
// hi). It may see one where there is none.
func (f *function) mayEnter(off int, lo, hi uint64) (uint64, bool) {
	for ; off+1 < len(f.code); off++ {
		op := f.code[off]
		if op&0xf0 != 0x70 && op != 0xeb && op&0xfc != 0xe0 {
			continue
		}
		at := f.addr + uint64(off)
		if to := at + 2 + uint64(int64(int8(f.code[off+1]))); to >= lo && to < hi {
			return at, true
		}
	}
	return 0, false
}

// longBranches looks through code, an executable range that begins at base,
// for bytes that read as a branch with a 32-bit distance to one of the
// addresses for which into is true, all of them in [lo, hi). Cold parts of a
// function lie anywhere in the text.
func longBranches(code []byte, base, lo, hi uint64, into func(to uint64) bool) (from, to uint64, found bool) {
	for i := 0; i+5 <= len(code); i++ {
		n := 0
		switch op := code[i]; {
		case op == 0xe8 || op == 0xe9:
			n = 1
		case op == 0x0f && code[i+1]&0xf0 == 0x80 && i+6 <= len(code):
			n = 2
		default:
			continue
		}
		rel := int32(binary.LittleEndian.Uint32(code[i+n:]))
		t := base + uint64(i+n+4) + uint64(int64(rel))
		if t >= lo && t < hi && into(t) {
			return base + uint64(i), t, true
		}
	}
	return 0, 0, false
}

// relocate makes the displaced instructions do the same at address to, and
// jump back behind them.
func (d *displaced) relocate(to uint64) ([]byte, error) {
	out, err := d.moved(to)
	if err != nil {
		return nil, err
	}
	back, err := branch([]byte{0xe9}, to+uint64(len(out)), d.end())
	if err != nil {
		return nil, err
	}
	out = append(out, back...)
	if len(out) > maxTrampoline {
		return nil, fmt.Errorf("%w: its first instructions take %d bytes elsewhere", errDetour, len(out))
	}
	return out, nil
}

// moved are the displaced instructions as they are at address to.
func (d *displaced) moved(to uint64) ([]byte, error) {
	var out []byte
	for i := range d.insts {
		b, err := d.insts[i].relocate(to + uint64(len(out)))
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// relocate makes the instruction do the same at address to.
func (i *inst) relocate(to uint64) ([]byte, error) {
	target, relative := i.relative()
	switch op := i.x86.Op; {
	case relative && op == x86asm.JMP:
		return branch([]byte{0xe9}, to, target)
	case relative && op == x86asm.CALL:
		return i.relocateCall(to, target)
	case relative:
		cc, ok := conditionOf(i.bytes)
		if !ok {
			return nil, fmt.Errorf("%w: %v at %#x has no form with a long distance", errDetour, i.x86, i.at)
		}
		return branch([]byte{0x0f, 0x80 | cc}, to, target)
	case i.x86.PCRel == 4:
		// An operand in memory relative to rip: the distance changes.
		b := append([]byte(nil), i.bytes...)
		at := i.x86.PCRelOff
		if at <= 0 || at+4 > len(b) {
			return nil, fmt.Errorf("%w: %v at %#x", errDetour, i.x86, i.at)
		}
		rel := int32(binary.LittleEndian.Uint32(b[at:]))
		operand := i.next() + uint64(int64(rel))
		distance, err := distance32(to+uint64(len(b)), operand)
		if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(b[at:], uint32(distance))
		return b, nil
	case i.x86.PCRel != 0:
		return nil, fmt.Errorf("%w: %v at %#x", errDetour, i.x86, i.at)
	}
	return i.bytes, nil
}

// relocateCall calls target so that it returns to the original place: stack
// walkers, and exceptions, know that and not the trampoline. The return
// address is pushed without touching a register or a flag.
func (i *inst) relocateCall(to, target uint64) ([]byte, error) {
	back := i.next()
	b := []byte{0x48, 0x8d, 0x64, 0x24, 0xf8} // lea -8(%rsp),%rsp
	b = append(b, 0xc7, 0x04, 0x24)           // movl $low,(%rsp)
	b = binary.LittleEndian.AppendUint32(b, uint32(back))
	b = append(b, 0xc7, 0x44, 0x24, 0x04) // movl $high,4(%rsp)
	b = binary.LittleEndian.AppendUint32(b, uint32(back>>32))
	j, err := branch([]byte{0xe9}, to+uint64(len(b)), target)
	return append(b, j...), err
}

// conditionOf gives the condition code of a jcc in its short or long form.
func conditionOf(b []byte) (byte, bool) {
	for len(b) > 2 && (b[0] == 0x2e || b[0] == 0x3e || b[0] == 0xf2) { // branch hints, bnd
		b = b[1:]
	}
	switch {
	case len(b) == 2 && b[0]&0xf0 == 0x70:
		return b[0] & 15, true
	case len(b) == 6 && b[0] == 0x0f && b[1]&0xf0 == 0x80:
		return b[1] & 15, true
	}
	return 0, false
}

// branch is op followed by the 32-bit distance from there to target.
func branch(op []byte, at, target uint64) ([]byte, error) {
	d, err := distance32(at+uint64(len(op))+4, target)
	if err != nil {
		return nil, err
	}
	return binary.LittleEndian.AppendUint32(append([]byte(nil), op...), uint32(d)), nil
}

func distance32(from, to uint64) (int32, error) {
	d := int64(to - from)
	if d > math.MaxInt32 || d < math.MinInt32 {
		return 0, fmt.Errorf("%w: %#x is too far from %#x", errDetour, to, from)
	}
	return int32(d), nil
}

// jumpTo is the detour itself.
func jumpTo(at, target uint64) ([]byte, error) { return branch([]byte{0xe9}, at, target) }

// leadsTo follows f from its start: when the first thing it does besides
// computing is to call or jump somewhere, on every path, that is where.
func (f *function) leadsTo() (uint64, bool) {
	for off := 0; off < len(f.code); {
		in, err := f.decode(off)
		if err != nil {
			return 0, false
		}
		if to, ok := in.relative(); ok {
			return to, in.x86.Op == x86asm.JMP || in.x86.Op == x86asm.CALL
		}
		if in.ends() || in.x86.Op == x86asm.CALL {
			return 0, false
		}
		off += len(in.bytes)
	}
	return 0, false
}

// callees lists the targets outside of f of its direct calls and jumps.
func (f *function) callees() []uint64 {
	var out []uint64
	end := f.addr + uint64(len(f.code))
	for off := 0; off < len(f.code); {
		in, err := f.decode(off)
		if err != nil {
			off++ // resynchronizes soon enough; a wrong target is no hooked function
			continue
		}
		if to, ok := in.relative(); ok && (to < f.addr || to >= end) {
			out = append(out, to)
		}
		off += len(in.bytes)
	}
	return out
}

// pltSlot recognizes an entry of a procedure linkage table, a jump through a
// word of memory, and gives that word's address.
func pltSlot(code []byte, at uint64) (uint64, bool) {
	f := function{addr: at, code: code}
	for off := 0; off < len(code) && off < 12; {
		in, err := f.decode(off)
		if err != nil {
			return 0, false
		}
		if in.x86.Op == x86asm.JMP {
			m, ok := in.x86.Args[0].(x86asm.Mem)
			if !ok || m.Base != x86asm.RIP || m.Index != 0 {
				return 0, false
			}
			return in.next() + uint64(int64(int32(m.Disp))), true // x86asm does not extend its sign
		}
		if in.x86.Op != x86asm.NOP {
			return 0, false
		}
		off += len(in.bytes)
	}
	return 0, false
}
