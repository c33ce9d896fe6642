package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

const (
	pageSize = 4096
	maxNote  = 1 << 16 // a note section larger than this is not read
)

// object is one open ELF file. It is not safe for concurrent use; each module
// has its own and guards it.
type object struct {
	path     string // as it was opened, for messages and for finding neighbours
	tree     tree   // the file tree it was found in
	elf      *elf.File
	r        io.ReaderAt
	file     *os.File // nil when the image is in memory
	cache    *blockCache
	sections map[string]*section
	closers  []io.Closer
	broken   []string // sections that could not be read, and why
	buildID  string
}

// newObject reads the ELF headers. It owns f, which may be nil, also when it
// fails.
func newObject(path string, r io.ReaderAt, f *os.File, cache *blockCache) (*object, error) {
	o := &object{path: path, r: r, file: f, cache: cache, sections: map[string]*section{}}
	e, err := elf.NewFile(r)
	if err == nil && (e.Class != elf.ELFCLASS64 || e.Data != elf.ELFDATA2LSB || e.Machine != elf.EM_X86_64) {
		err = fmt.Errorf("%s is for %v, %v", path, e.Machine, e.Class)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	o.elf = e
	o.buildID = o.readBuildID()
	return o, nil
}

func (o *object) close() {
	if o.file != nil {
		o.closers = append(o.closers, o.file)
		o.file = nil
	}
	for _, c := range o.closers {
		// They were only read; there is nothing to lose.
		_ = c.Close()
	}
	o.closers = nil
}

// section opens the section of that name; ".debug_x" also finds ".zdebug_x".
// It is nil when the file has none or it cannot be read.
func (o *object) section(name string) *section {
	if s, ok := o.sections[name]; ok {
		return s
	}
	var found *section
	for _, s := range o.elf.Sections {
		if s.Name != name && (!strings.HasPrefix(name, ".debug_") || s.Name != ".z"+name[1:]) || s.Type == elf.SHT_NOBITS {
			continue
		}
		sec, closer, err := openSection(o.r, s, o.cache)
		if closer != nil {
			o.closers = append(o.closers, closer)
		}
		if err != nil {
			o.broken = append(o.broken, err.Error())
			continue
		}
		found = sec
		break
	}
	o.sections[name] = found
	return found
}

// has reports whether the file has contents for that section, without
// unpacking it.
func (o *object) has(name string) bool {
	for _, s := range o.elf.Sections {
		if (s.Name == name || strings.HasPrefix(name, ".debug_") && s.Name == ".z"+name[1:]) && s.Type != elf.SHT_NOBITS && s.Size > 0 {
			return true
		}
	}
	return false
}

// readBuildID finds the GNU build-id in the notes: sections first, since the
// program headers of a separate debug file may point astray.
func (o *object) readBuildID() string {
	for _, s := range o.elf.Sections {
		if s.Type == elf.SHT_NOTE && s.ReaderAt != nil {
			if id := noteBuildID(s.ReaderAt, s.FileSize, s.Addralign); id != "" {
				return id
			}
		}
	}
	for _, p := range o.elf.Progs {
		if p.Type == elf.PT_NOTE {
			if id := noteBuildID(p.ReaderAt, p.Filesz, p.Align); id != "" {
				return id
			}
		}
	}
	return ""
}

func noteBuildID(r io.ReaderAt, size, align uint64) string {
	if size > maxNote {
		return ""
	}
	b := make([]byte, size)
	n, _ := r.ReadAt(b, 0)
	return parseBuildID(b[:n], align)
}

// parseBuildID looks for NT_GNU_BUILD_ID (3) of owner "GNU" in a note section;
// elf(5) has the layout. Lower-case hex, "" when there is none.
func parseBuildID(b []byte, align uint64) string {
	if align != 8 {
		align = 4
	}
	pad := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	for len(b) >= 12 {
		name, desc := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		typ := binary.LittleEndian.Uint32(b[8:])
		at := pad(12 + name)
		if at+desc > uint64(len(b)) {
			return ""
		}
		if typ == 3 && name == 4 && string(b[12:16]) == "GNU\x00" && desc > 0 {
			return hex.EncodeToString(b[at : at+desc])
		}
		next := pad(at + desc)
		if next > uint64(len(b)) {
			return ""
		}
		b = b[next:]
	}
	return ""
}

// debugLink is what .gnu_debuglink says: the base name of the separate debug
// file and the CRC-32 of its contents.
func (o *object) debugLink() (name string, crc uint32, ok bool) {
	b := o.small(".gnu_debuglink")
	i := bytes.IndexByte(b, 0)
	if i <= 0 {
		return "", 0, false
	}
	at := (i + 4) &^ 3 // the CRC follows the zero byte and padding to 4
	if at+4 > len(b) || strings.ContainsRune(string(b[:i]), '/') {
		return "", 0, false
	}
	return string(b[:i]), binary.LittleEndian.Uint32(b[at:]), true
}

// altLink is what .gnu_debugaltlink says: the path of the file that dwz moved
// shared entries to, and its build-id; or .debug_sup, which DWARF 5 has for
// the same, with a checksum.
func (o *object) altLink() (path, id string, ok bool) {
	b := o.small(".gnu_debugaltlink")
	i := bytes.IndexByte(b, 0)
	if i > 0 && i+1 < len(b) {
		return string(b[:i]), hex.EncodeToString(b[i+1:]), true
	}
	path, id, supplement := o.debugSup()
	return path, id, path != "" && id != "" && !supplement
}

// debugSup reads .debug_sup: DWARF 5, section 7.3.6. supplement is true in the
// file that others refer to.
func (o *object) debugSup() (path, checksum string, supplement bool) {
	b := o.small(".debug_sup")
	if b == nil {
		return "", "", false
	}
	c := newCursor(memSection(b), 0)
	c.u16() // version
	supplement = c.u8() != 0
	path = c.str()
	n := c.uleb()
	if c.err != nil || n > uint64(len(b))-c.off() {
		return "", "", false
	}
	return path, hex.EncodeToString(b[c.off() : c.off()+n]), supplement
}

// isAlt reports whether o is the file that an altLink with that id means.
func (o *object) isAlt(id string) bool {
	if o.buildID == id {
		return true
	}
	_, checksum, supplement := o.debugSup()
	return supplement && checksum == id
}

// small reads a section that holds little more than a path.
func (o *object) small(name string) []byte {
	s := o.section(name)
	if s == nil || s.size > maxNote {
		return nil
	}
	b, err := s.bytes(0, s.size)
	if err != nil {
		return nil
	}
	return b
}

// checksum is the CRC-32 that .gnu_debuglink uses, of the whole file.
func (o *object) checksum() (uint32, error) {
	if o.file == nil {
		return 0, errors.New("not a file")
	}
	st, err := o.file.Stat()
	if err != nil {
		return 0, err
	}
	h := crc32.NewIEEE()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(o.file, 0, st.Size()), make([]byte, 1<<18)); err != nil {
		return 0, err
	}
	return h.Sum32(), nil
}

// segment finds the program header that a mapping shows: the loadable segment
// with off in it, preferring one with the mapping's rights and with contents
// at off, since neighbours share the page between them.
func (o *object) segment(off uint64, exec, write bool) *elf.Prog {
	var best *elf.Prog
	score := -1
	for _, p := range o.elf.Progs {
		if p.Type != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		lo := p.Off &^ (pageSize - 1)
		size := max(p.Filesz, 1)
		if p.Flags&elf.PF_W != 0 {
			size = max(size, p.Memsz) // .bss has offsets beyond the file's data
		}
		hi := (p.Off + size + pageSize - 1) &^ (pageSize - 1)
		if off < lo || off >= hi {
			continue
		}
		n := 0
		if off >= p.Off && off < p.Off+p.Filesz {
			n += 4
		}
		if (p.Flags&elf.PF_X != 0) == exec {
			n += 2
		}
		if (p.Flags&elf.PF_W != 0) == write {
			n++
		}
		if n > score {
			best, score = p, n
		}
	}
	return best
}

// executable reports whether [lo, hi) lies in an executable segment. Entries
// for code that the linker threw away do not.
func (o *object) executable(lo, hi uint64) bool {
	for _, p := range o.elf.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && lo >= p.Vaddr && lo < hi && hi-p.Vaddr <= p.Memsz {
			return true
		}
	}
	return false
}

// relocations calls fn with the section name and the bytes of each relocation
// that the dynamic linker applies.
func (o *object) relocations(fn func(section string, b []byte)) {
	for _, s := range o.elf.Sections {
		//nolint:misspell // the name of the section type
		if s.Type == elf.SHT_RELA && s.Flags&elf.SHF_ALLOC != 0 && s.ReaderAt != nil {
			eachRecord(s, func(b []byte) { fn(s.Name, b) })
		}
	}
}
