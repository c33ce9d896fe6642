package unwind

import (
	"bytes"
	"encoding/binary"
	"slices"
)

var le = binary.LittleEndian

func appendUleb(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendSleb(b []byte, v int64) []byte {
	for {
		low := byte(v & 0x7f)
		v >>= 7
		if v == 0 && low&0x40 == 0 || v == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

// object is an ELF file being made: a page of headers, a page of code and a
// page of call frame information.
type object struct {
	link   uint64 // address of the first page
	frame  []byte // .eh_frame, or .debug_frame
	debug  bool   // frame is .debug_frame
	table  []entry
	noHdr  bool // no PT_GNU_EH_FRAME
	named  bool // there are section headers
	got    uint64
	lastIn []byte // what stands after .eh_frame in its segment
}

// entry is a line of the search table in .eh_frame_hdr.
type entry struct{ function, record uint64 }

const (
	codeAt  = 0x1000 // file offsets; addresses are higher by link
	frameAt = 0x2100
	hdrAt   = 0x2000
	dynAt   = 0x20c0
)

// frameAddr is the address of the first byte of frame.
func (o *object) frameAddr() uint64 { return o.link + frameAt }

func (o *object) bytes() []byte {
	size := frameAt + len(o.frame) + len(o.lastIn)
	b := make([]byte, size)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 3) // ET_DYN
	le.PutUint16(b[18:], emX8664)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], 56)
	n := 0
	segment := func(kind, flags uint32, at, size uint64) {
		p := b[64+56*n:]
		n++
		le.PutUint32(p, kind)
		le.PutUint32(p[4:], flags)
		le.PutUint64(p[8:], at)
		le.PutUint64(p[16:], o.link+at)
		le.PutUint64(p[24:], o.link+at)
		le.PutUint64(p[32:], size)
		le.PutUint64(p[40:], size)
	}
	segment(ptLoad, 4, 0, 0x1000)
	segment(ptLoad, 5, codeAt, 0x1000)
	segment(ptLoad, 4, hdrAt, uint64(size-hdrAt))
	if !o.noHdr && !o.debug {
		segment(ptGNUEHFrame, 4, hdrAt, uint64(12+8*len(o.table)))
		h := b[hdrAt:]
		h[0], h[1], h[2], h[3] = 1, pePCRel|peSdata4, peOmit, peOmit
		le.PutUint32(h[4:], frameAt-hdrAt-4)
		if o.table != nil {
			h[2], h[3] = peUdata4, peDataRel|peSdata4
			le.PutUint32(h[8:], uint32(len(o.table)))
			for i, e := range o.table {
				le.PutUint32(h[12+8*i:], uint32(e.function-(o.link+hdrAt)))
				le.PutUint32(h[16+8*i:], uint32(e.record-(o.link+hdrAt)))
			}
		}
	}
	if o.got != 0 {
		segment(ptDynamic, 4, dynAt, 32)
		le.PutUint64(b[dynAt:], dtPLTGOT)
		le.PutUint64(b[dynAt+8:], o.got)
	}
	le.PutUint16(b[56:], uint16(n))
	copy(b[frameAt:], o.frame)
	copy(b[frameAt+len(o.frame):], o.lastIn)
	if o.named {
		b = o.nameSections(b)
	}
	return b
}

// nameSections appends a string table and section headers.
func (o *object) nameSections(b []byte) []byte {
	name := ".eh_frame"
	addr := o.frameAddr()
	if o.debug {
		name, addr = ".debug_frame", 0
	}
	strings := "\x00" + name + "\x00.shstrtab\x00"
	stringsAt := len(b)
	b = append(b, strings...)
	at := len(b)
	b = append(b, make([]byte, 3*64)...)
	header := func(i int, name uint32, kind uint32, addr uint64, at, size int) {
		h := b[len(b)-(3-i)*64:]
		le.PutUint32(h, name)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[16:], addr)
		le.PutUint64(h[24:], uint64(at))
		le.PutUint64(h[32:], uint64(size))
	}
	header(1, 1, 1, addr, frameAt, len(o.frame))
	header(2, uint32(2+len(name)), 3, 0, stringsAt, len(strings))
	le.PutUint64(b[40:], uint64(at))
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	return b
}

func (o *object) compile() (*Table, error) { return Compile(bytes.NewReader(o.bytes())) }

// code is the address of the n-th byte of code.
func (o *object) code(n uint64) uint64 { return o.link + codeAt + n }

// record appends a record without its id: a CIE or an FDE.
func (o *object) record(id uint32, body ...byte) {
	body = slices.Clone(body)
	for len(body)%8 != 0 {
		body = append(body, cfaNop)
	}
	o.frame = le.AppendUint32(o.frame, uint32(4+len(body)))
	o.frame = le.AppendUint32(o.frame, id)
	o.frame = append(o.frame, body...)
}

// The instructions that every CIE of GCC begins with: CFA rsp+8, return
// address at CFA-8.
var initially = []byte{cfaDef, regSP, 8, cfaOffset | regRA, 1}

// cie appends a CIE of version 1 and gives its offset. Alignment factors are 1
// and -8.
func (o *object) cie(augmentation string, data []byte, instructions ...byte) int {
	at := len(o.frame)
	body := append([]byte{1}, augmentation...)
	body = append(body, 0, 1, 0x78, regRA)
	if len(augmentation) > 0 && augmentation[0] == 'z' {
		body = appendUleb(body, uint64(len(data)))
	}
	body = append(body, data...)
	id := uint32(0)
	if o.debug {
		id = 0xffffffff
	}
	o.record(id, append(body, instructions...)...)
	return at
}

// fde appends an FDE with encoded addresses. sized is for CIEs with 'z'.
func (o *object) fde(cie int, begin, size []byte, sized bool, instructions ...byte) {
	id := uint32(len(o.frame) + 4 - cie)
	if o.debug {
		id = uint32(cie)
	}
	body := append(slices.Clone(begin), size...)
	if sized {
		body = append(body, 0)
	}
	o.record(id, append(body, instructions...)...)
}

// simple appends an FDE with 8-byte absolute addresses for a CIE without
// augmentation.
func (o *object) simple(cie int, begin, size uint64, instructions ...byte) {
	o.fde(cie, le.AppendUint64(nil, begin), le.AppendUint64(nil, size), false, instructions...)
}

// here is the address of the addresses in the FDE that is appended next.
func (o *object) here() uint64 { return o.frameAddr() + uint64(len(o.frame)) + 8 }
