package probe

import (
	"debug/elf"
	"fmt"
	"io"
	"slices"
	"strings"
)

// other reports whether the hook is not one of an allocator's function.
func (h *hook) other() bool {
	return slices.Contains([]string{"MMAP", "MUNMAP", "MREMAP", "BRK", "SBRK", "THREAD", "JOIN", "POOL", "SITE"}, h.kind)
}

// allocates reports whether a function only allocates.
func (h *hook) allocates() bool {
	return slices.Contains([]string{"ALLOC", "CALLOC", "ALIGN", "POSIX", "NEW"}, h.kind)
}

// musl reports whether the object is musl's dynamic linker, which is its libc too.
func (o *object) musl() bool {
	return strings.HasPrefix(o.name(), "ld-musl-") || strings.HasPrefix(o.name(), "libc.musl-")
}

func (o *object) libc() bool {
	return !o.exe && (o.musl() || strings.HasPrefix(o.name(), "libc.so") || strings.HasPrefix(o.name(), "libc-2."))
}

// findLibc looks for the library whose mmap programs call. A static program
// has none: what its allocator maps could not be told from what it maps itself.
func (v *view) findLibc(fresh bool) (a *allocator, closer io.Closer, err error) {
	objects, err := v.objects()
	if err != nil {
		return nil, nil, err
	}
	for i := range objects {
		o := &objects[i]
		if !o.libc() {
			continue
		}
		musl := o.musl()
		f, err := v.openObject(o)
		if err != nil {
			return nil, nil, err
		}
		id, named := idOf(f)
		key := allocatorKey{file: id, musl: musl, others: true}
		if k, ok := knownAllocators.get(key); ok && named && k != nil && !fresh {
			return k.instance(o), f, nil
		}
		file, err := elf.NewFile(f)
		if err != nil {
			_ = f.Close()
			return nil, nil, err
		}
		a := &allocator{object: *o, file: file, musl: musl}
		if named {
			a.key = &key
		}
		if a.symbols(); a.names["mmap"] != 0 && a.names["munmap"] != 0 {
			return a, f, nil
		}
		_ = f.Close()
	}
	return nil, nil, nil
}

// plannedOthers decides about libc's functions that map memory and make
// threads; nil when they cannot be told from the allocator's use of them.
func (v *view) plannedOthers() (*plan, error) {
	for _, fresh := range []bool{false, true} {
		a, file, err := v.findLibc(fresh)
		if a == nil || err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		if pl, ok := v.planOf(a); ok {
			return pl, nil
		}
		if a.file == nil {
			continue
		}
		pl, err := v.planOthers(a)
		if err == nil {
			v.keep(pl)
		}
		return pl, err
	}
	return nil, nil
}

func (v *view) planOthers(a *allocator) (*plan, error) {
	p := &plan{alloc: a}
	taken := map[uint64]bool{}
	for i := range hooks {
		h := &hooks[i]
		at, ok := a.names[h.name]
		if !ok || taken[at] || !h.other() {
			continue
		}
		if a.musl && (h.kind == "THREAD" || h.kind == "JOIN") {
			continue // its pthread_attr_t is another
		}
		taken[at] = true
		f, err := v.function(a, at)
		if err != nil {
			return nil, err
		}
		d, err := f.displace()
		if err != nil {
			p.notes = append(p.notes, fmt.Sprintf("calls of %s are not seen: its code %v", h.name, err))
			continue
		}
		p.sites = append(p.sites, site{hook: i, moved: d})
	}
	return p, v.checkLongBranches(p)
}
