package heap

import (
	"fmt"
	"math/bits"
	"sort"
)

// The geometry of chunks, malloc/malloc.c: headers of 16 bytes, everything
// aligned to 16.
const (
	headerSize = 16
	minChunk   = 32
	// cellSpan is how much memory one cell describes.
	cellSpan = 64 * 16
	// leap is after how many cells a search backwards may jump.
	leap = 32
)

// cell describes 1 KiB of a heap, a bit for each 16 bytes.
type cell struct {
	block uint64 // an allocated block's chunk begins here
	edge  uint64 // any chunk begins here
	rank  uint32 // blocks before this cell, in all heaps
	back  uint32 // at each leap-th cell: the last cell before it with an edge, plus one
}

// span is a range of chunks: a heap, or a part of one, or one mapped block.
// Chunk addresses lie in [start, end).
type span struct {
	start, end uint64
	cell       int    // of start; -1 for a mapped block
	id         uint32 // of a mapped block
	arena      int    // index of the arena, -1 for a mapped block
}

// space maps addresses to blocks. Blocks have numbers: those in heaps first, in
// the order of their addresses by span, then the mapped ones.
type space struct {
	spans  []span // sorted by address
	cells  array[cell]
	heaps  uint32   // blocks in heaps
	total  uint32   // all blocks
	single []int    // span of each mapped block, by number minus heaps
	walked []int    // the spans that are no mapped blocks
	first  []uint32 // number of the first block of each of them
	index  [1 << (47 - tableBits)]*table
}

const (
	granuleBits = 20 // a table's entry stands for 1 MiB
	tableBits   = 34 // and a table for 16 GiB
)

// table gives, for each granule, the first span that lies in it, plus one.
type table [1 << (tableBits - granuleBits)]uint32

// maxBlocks keeps block numbers in 31 bits.
const maxBlocks = 1<<31 - 1

func (s *space) free() { s.cells.free() }

// locate builds the index. Spans must be final.
func (s *space) locate() {
	sort.Slice(s.spans, func(i, j int) bool { return s.spans[i].start < s.spans[j].start })
	clear(s.index[:])
	for i := len(s.spans) - 1; i >= 0; i-- {
		sp := &s.spans[i]
		for g := sp.start >> granuleBits; g <= (sp.end-1)>>granuleBits; g++ {
			slot := &s.index[g>>(tableBits-granuleBits)]
			if *slot == nil {
				*slot = new(table)
			}
			(*slot)[g&(1<<(tableBits-granuleBits)-1)] = uint32(i + 1)
		}
	}
}

// spanOf finds the span that holds chunk address a.
func (s *space) spanOf(a uint64) *span {
	if a >= userEnd {
		return nil
	}
	t := s.index[a>>tableBits]
	if t == nil {
		return nil
	}
	i := t[a>>granuleBits&(1<<(tableBits-granuleBits)-1)]
	if i == 0 {
		return nil
	}
	for i--; int(i) < len(s.spans) && s.spans[i].start <= a; i++ {
		if a < s.spans[i].end {
			return &s.spans[i]
		}
	}
	return nil
}

// number counts the blocks and numbers them. Spans, located, and bits must be
// final.
func (s *space) number() error {
	var n uint64
	s.walked, s.first, s.single = nil, nil, nil
	for i := range s.spans {
		sp := &s.spans[i]
		if sp.cell < 0 {
			continue
		}
		s.walked = append(s.walked, i)
		s.first = append(s.first, uint32(n))
		cells := s.cells.s[sp.cell:][:sp.cells()]
		last := uint32(0)
		for j := range cells {
			c := &cells[j]
			c.rank = uint32(n)
			if j%leap == 0 {
				c.back = last
			}
			if c.edge != 0 {
				last = uint32(j + 1)
			}
			n += uint64(bits.OnesCount64(c.block))
		}
	}
	s.heaps = uint32(n)
	for i := range s.spans {
		if s.spans[i].cell < 0 {
			s.spans[i].id = uint32(n)
			s.single = append(s.single, i)
			n++
		}
	}
	if n > maxBlocks {
		return fmt.Errorf("%d blocks are more than can be told apart", n)
	}
	s.total = uint32(n)
	return nil
}

// cells is how many cells describe the span.
func (sp *span) cells() int { return int((sp.end - sp.start + cellSpan - 1) / cellSpan) }

// lookup finds the block that pointer p points to, into or just behind.
func (s *space) lookup(p uint64) (id uint32, ok bool) {
	a := p - headerSize
	sp := s.spanOf(a)
	if sp == nil {
		return 0, false
	}
	if sp.cell < 0 {
		return sp.id, true
	}
	off := (a - sp.start) >> 4
	cells := s.cells.s[sp.cell:]
	i, bit := int(off>>6), off&63
	c := &cells[i]
	if upTo := c.edge & (2<<bit - 1); upTo != 0 {
		return blockAt(c, 63-bits.LeadingZeros64(upTo))
	}
	for i--; i >= 0; i-- {
		c = &cells[i]
		if c.edge != 0 {
			return blockAt(c, 63-bits.LeadingZeros64(c.edge))
		}
		if i%leap == 0 {
			i = int(c.back) // one above the cell to look at next
		}
	}
	return 0, false
}

// blockAt gives the number of the block whose chunk begins at bit k, if an
// allocated one does.
func blockAt(c *cell, k int) (uint32, bool) {
	if c.block>>k&1 == 0 {
		return 0, false
	}
	return c.rank + uint32(bits.OnesCount64(c.block&(1<<k-1))), true
}

// place is where a block lies.
type place struct {
	user uint64 // what malloc returned
	size uint64 // usable bytes
}

// where gives the place of block id.
func (s *space) where(id uint32) place {
	if id >= s.heaps {
		sp := &s.spans[s.single[id-s.heaps]]
		return place{sp.start + headerSize, sp.end - sp.start}
	}
	sp := &s.spans[s.walked[sort.Search(len(s.first), func(i int) bool { return s.first[i] > id })-1]]
	cells := s.cells.s[sp.cell:][:sp.cells()]
	j := sort.Search(len(cells), func(j int) bool { return cells[j].rank > id }) - 1
	word := cells[j].block
	for k := id - cells[j].rank; k > 0; k-- {
		word &= word - 1
	}
	return sp.place(cells, j, bits.TrailingZeros64(word))
}

// place gives the place of the block whose chunk begins at bit k of cell j.
func (sp *span) place(cells []cell, j, k int) place {
	chunk := sp.start + uint64(j)*cellSpan + uint64(k)*16
	end := sp.end
	rest := cells[j].edge &^ (2<<k - 1)
	for i := j; ; rest = cells[i].edge {
		if rest != 0 {
			end = sp.start + uint64(i)*cellSpan + uint64(bits.TrailingZeros64(rest))*16
			break
		}
		if i++; i == len(cells) {
			break
		}
	}
	return place{chunk + headerSize, end - chunk - 8}
}

// each calls f for every block of the span from chunk address from up to and
// excluding to, in order, until f returns false.
func (s *space) each(sp *span, from, to uint64, f func(id uint32, p place) bool) {
	cells := s.cells.s[sp.cell:][:sp.cells()]
	first, last := int((from-sp.start)/cellSpan), int((min(to, sp.end)-sp.start+cellSpan-1)/cellSpan)
	for j := first; j < last; j++ {
		word := cells[j].block
		for id := cells[j].rank; word != 0; id++ {
			k := bits.TrailingZeros64(word)
			word &= word - 1
			chunk := sp.start + uint64(j)*cellSpan + uint64(k)*16
			if chunk < from {
				continue
			}
			if chunk >= to || !f(id, sp.place(cells, j, k)) {
				return
			}
		}
	}
}

// extent gives the first and the last block whose chunks begin in [from, to).
func (s *space) extent(sp *span, from, to uint64) (first, last place, ok bool) {
	s.each(sp, from, to, func(_ uint32, p place) bool {
		first, ok = p, true
		return false
	})
	if !ok {
		return first, last, false
	}
	cells := s.cells.s[sp.cell:][:sp.cells()]
	for j := min(int((to-sp.start)/cellSpan), len(cells)-1); ; j-- {
		word := cells[j].block
		if at := sp.start + uint64(j)*cellSpan; at+cellSpan > to {
			if at >= to {
				continue
			}
			word &= 1<<((to-at)>>4) - 1
		}
		if word != 0 {
			return first, sp.place(cells, j, 63-bits.LeadingZeros64(word)), true
		}
	}
}

// mark sets the bit of a chunk that begins at a.
func (sp *span) mark(cells []cell, a uint64) {
	off := (a - sp.start) >> 4
	cells[sp.cell+int(off>>6)].edge |= 1 << (off & 63)
}

// setBlock says whether the chunk at a is an allocated block.
func (sp *span) setBlock(cells []cell, a uint64, allocated bool) {
	off := (a - sp.start) >> 4
	c := &cells[sp.cell+int(off>>6)]
	if allocated {
		c.block |= 1 << (off & 63)
	} else {
		c.block &^= 1 << (off & 63)
	}
}

// begins reports whether a chunk begins at a, which lies in sp.
func (s *space) begins(sp *span, a uint64) bool {
	off := (a - sp.start) >> 4
	return s.cells.s[sp.cell+int(off>>6)].edge>>(off&63)&1 != 0
}

// startsAt reports whether user is the address of a block, as malloc gave it.
func (s *space) startsAt(user uint64) bool {
	chunk := user - headerSize
	sp := s.spanOf(chunk)
	if sp == nil {
		return false
	}
	if sp.cell < 0 {
		return sp.start == chunk
	}
	_, ok := s.isBlock(chunk)
	return ok
}

// isBlock reports whether an allocated block's chunk begins at a.
func (s *space) isBlock(a uint64) (*span, bool) {
	sp := s.spanOf(a)
	if sp == nil || sp.cell < 0 || a&15 != 0 {
		return nil, false
	}
	off := (a - sp.start) >> 4
	return sp, s.cells.s[sp.cell+int(off>>6)].block>>(off&63)&1 != 0
}
