package symbol

import (
	"debug/elf"
	"encoding/binary"
	"sort"
)

const (
	maxPLT    = 1 << 24 // bytes
	pltStride = 16
	maxSlots  = 1 << 18
)

// stub is one entry of a procedure linkage table.
type stub struct {
	addr uint64
	size uint32
	name string
}

// stubs names the entries of .plt, .plt.sec and .plt.got: each jumps through a
// word that a relocation fills with the address of a named function.
func stubs(o *object) []stub {
	slots := o.slots()
	if len(slots) == 0 {
		return nil
	}
	var all []stub
	for _, s := range o.elf.Sections {
		if s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_EXECINSTR == 0 || s.ReaderAt == nil || s.FileSize > maxPLT {
			continue
		}
		stride := uint64(pltStride)
		switch s.Name {
		case ".plt", ".plt.sec":
		case ".plt.got":
			if s.Entsize == 8 {
				stride = 8
			}
		default:
			continue
		}
		code := make([]byte, s.FileSize)
		if n, _ := s.ReadAt(code, 0); n < len(code) {
			continue
		}
		for at := uint64(0); at+stride <= uint64(len(code)); at += stride {
			if name := stubTarget(code[at:at+stride], s.Addr+at, slots); name != "" {
				all = append(all, stub{s.Addr + at, uint32(stride), readable(name) + "@plt"})
			}
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].addr < all[j].addr })
	return all
}

// stubTarget finds the jump of an entry at addr and the name of what it jumps
// to. x86-64 psABI: "jmp *disp(%rip)" is ff 25, with f2 (bnd) or an endbr64
// before it; with IBT the lazy .plt holds "endbr64; push n" instead, and n is
// the number of the relocation.
func stubTarget(code []byte, addr uint64, slots map[uint64]string) string {
	for i := 0; i+6 <= len(code) && i <= 7; i++ {
		if code[i] != 0xff || code[i+1] != 0x25 {
			continue
		}
		disp := int64(int32(binary.LittleEndian.Uint32(code[i+2:])))
		return slots[addr+uint64(i)+6+uint64(disp)] // from the end of the instruction
	}
	if len(code) >= 9 && binary.LittleEndian.Uint32(code) == 0xfa1e0ff3 && code[4] == 0x68 {
		return slots[lazySlot|uint64(binary.LittleEndian.Uint32(code[5:]))]
	}
	return ""
}

// lazySlot marks the keys of slots that are numbers of .rela.plt entries; no
// user address has this bit.
const lazySlot = 1 << 63

// slots maps the address of each word that a relocation fills with a dynamic
// symbol's address to the symbol's name.
func (o *object) slots() map[uint64]string {
	name := o.dynamicNames()
	if name == nil {
		return nil
	}
	slots := map[uint64]string{}
	lazy := uint64(0)
	o.relocations(func(section string, b []byte) {
		info := binary.LittleEndian.Uint64(b[8:])
		typ, sym := elf.R_X86_64(info&0xffffffff), info>>32
		if (typ == elf.R_X86_64_JMP_SLOT || typ == elf.R_X86_64_GLOB_DAT) && sym != 0 && len(slots) < maxSlots {
			n := name(sym)
			slots[binary.LittleEndian.Uint64(b)] = n
			if section == ".rela.plt" {
				slots[lazySlot|lazy] = n
			}
		}
		if section == ".rela.plt" {
			lazy++
		}
	})
	return slots
}

// dynamicNames gives a function from the number of a dynamic symbol to its
// name, nil when there are none.
func (o *object) dynamicNames() func(n uint64) string {
	s := o.elf.SectionByType(elf.SHT_DYNSYM)
	if s == nil || s.ReaderAt == nil || int(s.Link) >= len(o.elf.Sections) {
		return nil
	}
	names, closer, err := openSection(o.r, o.elf.Sections[s.Link], o.cache)
	if closer != nil {
		o.closers = append(o.closers, closer)
	}
	if err != nil {
		return nil
	}
	return func(n uint64) string {
		var b [recordSize]byte
		if n >= s.FileSize/recordSize {
			return ""
		}
		if m, _ := s.ReadAt(b[:], int64(n*recordSize)); m < len(b) {
			return ""
		}
		return names.str(uint64(binary.LittleEndian.Uint32(b[:])))
	}
}

// stubAt gives the name of the entry that covers addr, "" when none does.
func stubAt(all []stub, addr uint64) string {
	i := sort.Search(len(all), func(i int) bool { return all[i].addr > addr })
	if i == 0 || addr-all[i-1].addr >= uint64(all[i-1].size) {
		return ""
	}
	return all[i-1].name
}
