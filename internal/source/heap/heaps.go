package heap

import (
	"fmt"

	"stanch/internal/leak"
)

// findHeaps lists the heaps of an arena.
func (w *walk) findHeaps(a *arena) {
	var err error
	if a.main {
		err = w.mainHeap(a)
	} else {
		err = w.threadHeaps(a)
	}
	if err != nil {
		a.leaveOut(err)
	}
}

// topChunk reads the size of an arena's top chunk.
func (w *walk) topChunk(a *arena) (uint64, error) {
	size, err := w.pages.word(a.top + 8)
	if err != nil {
		return 0, fmt.Errorf("top chunk: %w", err)
	}
	size &^= sizeFlags
	if a.top&15 != 0 || size > userEnd-a.top {
		return 0, fmt.Errorf("top chunk at %#x: %#x bytes: %w", a.top, size, errNotAllocator)
	}
	return size, nil
}

// mainHeap finds the heap that a main arena has from sbrk: system_mem bytes up
// to the end of its top chunk, whatever others took between.
func (w *walk) mainHeap(a *arena) error {
	if a.top == a.bin(1) { // initial_top: it has nothing yet
		if a.system != 0 {
			return fmt.Errorf("no top chunk, but %d bytes: %w", a.system, errNotAllocator)
		}
		return nil
	}
	size, err := w.topChunk(a)
	if err != nil {
		return err
	}
	end := a.top + size
	if a.flags&noncontiguous != 0 {
		return w.probeRegions(a, end)
	}
	if a.system > end || a.system < size {
		return fmt.Errorf("%#x bytes from the system, %#x of them free at the top: %w", a.system, size, errNotAllocator)
	}
	start := (end - a.system + 15) &^ 15
	if !w.img.private(start, end) {
		return fmt.Errorf("its heap %#x-%#x is not mapped: %w", start, end, errNotAllocator)
	}
	a.heaps = append(a.heaps, leak.Range{Start: leak.Addr(start), End: leak.Addr(end)})
	return nil
}

// threadHeaps finds the heaps of a thread arena, the newest first. Each begins
// with a struct heap_info {ar_ptr, prev, size, mprotect_size, ...}; the first
// one then has the arena itself.
func (w *walk) threadHeaps(a *arena) error {
	size, err := w.topChunk(a)
	if err != nil {
		return err
	}
	first := a.addr &^ (w.heapMax - 1)
	if a.addr-first != w.lay.heapInfo {
		return fmt.Errorf("it lies %#x bytes into its heap: %w", a.addr-first, errNotAllocator)
	}
	var sum uint64
	for at := a.top &^ (w.heapMax - 1); ; {
		owner, err1 := w.pages.word(at)
		prev, err2 := w.pages.word(at + 8)
		bytes, err3 := w.pages.word(at + 16)
		if err1 != nil || err2 != nil || err3 != nil {
			return fmt.Errorf("heap at %#x cannot be read", at)
		}
		start := at + w.lay.heapInfo
		if at == first {
			start = (a.addr + a.state.size + 15) &^ 15
		}
		if owner != a.addr || bytes > w.heapMax || bytes&(pageSize-1) != 0 || at+bytes < start+minChunk || len(a.heaps) == 1<<20 {
			return fmt.Errorf("heap at %#x of %#x bytes: %w", at, bytes, errNotAllocator)
		}
		if len(a.heaps) == 0 && at+bytes != a.top+size {
			return fmt.Errorf("its newest heap ends at %#x, its top chunk at %#x: %w", at+bytes, a.top+size, errNotAllocator)
		}
		sum += bytes
		a.heaps = append(a.heaps, leak.Range{Start: leak.Addr(start), End: leak.Addr(at + bytes)})
		w.own = append(w.own, leak.Range{Start: leak.Addr(at), End: leak.Addr(start)})
		if at == first {
			break
		}
		at = prev
	}
	if sum != a.system {
		return fmt.Errorf("its heaps have %#x bytes, it counts %#x: %w", sum, a.system, errNotAllocator)
	}
	return nil
}
