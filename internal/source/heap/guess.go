package heap

import (
	"bytes"
	"fmt"

	"stanch/internal/leak"
)

// A program that is linked statically does not say which glibc it has. What
// differs between versions shows in the structures themselves: how far into its
// heap a thread arena lies, where sbrk_base is in mp_, how long a thread cache
// is and how it is linked. The names of tunables, which came with versions,
// stand in the program's text.

// tunables says which minor version brought a tunable (glibc manual, Tunables;
// elf/dl-tunables.list).
var tunables = []struct {
	name  string
	since int
}{
	{"glibc.malloc.hugetlb", 35},
	{"glibc.pthread.stack_cache_size", 34},
	{"glibc.mem.tagging", 33},
	{"glibc.cpu.x86_rep_movsb_threshold", 32},
	{"glibc.malloc.mxfast", 30},
}

// guess chooses a layout to begin with. settleLayout holds it against what the
// walk finds.
func (w *walk) guess() *layout {
	oldest := 28
	if i := w.firstMain(); i >= 0 {
		m := &w.img.Maps[i]
		for i := range w.img.Maps {
			o := &w.img.Maps[i]
			if !sameFile(o, m) || !o.Read || o.Size() > maxBanner {
				continue
			}
			text := make([]byte, o.Size())
			n, _ := w.img.Mem.ReadAt(text, o.Start) // what there is
			for _, t := range tunables {
				if t.since > oldest && bytes.Contains(text[:n], []byte(t.name)) {
					oldest = t.since
				}
			}
		}
	}
	var chosen *layout
	for i := range layouts {
		l := &layouts[i]
		if l.last < oldest || !w.fits(l) {
			continue
		}
		if chosen == nil || l.par != chosen.par && w.hasPar(l) && !w.hasPar(chosen) {
			chosen = l
		}
	}
	if chosen == nil {
		chosen = &layouts[len(layouts)-1] // it does not fit, and that is said
	}
	return chosen
}

// firstMain is the mapping of the first main arena, -1 for none.
func (w *walk) firstMain() int {
	for _, a := range w.arenas {
		if a.main {
			return a.mapping
		}
	}
	return -1
}

// fits holds a layout against the places of the thread arenas.
func (w *walk) fits(l *layout) bool {
	for _, a := range w.arenas {
		if a.state != l.state || !a.main && a.addr&(w.heapMax-1) != l.heapInfo {
			return false
		}
	}
	return true
}

// hasPar reports whether mp_ is found with this layout.
func (w *walk) hasPar(l *layout) bool {
	was := w.lay
	w.lay, w.par = l, nil
	w.findPar()
	found := w.par != nil
	w.lay, w.par = was, nil
	return found
}

// cacheLayouts lists what thread caches may look like: one layout when the
// version is known.
func (w *walk) cacheLayouts() []cacheLayout {
	if w.name != "glibc" {
		return []cacheLayout{w.lay.cache}
	}
	var all []cacheLayout
	for i := range layouts {
		all = append(all, layouts[i].cache)
	}
	return all
}

// settleLayout makes sure, when the version is not known, that the layout is
// the one with which every thread cache can be read. When nothing is cached,
// there is nothing to mistake.
func (w *walk) settleLayout(candidates []uint64) *refusal {
	if w.name != "glibc" {
		return nil
	}
	first, doubts := w.lay, w.doubts
	for i := len(layouts) - 1; i >= 0; i-- {
		l := &layouts[i]
		if l.state != first.state || l.heapInfo != first.heapInfo || l.par != first.par {
			continue
		}
		w.lay = l
		w.findMapped() // caches may hold some
		w.doubts = doubts
		if good, bad := w.tryCaches(candidates); good > 0 && bad == 0 {
			w.name = fmt.Sprintf("glibc, linked statically, like 2.%d to 2.%d", l.first, l.last)
			for v := l.first; v <= l.last; v++ {
				w.proved = w.proved || proved[v]
			}
			return nil
		}
	}
	w.lay = first
	w.name = "glibc, linked statically"
	if len(candidates) > 0 {
		return &refusal{w.name, "its version cannot be told from its structures"}
	}
	return nil
}

// tryCaches counts the candidates that are thread caches by the current
// layout, and those that must be but cannot be read.
func (w *walk) tryCaches(candidates []uint64) (good, bad int) {
	var all []*cached
	for _, at := range candidates {
		if c, err := w.readCache(at); err == nil {
			all = append(all, c)
		}
	}
	w.findKeys(all)
	for _, c := range all {
		switch {
		case w.sure(c) && !c.broken:
			good++
		case w.surelyCache(c.at - headerSize):
			bad++
		}
	}
	clear(w.keys)
	return good, bad
}

// private reports whether all of [start, end) is private memory without a file.
func (img *Image) private(start, end uint64) bool {
	for i := findMap(img.Maps, start); i >= 0 && i < len(img.Maps) && start < end; i++ {
		m := &img.Maps[i]
		if m.Start > leak.Addr(start) || !anonymous(m) {
			return false
		}
		start = uint64(m.End)
	}
	return start >= end
}

// anonymous reports whether m is private memory of the process's own: no file,
// no device, not what the kernel put there.
func anonymous(m *leak.Mapping) bool {
	if m.Shared {
		return false
	}
	switch m.Path {
	case "", "[heap]", "/anon_hugepage":
		return true
	}
	return len(m.Path) > 6 && m.Path[:6] == "[anon:"
}
