package heap

import (
	"fmt"
	"math/bits"
	"slices"

	"stanch/internal/leak"
)

// Large blocks have a mapping each. Nothing lists them; a header tells one:
// IS_MMAPPED in its size, and a mapping of whole pages around it. The kernel
// joins neighbouring mappings, so one of them may hold several such blocks and
// other memory between. mp_ counts blocks and bytes: when both agree with what
// was found, each of them is one.

// mapping is a mapped block as found.
type mapping struct {
	start, end uint64 // the whole mapping
	chunk      uint64 // its header: user address - 16; behind start when aligned
}

// findMapped finds the mapped blocks.
func (w *walk) findMapped() []mapping {
	areas := w.freeAreas()
	var found []mapping
	for _, a := range areas {
		found = w.tile(found, a)
	}
	if !w.counted(found) {
		var all []mapping
		for _, a := range areas {
			all = w.comb(all, a)
		}
		switch {
		case w.counted(all):
			found = all
		case w.par == nil:
			// Only what fills its mappings from the first byte to the last is
			// sure enough.
			found = slices.DeleteFunc(found, func(m mapping) bool { return !w.alone(m, found) })
			w.doubts = append(w.doubts, "the number of large blocks is not known; some of them may be missing")
		default:
			w.doubts = append(w.doubts, fmt.Sprintf("the allocator counts %d large blocks of %d bytes, %d of %d bytes were found; none of them is called lost",
				w.par.mmaps, w.par.mapped, len(all), bytesOf(all)))
			found = nil
		}
	}
	clear(w.mapped)
	for _, m := range found {
		w.mapped[m.chunk] = true
	}
	return found
}

// isMapped reports whether the chunk is that of a mapped block.
func (w *walk) isMapped(chunk uint64) bool { return w.mapped[chunk] }

// addMapped makes spans of the mapped blocks. Since 2.42 a thread's cache may
// hold some: their memory is neither a block nor a root.
func (w *walk) addMapped(found []mapping) {
	for _, m := range found {
		if w.unused[m.chunk] {
			w.own = append(w.own, leak.Range{Start: leak.Addr(m.start), End: leak.Addr(m.end)})
			w.unusedBytes += m.end - m.chunk - headerSize
			continue
		}
		w.space.spans = append(w.space.spans, span{start: m.chunk, end: m.end - headerSize, cell: -1, arena: -1})
		w.own = append(w.own, leak.Range{Start: leak.Addr(m.start), End: leak.Addr(m.chunk)})
	}
	w.space.locate()
}

// counted reports whether these are the blocks that mp_ counts.
func (w *walk) counted(found []mapping) bool {
	return w.par != nil && uint64(len(found)) == w.par.mmaps && bytesOf(found) == w.par.mapped
}

func bytesOf(found []mapping) uint64 {
	var sum uint64
	for _, m := range found {
		sum += m.end - m.start
	}
	return sum
}

// alone reports whether found tiles the mapping that holds m completely.
func (w *walk) alone(m mapping, found []mapping) bool {
	i := findMap(w.img.Maps, m.start)
	if i < 0 {
		return false
	}
	at := uint64(w.img.Maps[i].Start)
	for _, f := range found {
		if f.start == at {
			at = f.end
		}
	}
	return at >= uint64(w.img.Maps[i].End)
}

// freeAreas lists the memory that may hold mapped blocks: all of the process's
// own but for the heaps of the arenas.
func (w *walk) freeAreas() []leak.Range {
	var taken []leak.Range
	for _, a := range w.arenas {
		for _, h := range a.heaps {
			r := h
			if !a.main {
				r.Start = leak.Addr(uint64(h.Start) &^ (w.heapMax - 1))
				r.End = r.Start + leak.Addr(w.heapMax)
			}
			taken = append(taken, r)
		}
	}
	taken = append(taken, w.img.Exclude...)
	var all []leak.Range
	for i := range w.img.Maps {
		m := &w.img.Maps[i]
		if !anonymous(m) {
			continue
		}
		if k := len(all) - 1; k >= 0 && all[k].End == m.Start {
			all[k].End = m.End
		} else {
			all = append(all, leak.Range{Start: m.Start, End: m.End})
		}
	}
	return subtract(all, taken)
}

// tile takes the blocks that follow each other from the start of an area and
// from the start of each mapping in it.
func (w *walk) tile(found []mapping, area leak.Range) []mapping {
	at := uint64(area.Start)
	for at < uint64(area.End) {
		if m, ok := w.mappedAt(at, uint64(area.End)); ok {
			found = append(found, m)
			at = m.end
			continue
		}
		i := findMap(w.img.Maps, at)
		if i < 0 {
			break
		}
		at = uint64(w.img.Maps[i].End)
	}
	return found
}

// comb tries every page of an area.
func (w *walk) comb(found []mapping, area leak.Range) []mapping {
	at := uint64(area.Start)
	for _, r := range w.img.resident(area) {
		at = max(at, uint64(r.Start))
		for at < uint64(r.End) && w.ctx.Err() == nil {
			if m, ok := w.mappedAt(at, uint64(area.End)); ok {
				found = append(found, m)
				at = m.end
				continue
			}
			at += pageSize
		}
	}
	return found
}

// mappedAt reads the mapped block whose mapping begins at at.
func (w *walk) mappedAt(at, end uint64) (mapping, bool) {
	prev, err1 := w.pages.word(at)
	size, err2 := w.pages.word(at + 8)
	if err1 != nil || err2 != nil || w.distance(prev) != 0 || size&sizeFlags != isMmapped {
		return mapping{}, false
	}
	total := size &^ sizeFlags
	var less uint64
	if w.lay.short && total&(pageSize-1) == pageSize-headerSize {
		less = headerSize
	}
	total += less
	if total == 0 || total&(pageSize-1) != 0 || total > end-at {
		return mapping{}, false
	}
	m := mapping{start: at, end: at + total, chunk: at}
	// An aligned block has its header further back, and the distance in
	// prev_size; the first header stays where it was.
	for shift := 5; shift < bits.Len64(total); shift++ {
		align := uint64(1) << shift
		chunk := (at+headerSize+align-1)&^(align-1) - headerSize
		if chunk == at || chunk+minChunk > m.end {
			continue
		}
		prev, err1 := w.pages.word(chunk)
		size, err2 := w.pages.word(chunk + 8)
		if err1 == nil && err2 == nil && w.distance(prev) == chunk-at && size&sizeFlags == isMmapped && chunk+size&^sizeFlags+less == m.end {
			m.chunk = chunk
			break
		}
	}
	return m, true
}

// distance is how far a mapped chunk lies behind the start of its mapping, by
// its prev_size. Where sizes leave the header out, its lowest bit says that the
// mapping has huge pages (MMAP_HP).
func (w *walk) distance(prev uint64) uint64 {
	if w.lay.short {
		return prev &^ 1
	}
	return prev
}
