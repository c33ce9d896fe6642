package heap

import (
	"strings"

	"stanch/internal/leak"
)

// threadArea is what is known of one thread's stack.
type threadArea struct {
	used   []area     // its stack from the stack pointer on, its thread-local storage
	unused leak.Range // below the stack pointer: what is there is left over
}

// Where glibc keeps what is used of struct pthread, which begins at the thread
// pointer: tcbhead_t, with pointers to itself at 0 (tcb) and 16 (self)
// (sysdeps/x86_64/nptl/tls.h). The fields stackblock and stackblock_size
// follow each other somewhere behind; their place differs between versions, but
// no other pair of words there describes the memory around the struct.
const (
	pthreadSize  = 0x980 // not less than sizeof(struct pthread) in any version
	pthreadAlign = 64    // TCB_ALIGNMENT
)

// stacks finds the stacks of the threads, and of threads that have ended: glibc
// keeps their stacks for the next thread, with all that is still written there.
func (w *walk) stacks() []threadArea {
	tls := w.img.staticTLS()
	var all []threadArea
	live := map[uint64]bool{} // mappings that belong to a thread
	for i := range w.img.Threads {
		t := &w.img.Threads[i]
		live[t.FSBase] = true
		all = append(all, w.stackOf(t, tls))
		for _, a := range []uint64{t.SP, t.FSBase} {
			if k := findMap(w.img.Maps, a); k >= 0 {
				live[uint64(w.img.Maps[k].Start)] = true
			}
		}
	}
	for i := range w.img.Maps {
		m := &w.img.Maps[i]
		if anonymous(m) && m.Path == "" && m.Write && !live[uint64(m.Start)] && m.Size() >= 2*pageSize {
			if dead, ok := w.deadStack(m); ok {
				all = append(all, threadArea{unused: dead})
			}
		}
	}
	return all
}

// stackOf says which part of a thread's stack is in use. When its bounds
// cannot be told, all of the memory around it stays a root.
func (w *walk) stackOf(t *Thread, tls uint64) threadArea {
	var out threadArea
	i := findMap(w.img.Maps, t.SP)
	if i < 0 {
		return out
	}
	m := &w.img.Maps[i]
	low, high := uint64(m.Start), uint64(m.End)
	from := (t.SP - redZone) &^ 7
	if k := findMap(w.img.Maps, t.FSBase); k >= 0 && anonymous(&w.img.Maps[k]) {
		start, end := t.FSBase-min(tls, t.FSBase), t.FSBase+pthreadSize
		start, end = max(start, uint64(w.img.Maps[k].Start)), min(end, uint64(w.img.Maps[k].End))
		if k == i && t.SP < t.FSBase {
			start = max(start, from)
		}
		out.used = append(out.used, area{Range: leak.Range{Start: leak.Addr(start &^ 7), End: leak.Addr(end)}, what: whatTLS, tid: t.TID, must: true})
	}
	switch {
	case strings.HasPrefix(m.Path, "[stack"):
	case !anonymous(m):
		return out
	default:
		block, size, ok := w.stackBlock(t.FSBase)
		if !ok || t.SP < block || t.SP >= block+size {
			return out
		}
		low, high = max(low, block), min(high, t.FSBase)
	}
	if low < from {
		out.unused = leak.Range{Start: leak.Addr(low), End: leak.Addr(from)}
	}
	if len(out.used) > 0 && out.used[0].Start < leak.Addr(high) && out.used[0].Start >= leak.Addr(from) {
		high = uint64(out.used[0].Start)
	}
	if from < high {
		out.used = append(out.used, area{Range: leak.Range{Start: leak.Addr(max(low, from)), End: leak.Addr(high)}, what: whatStack, tid: t.TID, must: true})
	}
	return out
}

// stackBlock finds stackblock and stackblock_size in the struct pthread at fs.
func (w *walk) stackBlock(fs uint64) (block, size uint64, ok bool) {
	if fs == 0 || fs&7 != 0 || fs >= userEnd {
		return 0, 0, false
	}
	for at := fs + 0x200; at < fs+pthreadSize; at += 8 {
		block, err1 := w.pages.word(at)
		size, err2 := w.pages.word(at + 8)
		if err1 != nil || err2 != nil {
			return 0, 0, false
		}
		if block != 0 && block < fs && block&(pageSize-1) == 0 && size&(pageSize-1) == 0 && size < userEnd &&
			block+size > fs && block+size-fs <= pthreadSize+pageSize {
			return block, size, true
		}
	}
	return 0, 0, false
}

// deadStack finds the part of m that was the stack of a thread that has ended.
// Its struct pthread stays at its end.
func (w *walk) deadStack(m *leak.Mapping) (leak.Range, bool) {
	end := uint64(m.End)
	for p := (end - pthreadSize - pageSize) &^ (pthreadAlign - 1); p < end-0x400; p += pthreadAlign {
		tcb, err1 := w.pages.word(p)
		self, err2 := w.pages.word(p + 16)
		if err1 != nil || err2 != nil {
			return leak.Range{}, false
		}
		if tcb != p || self != p {
			continue
		}
		if block, size, ok := w.stackBlock(p); ok && block+size <= end {
			return leak.Range{Start: max(leak.Addr(block), m.Start), End: leak.Addr(p)}, true
		}
	}
	return leak.Range{}, false
}

// staticTLS estimates how much thread-local storage of the modules lies below
// the thread pointer. It only decides what is called "tls" and what "stack".
func (img *Image) staticTLS() uint64 {
	const (
		headerLen, entryLen = 64, 56
		ptTLS               = 7
		surplus             = 2048 // for modules loaded later
	)
	total := uint64(surplus)
	for i := range img.Maps {
		m := &img.Maps[i]
		if !m.File() || m.Offset != 0 || !m.Read || m.Size() < pageSize {
			continue
		}
		var b [pageSize]byte
		if readFull(img.Mem, b[:], uint64(m.Start)) != nil || string(b[:4]) != "\x7fELF" {
			continue
		}
		for k := range min(int(order.Uint16(b[56:])), (pageSize-headerLen)/entryLen) {
			ph := b[headerLen+k*entryLen:]
			if order.Uint32(ph) == ptTLS {
				total += (load(ph[40:]) + 63) &^ 63
			}
		}
	}
	return min(total, 1<<20)
}
