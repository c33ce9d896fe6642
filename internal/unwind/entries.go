package unwind

import (
	"bytes"
	"cmp"
	"slices"
)

// Pointer encodings, DW_EH_PE_ of the Linux Standard Base, chapter 10.5. The
// low four bits are the format.
const (
	peAbs      = 0x00
	peUleb     = 0x01
	peUdata2   = 0x02
	peUdata4   = 0x03
	peUdata8   = 0x04
	peSleb     = 0x09
	peSdata2   = 0x0a
	peSdata4   = 0x0b
	peSdata8   = 0x0c
	pePCRel    = 0x10
	peTextRel  = 0x20
	peDataRel  = 0x30
	peFuncRel  = 0x40
	peAligned  = 0x50
	peIndirect = 0x80
	peOmit     = 0xff
)

// frames is a section of call frame information, .eh_frame or .debug_frame,
// and what was found in it.
type frames struct {
	im   *image
	data []byte
	addr uint64 // virtual address of data[0]
	eh   bool
	// open says that the size of the section is not known: a zero length ends it.
	open bool
	last int // offset of the last record, when open; -1 unknown

	cies []cie
	fdes []fde

	got      uint64 // what data-relative pointers are relative to, 0 unknown
	gotAsked bool
}

// cie holds what the FDEs of one CIE have in common.
type cie struct {
	at        int // its offset in data
	codeAlign uint64
	dataAlign int64
	encoding  byte // of the FDE's addresses
	sized     bool // augmentation data has a length
	signal    bool
	broken    bool // its FDEs cannot be understood
	initial   state
}

// fde is one function: its addresses, and its instructions in data.
type fde struct {
	begin, end uint64 // virtual addresses
	cie        int32  // index in cies
	from, to   int32
}

// maxCIEs bounds what a hostile file can make us allocate: linkers merge equal
// CIEs, libLLVM has one.
const maxCIEs = 1 << 17

// parse lists the FDEs, sorted by address.
func (f *frames) parse() {
	f.list()
	if !slices.IsSortedFunc(f.fdes, byBegin) {
		slices.SortStableFunc(f.fdes, byBegin)
	}
}

// list goes through the records. What is malformed ends it or is left out.
func (f *frames) list() {
	cieAt := map[int]int32{}
	c := cursor{b: f.data}
	for c.at < len(c.b) && (!f.open || f.last < 0 || c.at <= f.last) {
		start := c.at
		length := uint64(c.u32())
		wide := length == 0xffffffff
		if wide {
			length = c.u64()
		}
		if length == 0 && !c.bad {
			if f.open && f.last < 0 {
				break
			}
			continue // a terminator that a linker left in the middle
		}
		if c.bad || length > uint64(len(c.b)-c.at) {
			break
		}
		rec := cursor{b: c.b[:c.at+int(length)], at: c.at}
		c.at += int(length)
		idAt := rec.at
		id := uint64(rec.u32())
		if wide && !f.eh {
			rec.at = idAt
			id = rec.u64()
		}
		if rec.bad {
			continue
		}
		switch {
		case f.isCIE(id, wide):
			if len(f.cies) == maxCIEs {
				return
			}
			cieAt[start] = int32(len(f.cies))
			f.cies = append(f.cies, f.parseCIE(&rec, start))
		default:
			at := int64(id)
			if f.eh {
				at = int64(idAt) - int64(id)
			}
			if i, ok := f.cieIndex(cieAt, at); ok && !f.cies[i].broken {
				f.parseFDE(&rec, i)
			}
		}
	}
}

func byBegin(a, b fde) int { return cmp.Compare(a.begin, b.begin) }

func (f *frames) isCIE(id uint64, wide bool) bool {
	if f.eh {
		return id == 0
	}
	return id == 0xffffffff && !wide || id == ^uint64(0)
}

// cieIndex finds the CIE that begins at an offset: nearly always the latest.
func (f *frames) cieIndex(cieAt map[int]int32, at int64) (int32, bool) {
	if n := len(f.cies); n > 0 && int64(f.cies[n-1].at) == at {
		return int32(n - 1), true
	}
	i, ok := cieAt[int(at)]
	return i, ok
}

func (f *frames) parseCIE(c *cursor, start int) cie {
	e := cie{at: start, broken: true}
	version := c.u8()
	if version != 1 && version != 3 && (version != 4 || f.eh) {
		return e
	}
	augmentation := c.text()
	if bytes.Equal(augmentation, []byte("eh")) { // GCC 2: a pointer follows
		c.u64()
		augmentation = nil
	}
	if version == 4 && (c.u8() != 8 || c.u8() != 0) { // address and segment selector size
		return e
	}
	e.codeAlign = c.uleb()
	e.dataAlign = c.sleb()
	var ra uint64
	if version == 1 {
		ra = uint64(c.u8())
	} else {
		ra = c.uleb()
	}
	known := f.parseAugmentation(c, &e, augmentation)
	if c.bad || ra != regRA || !known {
		return e
	}
	e.broken = false
	var m machine
	m.start(f, &e, 0)
	if !m.run(c, ^uint64(0), nil) {
		e.broken = true
	}
	e.initial = m.now
	return e
}

// parseAugmentation reads what the letters of the augmentation announce. With
// a length, unknown letters and what they stand for are skipped.
func (f *frames) parseAugmentation(c *cursor, e *cie, letters []byte) bool {
	end := -1
	for i, letter := range letters {
		switch letter {
		case 'z':
			if i != 0 {
				return false
			}
			e.sized = true
			n := c.uleb()
			if c.bad || n > uint64(len(c.b)-c.at) {
				return false
			}
			end = c.at + int(n)
		case 'R':
			e.encoding = c.u8()
		case 'P':
			f.skipPointer(c)
		case 'L':
			c.u8()
		case 'S':
			e.signal = true
		case 'B': // AArch64: return addresses signed with key B; says nothing here
		default:
			if end < 0 {
				return false
			}
			c.at = end
			return true
		}
	}
	if end >= 0 {
		if c.at > end {
			return false
		}
		c.at = end
	}
	return true
}

// skipPointer passes over a pointer that its encoding precedes.
func (f *frames) skipPointer(c *cursor) {
	encoding := c.u8()
	if encoding == peOmit {
		return
	}
	if encoding&0x70 == peAligned {
		f.align(c)
	}
	raw(c, encoding)
}

func (f *frames) parseFDE(c *cursor, index int32) {
	e := &f.cies[index]
	begin, ok := f.pointer(c, e.encoding, 0)
	size := raw(c, e.encoding)
	if e.sized {
		c.skip(c.uleb())
	}
	if !ok || c.bad || size == 0 || begin+size < begin {
		return
	}
	f.fdes = append(f.fdes, fde{begin: begin, end: begin + size, cie: index, from: int32(c.at), to: int32(len(c.b))})
}

// pointer reads an encoded pointer; function is what peFuncRel is relative to.
func (f *frames) pointer(c *cursor, encoding byte, function uint64) (uint64, bool) {
	if encoding == peOmit {
		return 0, false
	}
	var from uint64
	switch encoding & 0x70 {
	case peAbs, peTextRel: // the unwinder of libgcc knows no text base on x86-64, it takes 0
	case pePCRel:
		from = f.addr + uint64(c.at)
	case peDataRel:
		if from = f.dataBase(); from == 0 {
			return 0, false
		}
	case peFuncRel:
		from = function
	case peAligned:
		f.align(c)
	default:
		return 0, false
	}
	v := raw(c, encoding)
	if v == 0 || c.bad { // null, whatever it is relative to
		return 0, false
	}
	v += from
	if encoding&peIndirect != 0 {
		return f.im.word(v)
	}
	return v, true
}

func (f *frames) dataBase() uint64 {
	if !f.gotAsked {
		f.got, f.gotAsked = f.im.got(), true
	}
	return f.got
}

// align skips to the next address that is a multiple of 8.
func (f *frames) align(c *cursor) {
	c.skip(-(f.addr + uint64(c.at)) & 7)
}

// raw reads the number of an encoded pointer.
func raw(c *cursor, encoding byte) uint64 {
	switch encoding & 0x0f {
	case peAbs, peUdata8, peSdata8, 0x08: // 0x08 is DW_EH_PE_signed: a signed word
		return c.u64()
	case peUleb:
		return c.uleb()
	case peUdata2:
		return uint64(c.u16())
	case peUdata4:
		return uint64(c.u32())
	case peSleb:
		return uint64(c.sleb())
	case peSdata2:
		return uint64(int16(c.u16()))
	case peSdata4:
		return uint64(int32(c.u32()))
	}
	c.bad = true
	return 0
}
