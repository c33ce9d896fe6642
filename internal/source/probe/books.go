package probe

import (
	"bytes"
	"fmt"
	"math"

	"stanch/internal/leak"
)

// reader turns the books in the target's memory into observations. It knows
// each stack once it has read it.
type reader struct {
	means  []uint64 // sampling intervals, by the index that a record keeps
	stacks map[uint32]leak.StackID
}

// weight is how many blocks of this size one sampled block stands for.
func weight(size, mean uint64) float64 {
	if mean == 0 {
		return 1
	}
	// One byte is added to each request, so that those for nothing have a
	// chance of being sampled too.
	return -1 / math.Expm1(-float64(size+1)/float64(mean))
}

// stackEntry is struct stack.
type stackEntry struct {
	index              uint32
	frames             uint32
	n                  int
	exact, cut         bool
	kind               leak.Kind
	acquired, released leak.Count
}

// decodeStack reads one entry; false when it is free or still being written.
func decodeStack(b []byte, index uint32) (stackEntry, bool) {
	flags := b[wStackFlags]
	u := func(off int) uint64 { return order.Uint64(b[off:]) }
	e := stackEntry{index: index, exact: flags&wStackExact != 0, cut: flags&wStackCut != 0, kind: leak.KindMemory}
	unknown := index < wStacksUnknown
	switch {
	case flags&wStackPool != 0:
		e.kind = leak.KindPool
	case flags&wStackFd != 0 || index == wStackUnknownFd:
		e.kind = leak.KindDescriptor
	}
	if unknown {
		e.exact = index >= 1
	} else if flags&wStackReady == 0 {
		return e, false
	}
	e.frames, e.n = order.Uint32(b[wStackFrames:]), int(b[wStackN])
	count := func(n, bytes uint64) leak.Count {
		if e.exact {
			return leak.Count{N: float64(n), Bytes: float64(n*u(wStackBlock) + bytes)}
		}
		return leak.Count{N: float64(n) / wWeightOne, Bytes: float64(bytes)}
	}
	e.acquired = count(u(wStackAcqN), u(wStackAcqBytes))
	e.released = count(u(wStackRelN)+u(wStackFarN), u(wStackRelBytes)+u(wStackFarBytes))
	return e, e.acquired.N > 0
}

// head reads struct books.
func (p *Probe) bookHead(mem leak.Memory) (*bookHead, error) {
	b, err := read(mem, p.data.start, wBooksSize)
	if err != nil {
		return nil, err
	}
	h, ok := decodeBooks(b)
	if !ok || h.stacks != p.data.stacks || h.buckets != p.data.buckets || h.stacksMax != p.data.stackCount || h.level > h.levelMax || uint64(h.levelMax) != p.data.levels-1 {
		return nil, fmt.Errorf("the probe's books at %#x are not there: %w", p.data.start, errBooks)
	}
	return h, nil
}

// entries reads the stack table.
func (p *Probe) entries(mem leak.Memory, head *bookHead) ([]stackEntry, error) {
	n := min(head.stacksUsed, p.data.stackCount)
	b, err := read(mem, p.data.stacks, n*wStackSize)
	if err != nil {
		return nil, err
	}
	var out []stackEntry
	for i := range uint32(n) {
		if e, ok := decodeStack(b[int(i)*wStackSize:], i); ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// stackID names the stack of an entry, once: later its module may be gone.
// p.mu is held.
func (p *Probe) stackID(mem leak.Memory, e *stackEntry) (leak.StackID, error) {
	if id, ok := p.books.stacks[e.index]; ok {
		return id, nil
	}
	if e.n == 0 || uint64(e.frames)+uint64(e.n) > p.data.frameCount {
		return 0, nil
	}
	b, err := read(mem, p.data.frames+8*uint64(e.frames), 8*uint64(e.n))
	if err != nil {
		return 0, err
	}
	frames := make([]leak.Frame, e.n)
	own := 0
	for i := range frames {
		at := order.Uint64(b[8*i:])
		if at >= p.text.start && at < p.text.end() {
			own++ // a hook that stays around its original
			continue
		}
		// A return address points behind its call; what a signal
		// interrupted, the probe has moved by one.
		frames[i-own] = p.watch.frame(p.o.Atlas, leak.Addr(at-1))
	}
	frames = frames[:len(frames)-own]
	id := p.o.Atlas.Stack(frames)
	if p.books.stacks == nil {
		p.books.stacks = map[uint32]leak.StackID{}
	}
	p.books.stacks[e.index] = id
	return id, nil
}

// Books says every recorded block that mem holds to sink, as an Acquire, and
// the sums of each stack as Tallies. mem is a snapshot of the target, so that
// the books match its heap, or nil for the live process; there, what changes
// meanwhile may be missing or stand twice.
func (p *Probe) Books(mem leak.Memory, sink leak.Sink) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mem == nil {
		mem = p.mem
		// Watch may not have looked yet, or not to the end.
		maps := p.watch.maps
		if len(maps) == 0 {
			var err error
			if maps, err = p.t.Maps(); err != nil {
				return err
			}
		}
		p.o.Atlas.Update(maps)
	}
	head, err := p.bookHead(mem)
	if err != nil {
		return err
	}
	ids, err := p.tally(mem, head, sink)
	if err != nil {
		return err
	}
	if err := p.drain(mem, head, true, sink); err != nil {
		return err
	}
	if err := p.followDescriptors(head, mem == leak.Memory(p.mem), sink); err != nil {
		return err
	}
	if err := p.sayInputs(sink); err != nil {
		return err
	}
	if mem == leak.Memory(p.mem) {
		if err := p.losses(head, sink); err != nil {
			return err
		}
	}
	if p.watch.cost.off {
		return nil // releases are not seen any more
	}
	return p.blocks(mem, head, func(r block) {
		sink.Acquire(leak.Acquire{
			At: timeOf(r.time), Ref: p.ref(kindOf(r.pool), r.addr),
			Size: r.size, Stack: ids[r.stack], Weight: r.weight, Exact: r.exact,
		})
	})
}

// tally says the sums of all stacks, and gives the ID of each.
func (p *Probe) tally(mem leak.Memory, head *bookHead, sink leak.Sink) (map[uint32]leak.StackID, error) {
	entries, err := p.entries(mem, head)
	if err != nil {
		return nil, err
	}
	// Two entries of one kind may be one stack: code that was unmapped and
	// mapped again starts new ones.
	type key struct {
		id    leak.StackID
		exact bool
		kind  leak.Kind
	}
	sums := map[key]*leak.Tally{}
	var inOrder []*leak.Tally
	ids := make(map[uint32]leak.StackID, len(entries))
	now := p.o.Clock.Now()
	for i := range entries {
		e := &entries[i]
		id, err := p.stackID(mem, e)
		if err != nil {
			return nil, err
		}
		ids[e.index] = id
		k := key{id, e.exact, e.kind}
		t := sums[k]
		if t == nil {
			t = &leak.Tally{At: now, Proc: p.t.ID, Kind: k.kind, Stack: id, Exact: e.exact}
			sums[k] = t
			inOrder = append(inOrder, t)
		}
		t.Acquired = plus(t.Acquired, e.acquired)
		t.Released = plus(t.Released, e.released)
	}
	for _, t := range inOrder {
		sink.Tally(*t)
	}
	return ids, nil
}

func kindOf(pool bool) leak.Kind {
	if pool {
		return leak.KindPool
	}
	return leak.KindMemory
}

func plus(a, b leak.Count) leak.Count { return leak.Count{N: a.N + b.N, Bytes: a.Bytes + b.Bytes} }

// block is one record of the live table.
type block struct {
	addr, size uint64
	stack      uint32
	time       uint32
	weight     float64
	exact      bool
	pool       bool
}

// blocks calls f for each record. The two words of one that changes while it is
// read from the live process may not belong together: such a bucket is read
// again until it is the same twice, and its restless records are left out.
func (p *Probe) blocks(mem leak.Memory, head *bookHead, f func(block)) error {
	const chunk = 2048 // buckets at a time
	total := bucketsIn(uint64(head.level) + 1)
	moving := mem == leak.Memory(p.mem)
	for at := uint64(0); at < total; at += chunk {
		n := min(chunk, total-at)
		b, err := read(mem, p.data.buckets+at*wBucketSize, n*wBucketSize)
		if err != nil {
			return err
		}
		again := b
		if moving {
			if again, err = read(mem, p.data.buckets+at*wBucketSize, n*wBucketSize); err != nil {
				return err
			}
		}
		for ; len(b) > 0; b, again = b[wRecSize:], again[wRecSize:] {
			rec := b[:wRecSize]
			if moving {
				for try := 0; try < 3 && !bytes.Equal(rec, again[:wRecSize]); try++ {
					where := p.data.buckets + at*wBucketSize + n*wBucketSize - uint64(len(b))
					copy(rec, again)
					if err := readInto(mem, again[:wRecSize], where); err != nil {
						return err
					}
				}
				if !bytes.Equal(rec, again[:wRecSize]) {
					continue
				}
			}
			if r, ok := p.record(rec); ok {
				f(r)
			}
		}
	}
	return nil
}

// record reads one record; false when there is none, or one that is just being
// written.
func (p *Probe) record(b []byte) (block, bool) {
	key, info := order.Uint64(b), order.Uint64(b[8:])
	if key == 0 || key&1 != 0 {
		return block{}, false
	}
	r := block{addr: key & (1<<wAddressBits - 1), pool: key>>wAddressBits&1 != 0, stack: uint32(info & (1<<wStackBits - 1)), weight: 1}
	r.size = info >> wRecSizeShift & (1<<wRecSizeBits - 1)
	if info>>(wRecSizeShift+wRecSizeBits)&1 != 0 {
		r.size <<= 12
	}
	r.time = uint32(key>>wKeyTimeShift | info>>wRecTimeShift&15<<16)
	mean := info >> wRecMeanShift
	if r.exact = mean == wRecExact; !r.exact {
		r.weight = weight(r.size, p.books.means[mean])
	}
	return r, true
}

// sum adds up what the slots count.
type slotSums struct {
	calls, slow, timed, cycles, releases float64
	threads                              int
}

// slots reads the threads' slots.
func (p *Probe) slots(mem leak.Memory) ([]byte, error) {
	return read(mem, p.near().start+wNearSlot, wSlots*wSlotSize)
}

func sumSlots(b []byte) slotSums {
	var s slotSums
	for ; len(b) >= wSlotSize; b = b[wSlotSize:] {
		if order.Uint64(b[wSlotOwner:]) == 0 {
			continue
		}
		s.threads++
		s.calls += float64(order.Uint64(b[wSlotCalls:]))
		s.slow += float64(order.Uint64(b[wSlotSlow:]))
		s.timed += float64(order.Uint64(b[wSlotTimed:]))
		s.cycles += float64(order.Uint64(b[wSlotCycles:]))
		s.releases += float64(order.Uint64(b[wSlotReleases:]))
	}
	return s
}
