package heap

import (
	"fmt"

	"stanch/internal/leak"
)

// arena is one struct malloc_state as it was found, with what the walk makes
// of it.
type arena struct {
	addr    uint64
	state   *stateLayout
	main    bool
	mapping int  // of a main arena: index of the mapping that holds it
	fresh   bool // a main arena that never allocated anything
	mutex   uint32
	flags   uint32
	fast    [fastBins]uint64
	top     uint64
	next    uint64
	system  uint64 // system_mem
	bins    [2 * binCount]uint64

	heaps []leak.Range // chunks; without headers, with top and fenceposts
	gaps  []leak.Range // inside of heaps, memory that is not the allocator's
	bad   error        // why it is left out, nil while it is not
	busy  bool         // left out because a thread was at work in it
	count tally
}

// tally is what a walk counts.
type tally struct {
	blocks, bytes uint64 // allocated, usable bytes
	free          uint64 // bytes in free chunks, caches and tops
}

// String names the arena for a report.
func (a *arena) String() string {
	if a.main {
		return "the main arena"
	}
	return fmt.Sprintf("the thread arena at %#x", a.addr)
}

// leaveOut notes the first reason.
func (a *arena) leaveOut(err error) {
	if a.bad == nil {
		a.bad = err
	}
}

// bin is the address that stands for bin i, from 1 (bin_at): its fd and bk are
// where those of a chunk at this address would be.
func (a *arena) bin(i int) uint64 { return a.addr + a.state.bins + uint64(i-1)*16 - headerSize }

// readArena reads the struct at addr.
func readArena(p *pager, addr uint64, l *stateLayout) (*arena, error) {
	b := make([]byte, l.size)
	if err := p.read(b, addr); err != nil {
		return nil, err
	}
	a := &arena{addr: addr, state: l, mapping: -1}
	a.mutex, a.flags = order.Uint32(b), order.Uint32(b[4:])
	if l.fast != 0 {
		for i := range a.fast {
			a.fast[i] = load(b[l.fast+8*uint64(i):])
		}
	}
	a.top, a.next, a.system = load(b[l.top:]), load(b[l.next:]), load(b[l.system:])
	for i := range a.bins {
		a.bins[i] = load(b[l.bins+8*uint64(i):])
	}
	return a, nil
}

// mainArenas finds every struct malloc_state that a module has among its data:
// one in a usual process, more with dlmopen or libc_malloc_debug. It needs no
// symbols: empty bins point to themselves, and the list of arenas is a ring.
//
// wrong is how many of the 127 bins may not be linked as they should be: none
// is wrong while the allocator rests, any may be while the process runs.
func mainArenas(img *Image, p *pager, wrong int) []*arena {
	var found []*arena
	for i := range img.Maps {
		m := &img.Maps[i]
		if !m.File() || !m.Read || !m.Write || m.Shared || m.Size() < maxState {
			continue
		}
		found = append(found, arenasIn(img, p, i, wrong)...)
	}
	return found
}

// arenasIn searches one mapping.
func arenasIn(img *Image, p *pager, mapping, wrong int) []*arena {
	m := &img.Maps[mapping]
	start, end := uint64(m.Start), uint64(m.End)
	w := newWindow(img.Mem, end)
	defer w.close()
	var found []*arena
	for a := start; a+16 <= end; {
		b, err := w.at(a, 16)
		if err != nil {
			a = (a + pageSize) &^ (pageSize - 1)
			continue
		}
		var state *arena
		for ; len(b) >= 16 && state == nil; a, b = a+8, b[8:] {
			word := load(b)
			for _, l := range states {
				switch {
				case word == a-headerSize && load(b[8:]) == word:
					state = arenaAround(p, a, start, l, wrong)
				case word == a-l.next && word >= start:
					state = arenaAt(p, word, l, wrong)
				}
				if state != nil {
					break
				}
			}
		}
		if state != nil {
			state.main, state.mapping = true, mapping
			found = append(found, state)
			a = max(a, state.addr+state.state.size)
		}
	}
	return found
}

// arenaAround finds the arena of which an empty bin lies at a.
func arenaAround(p *pager, a, start uint64, l *stateLayout, wrong int) *arena {
	for i := uint64(0); i < binCount; i++ {
		if addr := a - l.bins - 16*i; addr >= start && addr <= a {
			if s := arenaAt(p, addr, l, wrong); s != nil {
				return s
			}
		}
	}
	return nil
}

// How many bins may be wrong.
const (
	stoppedWrong = 2  // a thread may have been stopped inside
	runningWrong = 60 // more than half are still right
)

// arenaAt reads the arena at addr, nil when what is there cannot be one.
func arenaAt(p *pager, addr uint64, l *stateLayout, wrong int) *arena {
	s, err := readArena(p, addr, l)
	if err != nil || s.flags > 7 || s.system&15 != 0 || addr&7 != 0 {
		return nil
	}
	if s.next == addr && s.top == 0 && s.system == 0 {
		for _, b := range s.bins {
			if b != 0 {
				return nil
			}
		}
		threads, err := p.word(addr + l.threads)
		if err != nil || threads != 1 {
			return nil
		}
		s.fresh = true
		return s
	}
	for i := 1; i <= binCount && wrong >= 0; i++ {
		if !s.linked(p, i) {
			wrong--
		}
	}
	if wrong < 0 || !ring(p, addr, l) {
		return nil
	}
	return s
}

// linked reports whether the chunks at both ends of a bin point back to it.
func (a *arena) linked(p *pager, i int) bool {
	bin, fd, bk := a.bin(i), a.bins[2*i-2], a.bins[2*i-1]
	if fd == bin && bk == bin {
		return true
	}
	if fd == bin || bk == bin || fd&15 != 0 || bk&15 != 0 {
		return false
	}
	back, err1 := p.word(fd + 24)
	forth, err2 := p.word(bk + 16)
	return err1 == nil && err2 == nil && back == bin && forth == bin
}

// maxArenas bounds the ring of arenas; glibc makes eight for each CPU.
const maxArenas = 1 << 16

// ring reports whether the list of arenas comes back to addr.
func ring(p *pager, addr uint64, l *stateLayout) bool {
	at := addr
	for range maxArenas {
		next, err := p.word(at + l.next)
		if err != nil || next == 0 {
			return false
		}
		if next == addr {
			return true
		}
		at = next
	}
	return false
}

// threadArenas reads the arenas behind a main one.
func threadArenas(p *pager, first *arena) ([]*arena, error) {
	var all []*arena
	for at := first.next; at != first.addr; {
		if len(all) == maxArenas {
			return nil, fmt.Errorf("the list of arenas does not end")
		}
		a, err := readArena(p, at, first.state)
		if err != nil {
			return nil, fmt.Errorf("thread arena: %w", err)
		}
		all = append(all, a)
		at = a.next
	}
	return all, nil
}
