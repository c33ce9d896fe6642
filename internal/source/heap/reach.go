package heap

import (
	"fmt"
	"sync"

	"stanch/internal/leak"
)

// A hit is a root that points to a block.
type hit struct {
	at uint64
	id uint32
}

// search is a part of an area, and what was found in it.
type search struct {
	area   *area
	from   uint64
	to     uint64
	hits   []hit
	packed []uint32 // see packed.go
	missed uint64   // bytes that cannot be read
}

// reach marks everything that a root leads to.
func (m *marker) reach(areas []area, o *Options) (doubts []string, err error) {
	var data, own, rest []area
	for _, a := range areas {
		switch a.what {
		case whatData:
			data = append(data, a)
		case whatTLS, whatStack:
			own = append(own, a)
		default:
			rest = append(rest, a)
		}
	}
	for _, step := range []func() error{
		func() error { return m.scanAreas(data, o, &doubts) },
		m.kernelWords,
		func() error { return m.scanAreas(own, o, &doubts) },
		m.registers,
		func() error { return m.scanAreas(rest, o, &doubts) },
		m.revivePacked,
		func() error { return m.spare(&doubts) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return doubts, m.flush()
}

// kernelWords takes what the kernel holds for the process.
func (m *marker) kernelWords() error {
	for _, k := range m.img.Kernel {
		if err := m.begin(leak.Root{What: k.What}); err != nil {
			return err
		}
		if id, ok := m.target(k.Word); ok {
			if err := m.hit(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// registers takes the registers of all threads. A thread may be on its way into
// or out of the allocator, which knows a block by the address of its header.
func (m *marker) registers() error {
	const near = 1 << 10 // of the stack: what frames of the allocator take
	stack := make([]byte, near)
	for i := range m.img.Threads {
		t := &m.img.Threads[i]
		if err := m.begin(leak.Root{What: whatRegisters, TID: t.TID}); err != nil {
			return err
		}
		for _, r := range t.Regs {
			if id, ok := m.target(r); ok {
				if err := m.hit(id); err != nil {
					return err
				}
			}
			if err := m.header(r); err != nil {
				return err
			}
		}
		n, _ := m.img.Mem.ReadAt(stack, leak.Addr(t.SP&^7)) // what there is of it
		for b := stack[:n]; len(b) >= 8; b = b[8:] {
			if err := m.header(load(b)); err != nil {
				return err
			}
		}
	}
	return nil
}

// header marks the block whose header is at a.
func (m *marker) header(a uint64) error {
	if a&15 != 0 || a >= userEnd {
		return nil
	}
	sp := m.space.spanOf(a)
	if sp == nil || sp.cell >= 0 && !m.space.begins(sp, a) || sp.cell < 0 && sp.start != a {
		return nil
	}
	if id, ok := m.space.lookup(a + headerSize); ok {
		return m.hit(id)
	}
	return nil
}

// spare marks blocks that bear the sign of a thread's cache but are in none
// that was found: it may be one that was not understood.
func (m *marker) spare(doubts *[]string) error {
	n := 0
	if err := m.begin(leak.Root{What: whatMemory}); err != nil {
		return err
	}
	for id := range m.space.total {
		if bitset(m.cached.s).has(id) && !bitset(m.marked.s).has(id) {
			n++
			if err := m.hit(id); err != nil {
				return err
			}
		}
	}
	if n > 0 {
		*doubts = append(*doubts, fmt.Sprintf("%d unreachable blocks look as if a thread had them in its cache; they are not called lost", n))
	}
	return nil
}

// scanAreas reads areas, several pieces at a time, and marks from each piece in
// turn.
func (m *marker) scanAreas(areas []area, o *Options, doubts *[]string) error {
	r := &roots{marker: m, options: o}
	batch := make([]search, 0, 4*m.workers)
	bufs := make([][]byte, m.workers)
	for i := range bufs {
		bufs[i] = make([]byte, pieceSize)
	}
	missed := map[string]uint64{}
	run := func() error {
		m.find(batch, bufs)
		for i := range batch {
			s := &batch[i]
			if s.missed > 0 && s.area.must {
				missed[s.area.what] += s.missed
			}
			if err := r.take(s); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return m.ctx.Err()
	}
	for i := range areas {
		a := &areas[i]
		pages := leak.Range{Start: a.Start &^ (pageSize - 1), End: (a.End + pageSize - 1) &^ (pageSize - 1)}
		for _, part := range m.img.resident(pages) {
			at, end := max(uint64(part.Start), uint64(a.Start)+7)&^7, min(uint64(part.End), uint64(a.End))
			for at < end {
				to := min((at+pieceSize)&^(pieceSize-1), end)
				batch = append(batch, search{area: a, from: at, to: to})
				at = to
				if len(batch) == cap(batch) {
					if err := run(); err != nil {
						return err
					}
				}
			}
		}
	}
	if err := run(); err != nil {
		return err
	}
	for what, n := range missed {
		*doubts = append(*doubts, fmt.Sprintf("%d bytes of %s cannot be read; pointers there are not seen", n, whatWords[what]))
	}
	return nil
}

// whatWords says what an area is, in a sentence.
var whatWords = map[string]string{
	whatData: "the program's variables", whatTLS: "thread-local storage", whatStack: "its stacks",
	whatMemory: "its other memory", "ring": "rings shared with the kernel",
}

// find searches the pieces of a batch.
func (m *marker) find(batch []search, bufs [][]byte) {
	var wg sync.WaitGroup
	for k := range bufs {
		wg.Go(func() {
			for i := k; i < len(batch); i += len(bufs) {
				m.findIn(&batch[i], bufs[k])
			}
		})
	}
	wg.Wait()
}

// findIn searches one piece. What cannot be read is passed over by pages, but
// after two of them the rest of the piece is given up.
func (m *marker) findIn(s *search, buf []byte) {
	failures := 0
	for at := s.from; at < s.to && failures < 2; {
		b := buf[:s.to-at]
		n, err := m.img.Mem.ReadAt(b, leak.Addr(at))
		if n == len(b) {
			err = nil
		}
		m.read.Add(uint64(n))
		var before uint64
		for b = b[:n]; len(b) >= 8; b = b[8:] {
			w := load(b)
			if w == 0 {
				before = 0
				continue
			}
			if id, ok := m.target(w); ok {
				s.hits = append(s.hits, hit{at + uint64(n-len(b)), id})
			} else if mayBePacked(w) {
				if id, ok := m.packed(before, w); ok {
					s.packed = append(s.packed, id)
				}
			}
			before = w
		}
		at += uint64(n)
		if err != nil {
			next := min((at+pageSize)&^(pageSize-1), s.to)
			s.missed += next - at
			at = next
			failures++
		}
		if failures == 2 {
			s.missed += s.to - at
		}
	}
}

// roots turns hits into roots with a name.
type roots struct {
	*marker
	options *Options
	area    *area
	last    uint64 // the hit before, in an area of variables
	class   uint16
}

// take marks what was found in one piece.
func (r *roots) take(s *search) error {
	if r.area != s.area {
		r.area, r.last = s.area, 0
		if !s.area.words {
			if err := r.begin(leak.Root{What: s.area.what, TID: s.area.tid, Frame: r.frame(s.area)}); err != nil {
				return err
			}
		}
	}
	if len(r.packedIDs) < maxPacked {
		r.packedIDs = append(r.packedIDs, s.packed...)
	}
	for _, h := range s.hits {
		if s.area.words {
			if err := r.variable(h); err != nil {
				return err
			}
		}
		if err := r.hit(h.id); err != nil {
			return err
		}
	}
	return nil
}

// frame is the place of an area that is no variable: the mapping it lies in,
// for memory; a stack is told by its thread.
func (r *roots) frame(a *area) leak.Frame {
	if r.options.Atlas == nil || a.tid != 0 {
		return leak.Frame{}
	}
	return r.options.Atlas.Frame(a.Start)
}

// variable begins a new root at a word of the program's variables, unless the
// word goes on with an array: the one before pointed to a block of the same
// size and shape.
func (r *roots) variable(h hit) error {
	const stride = 16 // of the arrays that are taken as one
	class := r.graph.class.s[h.id]
	if r.last == 0 || h.at-r.last > stride || class != r.class {
		root := leak.Root{What: whatData}
		if r.options.Atlas != nil && !bitset(r.marked.s).has(h.id) {
			root.Frame = r.options.Atlas.Frame(leak.Addr(h.at))
		}
		if err := r.begin(root); err != nil {
			return err
		}
	}
	r.last, r.class = h.at, class
	return nil
}
