package ledger

import (
	"slices"

	"stanch/internal/leak"
)

// groupKey is what lost blocks have in common.
type groupKey struct {
	size  uint64
	typ   leak.Frame
	shape leak.Shape
	magic uint8
}

// groups gives each kind of lost block a number and keeps what is known of the
// kind as such.
type groups struct {
	ids  map[groupKey]uint32
	list []group
	last uint32 // given last; neighbours are often alike
}

type group struct {
	groupKey
	heads    [][]byte
	returned uint64
	disproof uint64
}

// Heads of blocks are kept only when the user asked for contents; a few show
// what they are.
const (
	maxHeads = 3
	maxHead  = 64
)

func newGroups() groups { return groups{ids: map[groupKey]uint32{}} }

func (g *groups) id(k groupKey) uint32 {
	if int(g.last) < len(g.list) && g.list[g.last].groupKey == k {
		return g.last
	}
	if id, ok := g.ids[k]; ok {
		g.last = id
		return id
	}
	id := uint32(len(g.list))
	g.ids[k] = id
	g.list = append(g.list, group{groupKey: k})
	return id
}

func (g *groups) size(id uint32) uint64 { return g.list[id].size }

func (g *groups) head(id uint32, head []byte) {
	e := &g.list[id]
	head = head[:min(len(head), maxHead)]
	if len(e.heads) < maxHeads && !slices.ContainsFunc(e.heads, func(h []byte) bool { return slices.Equal(h, head) }) {
		e.heads = append(e.heads, slices.Clone(head))
	}
}

// vanished counts a directly lost block that a later look found reachable or
// freed; proved when two looks apart had already found it lost.
func (g *groups) vanished(id uint32, proved bool) {
	g.list[id].returned++
	if proved {
		g.list[id].disproof++
	}
}

// heldKey is what reachable blocks have in common.
type heldKey struct {
	root  leak.Root
	size  uint64
	typ   leak.Frame
	shape leak.Shape
}

type heldCount struct{ n, bytes uint64 }

// heldBooks keep who held what in the first and in the last look.
type heldBooks struct{ first, last map[heldKey]heldCount }

func newHeldBooks() heldBooks { return heldBooks{} }

func (h *heldBooks) look(hs []leak.Held, first bool) {
	m := make(map[heldKey]heldCount, len(hs))
	for i := range hs {
		k := heldKey{hs[i].Root, hs[i].Size, hs[i].Type, hs[i].Shape}
		c := m[k]
		m[k] = heldCount{c.n + hs[i].N, c.bytes + hs[i].Bytes}
	}
	if first {
		h.first = m
	}
	h.last = m
}
