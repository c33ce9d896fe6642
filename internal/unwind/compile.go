package unwind

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// maxRows bounds a table to 200 MB; libLLVM has a million rows.
const maxRows = 16 << 20

// errTooLarge means that a table would have more than maxRows rows.
var errTooLarge = errors.New("too many unwind rows")

// Compile makes the table of an ELF file: an executable, a shared object, or
// an image of one in memory such as the vdso. It reads the program headers and
// the call frame information, .eh_frame as PT_GNU_EH_FRAME or the section
// header tells it, else .debug_frame.
//
// Code without any stays without: its rows are CFANone. There are two
// exceptions, where rows of kind CFAFrame assume frame pointers and
// [Table.Assumed] says so: files made by the Go linker, which keeps them, and
// files that leave nearly all of their code without, like musl's libc, which
// often has no frame pointers either - there the walker's checks decide.
//
// The error wraps [ErrFormat] when r is no ELF file for x86-64. Damaged call
// frame information is no error: what can be read of it counts.
func Compile(r io.ReaderAt) (*Table, error) {
	im, err := openImage(r)
	if err != nil {
		return nil, err
	}
	b := builder{im: im, t: &Table{golang: im.golang(), exec: im.executable(), base: im.base}}
	f := im.ehFrames()
	if f == nil {
		f = im.debugFrames()
	}
	if f != nil {
		f.parse()
		if err := b.compile(f); err != nil {
			return nil, err
		}
	}
	b.assume()
	return b.t, nil
}

// ehFrames finds .eh_frame. What the loader sees counts more than section
// headers; those tell the size.
func (im *image) ehFrames() *frames {
	s, named := im.section(".eh_frame")
	if f := im.fromHeader(); f != nil {
		if named && s.addr == f.addr && s.size <= uint64(len(f.data)) {
			f.data, f.open = f.data[:s.size], false
		}
		return f
	}
	if !named {
		return nil
	}
	data, err := im.contents(s)
	if err != nil {
		return nil
	}
	return &frames{im: im, data: data, addr: s.addr, eh: true}
}

// fromHeader finds .eh_frame through PT_GNU_EH_FRAME (LSB, chapter 10.6.2). Its
// search table tells which record is the last.
func (im *image) fromHeader() *frames {
	size := im.hdr.filesz
	off, rest, ok := im.at(im.hdr.vaddr)
	if !ok || size < 8 {
		return nil
	}
	hdr, err := im.read(off, min(size, rest, maxFrameBytes))
	if err != nil || len(hdr) < 4 || hdr[0] != 1 {
		return nil
	}
	h := frames{im: im, data: hdr, addr: im.hdr.vaddr, got: im.hdr.vaddr, gotAsked: true}
	c := cursor{b: hdr, at: 4}
	addr, ok := h.pointer(&c, hdr[1], 0)
	if !ok {
		return nil
	}
	if off, rest, ok = im.at(addr); !ok {
		return nil
	}
	f := &frames{im: im, addr: addr, eh: true, open: true, last: -1}
	if s, named := im.section(".eh_frame"); named && s.addr == addr {
		rest = min(rest, s.size)
	}
	if f.data, err = im.read(off, min(rest, maxFrameBytes)); err != nil {
		return nil
	}
	if hdr[3] == peDataRel|peSdata4 && hdr[2] != peOmit {
		// Pairs of int32: function, record; both relative to the header.
		n := raw(&c, hdr[2])
		table := hdr[c.at:]
		for i := uint64(0); i < n && uint64(len(table)) >= 8*i+8; i++ {
			at := im.hdr.vaddr + uint64(int64(int32(binary.LittleEndian.Uint32(table[8*i+4:])))) - addr
			if at < uint64(len(f.data)) {
				f.last = max(f.last, int(at))
			}
		}
	}
	return f
}

// debugFrames finds .debug_frame.
func (im *image) debugFrames() *frames {
	s, ok := im.section(".debug_frame")
	if !ok {
		return nil
	}
	data, err := im.contents(s)
	if err != nil {
		return nil
	}
	return &frames{im: im, data: data}
}

// builder appends rows to a table.
type builder struct {
	im   *image
	t    *Table
	full map[fullRow]int32
}

// compile adds the rows of all functions. Where two overlap, the one that
// begins later wins, as in a binary search over the beginnings.
func (b *builder) compile(f *frames) error {
	var m machine
	b.t.Rows = make([]Row, 0, 8*len(f.fdes)+1)
	for i := range f.fdes {
		fn := &f.fdes[i]
		if i > 0 && f.fdes[i-1].begin == fn.begin || !b.code(fn.begin) {
			continue
		}
		end := fn.end
		if i+1 < len(f.fdes) {
			next := i + 1
			for next+1 < len(f.fdes) && f.fdes[next].begin == fn.begin {
				next++
			}
			if f.fdes[next].begin > fn.begin {
				end = min(end, f.fdes[next].begin)
			}
		}
		if end-b.im.base > math.MaxUint32 {
			end = b.im.base + math.MaxUint32
		}
		e := &f.cies[fn.cie]
		m.start(f, e, fn.begin)
		c := cursor{b: f.data[:fn.to], at: int(fn.from)}
		done := m.run(&c, end, func(from uint64, s *state) { b.state(f, from, s, e.signal) })
		if done {
			m.loc = end
		}
		b.add(Row{PC: uint32(m.loc - b.im.base)})
		if len(b.t.Rows) > maxRows {
			return errTooLarge
		}
	}
	return nil
}

// code reports whether a virtual address is in an executable segment, not too
// far for a row. Linkers leave records of discarded functions at address 0.
func (b *builder) code(vaddr uint64) bool {
	for _, s := range b.t.exec {
		if vaddr-s.vaddr < s.filesz {
			return vaddr-b.im.base < math.MaxUint32
		}
	}
	return false
}

// state adds the row for a state of the machine.
func (b *builder) state(f *frames, from uint64, s *state, signal bool) {
	if len(b.t.Rows) > maxRows {
		return
	}
	r := f.row(s, signal)
	switch {
	case r.CFA == CFAOther:
		full := f.full(s)
		index, ok := b.full[full]
		if !ok {
			if b.full == nil {
				b.full = map[fullRow]int32{}
			}
			index = int32(len(b.t.full))
			b.full[full] = index
			b.t.full = append(b.t.full, full)
		}
		r.CFAOff = index
	case b.t.golang && !f.eh && r.CFA == CFASP && r.CFAOff >= 16:
		// The Go compiler does not describe rbp, but saves it first of all.
		r.BPOff = -16
	}
	r.PC = uint32(from - b.im.base)
	b.add(r)
	b.addRBX(r.PC, s.bx)
}

func (b *builder) addRBX(pc uint32, bx rule) {
	row := rbxRow{pc: pc}
	switch {
	case bx.kind == ruleNone || bx.kind == ruleSame:
	case bx.kind == ruleOffset && bx.off == int64(int32(bx.off)):
		row.off = int32(bx.off)
	default:
		row.off = rbxLost
	}
	if n := len(b.t.rbx); n > 0 && b.t.rbx[n-1].off != row.off || n == 0 && row.off != 0 {
		b.t.rbx = append(b.t.rbx, row)
	}
}

// add appends a row. A row that says what the one before says is left out; at
// the same address the later one wins.
func (b *builder) add(r Row) {
	rows := b.t.Rows
	for len(rows) > 0 && rows[len(rows)-1].PC >= r.PC {
		rows = rows[:len(rows)-1]
	}
	if len(rows) > 0 && rows[len(rows)-1].says(r) || len(rows) == 0 && r.says(Row{}) {
		b.t.Rows = rows
		return
	}
	b.t.Rows = append(rows, r)
}

// says reports whether two rows are equal but for their address.
func (r Row) says(o Row) bool {
	o.PC = r.PC
	return r == o
}

// assume fills code without unwind data with frame pointer rows where that is
// called for.
func (b *builder) assume() {
	spans := b.im.code()
	var size, covered uint64
	for _, s := range spans {
		size += s.filesz
	}
	for i, r := range b.t.Rows[:max(0, len(b.t.Rows)-1)] {
		if !r.says(Row{}) {
			covered += uint64(b.t.Rows[i+1].PC - r.PC)
		}
	}
	// Without section headers, a lot of what seems to be code is not.
	if size == 0 || !b.t.golang && (covered > size/16 || size-covered < pageSize) {
		return
	}
	b.t.Assumed = true
	old := b.t.Rows
	b.t.Rows = make([]Row, 0, 2*len(old)+2)
	from := uint64(0)
	gap := true
	for _, r := range old {
		if gap {
			b.fill(spans, from, uint64(r.PC))
		}
		b.add(r)
		from, gap = uint64(r.PC), r.says(Row{})
	}
	if gap {
		b.fill(spans, from, math.MaxUint32)
	}
}

// fill adds rows for the code between two row addresses.
func (b *builder) fill(spans []segment, from, to uint64) {
	for _, s := range spans {
		begin := max(from, s.vaddr-b.im.base)
		end := min(to, s.vaddr-b.im.base+s.filesz)
		if begin < end {
			b.add(Row{PC: uint32(begin), CFA: CFAFrame})
			b.add(Row{PC: uint32(end)})
		}
	}
}
