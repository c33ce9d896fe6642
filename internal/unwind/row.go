// Package unwind finds the callers of a function without its help: it compiles
// the .eh_frame of an ELF file to a sorted table of small rows, once, and walks
// stacks by looking rows up. The probe inside the target walks with the same
// tables, which it gets as bytes.
package unwind

import (
	"encoding/binary"

	"stanch/internal/leak"
)

// RowSize is the length of a row in [Table.Bytes].
const RowSize = 12

// Row is one rule of a table: how to find the caller of code from PC up to the
// PC of the next row. In bytes it is little endian, without padding, in this
// order of fields:
//
//	uint32 pc; int32 cfa_off; uint8 cfa; uint8 flags; int16 rbp_off;
//
// The CFA is what rsp was before the call: the caller's rsp. The return address
// is always at CFA-8, except where a CFA kind says otherwise.
//
// A walker looks up a return address minus one, and exactly the address of the
// innermost frame and of a frame that a signal interrupted.
type Row struct {
	PC     uint32 // ELF virtual address minus the lowest PT_LOAD address, that rounded down to a page
	CFAOff int32  // bytes; for CFAPLT and CFAOther see there
	CFA    CFA
	Flags  Flags
	BPOff  int16 // the caller's rbp is saved at CFA+BPOff; or one of BPSame, BPLost when Flags has no BPAtBP
}

// CFA says how to compute the canonical frame address.
type CFA uint8

// The kinds of CFA. They are the bytes of the table.
const (
	// CFANone: no unwind data. The walk stops.
	CFANone CFA = 0
	// CFASP: rsp + CFAOff.
	CFASP CFA = 1
	// CFABP: rbp + CFAOff.
	CFABP CFA = 2
	// CFADeref: *(rbp + CFAOff), for functions that realign their stack.
	CFADeref CFA = 3
	// CFAPLT: rsp + 8, and 8 more when (pc & 15) >= CFAOff. CFAOff is 11 for
	// classic entries of a procedure linkage table and 9 for those that begin
	// with endbr64. Such code calls nothing: it is only seen innermost, or
	// interrupted by a signal.
	CFAPLT CFA = 4
	// CFASignal: the kernel's signal frame. The interrupted rsp is at
	// rsp+CFAOff, its rip at rsp+CFAOff+8, its rbp at rsp+CFAOff-40, and the
	// other registers around them: with rsp at a struct ucontext, CFAOff is 160
	// (asm/sigcontext.h, offsets of struct sigcontext_64 plus 40). The CFA may
	// lie on another stack. Flags has FlagSignal.
	CFASignal CFA = 5
	// CFAFrame: no unwind data, assume a frame pointer: the CFA is rbp+16, the
	// return address at rbp+8, the caller's rbp at rbp. A walker takes it only
	// when rbp is at least rsp and aligned to 8. A walk never ends well here:
	// an rbp or a return address of 0 may be anything.
	//
	// The Go walker asks for more: before the return address there must be a
	// call instruction. In files of the Go linker, where every function keeps
	// rbp, it asks for less: rbp may lead to another stack, which is how C code
	// was called, and rbp 0 is the outermost frame.
	CFAFrame CFA = 6
	// CFAOther: a rule that only Go follows, since it needs other registers or
	// a longer expression. CFAOff is an index into a side table that is not part
	// of the bytes. The probe stops here.
	CFAOther CFA = 7
)

// Flags are more facts of a row.
type Flags uint8

// The flags. They are bits of the table.
const (
	// FlagOutermost: the return address is undefined, nobody called this. It is
	// to be tested before the CFA, which may be CFANone.
	FlagOutermost Flags = 1
	// FlagBPAtBP: the caller's rbp is at rbp+BPOff, not at CFA+BPOff.
	FlagBPAtBP Flags = 2
	// FlagSignal: the caller was interrupted, not calling: its address is that
	// of an instruction and not a return address.
	FlagSignal Flags = 4
)

// What BPOff says of rbp when it is not an offset.
const (
	BPSame = 0 // rbp is the caller's already
	BPLost = 1 // the caller's rbp cannot be known
)

// Table holds the rows of one ELF file. It does not change once it is made and
// may be shared between goroutines.
type Table struct {
	// Rows are sorted by PC, no two equal neighbours. The last one is CFANone
	// and stands for everything after.
	Rows []Row
	// Assumed says that the file has no unwind data for some or all of its code
	// and that rows of kind CFAFrame stand in.
	Assumed bool

	golang bool
	full   []fullRow // by CFAOff of rows of kind CFAOther
	rbx    []rbxRow  // sorted by pc
	exec   []segment // the executable PT_LOADs
	base   uint64    // virtual address of pc 0
}

// Lookup gives the row that covers pc; false when nothing is known there.
func (t *Table) Lookup(pc uint32) (Row, bool) {
	lo, hi := 0, len(t.Rows)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.Rows[mid].PC <= pc {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return Row{}, false
	}
	r := t.Rows[lo-1]
	return r, r.CFA != CFANone || r.Flags != 0
}

// rbxRow says from pc on where the caller's rbx is: saved at CFA+off, or
// unchanged when off is 0. Only rules that count from rbx need it: while the
// dynamic loader's _dl_runtime_resolve calls, its CFA is rbx+24.
type rbxRow struct {
	pc  uint32
	off int32
}

// rbxLost as off means that rbx cannot be known.
const rbxLost = 1

// Bytes gives the rows as the probe reads them, RowSize bytes each.
func (t *Table) Bytes() []byte {
	b := make([]byte, 0, len(t.Rows)*RowSize)
	for _, r := range t.Rows {
		b = binary.LittleEndian.AppendUint32(b, r.PC)
		b = binary.LittleEndian.AppendUint32(b, uint32(r.CFAOff))
		b = append(b, byte(r.CFA), byte(r.Flags))
		b = binary.LittleEndian.AppendUint16(b, uint16(r.BPOff))
	}
	return b
}

// Module is the table's place in a process: m is an executable mapping of the
// file that the table was compiled from. False when no executable segment of
// the file lies at m.Offset.
func (t *Table) Module(m *leak.Mapping) (Module, bool) {
	for _, s := range t.exec {
		lo, hi := s.off&^(pageSize-1), s.off+s.filesz
		if m.Offset < lo || m.Offset >= hi {
			continue
		}
		// The mapping starts where the file offset m.Offset is linked to.
		linked := s.vaddr - s.off + m.Offset
		return Module{Start: m.Start, End: m.End, Base: m.Start - leak.Addr(linked-t.base), Table: t}, true
	}
	return Module{}, false
}

// Module is an executable range of a process and the table for it.
type Module struct {
	Start leak.Addr // first byte of the executable mapping
	End   leak.Addr // first byte after
	Base  leak.Addr // where pc 0 of the table is
	Table *Table    // nil when nothing is known: generated code, an unreadable file
}
