package ledger

import (
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
)

// lostSet holds the lost blocks of one look, sorted by address, 20 bytes each.
// It is never changed once it is sealed, so a View may share it.
type lostSet struct {
	addr  []uint64
	group []uint32 // into groups
	owner []uint32 // for indirect ones the index of the owner here, plus one
	since []uint16 // the first look since when it is lost without a break
	seen  []uint16 // the last look that listed it
}

func (s *lostSet) find(addr uint64) (int, bool) {
	if s == nil {
		return 0, false
	}
	return slices.BinarySearch(s.addr, addr)
}

func (s *lostSet) has(addr uint64) bool {
	_, ok := s.find(addr)
	return ok
}

// incoming collects the verdicts of a look while they come in, in any order.
type incoming struct {
	look   leak.Look
	pages  [][]verdict
	n      int
	sorted bool // so far each address was above the one before
	last   uint64
	held   []leak.Held
}

// verdict is a leak.Verdict without its words: 24 bytes. The owner of a
// directly lost block is zero.
type verdict struct {
	addr, owner uint64
	group       uint32
}

// Pages keep the growth of a slice of millions from copying it over and over.
const pageLen = 1 << 14

func (in *incoming) add(v *leak.Verdict, g *groups) {
	if v.State != leak.LostDirect && v.State != leak.LostIndirect {
		return
	}
	if len(in.pages) == 0 || len(in.pages[len(in.pages)-1]) == pageLen {
		in.pages = append(in.pages, make([]verdict, 0, pageLen))
	}
	e := verdict{addr: v.Ref.ID, group: g.id(groupKey{v.Size, v.Type, v.Shape, v.Magic})}
	if v.State == leak.LostIndirect {
		e.owner = v.Owner
	}
	if len(v.Head) > 0 {
		g.head(e.group, v.Head)
	}
	in.sorted = in.n == 0 || in.sorted && in.last < e.addr
	in.last = e.addr
	in.n++
	p := &in.pages[len(in.pages)-1]
	*p = append(*p, e)
}

// set makes the sorted set. A block that was said twice counts once, as
// directly lost if any of the two said so.
func (in *incoming) set() *lostSet {
	if !in.sorted && in.n > 0 {
		all := slices.Concat(in.pages...)
		slices.SortFunc(all, func(a, b verdict) int {
			switch {
			case a.addr != b.addr && a.addr < b.addr, a.addr == b.addr && a.owner < b.owner:
				return -1
			case a == b:
				return 0
			}
			return 1
		})
		all = slices.CompactFunc(all, func(a, b verdict) bool { return a.addr == b.addr })
		in.pages, in.n = [][]verdict{all}, len(all)
	}
	s := &lostSet{addr: make([]uint64, 0, in.n), group: make([]uint32, 0, in.n)}
	indirect := false
	for _, p := range in.pages {
		for i := range p {
			s.addr = append(s.addr, p[i].addr)
			s.group = append(s.group, p[i].group)
			indirect = indirect || p[i].owner != 0
		}
	}
	if indirect {
		s.own(in.pages)
	}
	return s
}

// own resolves the owners' addresses. A block whose owner was not said, or is
// not directly lost itself, counts as directly lost.
func (s *lostSet) own(pages [][]verdict) {
	direct := make([]bool, 0, len(s.addr))
	for _, p := range pages {
		for i := range p {
			direct = append(direct, p[i].owner == 0)
		}
	}
	s.owner = make([]uint32, 0, len(s.addr))
	var lastAddr uint64
	var last uint32
	for _, p := range pages {
		for i := range p {
			if p[i].owner == 0 {
				s.owner = append(s.owner, 0)
				continue
			}
			if p[i].owner != lastAddr {
				lastAddr, last = p[i].owner, 0
				if j, ok := s.find(lastAddr); ok && direct[j] {
					last = uint32(j) + 1
				}
			}
			s.owner = append(s.owner, last)
		}
	}
}

// direct reports whether block i is directly lost.
func (s *lostSet) direct(i int) bool { return s.owner == nil || s.owner[i] == 0 }

// head gives the index of the directly lost block that i is charged to.
func (s *lostSet) head(i int) int {
	if s.direct(i) {
		return i
	}
	return int(s.owner[i]) - 1
}

// phase counts the looks begun so far; it orders what is said around them.
func (b *books) phase() uint16 {
	n := len(b.looks) + len(b.blind)
	if b.open != nil {
		n++
	}
	return uint16(min(n, maxLooks-1))
}

// seal closes the look that is coming in: it sorts its blocks, finds which of
// them were lost before, and forgets the older set.
func (b *books) seal() {
	in := b.open
	if in == nil {
		return
	}
	phase := b.phase()
	b.open = nil
	if !in.look.Walked && in.n == 0 {
		b.blind = append(b.blind, in.look)
		return
	}
	cur := in.set()
	in.pages = nil
	if len(b.looks) == maxLooks {
		// The time of the last one moves on: blocks look younger than they are.
		b.looks[maxLooks-1] = in.look
	} else {
		b.looks = append(b.looks, in.look)
	}
	now := uint16(len(b.looks) - 1)
	cur.since = make([]uint16, len(cur.addr))
	cur.seen = make([]uint16, len(cur.addr))
	for i := range cur.since {
		cur.since[i], cur.seen[i] = now, now
	}
	if b.lost != nil && now > 0 {
		if left := b.join(b.lost, cur, phase); len(left) > 0 {
			cur = cur.with(b.lost, left)
		}
	}
	b.lost = cur
	b.phases = append(b.phases[:now], phase)
	b.held.look(in.held, now == 0)
	for addr, at := range b.release {
		if at <= in.look.At || !cur.has(addr) {
			delete(b.release, addr)
		}
	}
}

// join carries over since when a block is lost, and counts the blocks that
// were lost and then were not. It gives the indices of those that the later
// look may have left out of judgement.
func (b *books) join(prev, cur *lostSet, phase uint16) (left []int) {
	before, now := &b.looks[len(b.looks)-2], &b.looks[len(b.looks)-1]
	sure, judged := Certain(before) && Certain(now), !withholds(now)
	j := 0
	for i, addr := range prev.addr {
		for j < len(cur.addr) && cur.addr[j] < addr {
			j++
		}
		listed := j < len(cur.addr) && cur.addr[j] == addr
		renewed := b.renewed(addr, before.At, now.At, phase)
		switch {
		case renewed:
		case listed && b.groups.size(prev.group[i]) == b.groups.size(cur.group[j]):
			cur.since[j] = prev.since[i]
			continue
		case !listed && !judged:
			left = append(left, i)
			continue
		}
		if sure && prev.direct(i) {
			b.groups.vanished(prev.group[i], b.proved(prev.since[i], prev.seen[i]))
		}
	}
	return left
}

// with gives the union with the blocks of prev at the indices left.
func (s *lostSet) with(prev *lostSet, left []int) *lostSet {
	n := len(s.addr) + len(left)
	u := &lostSet{
		addr: make([]uint64, 0, n), group: make([]uint32, 0, n), owner: make([]uint32, n),
		since: make([]uint16, 0, n), seen: make([]uint16, 0, n),
	}
	add := func(from *lostSet, i int) {
		u.addr = append(u.addr, from.addr[i])
		u.group = append(u.group, from.group[i])
		u.since = append(u.since, from.since[i])
		u.seen = append(u.seen, from.seen[i])
	}
	i := 0
	for _, j := range left {
		for i < len(s.addr) && s.addr[i] < prev.addr[j] {
			add(s, i)
			i++
		}
		add(prev, j)
	}
	for ; i < len(s.addr); i++ {
		add(s, i)
	}
	// Owners are found again by their addresses, first among the new ones.
	for i, addr := range u.addr {
		from := s
		at, ok := s.find(addr)
		if !ok {
			from = prev
			at, _ = prev.find(addr)
		}
		if from.direct(at) {
			continue
		}
		if h, ok := u.find(from.addr[from.head(at)]); ok && h != i {
			u.owner[i] = uint32(h) + 1
		}
	}
	for i, o := range u.owner {
		if o != 0 && u.owner[o-1] != 0 {
			u.owner[i] = 0 // what led to it is itself below another now
		}
	}
	return u
}

// clockSlack is by how much the time of one record may differ when a probe
// says it again: it tells the time by a counter whose speed it measures, and
// NTP may slow the clock by a 2000th (adjtimex(2), at most 500 ppm).
func clockSlack(at time.Duration) time.Duration { return 10*time.Millisecond + at.Abs()/2000 }

// renewed reports whether the block at addr, lost at both times, was given
// back in between, so that another block took its place.
func (b *books) renewed(addr uint64, before, now time.Duration, phase uint16) bool {
	if at, ok := b.release[addr]; ok && at > before && at <= now {
		return true
	}
	// A record that was said before the earlier look is not newer than it,
	// whatever its coarse clock says.
	r, ok := b.live.memory[addr]
	return ok && r.said+1 >= phase && r.at+clockSlack(r.at) > before
}

// Certain reports whether a look can support a proof: the heap was walked
// completely and nothing could hide a pointer.
func Certain(k *leak.Look) bool { return k.Walked && !k.PendingIO && len(Doubts(k)) == 0 }

// Doubts gives what weakens the verdicts of a look, without what only was left
// out of judgement.
func Doubts(k *leak.Look) []string {
	var out []string
	for _, u := range k.Uncertainty {
		if !withheld(u) {
			out = append(out, u)
		}
	}
	return out
}

// withheld reports whether an uncertainty leaves blocks out of judgement.
func withheld(uncertainty string) bool { return strings.HasSuffix(uncertainty, "called lost") }

// withholds reports whether a look left blocks out of judgement, so that one
// that it does not list may be lost still.
func withholds(k *leak.Look) bool { return slices.ContainsFunc(k.Uncertainty, withheld) }

// ProofApart is how far two looks must lie apart for a block that is lost in
// both to be proved lost: a pointer that is under way in a pipe or a register
// arrives within that time.
const ProofApart = time.Second

// proved reports whether a block that is lost since one look, and was last
// listed by another, is proved lost: the last certain look up to then and an
// earlier certain one, far enough apart, both listed it; or one certain look
// at the exit did, when nothing was under way any more.
func (b *books) proved(since, seen uint16) bool {
	if k := &b.looks[seen]; k.Final && Certain(k) {
		return true
	}
	last := int(seen)
	for ; last > int(since); last-- {
		if k := &b.looks[last]; Certain(k) && (last == int(seen) || !withholds(k)) {
			break
		}
	}
	for i := int(since); i < last; i++ {
		k := &b.looks[i]
		if Certain(k) && (i == int(since) || !withholds(k)) && b.looks[last].At-k.At >= ProofApart {
			return true
		}
	}
	return false
}
