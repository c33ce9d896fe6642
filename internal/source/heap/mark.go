package heap

import (
	"fmt"
	"sort"

	"stanch/internal/leak"
)

// marker reaches blocks from roots, one root after another, and counts for each
// root what it was the first to reach.
type marker struct {
	*graph
	stack array[uint32] // blocks that are marked, and whose pointers are not followed yet
	depth int
	buf   []byte

	root    leak.Root
	n       []uint64 // blocks reached from this root, by class
	touched []uint16 // classes with n > 0
	various uint64   // bytes of those in class 0
	held    []heldRow

	packedIDs []uint32 // blocks that packed pointers of roots and of large blocks lead to
}

// heldRow is what one root holds of one class.
type heldRow struct {
	root  leak.Root
	class uint16
	n     uint64
	bytes uint64
}

func newMarker(g *graph) (*marker, error) {
	m := &marker{graph: g, buf: make([]byte, pieceSize), n: make([]uint64, 1<<16)}
	var err error
	m.stack, err = newArray[uint32](int(g.space.total) + 1)
	return m, err
}

// begin makes r the root of the hits that follow.
func (m *marker) begin(r leak.Root) error {
	err := m.flush()
	m.root = r
	return err
}

// hit marks block id and all that it leads to. Not all of that is followed at
// once: flush does the rest.
func (m *marker) hit(id uint32) error {
	marked := bitset(m.marked.s)
	if marked.has(id) {
		return nil
	}
	marked.set(id)
	m.push(id)
	if m.depth < batch {
		return nil
	}
	return m.drain()
}

func (m *marker) push(id uint32) {
	m.stack.s[m.depth] = id
	m.depth++
}

// batch is how many blocks are followed at a time: they lie all over memory,
// and their cache misses overlap.
const batch = 16

// drain follows the pointers of everything on the stack.
func (m *marker) drain() error {
	var ids, rows, first [batch]uint32
	var kinds [batch]uint16
	for m.depth > 0 {
		n := min(m.depth, batch)
		m.depth -= n
		copy(ids[:n], m.stack.s[m.depth:m.depth+n])
		for i, id := range ids[:n] {
			rows[i] = m.rows.s[id]
			kinds[i] = m.class.s[id]
		}
		for i, row := range rows[:n] {
			if row&oneEdge == 0 {
				first[i] = m.edges.s[row]
			}
		}
		for i, id := range ids[:n] {
			m.count(id, kinds[i])
			switch row := rows[i]; {
			case row == 0:
			case row == noRow:
				if err := m.reread(id); err != nil {
					return err
				}
			case row&oneEdge != 0:
				m.reached(row &^ oneEdge)
			default:
				m.row(row, first[i])
			}
		}
		if err := m.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// reached marks a block that a pointer leads to.
func (m *marker) reached(id uint32) {
	if marked := bitset(m.marked.s); !marked.has(id) {
		marked.set(id)
		m.push(id)
	}
}

// row marks what a row points to; edge is its first entry.
func (m *marker) row(row, edge uint32) {
	for {
		m.reached(edge &^ lastEdge)
		if edge&lastEdge != 0 {
			return
		}
		row++
		edge = m.edges.s[row]
	}
}

// reread marks what a block without a row points to.
func (m *marker) reread(id uint32) error {
	var before, last uint64
	p := m.space.where(id)
	return m.scan(p, m.buf, func(at, word uint64) {
		if t, ok := m.target(word); ok {
			m.reached(t)
		} else if mayBePacked(word) && at == last+8 {
			if t, ok := m.packed(before, word); ok && len(m.packedIDs) < maxPacked {
				m.packedIDs = append(m.packedIDs, t)
			}
		}
		before, last = word, at
	})
}

// follow calls f for each block of an entry of rows other than noRow.
func (g *graph) follow(row uint32, f func(uint32)) {
	switch {
	case row == 0:
	case row&oneEdge != 0:
		f(row &^ oneEdge)
	default:
		for {
			e := g.edges.s[row]
			f(e &^ lastEdge)
			if e&lastEdge != 0 {
				return
			}
			row++
		}
	}
}

// targets calls f for each block that the block id, which has no row, points
// to. It may do so several times for one.
func (g *graph) targets(id uint32, buf []byte, f func(uint32)) error {
	return g.scan(g.space.where(id), buf, func(_, word uint64) {
		if t, ok := g.target(word); ok {
			f(t)
		}
	})
}

// scan calls f for each word of a block that is not zero, skipping pages that
// were never touched.
func (g *graph) scan(p place, buf []byte, f func(at, word uint64)) error {
	r := leak.Range{Start: leak.Addr(p.user), End: leak.Addr(p.user + p.size&^7)}
	pages := leak.Range{Start: r.Start &^ (pageSize - 1), End: (r.End + pageSize - 1) &^ (pageSize - 1)}
	for _, part := range g.img.resident(pages) {
		at, end := max(uint64(part.Start), uint64(r.Start)), min(uint64(part.End), uint64(r.End))
		for at < end {
			n := min(end-at, uint64(len(buf)))
			if err := readFull(g.img.Mem, buf[:n], at); err != nil {
				return fmt.Errorf("a large block: %w", err)
			}
			g.read.Add(n)
			for b := buf[:n]; len(b) >= 8; b = b[8:] {
				if w := load(b); w != 0 {
					f(at+n-uint64(len(b)), w)
				}
			}
			at += n
		}
	}
	return nil
}

// count books a reached block on the root.
func (m *marker) count(id uint32, class uint16) {
	if class == 0 {
		m.various += m.space.where(id).size
	}
	if m.n[class] == 0 {
		m.touched = append(m.touched, class)
	}
	m.n[class]++
}

const (
	maxHeld  = 200 // rows that are told
	heldRoom = 8192
)

// flush follows what is left of the root's hits and books what it held.
func (m *marker) flush() error {
	if err := m.drain(); err != nil {
		return err
	}
	for _, c := range m.touched {
		row := heldRow{root: m.root, class: c, n: m.n[c], bytes: m.n[c] * m.classes.list[c].size}
		if c == 0 {
			row.bytes = m.various
		}
		m.n[c] = 0
		m.held = append(m.held, row)
	}
	m.touched, m.various = m.touched[:0], 0
	if len(m.held) > heldRoom {
		m.sortHeld()
		m.held = m.held[:heldRoom/2]
	}
	return nil
}

func (m *marker) sortHeld() {
	sort.SliceStable(m.held, func(i, j int) bool { return m.held[i].bytes > m.held[j].bytes })
}

// holders lists who holds the most.
func (m *marker) holders(o *Options) []leak.Held {
	m.sortHeld()
	out := make([]leak.Held, 0, maxHeld)
	for _, row := range m.held[:min(len(m.held), maxHeld)] {
		c := m.classes.list[row.class]
		h := leak.Held{Root: row.root, Size: c.size, Shape: c.shape, N: row.n, Bytes: row.bytes}
		if o.Atlas != nil && c.kind != 0 {
			h.Type = o.Atlas.Frame(leak.Addr(c.kind))
		}
		out = append(out, h)
	}
	return out
}
