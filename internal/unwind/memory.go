package unwind

import (
	"encoding/binary"
	"io"

	"stanch/internal/leak"
)

// Stack is a copied piece of stack as memory: Bytes were read at Start.
type Stack struct {
	Start leak.Addr
	Bytes []byte
}

// ReadAt copies what the piece holds from a on.
func (s Stack) ReadAt(p []byte, a leak.Addr) (int, error) {
	if a < s.Start || uint64(a-s.Start) >= uint64(len(s.Bytes)) {
		return 0, io.EOF
	}
	n := copy(p, s.Bytes[a-s.Start:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// window reads words of a memory through one buffer of two pages: most frames
// are near the last one, and a read of a live process costs a system call.
type window struct {
	mem   leak.Memory
	start uint64
	buf   []byte
	whole bool // buf is all there is
	store [2 * pageSize]byte
}

// look makes the window look at a memory, and forget the one before.
func (w *window) look(mem leak.Memory) {
	w.mem, w.start, w.buf, w.whole = mem, 0, nil, false
	if s, ok := mem.(Stack); ok {
		w.start, w.buf, w.whole = uint64(s.Start), s.Bytes, true
	}
}

// word reads 8 bytes at a.
func (w *window) word(a uint64) (uint64, bool) {
	// a-start wraps below the window, to more than any length.
	if at := a - w.start; uint64(len(w.buf)) >= 8 && at <= uint64(len(w.buf))-8 {
		return binary.LittleEndian.Uint64(w.buf[at:]), true
	}
	if w.whole || !w.fill(a) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(w.buf[a-w.start:]), true
}

// fill reads the page of a and the next one.
func (w *window) fill(a uint64) bool {
	w.start = a &^ (pageSize - 1)
	n, _ := w.mem.ReadAt(w.store[:], leak.Addr(w.start))
	w.buf = w.store[:max(0, min(n, len(w.store)))]
	return a-w.start+8 <= uint64(len(w.buf))
}
