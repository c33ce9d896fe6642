package probe

import (
	"stanch/internal/leak"
	"stanch/internal/proc"
)

// event is struct event.
type event struct {
	kind, stack        uint32
	at, size           uint64
	acquired, released uint32
	thread, more       uint64
	time               uint32
}

func decodeEvent(b []byte) event {
	u := func(off int) uint64 { return order.Uint64(b[off:]) }
	n := func(off int) uint32 { return order.Uint32(b[off:]) }
	return event{
		kind: n(wEventKind), stack: n(wEventStack), at: u(wEventAt), size: u(wEventBytes),
		acquired: n(wEventAcquired), released: n(wEventReleased), thread: u(wEventFs), more: u(wEventMore), time: n(wEventTime),
	}
}

// events is what stanch remembers of the ring.
type events struct {
	next  uint64 // number of the first that was not read yet
	stuck int    // looks for which that one was still being written
	lost  uint64 // written over before they were read
}

// patience is for how many looks an event may be in the making, before its
// thread is taken for dead.
const patience = 3

// drain reads the events that came since the last time. last says that no look
// follows.
func (p *Probe) drain(mem leak.Memory, head *bookHead, last bool, sink leak.Sink) error {
	e := &p.events
	if head.eventsHead == e.next {
		return nil
	}
	if behind := head.eventsHead - e.next; behind > wEvents {
		e.lost += behind - wEvents
		e.next = head.eventsHead - wEvents
	}
	ring, err := read(mem, p.data.events, wEvents*wEventSize)
	if err != nil {
		return err
	}
	for ; e.next < head.eventsHead; e.next++ {
		b := ring[e.next%wEvents*wEventSize:][:wEventSize]
		switch seq := order.Uint64(b[wEventSeq:]); {
		case seq == e.next+1:
			if err := p.tell(mem, e.next+1, decodeEvent(b), sink); err != nil {
				return err
			}
		case seq > e.next+1:
			e.lost++
		default:
			if e.stuck++; e.stuck <= patience && !last {
				return nil
			}
			e.lost++
		}
		e.stuck = 0
	}
	if e.lost > 0 {
		p.gap(sink, "more events than the probe has room for between two looks: the oldest were not seen", e.lost)
		e.lost = 0
	}
	return nil
}

func (p *Probe) tell(mem leak.Memory, seq uint64, e event, sink leak.Sink) error {
	switch e.kind {
	case wEventInvalid, wEventDouble:
		return p.invalid(mem, e, sink)
	}
	return p.mapping(mem, seq, e, sink)
}

func (p *Probe) invalid(mem leak.Memory, e event, sink leak.Sink) error {
	double := e.kind == wEventDouble
	if !double && p.doubtful(leak.Addr(e.at)) {
		return nil
	}
	i := leak.Invalid{At: timeOf(e.time), Ref: leak.Ref{Proc: p.t.ID, Kind: leak.KindMemory, ID: e.at}, Double: double, Size: e.size}
	for _, s := range []struct {
		id    *leak.StackID
		index uint32
	}{{&i.Stack, e.stack}, {&i.Acquired, e.acquired}, {&i.Released, e.released}} {
		if s.index == 0 {
			continue
		}
		var err error
		if *s.id, err = p.stackAt(mem, s.index); err != nil {
			return err
		}
	}
	sink.Invalid(i)
	return nil
}

// stackAt names the stack of an entry by its index.
func (p *Probe) stackAt(mem leak.Memory, index uint32) (leak.StackID, error) {
	if id, ok := p.books.stacks[index]; ok || index < wStacksUnknown || uint64(index) >= p.data.stackCount {
		return id, nil
	}
	b, err := read(mem, p.data.stacks+uint64(index)*wStackSize, wStackSize)
	if err != nil {
		return 0, err
	}
	e, _ := decodeStack(b, index)
	return p.stackID(mem, &e)
}

// doubtful reports whether a block at a may be from before the probe: the
// dynamic linker allocates while it loads the program, in memory of its own
// and in the heap.
func (p *Probe) doubtful(a leak.Addr) bool {
	for _, r := range p.before {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// beforeIt lists where blocks may lie at the time of a placement.
func beforeIt(v *view, maps []leak.Mapping) []leak.Range {
	var linker *leak.Mapping
	if base, err := v.t.Auxv(proc.AuxBase); err == nil && base != 0 {
		linker = proc.Find(maps, leak.Addr(base))
	}
	var out []leak.Range
	for i := range maps {
		m := &maps[i]
		ofLinker := func(m *leak.Mapping) bool {
			return linker != nil && m.File() && m.Dev == linker.Dev && m.Inode == linker.Inode
		}
		// A program's variables without a value are mapped behind its file's.
		variables := i > 0 && maps[i-1].File() && maps[i-1].End == m.Start && m.Path == "" && !ofLinker(&maps[i-1])
		if m.Write && (m.Inode == 0 && m.Path != "[stack]" && !variables || ofLinker(m)) {
			out = append(out, leak.Range{Start: m.Start, End: m.End})
		}
	}
	return out
}
