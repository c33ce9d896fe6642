package heap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"stanch/internal/leak"
)

const (
	pageSize = 4096 // of every x86-64
	// userEnd is where the user half of the address space ends; pointers have
	// at most 47 bits. (With five-level paging a process gets more only if it
	// asks for it with a hint to mmap; such memory is not walked.)
	userEnd = 1 << 47
)

var order = binary.LittleEndian // linux/amd64

// load reads the word at the start of b.
func load(b []byte) uint64 { return order.Uint64(b) }

// findMap gives the index of the mapping that contains a, -1 for none.
func findMap(maps []leak.Mapping, a uint64) int {
	i := sort.Search(len(maps), func(i int) bool { return uint64(maps[i].End) > a })
	if i < len(maps) && uint64(maps[i].Start) <= a {
		return i
	}
	return -1
}

// pager reads words here and there and remembers pages. It is not for two
// goroutines at once.
type pager struct {
	mem  leak.Memory
	tags []uint64 // page address + 1, 0 for an empty slot
	data []byte
}

const pagerSlots = 512 // 2 MiB

func newPager(mem leak.Memory) *pager {
	return &pager{mem: mem, tags: make([]uint64, pagerSlots), data: make([]byte, pagerSlots*pageSize)}
}

// aim makes it read mem, and forget all pages. It costs far less than a new one:
// no memory is allocated, so it is fit for while a process stands still.
func (p *pager) aim(mem leak.Memory) {
	p.mem = mem
	clear(p.tags)
}

// page returns the page that holds a.
func (p *pager) page(a uint64) ([]byte, error) {
	at := a &^ (pageSize - 1)
	slot := at / pageSize % pagerSlots
	buf := p.data[slot*pageSize:][:pageSize]
	if p.tags[slot] == at+1 {
		return buf, nil
	}
	p.tags[slot] = 0
	if n, err := p.mem.ReadAt(buf, leak.Addr(at)); n < pageSize {
		return nil, short(at, n, err)
	}
	p.tags[slot] = at + 1
	return buf, nil
}

// word reads the aligned word at a.
func (p *pager) word(a uint64) (uint64, error) {
	if a&7 != 0 {
		return 0, fmt.Errorf("word at %#x: not aligned", a)
	}
	b, err := p.page(a)
	if err != nil {
		return 0, err
	}
	return load(b[a&(pageSize-1):]), nil
}

// read fills b from a.
func (p *pager) read(b []byte, a uint64) error {
	for len(b) > 0 {
		page, err := p.page(a)
		if err != nil {
			return err
		}
		n := copy(b, page[a&(pageSize-1):])
		b, a = b[n:], a+uint64(n)
	}
	return nil
}

// short is the error of a read that gave n bytes.
func short(a uint64, n int, err error) error {
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read at %#x after %d bytes: %w", a, n, err)
}

// readFull reads all of b, or says why not.
func readFull(mem leak.Memory, b []byte, a uint64) error {
	if n, err := mem.ReadAt(b, leak.Addr(a)); n < len(b) {
		return short(a, n, err)
	}
	return nil
}

const (
	windowSize = 512 << 10
	// overlap is how much a window repeats of the one before, so that whatever
	// begins at its end, up to a thread cache, is whole in the next.
	overlap = pageSize
)

// window reads a range forwards, the next piece while the caller works on the
// current one. It is for one goroutine, and close must be called.
type window struct {
	mem   leak.Memory
	end   uint64 // nothing at or after it is read
	base  uint64
	buf   []byte
	read  uint64 // bytes, in total
	spare []byte
	ahead chan piece // holds the answer to the one request under way
	want  uint64     // address of the request under way, 0 for none
}

type piece struct {
	base uint64
	buf  []byte
	err  error
}

func newWindow(mem leak.Memory, end uint64) *window {
	return &window{mem: mem, end: end, spare: make([]byte, windowSize), ahead: make(chan piece, 1)}
}

// at returns at least n bytes from address a on, n up to the overlap.
func (w *window) at(a uint64, n int) ([]byte, error) {
	if a >= w.base && a+uint64(n) <= w.base+uint64(len(w.buf)) {
		return w.buf[a-w.base:], nil
	}
	return w.seek(a, n)
}

func (w *window) seek(a uint64, n int) ([]byte, error) {
	base := a &^ (pageSize - 1)
	sequential := len(w.buf) > 0 && base == w.next()
	var got piece
	if w.want == base {
		got = <-w.ahead
	} else {
		if w.want != 0 {
			w.spare = (<-w.ahead).buf // of no use
		}
		got = w.fetch(base, w.spare)
	}
	w.want = 0
	w.spare = w.buf[:cap(w.buf)]
	if len(w.spare) < windowSize {
		w.spare = make([]byte, windowSize)
	}
	w.base, w.buf = got.base, got.buf
	w.read += uint64(len(got.buf))
	if a+uint64(n) > w.base+uint64(len(w.buf)) {
		return nil, short(w.base, len(w.buf), got.err)
	}
	if next := w.next(); sequential && got.err == nil && next+overlap < w.end {
		w.want = next
		spare := w.spare
		w.spare = nil
		go func() { w.ahead <- w.fetch(next, spare) }()
	}
	return w.buf[a-w.base:], nil
}

// next is where the following window begins.
func (w *window) next() uint64 { return w.base + uint64(len(w.buf)) - overlap }

func (w *window) fetch(base uint64, buf []byte) piece {
	if base >= w.end {
		return piece{base: base, buf: buf[:0], err: errors.New("beyond the end")}
	}
	buf = buf[:min(windowSize, w.end-base)]
	n, err := w.mem.ReadAt(buf, leak.Addr(base))
	if n == len(buf) {
		err = nil
	}
	return piece{base, buf[:n], err}
}

// close waits for the read that is under way.
func (w *window) close() {
	if w.want != 0 {
		<-w.ahead
		w.want = 0
	}
}
