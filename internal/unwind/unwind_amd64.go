package unwind

import (
	"bytes"
	"cmp"
	"slices"

	"stanch/internal/leak"
)

// maxLeaps bounds how often one walk may come to another stack, which signal
// frames and Go programs lead to: the rule that stacks only grow says nothing
// there.
const maxLeaps = 16

// cacheSize is a power of two. A daemon's hot stacks have a few hundred
// distinct return addresses.
const cacheSize = 2048

// Unwinder walks the stacks of one process with the tables of its modules. It
// keeps buffers and is not for two goroutines at once; tables may be shared.
type Unwinder struct {
	modules []Module
	cache   [cacheSize]cached
	window  window
	expr    [exprDepth]uint64 // the stack of expressions
	trail   []visited         // frames since all registers were known
	out     []leak.Addr
}

// cached is what a lookup of an address gave.
type cached struct {
	pc  uint64 // 0: empty
	row Row
	mod int32
}

// visited is a frame that the walk has left.
type visited struct {
	at, cfa uint64
	mod     int32
}

// New makes an unwinder for the executable mappings of a process, in any
// order. Where mappings overlap, any may be taken.
func New(modules []Module) *Unwinder {
	u := &Unwinder{modules: slices.Clone(modules)}
	slices.SortFunc(u.modules, func(a, b Module) int { return cmp.Compare(a.Start, b.Start) })
	return u
}

// Unwind walks from a thread's registers outwards and gives at most limit
// places, innermost first, each as [leak.Atlas.Frame] wants it: regs.PC, then
// return addresses minus one; where a signal interrupted a function, the very
// instruction. Memory is read from mem only: for a copied piece of stack pass a
// [Stack].
//
// complete is true when the outermost frame was reached: the thread's start.
// Otherwise the walk ended before it, at the limit, at code without unwind
// data, at unreadable memory or because what it found could not be a caller.
func (u *Unwinder) Unwind(regs Regs, mem leak.Memory, limit int) (places []leak.Addr, complete bool) {
	u.window.look(mem)
	u.out = u.out[:0]
	w := walk{u: u}
	w.begin(regs.set())
	for more := limit > 0; more; {
		u.out = append(u.out, leak.Addr(w.at))
		if len(u.out) == limit {
			break
		}
		more, complete = w.step()
	}
	return slices.Clone(u.out), complete
}

// lookup gives the row for an address and the index of its module, -1 when no
// executable mapping holds it.
func (u *Unwinder) lookup(at uint64) (Row, int32) {
	c := &u.cache[(at^at>>11)&(cacheSize-1)]
	if c.pc == at && at != 0 {
		return c.row, c.mod
	}
	c.pc = at
	c.row, c.mod = u.find(at)
	return c.row, c.mod
}

// find is lookup without the cache.
func (u *Unwinder) find(at uint64) (Row, int32) {
	mod := u.module(at)
	var row Row
	if mod >= 0 {
		if m := &u.modules[mod]; m.Table != nil {
			if pc := at - uint64(m.Base); pc <= 1<<32-1 {
				row, _ = m.Table.Lookup(uint32(pc))
			}
		}
	}
	return row, mod
}

// module finds the executable mapping of an address.
func (u *Unwinder) module(at uint64) int32 {
	lo, hi := 0, len(u.modules)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if uint64(u.modules[mid].End) <= at {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(u.modules) || uint64(u.modules[lo].Start) > at {
		return -1
	}
	return int32(lo)
}

// walk is one walk at one of its frames.
type walk struct {
	u     *Unwinder
	regs  set
	exact bool   // the address is that of an instruction, not a return address
	at    uint64 // the address to look up: that one, or the return address minus one
	row   Row    // what the lookup gave
	mod   int32
	leaps int

	rbx      uint64 // before the first frame of the trail
	rbxKnown bool
}

// begin starts at registers that are all there are.
func (w *walk) begin(regs set) {
	w.regs, w.exact, w.at = regs, true, regs.r[regRA]
	w.row, w.mod = w.u.lookup(w.at)
	w.rbx, w.rbxKnown = regs.r[regRBX], regs.has(regRBX)
	w.u.trail = w.u.trail[:0]
}

// step goes to the caller. When there is none, end says whether that is as it
// should be.
func (w *walk) step() (more, end bool) {
	row := &w.row
	if row.Flags&FlagOutermost != 0 {
		return false, true
	}
	sp, bp := w.regs.r[regSP], w.regs.r[regBP]
	known := w.regs.has(regBP)
	if !known && (row.CFA == CFABP || row.CFA == CFADeref || row.CFA == CFAFrame || row.Flags&FlagBPAtBP != 0) {
		return false, false
	}
	var cfa uint64
	switch row.CFA {
	case CFASP:
		cfa = sp + uint64(row.CFAOff)
	case CFABP:
		cfa = bp + uint64(row.CFAOff)
	case CFADeref:
		cfa, _ = w.u.window.word(bp + uint64(row.CFAOff)) // 0 is refused below
	case CFAPLT:
		cfa = sp + 8
		if w.at&15 >= uint64(row.CFAOff) {
			cfa += 8
		}
	case CFASignal:
		return w.signal(sp + uint64(row.CFAOff) - 160), false
	case CFAFrame:
		return w.framePointer()
	case CFAOther:
		return w.other(&w.u.modules[w.mod].Table.full[row.CFAOff])
	default:
		return w.mod >= 0 && w.restorer() && w.signal(sp), false
	}
	if cfa <= sp || cfa&7 != 0 {
		return false, false
	}
	ra, ok := w.u.window.word(cfa - 8)
	if !ok {
		return false, false
	}
	switch {
	case row.Flags&FlagBPAtBP != 0:
		bp, known = w.u.window.word(bp + uint64(row.BPOff))
	case row.BPOff == BPSame:
	case row.BPOff == BPLost:
		known = false
	default:
		bp, known = w.u.window.word(cfa + uint64(row.BPOff))
	}
	w.u.trail = append(w.u.trail, visited{w.at, cfa, w.mod})
	return w.caller(ra, cfa, bp, known)
}

// caller makes ra the new place if it can be one.
func (w *walk) caller(ra, sp, bp uint64, known bool) (more, end bool) {
	if ra == 0 {
		return false, true
	}
	exact := w.row.Flags&FlagSignal != 0
	at := ra
	if !exact {
		at--
	}
	row, mod := w.u.lookup(at)
	if mod < 0 {
		// Above its outermost function the Go runtime leaves what was there.
		return false, known && bp == 0 && w.golang()
	}
	w.exact, w.at, w.row, w.mod = exact, at, row, mod
	w.regs.known = 0
	w.regs.put(regRA, ra)
	w.regs.put(regSP, sp)
	if known {
		w.regs.put(regBP, bp)
	}
	return true, false
}

func (w *walk) golang() bool {
	t := w.u.modules[w.mod].Table
	return t != nil && t.golang
}

// framePointer goes to the caller by rbp, for code without unwind data.
func (w *walk) framePointer() (more, end bool) {
	sp, bp := w.regs.r[regSP], w.regs.r[regBP]
	if w.restorer() {
		return w.signal(sp), false
	}
	if bp == 0 {
		return false, w.golang() // in other code it may be any zero
	}
	// Go runs C on the thread's stack and keeps its own elsewhere.
	if bp&7 != 0 || bp < sp && (!w.golang() || !w.leap()) {
		return false, false
	}
	saved, ok1 := w.u.window.word(bp)
	ra, ok2 := w.u.window.word(bp + 8)
	if !ok1 || !ok2 || !w.golang() && (ra == 0 || !w.afterCall(ra)) {
		return false, false
	}
	w.u.trail = append(w.u.trail, visited{w.at, bp + 16, w.mod})
	return w.caller(ra, bp+16, saved, true)
}

// leap counts a change to another stack and says whether the walk may make it.
func (w *walk) leap() bool {
	w.leaps++
	return w.leaps <= maxLeaps
}

// signal goes to what a signal interrupted. The struct ucontext is at uc.
func (w *walk) signal(uc uint64) bool {
	if !w.leap() {
		return false
	}
	// The order of struct sigcontext_64 (asm/sigcontext.h), 40 bytes into it.
	order := [...]uint8{regR8, regR9, regR10, regR11, regR12, regR13, regR14, regR15, regRDI, regRSI, regBP, regRBX, regRDX, regRAX, regRCX, regSP, regRA}
	var regs set
	for i, reg := range order {
		v, ok := w.u.window.word(uc + 40 + 8*uint64(i))
		if !ok {
			return false
		}
		regs.put(reg, v)
	}
	// A call through a bad pointer faults outside all modules: the place is
	// still worth showing, and the walk ends there.
	w.begin(regs)
	return true
}

// restorers are the code that a signal handler returns to, where the libc has
// no unwind data for it: mov $15, %rax or %eax; syscall (rt_sigreturn).
var restorers = [][]byte{
	{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05},
	{0xb8, 15, 0, 0, 0, 0x0f, 0x05},
}

// restorer reports whether the code of the frame is one.
func (w *walk) restorer() bool {
	var code [9]byte
	n, _ := w.u.window.mem.ReadAt(code[:], leak.Addr(w.regs.r[regRA]))
	for _, r := range restorers {
		if bytes.HasPrefix(code[:max(0, min(n, len(code)))], r) {
			return true
		}
	}
	return false
}

// afterCall reports whether a call instruction may end at ra; true when the
// code cannot be read. Of a call, these are fixed: e8 with four bytes, or ff
// with 2 in the middle of its next byte, up to seven bytes long.
func (w *walk) afterCall(ra uint64) bool {
	var code [7]byte
	if n, _ := w.u.window.mem.ReadAt(code[:], leak.Addr(ra-7)); n < len(code) {
		return true
	}
	if code[2] == 0xe8 {
		return true
	}
	for _, length := range []int{2, 3, 4, 6, 7} {
		if i := 7 - length; code[i] == 0xff && code[i+1]>>3&7 == 2 {
			return true
		}
	}
	return false
}
