package unwind

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrFormat means that a file is not an ELF file for x86-64.
var ErrFormat = errors.New("not an x86-64 ELF file")

const pageSize = 4096

// Numbers of the ELF and x86-64 ABI documents, as in elf.h.
const (
	ptLoad       = 1
	ptDynamic    = 2
	ptGNUEHFrame = 0x6474e550
	pfExec       = 1
	shtNobits    = 8
	shfExec      = 0x4
	shfCompress  = 0x800
	dtPLTGOT     = 3
	emX8664      = 62
	compressZlib = 1
)

// The most that is read of a file: twenty times libLLVM's .eh_frame. It bounds
// what a hostile file can make us allocate.
const maxFrameBytes = 128 << 20

// maxSegments is more than any linker makes; only core files have more.
const maxSegments = 256

// image is an ELF file as far as unwinding needs it. Section headers are only
// hints: the loader does not read them, strip tools remove them.
type image struct {
	r        io.ReaderAt
	base     uint64 // lowest PT_LOAD address, rounded down to a page
	load     []segment
	hdr      segment // PT_GNU_EH_FRAME
	dynamic  segment
	sections []section
}

type segment struct{ off, vaddr, filesz, flags uint64 }

type section struct {
	name            string
	kind            uint32
	flags           uint64
	addr, off, size uint64
}

func openImage(r io.ReaderAt) (*image, error) {
	var h [64]byte
	if _, err := r.ReadAt(h[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.HasPrefix(h[:], []byte("\x7fELF\x02\x01\x01")) || binary.LittleEndian.Uint16(h[18:]) != emX8664 {
		return nil, ErrFormat
	}
	im := &image{r: r}
	if err := im.readSegments(binary.LittleEndian.Uint64(h[32:]), h[54:58]); err != nil {
		return nil, err
	}
	im.readSections(binary.LittleEndian.Uint64(h[40:]), h[58:64])
	return im, nil
}

// readSegments reads the program headers; size holds e_phentsize and e_phnum.
func (im *image) readSegments(off uint64, size []byte) error {
	n := uint64(binary.LittleEndian.Uint16(size[2:]))
	if binary.LittleEndian.Uint16(size) != 56 || n == 0 || n > maxSegments {
		return fmt.Errorf("%d program headers: %w", n, ErrFormat)
	}
	b, err := im.read(off, n*56)
	if err != nil {
		return fmt.Errorf("read program headers: %w", err)
	}
	lowest := ^uint64(0)
	for ; len(b) >= 56; b = b[56:] {
		s := segment{
			flags:  uint64(binary.LittleEndian.Uint32(b[4:])),
			off:    binary.LittleEndian.Uint64(b[8:]),
			vaddr:  binary.LittleEndian.Uint64(b[16:]),
			filesz: binary.LittleEndian.Uint64(b[32:]),
		}
		if s.off+s.filesz < s.off || s.vaddr+s.filesz < s.vaddr {
			continue
		}
		switch binary.LittleEndian.Uint32(b) {
		case ptLoad:
			im.load = append(im.load, s)
			lowest = min(lowest, s.vaddr)
		case ptGNUEHFrame:
			im.hdr = s
		case ptDynamic:
			im.dynamic = s
		}
	}
	if len(im.load) == 0 {
		return fmt.Errorf("nothing to load: %w", ErrFormat)
	}
	im.base = lowest &^ (pageSize - 1)
	return nil
}

// readSections reads the section headers; size holds e_shentsize, e_shnum and
// e_shstrndx. What cannot be read is left out.
func (im *image) readSections(off uint64, size []byte) {
	n := uint64(binary.LittleEndian.Uint16(size[2:]))
	names := uint64(binary.LittleEndian.Uint16(size[4:]))
	if off == 0 || binary.LittleEndian.Uint16(size) != 64 || names >= n {
		return
	}
	b, err := im.read(off, n*64)
	if err != nil {
		return
	}
	offsets := make([]uint32, 0, n)
	for ; len(b) >= 64; b = b[64:] {
		offsets = append(offsets, binary.LittleEndian.Uint32(b))
		im.sections = append(im.sections, section{
			kind:  binary.LittleEndian.Uint32(b[4:]),
			flags: binary.LittleEndian.Uint64(b[8:]),
			addr:  binary.LittleEndian.Uint64(b[16:]),
			off:   binary.LittleEndian.Uint64(b[24:]),
			size:  binary.LittleEndian.Uint64(b[32:]),
		})
	}
	str, err := im.read(im.sections[names].off, min(im.sections[names].size, 1<<20))
	if err != nil {
		im.sections = nil
		return
	}
	for i, at := range offsets {
		if uint64(at) < uint64(len(str)) {
			name, _, _ := bytes.Cut(str[at:], []byte{0})
			im.sections[i].name = string(name[:min(len(name), 64)])
		}
	}
}

// section finds a section with contents by name.
func (im *image) section(name string) (section, bool) {
	for _, s := range im.sections {
		if s.name == name && s.kind != shtNobits && s.size > 0 {
			return s, true
		}
	}
	return section{}, false
}

// contents reads a section, at most maxFrameBytes of it, uncompressed.
func (im *image) contents(s section) ([]byte, error) {
	b, err := im.read(s.off, min(s.size, maxFrameBytes))
	if err != nil || s.flags&shfCompress == 0 {
		return b, err
	}
	// struct Elf64_Chdr: ch_type, reserved, ch_size, ch_addralign.
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != compressZlib {
		return nil, fmt.Errorf("section %s is compressed in an unknown way", s.name)
	}
	z, err := zlib.NewReader(bytes.NewReader(b[24:]))
	if err != nil {
		return nil, fmt.Errorf("decompress section %s: %w", s.name, err)
	}
	return io.ReadAll(io.LimitReader(z, maxFrameBytes))
}

// read reads n bytes, or an error. A size that the file only claims to have is
// not allocated at once.
func (im *image) read(off, n uint64) ([]byte, error) {
	const step = 1 << 20
	if off > 1<<62 {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, 0, min(n, step))
	for uint64(len(b)) < n {
		have := len(b)
		want := int(min(n-uint64(have), max(step, uint64(have))))
		b = append(b, make([]byte, want)...)
		if got, err := im.r.ReadAt(b[have:], int64(off)+int64(have)); got < want {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return b, nil
}

// at translates a virtual address to a file offset, and says how many bytes of
// the file follow it in its segment.
func (im *image) at(vaddr uint64) (off, rest uint64, ok bool) {
	for _, s := range im.load {
		if vaddr >= s.vaddr && vaddr-s.vaddr < s.filesz {
			return s.off + (vaddr - s.vaddr), s.filesz - (vaddr - s.vaddr), true
		}
	}
	return 0, 0, false
}

// word reads 8 bytes at a virtual address.
func (im *image) word(vaddr uint64) (uint64, bool) {
	off, rest, ok := im.at(vaddr)
	if !ok || rest < 8 {
		return 0, false
	}
	b, err := im.read(off, 8)
	if err != nil {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}

// executable lists the segments that hold code.
func (im *image) executable() []segment {
	var out []segment
	for _, s := range im.load {
		if s.flags&pfExec != 0 && s.filesz > 0 {
			out = append(out, s)
		}
	}
	return out
}

// code lists where code is, by address: the executable sections, or else all of
// the executable segments.
func (im *image) code() (spans []segment) {
	exec := im.executable()
	for _, s := range im.sections {
		if s.flags&shfExec == 0 || s.kind == shtNobits || len(spans) == maxSegments {
			continue
		}
		for _, e := range exec {
			if at := s.addr - e.vaddr; at < e.filesz && s.size <= e.filesz-at {
				spans = append(spans, segment{vaddr: s.addr, filesz: s.size})
				break
			}
		}
	}
	if spans == nil {
		return exec
	}
	slices.SortFunc(spans, func(a, b segment) int { return cmp.Compare(a.vaddr, b.vaddr) })
	return spans
}

// got is DT_PLTGOT, what data-relative pointers in .eh_frame are relative to;
// 0 when there is none.
func (im *image) got() uint64 {
	b, err := im.read(im.dynamic.off, min(im.dynamic.filesz, 1<<16))
	if err != nil {
		return 0
	}
	for ; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) == dtPLTGOT {
			return binary.LittleEndian.Uint64(b[8:])
		}
	}
	return 0
}

// golang reports whether the Go linker made the file, or parts of it.
func (im *image) golang() bool {
	for _, s := range im.sections {
		switch s.name {
		case ".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo":
			return true
		}
	}
	return false
}
