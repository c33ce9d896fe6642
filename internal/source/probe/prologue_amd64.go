package probe

import (
	"debug/elf"
	"io"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"stanch/internal/unwind"
)

// musl's libc describes almost none of its code for stack walkers, and it is
// what every block of strdup, getline or fopen comes through. Its functions
// are plain: what they push and subtract tells where the return address is.
// fromCode computes rows from the instructions of functions for which the file
// has none; the rest of the table stays as it is.
func fromCode(r io.ReaderAt, table *unwind.Table) *unwind.Table {
	file, err := elf.NewFile(r)
	if err != nil || file.Section(".gopclntab") != nil { // Go keeps frame pointers
		return table
	}
	c := &coder{file: file, table: table}
	c.load()
	c.functions()
	if len(c.covered) == 0 {
		return table
	}
	better := *table
	better.Rows = c.merge()
	return &better
}

// coder computes rows for one file.
type coder struct {
	file     *elf.File
	table    *unwind.Table
	base     uint64 // virtual address of pc 0
	segments []function
	starts   []uint64
	covered  []covered // sorted by address
}

// covered is a function for which rows were computed.
type covered struct {
	lo, hi uint32 // in pcs of the table
	rows   []unwind.Row
}

func (c *coder) load() {
	c.base = ^uint64(0)
	for _, p := range c.file.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		c.base = min(c.base, p.Vaddr&^(pageSize-1))
		if p.Flags&elf.PF_X == 0 || p.Filesz > 64<<20 {
			continue
		}
		b := make([]byte, p.Filesz)
		if n, _ := p.ReadAt(b, 0); uint64(n) == p.Filesz {
			c.segments = append(c.segments, function{addr: p.Vaddr, code: b})
		}
	}
}

// in gives the code from an address to the end of its segment.
func (c *coder) in(at uint64) (function, bool) {
	for _, s := range c.segments {
		if at >= s.addr && at < s.addr+uint64(len(s.code)) {
			return function{addr: at, code: s.code[at-s.addr:]}, true
		}
	}
	return function{}, false
}

// functions finds where functions begin, by symbols and by what they call, and
// computes the rows of each that has none.
func (c *coder) functions() {
	known := map[uint64]bool{}
	add := func(at uint64) {
		if _, ok := c.in(at); ok && !known[at] {
			known[at] = true
			c.starts = append(c.starts, at)
		}
	}
	dynamic, _ := c.file.DynamicSymbols()
	static, _ := c.file.Symbols()
	for _, s := range append(dynamic, static...) {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF {
			add(s.Value)
		}
	}
	for i := 0; i < len(c.starts); i++ { // grows while it runs
		f, _ := c.in(c.starts[i])
		f.code = f.code[:min(len(f.code), 64<<10)]
		for off := 0; off < len(f.code); {
			in, err := f.decode(off)
			if err != nil || off > 0 && known[in.at] {
				break
			}
			if to, ok := in.relative(); ok && in.x86.Op == x86asm.CALL {
				add(to)
			}
			off += len(in.bytes)
		}
	}
	slices.Sort(c.starts)
	for i, at := range c.starts {
		f, _ := c.in(at)
		if i+1 < len(c.starts) {
			f.code = f.code[:min(uint64(len(f.code)), c.starts[i+1]-at)]
		}
		if c.described(at) {
			continue
		}
		lo := uint32(at - c.base)
		c.covered = append(c.covered, covered{lo, lo + uint32(len(f.code)), c.simulate(&f)})
	}
}

// described reports whether the file itself says how to walk out of at.
func (c *coder) described(at uint64) bool {
	r, ok := c.table.Lookup(uint32(at - c.base))
	return ok && r.CFA != unwind.CFAFrame
}

// frame is the state of a function's frame before an instruction.
type frame struct {
	known bool
	depth int32 // CFA - rsp
	bp    int32 // CFA - rbp while rbp points into the frame, else 0
	loose bool  // rsp moved by an unknown amount: only rbp tells
	saved int16 // where the caller's rbp is, from the CFA; 0: in rbp
}

func (s frame) row(pc uint32) unwind.Row {
	switch {
	case !s.known || s.loose && s.bp == 0:
		return unwind.Row{PC: pc}
	case s.loose:
		return unwind.Row{PC: pc, CFA: unwind.CFABP, CFAOff: s.bp, BPOff: s.saved}
	}
	return unwind.Row{PC: pc, CFA: unwind.CFASP, CFAOff: s.depth, BPOff: s.saved}
}

// simulate follows the instructions of f in order; what a branch inside of f
// carries to its target is taken up there.
func (c *coder) simulate(f *function) []unwind.Row {
	end := f.addr + uint64(len(f.code))
	arrives := map[uint64]frame{}
	now := frame{known: true, depth: 8}
	var rows []unwind.Row
	emit := func(at uint64) {
		r := now.row(uint32(at - c.base))
		if n := len(rows); n > 0 {
			if last := rows[n-1]; last.CFA == r.CFA && last.CFAOff == r.CFAOff && last.BPOff == r.BPOff {
				return
			}
		}
		rows = append(rows, r)
	}
	for off := 0; off < len(f.code); {
		at := f.addr + uint64(off)
		if s, ok := arrives[at]; ok {
			now = s
		}
		emit(at)
		in, err := f.decode(off)
		if err != nil {
			now = frame{}
			off++
			continue
		}
		now.execute(&in)
		if to, ok := in.relative(); ok && in.x86.Op != x86asm.CALL && to > at && to < end && now.known {
			if _, dup := arrives[to]; !dup {
				arrives[to] = now
			}
		}
		if in.ends() {
			now = frame{}
		}
		off += len(in.bytes)
	}
	return rows
}

// execute applies what the instruction does to rsp and rbp.
func (s *frame) execute(in *inst) {
	if !s.known {
		return
	}
	to, _ := in.x86.Args[0].(x86asm.Reg)
	switch in.x86.Op {
	case x86asm.PUSH:
		s.depth += 8
		if to == x86asm.RBP && s.saved == 0 && s.bp == 0 {
			s.saved = int16(-s.depth)
		}
		return
	case x86asm.POP:
		s.depth -= 8
		if to == x86asm.RBP {
			s.saved, s.bp = 0, 0
		}
		if to == x86asm.RSP {
			*s = frame{}
		}
		return
	case x86asm.LEAVE:
		if s.bp == 0 {
			*s = frame{}
			return
		}
		*s = frame{known: true, depth: s.bp - 8}
		return
	case x86asm.PUSHF, x86asm.PUSHFQ:
		s.depth += 8
		return
	case x86asm.POPF, x86asm.POPFQ:
		s.depth -= 8
		return
	}
	if to == x86asm.RBP && writes(in.x86.Op) {
		s.bp = 0
		if from, ok := in.x86.Args[1].(x86asm.Reg); in.x86.Op == x86asm.MOV && ok && from == x86asm.RSP && !s.loose {
			s.bp = s.depth
		}
	}
	if to != x86asm.RSP || !writes(in.x86.Op) {
		return
	}
	imm, constant := in.x86.Args[1].(x86asm.Imm)
	switch {
	case in.x86.Op == x86asm.SUB && constant:
		s.depth += int32(imm)
	case in.x86.Op == x86asm.ADD && constant:
		s.depth -= int32(imm)
	case in.x86.Op == x86asm.LEA:
		m, ok := in.x86.Args[1].(x86asm.Mem)
		switch {
		case ok && m.Base == x86asm.RSP && m.Index == 0:
			s.depth -= int32(m.Disp)
		case ok && m.Base == x86asm.RBP && m.Index == 0 && s.bp != 0:
			s.depth, s.loose = s.bp-int32(m.Disp), false
		default:
			*s = frame{}
		}
	case in.x86.Op == x86asm.MOV && in.x86.Args[1] == x86asm.Arg(x86asm.RBP) && s.bp != 0:
		s.depth, s.loose = s.bp, false
	default:
		s.loose = true // alloca, alignment
	}
}

// writes reports whether the operation changes its first operand.
func writes(op x86asm.Op) bool {
	switch op {
	case x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.JMP, x86asm.CALL:
		return false
	}
	return true
}

// merge puts the computed rows into the table's.
func (c *coder) merge() []unwind.Row {
	var out []unwind.Row
	old := c.table.Rows
	until := func(pc uint32) { // takes the table's own rows before pc
		for len(old) > 0 && old[0].PC < pc {
			out = append(out, old[0])
			old = old[1:]
		}
	}
	for _, f := range c.covered {
		if n := len(out); n > 0 && out[n-1].PC == f.lo {
			out = out[:n-1] // the end of the function before
		}
		until(f.lo)
		out = append(out, f.rows...)
		last := unwind.Row{PC: f.hi}
		if r, ok := c.table.Lookup(f.hi); ok {
			last = r
			last.PC = f.hi
		}
		for len(old) > 0 && old[0].PC <= f.hi {
			old = old[1:]
		}
		out = append(out, last)
	}
	return append(out, old...)
}
