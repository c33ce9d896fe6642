package symbol

import (
	"debug/elf"
	"encoding/binary"
	"math"
	"strings"
)

const (
	maxTypeName = 4096
	maxToTop    = 1 << 20 // a base class lies no further inside an object
)

// vtable names the class whose virtual table has its functions at addr, from
// the type information before them: Itanium C++ ABI, sections 2.5.2 and 2.9.5.
// It needs no symbols, so it works on stripped programs; "" when the words
// there do not look like it.
func (o *object) vtable(addr uint64) string {
	w := o.words(addr-16, addr-8)
	toTop, info := int64(w[0].value), w[1]
	if !w[0].ok || !info.ok || toTop > 0 || toTop < -maxToTop || info.value == 0 {
		return ""
	}
	w = o.words(info.value + 8)
	if !w[0].ok {
		return ""
	}
	name := strings.TrimPrefix(o.cstring(w[0].value), "*") // "*": compared by address only
	if name == "" || !strings.ContainsRune("123456789NSZ", rune(name[0])) {
		return ""
	}
	s := readable("_ZTV" + name)
	if strings.HasPrefix(s, "_Z") {
		return ""
	}
	return s
}

type word struct {
	value uint64
	ok    bool
}

// words reads words of the image as they are once it is loaded at its link
// address: file contents, with relative relocations applied.
func (o *object) words(addrs ...uint64) []word {
	w := make([]word, len(addrs))
	for i, a := range addrs {
		var b [8]byte
		if o.readAt(b[:], a) == len(b) {
			w[i] = word{binary.LittleEndian.Uint64(b[:]), true}
		}
	}
	o.relocations(func(_ string, b []byte) {
		at := binary.LittleEndian.Uint64(b)
		for i, a := range addrs {
			if at != a {
				continue
			}
			if elf.R_X86_64(binary.LittleEndian.Uint32(b[8:])) == elf.R_X86_64_RELATIVE {
				w[i].value = binary.LittleEndian.Uint64(b[16:])
			} else {
				w[i].ok = false // the dynamic linker decides
			}
		}
	})
	return w
}

// readAt reads the image at a virtual address, from the file.
func (o *object) readAt(b []byte, addr uint64) int {
	p := o.loaded(addr)
	if p == nil || addr-p.Vaddr >= p.Filesz || addr-p.Vaddr > math.MaxInt64 {
		return 0
	}
	n, _ := p.ReadAt(b, int64(addr-p.Vaddr))
	return n
}

func (o *object) cstring(addr uint64) string {
	b := make([]byte, maxTypeName)
	b = b[:o.readAt(b, addr)]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return ""
}
