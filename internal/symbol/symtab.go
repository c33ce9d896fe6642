package symbol

import (
	"debug/elf"
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

const (
	recordSize = 24      // sizeof(Elf64_Sym), and of a relocation with addend
	maxSymbols = 1 << 22 // of one table; the largest browsers have a million
	maxOverlap = 64      // symbols looked at before a place for one that covers it
)

// sym is a symbol in 24 bytes, since large programs have a million of them.
// The name stays in the file.
type sym struct {
	addr uint64
	size uint32 // 0: not told
	name uint32 // offset in the string table
	kind uint8  // STT_
	bind uint8  // STB_
	tab  uint8  // index of the table
}

// symbolTable is the functions and the variables of a module, from all its
// symbol tables, each sorted by address.
type symbolTable struct {
	funcs   []sym
	objects []sym
	tabs    []symTab
	layout  *object // whose segments and sections bound the symbols
}

type symTab struct {
	names *section
	full  bool // .symtab: what it does not name has no name
}

// add reads a symbol table of o: elf.SHT_SYMTAB or SHT_DYNSYM. It reports
// whether there was one. Symbols outside the loaded segments are left out.
func (t *symbolTable) add(o *object, typ elf.SectionType) bool {
	var sec *elf.Section
	for _, s := range o.elf.Sections {
		if s.Type == typ {
			sec = s
		}
	}
	if sec == nil || sec.ReaderAt == nil || int(sec.Link) >= len(o.elf.Sections) || len(t.tabs) > 250 {
		return false
	}
	names, closer, err := openSection(o.r, o.elf.Sections[sec.Link], o.cache)
	if closer != nil {
		o.closers = append(o.closers, closer)
	}
	if err != nil {
		o.broken = append(o.broken, err.Error())
		return false
	}
	tab := uint8(len(t.tabs))
	t.tabs = append(t.tabs, symTab{names, typ == elf.SHT_SYMTAB})

	funcs, objects := 0, 0
	eachRecord(sec, func(b []byte) {
		switch t.kindOf(b) {
		case 'f':
			funcs++
		case 'o':
			objects++
		}
	})
	t.funcs, t.objects = slices.Grow(t.funcs, funcs), slices.Grow(t.objects, objects)
	eachRecord(sec, func(b []byte) {
		k := t.kindOf(b)
		if k == 0 {
			return
		}
		s := sym{
			name: binary.LittleEndian.Uint32(b), kind: b[4] & 0xf, bind: b[4] >> 4, tab: tab,
			addr: binary.LittleEndian.Uint64(b[8:]),
			size: uint32(min(binary.LittleEndian.Uint64(b[16:]), 1<<32-1)),
		}
		if k == 'f' {
			t.funcs = append(t.funcs, s)
		} else {
			t.objects = append(t.objects, s)
		}
	})
	return true
}

// eachRecord calls fn with each symbol or relocation of a section.
func eachRecord(sec *elf.Section, fn func(b []byte)) {
	buf := make([]byte, 1024*recordSize)
	n := min(sec.FileSize/recordSize, maxSymbols)
	for at := uint64(0); at < n; at += 1024 {
		m, _ := sec.ReadAt(buf[:min(1024, n-at)*recordSize], int64(at*recordSize))
		for b := buf[:m]; len(b) >= recordSize; b = b[recordSize:] {
			fn(b)
		}
	}
}

// kindOf classifies an Elf64_Sym: 'f' for code, 'o' for data, 0 for neither.
func (t *symbolTable) kindOf(b []byte) byte {
	shndx := elf.SectionIndex(binary.LittleEndian.Uint16(b[6:]))
	addr, size := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	if shndx == elf.SHN_UNDEF || shndx == elf.SHN_ABS || binary.LittleEndian.Uint32(b) == 0 {
		return 0
	}
	seg := t.layout.loaded(addr)
	if seg == nil {
		return 0
	}
	exec := seg.Flags&elf.PF_X != 0
	switch elf.SymType(b[4] & 0xf) {
	case elf.STT_FUNC, elf.STT_GNU_IFUNC:
		return 'f'
	case elf.STT_OBJECT, elf.STT_COMMON:
		if size > 0 {
			return 'o'
		}
	case elf.STT_NOTYPE:
		if exec {
			return 'f'
		}
		if size > 0 {
			return 'o'
		}
	}
	return 0
}

// loaded is the loadable segment that addr lies in, nil when none.
func (o *object) loaded(addr uint64) *elf.Prog {
	for _, p := range o.elf.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Memsz {
			return p
		}
	}
	return nil
}

// finish sorts what was added.
func (t *symbolTable) finish() {
	by := func(a, b sym) int { return cmpUint(a.addr, b.addr) }
	slices.SortStableFunc(t.funcs, by)
	slices.SortStableFunc(t.objects, by)
}

// function gives the symbol that covers addr, "" when none does. Of several
// names for one address it takes the one that a reader expects; hints are the
// names that debug information has for it. sure is false for a label without
// type or size, which may stand in the middle of a function.
func (t *symbolTable) function(addr uint64, hints ...string) (name string, sure bool) {
	name, s := t.pick(t.covering(t.funcs, addr), hints)
	return name, s.size > 0 && s.kind != uint8(elf.STT_NOTYPE)
}

// object is the same for variables; start is where it begins.
func (t *symbolTable) object(addr uint64) (name string, start uint64) {
	name, s := t.pick(t.covering(t.objects, addr), nil)
	return name, s.addr
}

// covering gives the symbols with one start address that cover addr.
func (t *symbolTable) covering(list []sym, addr uint64) []sym {
	n := sort.Search(len(list), func(i int) bool { return list[i].addr > addr })
	for i := n - 1; i >= 0 && n-i <= maxOverlap; i-- {
		if s := &list[i]; addr-s.addr < uint64(s.size) {
			return t.group(list, i, func(s *sym) bool { return addr-s.addr < uint64(s.size) })
		}
	}
	// A symbol without a size, as in hand-written assembly, reaches to the next
	// symbol in its section, where the table has all symbols.
	if n == 0 {
		return nil
	}
	last := list[n-1]
	sized := func(s *sym) bool { return s.size > 0 }
	if !t.tabs[last.tab].full || t.group(list, n-1, sized) != nil || addr >= t.layout.sectionEnd(last.addr) {
		return nil
	}
	return t.group(list, n-1, func(*sym) bool { return true })
}

// group gives the symbols at the address of list[i] that pass.
func (t *symbolTable) group(list []sym, i int, pass func(*sym) bool) []sym {
	addr := list[i].addr
	for i > 0 && list[i-1].addr == addr {
		i--
	}
	var g []sym
	for ; i < len(list) && list[i].addr == addr; i++ {
		if pass(&list[i]) {
			g = append(g, list[i])
		}
	}
	return g
}

// sectionEnd is the end of the section that addr lies in, 0 when none.
func (o *object) sectionEnd(addr uint64) uint64 {
	for _, s := range o.elf.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && addr >= s.Addr && addr-s.Addr < s.Size {
			return s.Addr + s.Size
		}
	}
	return 0
}

// pick chooses among aliases.
func (t *symbolTable) pick(group []sym, hints []string) (string, sym) {
	best := ""
	var bestSym sym
	for _, s := range group {
		name := t.tabs[s.tab].names.str(uint64(s.name))
		if name == "" {
			continue
		}
		if best == "" || better(&s, name, &bestSym, best, hints) {
			best, bestSym = name, s
		}
	}
	return best, bestSym
}

// better reports whether alias a of a place is a better name than alias b:
// functions before labels, what other files can see before what they cannot,
// "malloc" before "__libc_malloc", the source's own word before another,
// global before weak, short before long.
func better(a *sym, an string, b *sym, bn string, hints []string) bool {
	order := func(x, y int) (less, done bool) { return x < y, x != y }
	for _, score := range []func(*sym, string) int{
		func(s *sym, _ string) int { return flag(s.kind == uint8(elf.STT_NOTYPE)) },
		func(s *sym, _ string) int { return flag(s.bind == uint8(elf.STB_LOCAL)) },
		func(_ *sym, n string) int { return underscores(n) },
		func(_ *sym, n string) int { return flag(len(hints) > 0 && !slices.Contains(hints, base(n))) },
		func(s *sym, _ string) int { return flag(s.bind == uint8(elf.STB_WEAK)) },
		func(_ *sym, n string) int { return len(base(n)) },
	} {
		if less, done := order(score(a, an), score(b, bn)); done {
			return less
		}
	}
	return an < bn
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// underscores counts those in front of a name; a mangled name has none.
func underscores(name string) int {
	if mangled(name) {
		return 0
	}
	return len(name) - len(strings.TrimLeft(name, "_"))
}
