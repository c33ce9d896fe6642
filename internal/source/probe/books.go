package probe

import (
	"fmt"
	"math"
	"time"

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
	acquired, released leak.Count
}

// decodeStack reads one entry; false when it is free or still being written.
func decodeStack(b []byte, index uint32) (stackEntry, bool) {
	flags := b[wStackFlags]
	e := stackEntry{index: index, exact: flags&wStackExact != 0, cut: flags&wStackCut != 0}
	unknown := index < 2
	if unknown {
		e.exact = index == 1
	} else if flags&wStackReady == 0 {
		return e, false
	}
	e.frames, e.n = order.Uint32(b[wStackFrames:]), int(b[wStackN])
	one := 1.0
	if !e.exact {
		one = 1.0 / wWeightOne
	}
	e.acquired = leak.Count{N: float64(order.Uint64(b[wStackAcqN:])) * one, Bytes: float64(order.Uint64(b[wStackAcqBytes:]))}
	e.released = leak.Count{N: float64(order.Uint64(b[wStackRelN:])) * one, Bytes: float64(order.Uint64(b[wStackRelBytes:]))}
	return e, !unknown || e.acquired.N > 0
}

// head reads struct books.
func (p *Probe) bookHead(mem leak.Memory) (*bookHead, error) {
	b, err := read(mem, p.data.start, wBooksSize)
	if err != nil {
		return nil, err
	}
	h, ok := decodeBooks(b)
	if !ok || h.stacks != p.data.stacks || h.buckets != p.data.buckets || h.stackMask != p.data.stackCount-1 || h.bucketMask != p.data.bucketCount-1 {
		return nil, fmt.Errorf("the probe's books at %#x are not there: %w", p.data.start, errBooks)
	}
	return h, nil
}

// entries reads the stack table.
func (p *Probe) entries(mem leak.Memory) ([]stackEntry, error) {
	b, err := read(mem, p.data.stacks, p.data.stackCount*wStackSize)
	if err != nil {
		return nil, err
	}
	var out []stackEntry
	for i := range uint32(p.data.stackCount) {
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
	for i := range frames {
		// A return address points behind its call; what a signal
		// interrupted, the probe has moved by one.
		frames[i] = p.watch.frame(p.o.Atlas, leak.Addr(order.Uint64(b[8*i:])-1))
	}
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
	}
	if _, err := p.bookHead(mem); err != nil {
		return err
	}
	ids, err := p.tally(mem, sink)
	if err != nil {
		return err
	}
	if p.watch.cost.off {
		return nil // releases are not seen any more
	}
	return p.blocks(mem, func(r block) {
		sink.Acquire(leak.Acquire{
			At: time.Duration(r.time) * time.Millisecond, Ref: leak.Ref{Proc: p.t.ID, Kind: leak.KindMemory, ID: r.addr},
			Size: r.size, Stack: ids[r.stack], Weight: r.weight, Exact: r.exact,
		})
	})
}

// tally says the sums of all stacks, and gives the ID of each.
func (p *Probe) tally(mem leak.Memory, sink leak.Sink) (map[uint32]leak.StackID, error) {
	entries, err := p.entries(mem)
	if err != nil {
		return nil, err
	}
	// Two entries of one kind may be one stack: code that was unmapped and
	// mapped again starts new ones.
	type key struct {
		id    leak.StackID
		exact bool
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
		k := key{id, e.exact}
		t := sums[k]
		if t == nil {
			t = &leak.Tally{At: now, Proc: p.t.ID, Kind: leak.KindMemory, Stack: id, Exact: e.exact}
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

func plus(a, b leak.Count) leak.Count { return leak.Count{N: a.N + b.N, Bytes: a.Bytes + b.Bytes} }

// block is one record of the live table.
type block struct {
	addr, size uint64
	stack      uint32
	time       uint32
	weight     float64
	exact      bool
}

// blocks calls f for each record. One that changes while it is read does not
// match its sum; it is read again, and left out when it still does not.
func (p *Probe) blocks(mem leak.Memory, f func(block)) error {
	const chunk = 256 // buckets at a time
	for at := uint64(0); at < p.data.bucketCount; at += chunk {
		n := min(chunk, p.data.bucketCount-at)
		b, err := read(mem, p.data.buckets+at*wBucketSize, n*wBucketSize)
		if err != nil {
			return err
		}
		for i := range n {
			bucket := b[i*wBucketSize:][:wBucketSize]
			for way := range uint64(wWays) {
				r, state := p.record(bucket, way)
				for try := 0; state == torn && try < 3; try++ {
					if bucket, err = read(mem, p.data.buckets+(at+i)*wBucketSize, wBucketSize); err != nil {
						return err
					}
					r, state = p.record(bucket, way)
				}
				if state == whole {
					f(r)
				}
			}
		}
	}
	return nil
}

// What a place in a bucket holds.
const (
	free = iota
	torn
	whole
)

// record reads one place of a bucket.
func (p *Probe) record(bucket []byte, way uint64) (block, int) {
	key := order.Uint64(bucket[8*way:])
	if key == 0 {
		return block{}, free
	}
	if key&1 != 0 {
		return block{}, torn
	}
	b := bucket[wBucketRec+wRecSize*way:][:wRecSize]
	sizeFlags, stack, when := order.Uint64(b[wRecSizeFlags:]), order.Uint32(b[wRecStack:]), order.Uint32(b[wRecTime:])
	if order.Uint32(b[wRecSum:]) != recordSum(key, sizeFlags, stack, when) {
		return block{}, torn
	}
	r := block{addr: key, size: sizeFlags & (1<<48 - 1), stack: stack, time: when, weight: 1}
	r.exact = sizeFlags>>56&wRecExact != 0
	if !r.exact {
		r.weight = weight(r.size, p.books.means[sizeFlags>>48&(wMeans-1)])
	}
	return r, whole
}

// recordSum is check() of probe/books.c.
func recordSum(key, sizeFlags uint64, stack, when uint32) uint32 {
	h := (key ^ sizeFlags) * 0x9e3779b97f4a7c15
	h ^= (uint64(when)<<32 | uint64(stack)) * 0xd6e8feb86659fd93
	return uint32(h >> 32)
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
