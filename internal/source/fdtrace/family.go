package fdtrace

import (
	"cmp"
	"slices"

	"stanch/internal/leak"
)

// copied is a table that was copied from another one by fork. What its numbers
// stand for is known once nothing that overlaps the copying can come.
type copied struct {
	from, to    *table
	enter, exit uint64 // between these the copy was made
	base        map[int32]inherited
}

// inherited is what a copy holds, and when the original came to it.
type inherited struct {
	holder
	origin uint64
}

// doubtCopy makes the opener of a number in a copy unknown, and in copies of
// that.
func (b *books) doubtCopy(c *copied, num int32) {
	h, ok := c.base[num]
	if !ok {
		return
	}
	h.stack = 0
	c.base[num] = h
	for _, other := range b.copies {
		if other.from == c.to && other != c {
			b.doubtCopy(other, num)
		}
	}
}

// forked makes the books of a child, which has a copy of its parent's table or
// shares it.
func (b *books) forked(e *event, tail []byte) {
	parent := b.live[e.Tgid]
	if parent == nil {
		if parent = b.late(e.Tgid); parent == nil {
			return
		}
	}
	if old := b.live[e.Subject]; old != nil {
		b.end(old, e.Exit)
	}
	child := b.add(e.Subject, e.Visible, e.Start)
	child.code.inherit(parent.code)
	from := b.tableOf(parent, e.Before, e.Exit)
	if e.Files == e.Before {
		b.join(child, e.Files)
		return
	}
	b.copyTable(from, b.fresh(child, e.Files), e, tail, "fork")
}

// fresh gives a process a new table. What stood at its address is gone.
func (b *books) fresh(p *process, files uint64) *table {
	delete(b.tables, files)
	t := b.join(p, files)
	t.vague = false
	return t
}

func (b *books) copyTable(from, to *table, e *event, tail []byte, call string) {
	c := &copied{from: from, to: to, enter: e.Enter, exit: e.Exit, base: map[int32]inherited{}}
	bitmap(tail).each(func(num int32) {
		h := inherited{holder: holder{open: true, at: e.Exit, call: call}, origin: e.Exit}
		if from.copy != nil {
			if was, ok := from.copy.base[num]; ok {
				h.stack, h.origin = was.stack, was.origin
			}
		}
		if s := from.slots[num]; s != nil {
			was := s.now()
			h.stack, h.origin = was.stack, was.at
			for i := range s.recent {
				if s.recent[i].exit >= e.Enter {
					h.stack = 0
				}
			}
			if !was.open {
				h.stack = 0
			}
		}
		c.base[num] = h
	})
	b.copies = append(b.copies, c)
	to.copy = c
}

// doubtOf tells until when something was lost that was done to a number.
func (t *table) doubtOf(num int32) uint64 {
	if s := t.slots[num]; s != nil {
		return max(t.doubt, s.doubt)
	}
	return t.doubt
}

// ripe says what copies hold that are old enough.
func (b *books) ripe(now uint64) {
	for len(b.copies) > 0 && b.copies[0].exit+grace <= now {
		b.finish(b.copies[0])
	}
}

// finish says all that a copy holds.
func (b *books) finish(c *copied) {
	b.copies = slices.DeleteFunc(b.copies, func(other *copied) bool { return other == c })
	nums := make([]int32, 0, len(c.base))
	for num := range c.base {
		nums = append(nums, num)
	}
	slices.Sort(nums)
	for _, num := range nums {
		b.inherit(c, num)
	}
	if c.to.copy == c {
		c.to.copy = nil
	}
}

// inherit says one number that a copy holds.
func (b *books) inherit(c *copied, num int32) {
	h, ok := c.base[num]
	if !ok {
		return
	}
	if doubt := c.from.doubtOf(num); doubt >= h.origin {
		b.doubtCopy(c, num)
		h = c.base[num]
	}
	delete(c.base, num)
	s := c.to.slot(num)
	b.acquire(ref(c.to.owner, num), h.holder)
	s.base, s.said = h.holder, h.holder
}

// executed is a successful execve: what was marked close-on-exec is closed,
// and another program runs.
func (b *books) executed(p *process, e *event, tail []byte) {
	t := p.table
	switch {
	case t == nil:
		b.strayed(p, e.Files, e.Exit)
	case b.tables[e.Files] == t:
		b.compare(t, bitmap(tail), e, "exec")
	case t.users > 1:
		b.copyTable(t, b.fresh(p, e.Files), e, tail, "exec")
	default:
		// The process had several threads: the kernel gave it a copy.
		b.move(t, e.Files)
		b.compare(t, bitmap(tail), e, "exec")
	}
	p.code.replaced(e.Exit)
}

// move notes that a table has another address now.
func (b *books) move(t *table, files uint64) {
	for old, other := range b.tables {
		if other == t {
			delete(b.tables, old)
		}
	}
	b.tables[files] = t
}

// parted notes that a thread has left the table it shared with others, by
// unshare or close_range, for a copy.
func (b *books) parted(p *process, e *event, tail []byte) {
	from := b.tables[e.Before]
	if from == nil {
		return
	}
	if from.owner != p {
		b.copyTable(from, b.fresh(p, e.Files), e, tail, "fork")
		return
	}
	b.gap("a thread of process %d has left the descriptors it shared with the others: which are whose is not told", p.id.PID)
	b.tables[e.Files] = from
}

// compare closes what the kernel's table does not hold.
func (b *books) compare(t *table, bits bitmap, e *event, call string) {
	if t.copy != nil {
		for num := range t.copy.base {
			if !bits.has(num) {
				b.inherit(t.copy, num)
			}
		}
	}
	for num, s := range t.slots {
		if s.mayBeOpen() && !bits.has(num) && (e.Bytes == e.Most || int(num) < len(bits)*8) {
			b.act(t, num, action{enter: e.Exit, exit: e.Exit, closes: true, call: call})
		}
	}
}

// exited ends the books of a process: the kernel closes all it held.
func (b *books) exited(e *event) {
	if p := b.live[e.Tgid]; p != nil {
		b.end(p, e.Exit)
	}
}

func (b *books) end(p *process, at uint64) {
	delete(b.live, p.tgid)
	t := p.table
	if t == nil {
		return
	}
	if t.copy != nil {
		b.finish(t.copy)
	}
	b.settleTable(t)
	if t.users == 1 {
		for _, num := range t.numbers() {
			s := t.slots[num]
			if s.said.open {
				b.sink.Release(leak.Release{At: b.at(at), Ref: ref(t.owner, num), Call: "exit"})
			}
			b.forgetUse(p, num)
		}
		clear(t.slots)
	}
	b.leave(p, at)
}

// numbers lists the numbers of a table in order.
func (t *table) numbers() []int32 {
	nums := make([]int32, 0, len(t.slots))
	for num := range t.slots {
		nums = append(nums, num)
	}
	slices.SortFunc(nums, cmp.Compare)
	return nums
}

// settleTable says what all numbers stand for now.
func (b *books) settleTable(t *table) {
	if t == nil {
		return
	}
	for _, num := range t.numbers() {
		s := t.slots[num]
		b.say(t, num, s)
	}
}
