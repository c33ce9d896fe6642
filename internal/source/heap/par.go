package heap

// par is what is used of glibc's struct malloc_par, the variable mp_.
type par struct {
	addr      uint64
	hugePage  uint64 // hp_pagesize, 0 without it
	mmaps     uint64 // n_mmaps: mapped blocks
	mapped    uint64 // mmapped_mem: their bytes, whole mappings
	cacheSize uint64 // tcache_count
}

// findPar finds mp_ without symbols: it lies near the main arena among the
// libc's data, and its sbrk_base is where the main heap begins. When there is
// no such heap, or someone else moved the break before, its other fields must
// do. It is not essential: it tells how many mapped blocks there are.
func (w *walk) findPar() {
	for _, a := range w.arenas {
		if !a.main {
			continue
		}
		base := uint64(0)
		if a.system != 0 {
			if size, err := w.topChunk(a); err == nil && a.flags&noncontiguous == 0 {
				base = a.top + size - a.system
			}
		}
		if w.par = w.parNear(a, base); w.par == nil && base != 0 {
			w.par = w.parNear(a, 0)
		}
		if w.par != nil {
			if w.par.hugePage != 0 {
				w.heapMax = 4 * w.par.hugePage // heap_max_size()
			}
			return
		}
	}
}

// parNear searches the mapping of arena a.
func (w *walk) parNear(a *arena, base uint64) *par {
	m := &w.img.Maps[a.mapping]
	const far = 64 << 10 // they are variables of one object file
	from := max(uint64(m.Start), a.addr-min(a.addr, far))
	to := min(uint64(m.End), a.addr+far)
	b := make([]byte, to-from)
	if w.pages.read(b, from) != nil {
		return nil
	}
	try := []*parLayout{w.lay.par}
	if !w.proved && base != 0 {
		try = append(try, otherPars...)
	}
	for _, l := range try {
		for i := uint64(0); i+l.size <= uint64(len(b)); i += 8 {
			if p := l.decode(b[i:], base); p != nil {
				p.addr = from + i
				return p
			}
		}
	}
	return nil
}

// decode reads a struct malloc_par, nil when b does not begin with one.
func (l *parLayout) decode(b []byte, base uint64) *par {
	n, most, peak := order.Uint32(b[l.mmaps:]), order.Uint32(b[l.mmaps+4:]), order.Uint32(b[l.mmaps+8:])
	p := &par{mmaps: uint64(n), mapped: load(b[l.mmapped:]), cacheSize: load(b[l.cacheSize:])}
	if l.hugePage != 0 {
		p.hugePage = load(b[l.hugePage:])
	}
	const (
		defaultMost  = 65536 // DEFAULT_MMAP_MAX
		maxThreshold = 1 << 40
	)
	sbrkBase, threshold := load(b[l.sbrkBase:]), load(b[16:])
	switch {
	case n > peak, p.mapped > load(b[l.mmapped+8:]), p.mapped&(pageSize-1) != 0:
	case p.cacheSize > maxCached, threshold > maxThreshold, threshold == 0:
	case p.hugePage&(p.hugePage-1) != 0, p.hugePage > 1<<30:
	case base != 0 && sbrkBase != base:
	case base == 0 && (most != defaultMost || sbrkBase >= userEnd || sbrkBase&15 != 0 || p.cacheSize == 0):
	default:
		return p
	}
	return nil
}
