package probe

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// ErrNoAllocator means that no malloc was found that could be hooked; the error
// says why: a stripped static executable, or a program that is not C at all.
var ErrNoAllocator = errors.New("no allocator to watch")

// hook is one function of probe/hooks.def: how it is called, and where in the
// text its code is.
type hook struct {
	name, kind, nothrow    string
	fast, slow, tramp, ret uint64
}

// releases reports whether missing calls of this function would make blocks
// look held that are not.
func (h *hook) releases() bool {
	return h.kind == "FREE" || h.kind == "REALLOC" || h.kind == "REALLOCN"
}

// allocator is the module of the target that provides malloc.
type allocator struct {
	object
	file  *elf.File
	musl  bool
	alone bool              // a static program: nothing else is loaded
	inner bool              // linked into the program and used by its own code only
	names map[string]uint64 // of functions in hooks.def: runtime address
	sizes map[uint64]uint64 // of functions, by address
	slots map[uint64]string // words of the procedure linkage table, by address: which function
	ends  region            // the function of glibc that gives back what threads had, by itself
	label string            // what title gave
	key   *allocatorKey     // under which the plan is to be kept
	known *known1           // what an earlier plan tells; file is nil then
}

// findAllocator looks for malloc as the dynamic linker does: the first object
// in search order that defines it. close releases the file.
//
// What an earlier process told of a file is believed when fresh is false.
func (v *view) findAllocator(fresh bool) (a *allocator, closer io.Closer, err error) {
	objects, err := v.objects()
	if err != nil {
		return nil, nil, err
	}
	musl := v.isMusl(objects)
	for i := range objects {
		o := &objects[i]
		f, err := v.openObject(o)
		if err != nil {
			if o.exe || strings.HasPrefix(o.name(), "libc") {
				return nil, nil, err
			}
			continue // a plugin that was removed: it hardly is the allocator
		}
		key := allocatorKey{exe: o.exe, alone: len(objects) == 1, musl: musl}
		id, named := idOf(f)
		key.file = id
		if k, ok := knownAllocators.get(key); ok && named && (k == nil || !fresh) {
			if k != nil {
				return k.instance(o), f, nil
			}
			_ = f.Close()
			continue
		}
		file, err := elf.NewFile(f)
		if err != nil {
			_ = f.Close()
			continue
		}
		a := &allocator{object: *o, file: file, alone: key.alone, musl: musl}
		if named {
			a.key = &key
		}
		if a.symbols() || o.exe && a.hidden() {
			a.linkage()
			return a, f, nil
		}
		if named {
			knownAllocators.put(key, nil)
		}
		_ = f.Close()
	}
	if len(objects) == 1 {
		return nil, nil, fmt.Errorf("%s is a static executable without symbols for malloc and free (stripped, or not C): %w", objects[0].name(), ErrNoAllocator)
	}
	return nil, nil, fmt.Errorf("none of %d loaded objects defines malloc and free: %w", len(objects), ErrNoAllocator)
}

func (v *view) openObject(o *object) (*os.File, error) {
	if o.exe {
		return v.t.OpenExe()
	}
	return v.t.OpenFile(&o.m)
}

// symbols finds the functions of hooks.def; true when malloc and free are among
// them. In a static program only .symtab has them.
func (a *allocator) symbols() bool {
	symbols, _ := a.file.DynamicSymbols()
	if a.alone {
		symbols, _ = a.file.Symbols()
	}
	a.collect(symbols)
	return a.names["malloc"] != 0 && a.names["free"] != 0
}

// hidden looks for an allocator that is linked into a dynamic program and not
// exported, so that the program's own code uses it and its libraries do not.
func (a *allocator) hidden() bool {
	symbols, _ := a.file.Symbols()
	a.collect(symbols)
	for _, name := range []string{"malloc", "calloc", "realloc", "free"} {
		if a.names[name] == 0 {
			return false
		}
	}
	a.inner = true
	return true
}

func (a *allocator) collect(symbols []elf.Symbol) {
	want := map[string]bool{}
	for i := range hooks {
		want[hooks[i].name] = true
	}
	a.names, a.sizes = map[string]uint64{}, map[uint64]uint64{}
	for _, s := range symbols {
		if s.Name == "__malloc_arena_thread_freeres" && s.Size > 0 {
			a.ends = region{s.Value + a.bias, s.Size}
		}
		// STT_GNU_IFUNC is left out: its address is that of a chooser.
		if !want[s.Name] || s.Section == elf.SHN_UNDEF || elf.ST_TYPE(s.Info) != elf.STT_FUNC {
			continue
		}
		if _, dup := a.names[s.Name]; dup && s.VersionIndex.IsHidden() {
			continue // an old version beside the current one
		}
		at := s.Value + a.bias
		a.names[s.Name] = at
		a.sizes[at] = max(a.sizes[at], s.Size)
	}
}

// linkage reads which word of the procedure linkage table stands for which
// function: before the first call the word itself does not tell.
func (a *allocator) linkage() {
	a.slots = map[uint64]string{}
	symbols, err := a.file.DynamicSymbols()
	section := a.file.Section(".rela.plt")
	if err != nil || section == nil {
		return
	}
	b, err := section.Data()
	if err != nil {
		return
	}
	for ; len(b) >= 24; b = b[24:] {
		// A relocation with addend: offset, info, addend.
		n := elf.R_SYM64(binary.LittleEndian.Uint64(b[8:]))
		if n > 0 && int(n) <= len(symbols) {
			a.slots[binary.LittleEndian.Uint64(b)+a.bias] = symbols[n-1].Name
		}
	}
}

// isMusl looks for the dynamic linker of musl, which is also its libc.
func (v *view) isMusl(objects []object) bool {
	for i := range objects {
		if n := objects[i].name(); strings.HasPrefix(n, "ld-musl-") || strings.HasPrefix(n, "libc.musl-") ||
			n == "libc.so" && strings.Contains(objects[i].m.Path, "musl") {
			return true
		}
	}
	return false
}

var glibcBanner = regexp.MustCompile(`GNU C Library [^\n]*version (\d+\.\d+)`)

// title names the allocator for people.
func (a *allocator) title() string {
	if a.label == "" {
		a.label = a.describe()
	}
	return a.label
}

func (a *allocator) describe() string {
	name := a.name()
	switch {
	case strings.Contains(name, "jemalloc"):
		return "jemalloc"
	case strings.Contains(name, "tcmalloc"):
		return "tcmalloc"
	case strings.Contains(name, "mimalloc"):
		return "mimalloc"
	case a.musl && (strings.HasPrefix(name, "ld-musl") || strings.HasPrefix(name, "libc.")):
		return "musl"
	case a.exe && a.names["mallocx"] != 0:
		return "jemalloc in " + name
	case strings.HasPrefix(name, "libc.so") || strings.HasPrefix(name, "libc-") || a.exe:
		if s := a.file.Section(".rodata"); s != nil {
			if b, err := s.Data(); err == nil {
				if m := glibcBanner.FindSubmatch(b); m != nil {
					return "glibc " + string(m[1])
				}
			}
		}
	}
	if a.exe {
		return "malloc of " + name
	}
	return name
}

// site is one function to be changed.
type site struct {
	hook   int
	framed bool // stays around the original, whose own calls are hooked too
	moved  *displaced
	// passes is set instead of moved for a function that stays as it is: its
	// trampoline only jumps to it.
	passes uint64
}

func (s *site) def() *hook { return &hooks[s.hook] }

// plan is what will be written, except for addresses that depend on where the
// text lies.
type plan struct {
	alloc *allocator
	sites []site
	notes []string // what cannot be watched, as sentences
}

// plan decides about every function of the allocator.
func (v *view) plan(a *allocator) (*plan, error) {
	p := &plan{alloc: a}
	if a.inner {
		p.notes = append(p.notes, "the program has a malloc of its own, which libraries do not use: blocks that libraries allocate are not seen")
	}
	taken := map[uint64]bool{}
	for i := range hooks {
		at, ok := a.names[hooks[i].name]
		if !ok || taken[at] || hooks[i].other() {
			continue // absent, or another name of a function that is already in
		}
		taken[at] = true
		f, err := v.function(a, at)
		if err != nil {
			return nil, err
		}
		if to, ok := v.leadsToHook(a, f); ok && to != at {
			continue // does nothing but call another one, which sees it
		}
		d, err := f.displace()
		if err != nil {
			if why := fmt.Errorf("%s of %s: %w", hooks[i].name, a.name(), err); hooks[i].releases() || hooks[i].name == "malloc" || hooks[i].name == "calloc" {
				return nil, fmt.Errorf("%w: %w", why, proc.ErrUnsupported)
			}
			p.notes = append(p.notes, fmt.Sprintf("blocks from %s are not seen: its code %v", hooks[i].name, err))
			continue
		}
		p.sites = append(p.sites, site{hook: i, moved: d, framed: v.framed(a, &hooks[i], f)})
	}
	p.partners()
	return p, v.checkLongBranches(p)
}

// partners makes sure that the form of operator new that does not throw can be
// called for each one that does.
func (p *plan) partners() {
	have := map[string]bool{}
	for i := range p.sites {
		have[p.sites[i].def().name] = true
	}
	var kept []site
	for _, s := range p.sites {
		nothrow := s.def().nothrow
		if nothrow != "" && !have[nothrow] {
			at := p.alloc.names[nothrow]
			if at == 0 {
				p.notes = append(p.notes, fmt.Sprintf("blocks from %s are not seen: the allocator has no form of it that does not throw", s.def().name))
				continue
			}
			n := slices.IndexFunc(hooks, func(h hook) bool { return h.name == nothrow })
			kept = append(kept, site{hook: n, passes: at})
			have[nothrow] = true
		}
		kept = append(kept, s)
	}
	p.sites = kept
}

// function reads the code of the function at address at from the target, and
// makes sure that it is what the file says: another tool may have been there.
func (v *view) function(a *allocator, at uint64) (*function, error) {
	size := a.sizes[at]
	if size == 0 {
		size = 256 // the symbol does not say
	}
	m := proc.Find(v.maps, leak.Addr(at))
	if m == nil || !m.Exec || !m.File() {
		return nil, fmt.Errorf("the code at %#x of %s is not mapped from its file: %w", at, a.name(), proc.ErrUnsupported)
	}
	code := make([]byte, min(size, 64<<10, uint64(m.End)-at))
	if _, err := v.mem.ReadAt(code, leak.Addr(at)); err != nil {
		return nil, err
	}
	head := make([]byte, min(len(code), 32))
	if err := readVirtual(a.file, head, at-a.bias); err != nil {
		return nil, fmt.Errorf("%s: %w", a.name(), err)
	}
	if !bytes.Equal(head, code[:len(head)]) {
		return nil, fmt.Errorf("the code at %#x of %s differs from its file, another tool may have changed it: %w", at, a.name(), proc.ErrUnsupported)
	}
	return &function{addr: at, code: code}, nil
}

// readVirtual reads the bytes that a file loads at an address.
func readVirtual(f *elf.File, b []byte, vaddr uint64) error {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && vaddr >= p.Vaddr && vaddr+uint64(len(b)) <= p.Vaddr+p.Filesz {
			_, err := p.ReadAt(b, int64(vaddr-p.Vaddr))
			return err
		}
	}
	return fmt.Errorf("no segment holds address %#x", vaddr)
}

// resolve follows an entry of the procedure linkage table to the function of
// the allocator it stands for; other addresses are returned as they are.
func (v *view) resolve(a *allocator, to uint64) uint64 {
	var b [16]byte
	n, _ := v.mem.ReadAt(b[:], leak.Addr(to))
	slot, ok := pltSlot(b[:n], to)
	if !ok {
		return to
	}
	if at, ok := a.names[a.slots[slot]]; ok {
		return at
	}
	w, err := v.word(slot)
	if err != nil {
		return to
	}
	return w
}

func (v *view) leadsToHook(a *allocator, f *function) (uint64, bool) {
	to, ok := f.leadsTo()
	if !ok {
		return 0, false
	}
	to = v.resolve(a, to)
	for _, at := range a.names {
		if at == to {
			return to, true
		}
	}
	return 0, false
}

// framed reports whether the hook must stay around the original so that what
// it calls is not counted a second time. glibc's realloc calls malloc in rare
// cases only, and a frame around each call costs more than it is worth.
func (v *view) framed(a *allocator, h *hook, f *function) bool {
	if h.kind != "CALLOC" && (h.kind != "REALLOC" || !a.musl) {
		return false
	}
	for _, to := range f.callees() {
		to = v.resolve(a, to)
		for name, at := range a.names {
			if at == to && at != f.addr && name != "free" {
				return true
			}
		}
	}
	return false
}

// checkLongBranches makes sure that no code of the module jumps between the
// displaced instructions.
func (v *view) checkLongBranches(p *plan) error {
	lo, hi := ^uint64(0), uint64(0)
	for i := range p.sites {
		if d := p.sites[i].moved; d != nil {
			lo, hi = min(lo, d.at+1), max(hi, d.end())
		}
	}
	inside := func(to uint64) bool {
		return slices.ContainsFunc(p.sites, func(s site) bool {
			return s.moved != nil && to > s.moved.at && to < s.moved.end()
		})
	}
	for i := range v.maps {
		m := &v.maps[i]
		if !m.Exec || m.Dev != p.alloc.m.Dev || m.Inode != p.alloc.m.Inode {
			continue
		}
		code := make([]byte, m.Size())
		n, err := v.mem.ReadAt(code, m.Start)
		if err != nil && n == 0 {
			return err
		}
		if from, to, found := longBranches(code[:n], uint64(m.Start), lo, hi, inside); found {
			return fmt.Errorf("%w: the code at %#x of %s may jump to %#x, behind the first instruction of a function: %w",
				errDetour, from, p.alloc.name(), to, proc.ErrUnsupported)
		}
	}
	return nil
}
