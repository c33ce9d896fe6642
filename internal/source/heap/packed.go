package heap

import "stanch/internal/leak"

// Packed structures hold pointers at addresses that are multiples of four only;
// struct epoll_event is one. Such words are noted on the way, when they are the
// very address of a block, and count only for what nothing else leads to.

// packedEdge is such a pointer between blocks.
type packedEdge struct{ from, to uint32 }

// maxPacked bounds how many of them one worker keeps.
const maxPacked = 1 << 20

// mayBePacked reports whether word may hold the upper half of a pointer in its
// lower half. Heaps below 4 GiB are not worth the many zeros.
func mayBePacked(word uint64) bool { return word&0xffff8000 == 0 && word&0x7fff != 0 }

// packed gives the block whose address stands in the second half of before and
// the first of word.
func (g *graph) packed(before, word uint64) (uint32, bool) {
	p := before>>32 | word<<32
	if p-g.lo >= g.hi-g.lo || p&15 != 0 || !g.space.startsAt(p) {
		return 0, false
	}
	return g.space.lookup(p)
}

// revivePacked marks what such pointers in roots and in reachable blocks lead
// to.
func (m *marker) revivePacked() error {
	if err := m.begin(leak.Root{What: whatMemory}); err != nil {
		return err
	}
	marked := bitset(m.marked.s)
	for again := true; again; {
		again = false
		// Blocks without a row add to packedIDs as they are reached.
		for len(m.packedIDs) > 0 {
			id := m.packedIDs[len(m.packedIDs)-1]
			m.packedIDs = m.packedIDs[:len(m.packedIDs)-1]
			if err := m.hit(id); err != nil {
				return err
			}
		}
		if err := m.drain(); err != nil {
			return err
		}
		for _, e := range m.packedEdges {
			if marked.has(e.from) && !marked.has(e.to) {
				again = true
				if err := m.hit(e.to); err != nil {
					return err
				}
			}
		}
		if err := m.drain(); err != nil {
			return err
		}
		again = again || len(m.packedIDs) > 0
	}
	return m.flush()
}
