package heap

import (
	"math/bits"

	"stanch/internal/leak"
)

// lost is what no root leads to, and which of it leads to which.
//
// A lost block that no other lost block points to is lost directly, and what it
// leads to is lost by it, indirectly. In a ring of lost blocks one stands for
// all. Every indirect block has one leader, so that the sums are exact.
type lost struct {
	*graph
	set    bitset        // the lost blocks
	ranks  []uint32      // lost blocks before each word of set
	n      uint32        // how many
	owner  array[uint32] // for each lost block, in order: its leader's number plus one; 0 while undecided
	stack  array[uint32]
	buf    []byte
	direct uint64
}

// findLost decides over all blocks that are not marked.
func findLost(g *graph) (*lost, error) {
	l := &lost{graph: g, buf: make([]byte, 64<<10)}
	words := int(g.space.total)/64 + 1
	l.set, l.ranks = make(bitset, words), make([]uint32, words)
	for i := range l.set {
		l.ranks[i] = l.n
		l.set[i] = ^g.marked.s[i]
		if left := int(g.space.total) - 64*i; left < 64 {
			l.set[i] &= 1<<max(left, 0) - 1
		}
		l.n += uint32(bits.OnesCount64(l.set[i]))
	}
	var err error
	if l.owner, err = newArray[uint32](int(l.n)); err != nil {
		return nil, err
	}
	if l.stack, err = newArray[uint32](int(l.n) + 1); err != nil {
		return nil, err
	}
	if l.n == 0 {
		return l, nil
	}
	return l, l.decide()
}

func (l *lost) free() {
	l.owner.free()
	l.stack.free()
}

// rank is the position of a lost block among the lost.
func (l *lost) rank(id uint32) uint32 {
	return l.ranks[id>>6] + uint32(bits.OnesCount64(l.set[id>>6]&(1<<(id&63)-1)))
}

// each calls f for every lost block in the order of numbers.
func (l *lost) each(f func(id uint32) error) error {
	for i, word := range l.set {
		for ; word != 0; word &= word - 1 {
			if err := f(uint32(64*i + bits.TrailingZeros64(word))); err != nil {
				return err
			}
		}
	}
	return nil
}

// next calls f for each other lost block that id points to.
func (l *lost) next(id uint32, f func(uint32)) error {
	filter := func(t uint32) {
		if t != id && l.set.has(t) {
			f(t)
		}
	}
	row := l.rows.s[id]
	if row == noRow {
		return l.targets(id, l.buf, filter)
	}
	l.follow(row, filter)
	return nil
}

func (l *lost) decide() error {
	pointed := make(bitset, len(l.set))
	err := l.each(func(id uint32) error {
		return l.next(id, pointed.set)
	})
	if err != nil {
		return err
	}
	err = l.each(func(id uint32) error {
		if pointed.has(id) {
			return nil
		}
		return l.lead(id)
	})
	if err != nil {
		return err
	}
	return l.rings()
}

// lead makes id a leader and gives it all undecided blocks that it leads to.
func (l *lost) lead(id uint32) error {
	l.direct++
	l.owner.s[l.rank(id)] = id + 1
	depth := 1
	l.stack.s[0] = id
	for depth > 0 {
		depth--
		at := l.stack.s[depth]
		err := l.next(at, func(t uint32) {
			if r := l.rank(t); l.owner.s[r] == 0 {
				l.owner.s[r] = id + 1
				l.stack.s[depth] = t
				depth++
			}
		})
		if err != nil {
			return err
		}
		if err := l.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// rings finds leaders among what is left: blocks that only rings of lost blocks
// lead to. In a depth-first search through them, the block that is left last is
// part of a ring that nothing else leads to (as in Kosaraju's algorithm for
// strong components). It becomes a leader, what it leads to is decided, and the
// last of the rest is one again.
func (l *lost) rings() error {
	seen := make(bitset, len(l.set))
	var left uint32
	for _, o := range l.owner.s {
		if o == 0 {
			left++
		}
	}
	if left == 0 {
		return nil
	}
	done, err := newArray[uint32](int(left))
	if err != nil {
		return err
	}
	defer done.free()
	n := 0
	err = l.each(func(id uint32) error {
		return l.descend(id, seen, func(id uint32) {
			done.s[n] = id
			n++
		})
	})
	if err != nil {
		return err
	}
	for n--; n >= 0; n-- {
		if id := done.s[n]; l.owner.s[l.rank(id)] == 0 {
			if err := l.lead(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// descend searches depth-first through undecided blocks and calls leave for
// each when all it leads to has been left.
func (l *lost) descend(id uint32, seen bitset, leave func(uint32)) error {
	if seen.has(id) || l.owner.s[l.rank(id)] != 0 {
		return nil
	}
	// A block stands on the stack twice: below what it leads to, to be left,
	// and on top, to be entered. Entering marks it with leaving.
	const leaving = 1 << 31
	var stack []uint32
	stack = append(stack, id)
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		if at&leaving != 0 {
			stack = stack[:len(stack)-1]
			leave(at &^ leaving)
			continue
		}
		if seen.has(at) {
			stack = stack[:len(stack)-1]
			continue
		}
		seen.set(at)
		stack[len(stack)-1] = at | leaving
		err := l.next(at, func(t uint32) {
			if !seen.has(t) && l.owner.s[l.rank(t)] == 0 {
				stack = append(stack, t)
			}
		})
		if err != nil {
			return err
		}
	}
	return l.ctx.Err()
}

// state tells what a lost block is, and its leader when it has one.
func (l *lost) state(id uint32) (leak.State, uint32) {
	if o := l.owner.s[l.rank(id)] - 1; o != id {
		return leak.LostIndirect, o
	}
	return leak.LostDirect, 0
}
