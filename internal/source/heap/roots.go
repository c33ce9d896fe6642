package heap

import (
	"strings"

	"stanch/internal/leak"
)

// area is a range of roots.
type area struct {
	leak.Range
	what  string // the word of leak.Root.What
	tid   int
	words bool // each word is a root of its own: a variable
	must  bool // it cannot be read: then pointers may be missed
}

// The order in which roots are tried: what tells most about who holds a block
// comes first.
const (
	whatData      = "data"
	whatTLS       = "tls"
	whatStack     = "stack"
	whatRegisters = "registers"
	whatMemory    = "memory"
)

const redZone = 128 // below the stack pointer, System V ABI for x86-64

// roots lists all memory that may hold a pointer, but for the blocks.
func (w *walk) roots() []area {
	taken := w.notRoots()
	var data, stacks, rest []area
	threads := w.stacks()
	for _, s := range threads {
		taken = append(taken, s.unused)
	}
	for i := range w.img.Maps {
		m := &w.img.Maps[i]
		r := leak.Range{Start: m.Start, End: m.End}
		switch kind := w.img.rootKind(i); kind {
		case "":
		case whatData:
			data = append(data, area{Range: r, what: kind, words: true, must: true})
		case whatStack:
			stacks = append(stacks, area{Range: r, what: whatStack, must: true})
		default:
			rest = append(rest, area{Range: r, what: kind, must: !m.Shared || m.Write})
		}
	}
	// What belongs to a thread is told apart from other memory.
	var own []area
	for _, s := range threads {
		own = append(own, s.used...)
	}
	all := append(cut(data, taken), cut(own, taken)...)
	var named []leak.Range
	for _, a := range own {
		named = append(named, a.Range)
	}
	all = append(all, cut(stacks, append(named, taken...))...)
	return append(all, cut(rest, append(named, taken...))...)
}

// notRoots lists the memory of the allocator and of stanch.
func (w *walk) notRoots() []leak.Range {
	taken := append([]leak.Range(nil), w.img.Exclude...)
	taken = append(taken, w.own...)
	for i := range w.space.spans {
		sp := &w.space.spans[i]
		end := sp.end
		if sp.cell < 0 {
			end += headerSize
		}
		r := []leak.Range{{Start: leak.Addr(sp.start), End: leak.Addr(end)}}
		if sp.cell >= 0 {
			r = subtract(r, w.arenas[sp.arena].gaps)
		}
		taken = append(taken, r...)
	}
	return taken
}

// cut takes ranges out of areas.
func cut(areas []area, taken []leak.Range) []area {
	taken = union(taken)
	var out []area
	for _, a := range areas {
		i := firstEndingAfter(taken, uint64(a.Start))
		n := i
		for n < len(taken) && taken[n].Start < a.End {
			n++
		}
		for _, r := range subtract([]leak.Range{a.Range}, taken[i:n]) {
			part := a
			part.Range = r
			out = append(out, part)
		}
	}
	return out
}

// rootKind says which word of leak.Root.What stands for mapping i, "" when it
// can hold no pointer of the program.
func (img *Image) rootKind(i int) string {
	m := &img.Maps[i]
	switch {
	case strings.HasPrefix(m.Path, "[v"): // vdso, vvar, vsyscall
		return ""
	case strings.HasPrefix(m.Path, "[stack"):
		return whatStack
	case anonymous(m):
		if img.bss(i) {
			return whatData
		}
		if !m.Read && img.Resident == nil {
			return "" // reserved address space, as far as one can know
		}
		return whatMemory
	case strings.HasPrefix(m.Path, "anon_inode:[io_uring]"), strings.HasPrefix(m.Path, "/[aio]"):
		return "ring"
	case strings.HasPrefix(m.Path, "/dev/") && !strings.HasPrefix(m.Path, "/dev/zero") && !strings.HasPrefix(m.Path, "/dev/shm/"):
		return "" // a device: reading it may do something
	case m.Shared:
		if !m.Read {
			return ""
		}
		return whatMemory
	case !m.File():
		return "" // what only the kernel uses
	case m.Write:
		return whatData
	case m.Exec:
		return ""
	case img.Resident != nil || i+1 < len(img.Maps) && sameFile(m, &img.Maps[i+1]) && img.Maps[i+1].Write:
		// Constants, written once by the dynamic linker: pages that are no
		// longer the file's, or those before the variables.
		return whatData
	}
	return ""
}

// bss reports whether mapping i continues the variables of a module.
func (img *Image) bss(i int) bool {
	if i == 0 || img.Maps[i].Path != "" || img.Maps[i-1].End != img.Maps[i].Start {
		return false
	}
	before := &img.Maps[i-1]
	return before.File() && before.Write && !before.Shared
}
