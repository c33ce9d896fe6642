package proc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sort"

	"stanch/internal/leak"
)

// Numbers of the ELF format, elf(5).
const (
	elfHeaderSize = 64 // Elf64_Ehdr
	elfPhdrSize   = 56 // Elf64_Phdr
	elfShdrSize   = 64 // Elf64_Shdr

	elfClass64 = 2
	elfData2LE = 1
	etCore     = 4
	emX8664    = 62
	ptLoad     = 1
	ptNote     = 4
	pnXnum     = 0xffff // e_phnum when the real number stands in section 0's sh_info

	ntGNUBuildID = 3

	maxNotes    = 64 << 20 // no core of a real program has more notes: about 3 KB a thread
	maxSegments = 1 << 20  // vm.max_map_count is 65,530 unless raised
)

var errNotELF = errors.New("not an ELF file")

// elfHead is what is used of an Elf64_Ehdr, or of the 32-bit form its class and
// machine alone.
type elfHead struct {
	class, data   byte
	kind, machine uint16
	phoff, shoff  uint64
	phnum         uint32
}

// segment is one program header.
type segment struct {
	kind, flags         uint32
	off, vaddr          uint64
	filesz, memsz, algn uint64
}

// readHead reads and checks the start of an ELF file of either class.
func readHead(r io.ReaderAt) (elfHead, error) {
	var h elfHead
	var b [elfHeaderSize]byte
	n, err := r.ReadAt(b[:], 0)
	if n < 20 || string(b[:4]) != "\x7fELF" {
		if n < 20 && err != nil && !errors.Is(err, io.EOF) {
			return h, err
		}
		return h, errNotELF
	}
	le := binary.LittleEndian
	h.class, h.data = b[4], b[5]
	h.kind, h.machine = le.Uint16(b[16:]), le.Uint16(b[18:])
	if h.data != elfData2LE { // 2 is big-endian, any other value nonsense: neither is x86
		h.kind, h.machine = h.kind>>8|h.kind<<8, h.machine>>8|h.machine<<8
	}
	if h.class != elfClass64 || h.data != elfData2LE {
		return h, nil
	}
	if n < elfHeaderSize {
		return h, fmt.Errorf("ELF header: %w", io.ErrUnexpectedEOF)
	}
	h.phoff, h.shoff = le.Uint64(b[32:]), le.Uint64(b[40:])
	h.phnum = uint32(le.Uint16(b[56:]))
	if size := le.Uint16(b[54:]); h.phnum > 0 && size != elfPhdrSize {
		return h, fmt.Errorf("program headers of %d bytes: %w", size, errNotELF)
	}
	if h.phnum == pnXnum {
		var s [elfShdrSize]byte
		if _, err := r.ReadAt(s[:], int64(h.shoff)); err != nil {
			return h, fmt.Errorf("section header 0: %w", noEOF(err))
		}
		h.phnum = le.Uint32(s[44:]) // sh_info
	}
	if h.phnum > maxSegments {
		return h, fmt.Errorf("%d program headers: %w", h.phnum, errNotELF)
	}
	return h, nil
}

// readSegments reads the program headers of a 64-bit little-endian file.
func readSegments(r io.ReaderAt, h elfHead) ([]segment, error) {
	if h.class != elfClass64 || h.data != elfData2LE {
		return nil, fmt.Errorf("not a 64-bit little-endian ELF file: %w", ErrUnsupported)
	}
	b := make([]byte, int(h.phnum)*elfPhdrSize)
	if _, err := r.ReadAt(b, int64(h.phoff)); err != nil {
		return nil, fmt.Errorf("program headers: %w", noEOF(err))
	}
	segments := make([]segment, h.phnum)
	le := binary.LittleEndian
	for i := range segments {
		p := b[i*elfPhdrSize:]
		segments[i] = segment{
			kind: le.Uint32(p), flags: le.Uint32(p[4:]), off: le.Uint64(p[8:]), vaddr: le.Uint64(p[16:]),
			filesz: le.Uint64(p[32:]), memsz: le.Uint64(p[40:]), algn: le.Uint64(p[48:]),
		}
	}
	return segments, nil
}

// noEOF says that the end of the file came too early, which io.ReaderAt calls
// a plain end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// note is one entry of a PT_NOTE segment.
type note struct {
	kind uint32
	name string
	desc []byte
}

// notes yields the entries of a note segment and stops at the first that does
// not fit. Alignment is 4 but for a segment that says 8 (gABI; the kernel's
// cores say 0 or 4 and mean 4).
func notes(b []byte, align uint64, yield func(note) bool) {
	if align != 8 {
		align = 4
	}
	pad := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	le := binary.LittleEndian
	for len(b) >= 12 {
		nameLen, descLen, kind := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		descAt := pad(12 + nameLen)
		end := descAt + descLen
		if end > uint64(len(b)) {
			return
		}
		name := string(bytes.TrimRight(b[12:12+nameLen], "\x00"))
		if !yield(note{kind, name, b[descAt:end]}) {
			return
		}
		b = b[min(pad(end), uint64(len(b))):]
	}
}

// ReadBuildID gives the GNU build-id of a 64-bit ELF file in lower-case hex, ""
// when it has none. An error means that the file could not be read or is no
// such ELF file.
func ReadBuildID(r io.ReaderAt) (string, error) {
	h, err := readHead(r)
	if err != nil {
		return "", err
	}
	segments, err := readSegments(r, h)
	if err != nil {
		return "", err
	}
	id := ""
	for _, s := range segments {
		if s.kind != ptNote || s.filesz > maxNotes {
			continue
		}
		b := make([]byte, s.filesz)
		if _, err := r.ReadAt(b, int64(s.off)); err != nil {
			return "", fmt.Errorf("notes: %w", noEOF(err))
		}
		notes(b, s.algn, func(n note) bool {
			if n.kind == ntGNUBuildID && n.name == "GNU" {
				id = hex.EncodeToString(n.desc)
			}
			return id == ""
		})
		if id != "" {
			break
		}
	}
	return id, nil
}

// MemoryBuildID gives the build-id of the module whose ELF header lies at m's
// start, read from memory: for [vdso], and for files that are gone. It is ""
// when m holds no ELF header or its notes are not in m.
func MemoryBuildID(mem leak.Memory, m *leak.Mapping) string {
	if m.Offset != 0 {
		return ""
	}
	id, err := ReadBuildID(mappedFile{mem, m})
	if err != nil {
		return ""
	}
	return id
}

// mappedFile reads a file through a mapping of its start. It relies on
// linkers laying the first segment out as it stands in the file.
type mappedFile struct {
	mem leak.Memory
	m   *leak.Mapping
}

func (f mappedFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || uint64(off) >= f.m.Size() {
		return 0, io.EOF
	}
	short := uint64(len(p)) > f.m.Size()-uint64(off)
	if short {
		p = p[:f.m.Size()-uint64(off)]
	}
	n, err := f.mem.ReadAt(p, f.m.Start+leak.Addr(off))
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// overlapping gives the index of the first of n sorted intervals that ends
// after a.
func overlapping(n int, a leak.Addr, end func(int) leak.Addr) int {
	return sort.Search(n, func(i int) bool { return end(i) > a })
}
