package heap

import (
	"fmt"

	"stanch/internal/leak"
)

// When brk fails, the main arena takes regions from mmap and is not contiguous
// from then on. Nothing lists its regions. Each begins at a page with a chunk,
// and ends with two fenceposts at the end of a page; the newest ends with the
// top chunk. The sum of their sizes is system_mem.

// probeRegions finds the regions of a main arena that is not contiguous; end is
// where its top chunk ends.
func (w *walk) probeRegions(a *arena, end uint64) error {
	var sum uint64
	var taken []leak.Range // by thread arenas
	for _, o := range w.arenas {
		if !o.main {
			at := leak.Addr(o.addr &^ (w.heapMax - 1))
			taken = append(taken, leak.Range{Start: at, End: at + leak.Addr(w.heapMax)})
		}
	}
	var areas []leak.Range
	for i := range w.img.Maps {
		m := &w.img.Maps[i]
		if !anonymous(m) {
			continue
		}
		if k := len(areas) - 1; k >= 0 && areas[k].End == m.Start {
			areas[k].End = m.End
		} else {
			areas = append(areas, leak.Range{Start: m.Start, End: m.End})
		}
	}
	for _, area := range subtract(areas, taken) {
		win := newWindow(w.img.Mem, uint64(area.End))
		at := uint64(area.Start)
		for _, r := range w.img.resident(area) {
			at = max(at, uint64(r.Start))
			for at < uint64(r.End) && w.ctx.Err() == nil {
				to, ok := probeRegion(win, a, at, end)
				if !ok {
					at += pageSize
					continue
				}
				a.heaps = append(a.heaps, leak.Range{Start: leak.Addr(at), End: leak.Addr(to)})
				sum += to - at
				at = (to + pageSize - 1) &^ (pageSize - 1)
			}
		}
		win.close()
	}
	if sum != a.system {
		a.heaps = nil
		return fmt.Errorf("its regions have %#x bytes, it counts %#x: %w", sum, a.system, errNotAllocator)
	}
	return nil
}

// probeRegion follows the chunks that begin at at, up to two fenceposts or the
// top chunk, and returns where they end.
func probeRegion(win *window, a *arena, at, end uint64) (uint64, bool) {
	for n := 0; ; n++ {
		b, err := win.at(at, headerSize)
		if err != nil {
			return 0, false
		}
		size, flags := load(b[8:])&^sizeFlags, load(b[8:])&sizeFlags
		switch {
		case at == a.top:
			return end, size == end-at
		case flags&^prevInUse != 0, n == 0 && flags != prevInUse:
			return 0, false
		case size == headerSize:
			return fences(win, at)
		case size < minChunk || size&15 != 0 || size > win.end-at:
			return 0, false
		}
		at += size
	}
}

// fences follows the fenceposts that begin at at to the end of the page.
func fences(win *window, at uint64) (uint64, bool) {
	for n := 1; n < 4; n++ {
		at += headerSize
		if at&(pageSize-1) == 0 {
			return at, n > 1
		}
		b, err := win.at(at, headerSize)
		if err != nil || load(b[8:])&^sizeFlags != headerSize {
			return 0, false
		}
	}
	return 0, false
}
