package probe

import (
	"time"

	"stanch/internal/leak"
)

// mappings is what the program has mapped and which threads it has made, by
// the events of the probe.
type mappings struct {
	held    intervals
	pending map[uint64]moving // by number plus one: what is being unmapped or moved
	brk     uint64            // where the program's break is, 0 when unknown
	threads map[uint64]thread // by pthread_t
	joined  map[uint64]uint64 // pthread_t that were joined before they were known: event number
	number  uint64            // of spans
}

// moving is what an EVENT_UNMAP or EVENT_REMAP took out.
type moving struct {
	start, end uint64
	parts      []piece
}

type thread struct{ seq uint64 }

// mapping handles one event of mappings or threads; seq is its number plus one.
func (p *Probe) mapping(mem leak.Memory, seq uint64, e event, sink leak.Sink) error {
	m := &p.mapped
	at := timeOf(e.time)
	switch e.kind {
	case wEventMap:
		stack, err := p.stackAt(mem, e.stack)
		if err != nil {
			return err
		}
		p.takeOut(e.at, e.at+pages(e.size), at, sink) // MAP_FIXED replaces what was there
		p.hold(piece{start: e.at, end: e.at + pages(e.size), stack: stack}, at, sink)
	case wEventUnmap, wEventRemap:
		parts := p.takeOut(e.at, e.at+pages(e.size), at, sink)
		if m.pending == nil || len(m.pending) > 4096 {
			m.pending = map[uint64]moving{}
		}
		if e.kind == wEventRemap || len(parts) > 0 {
			m.pending[seq] = moving{e.at, e.at + pages(e.size), parts}
		}
	case wEventKept:
		p.putBack(m.pending[e.more].parts, at, sink)
		delete(m.pending, e.more)
	case wEventMoved:
		was, ok := m.pending[e.more]
		delete(m.pending, e.more)
		if !ok {
			return nil
		}
		if e.at == 0 {
			p.putBack(was.parts, at, sink)
			return nil
		}
		p.moved(was, e, at, sink)
	case wEventBrk, wEventSbrk:
		return p.moveBreak(mem, e, sink)
	case wEventThread:
		return p.thread(mem, seq, e, sink)
	case wEventJoin:
		if t, ok := m.threads[e.at]; ok && t.seq < seq {
			delete(m.threads, e.at)
			sink.Release(leak.Release{At: at, Ref: p.ref(leak.KindThread, e.at)})
			return nil
		}
		if m.joined == nil || len(m.joined) > 4096 {
			m.joined = map[uint64]uint64{}
		}
		m.joined[e.at] = seq
	}
	return nil
}

func (p *Probe) ref(kind leak.Kind, id uint64) leak.Ref {
	return leak.Ref{Proc: p.t.ID, Kind: kind, ID: id}
}

// hold adds a span that was just made.
func (p *Probe) hold(s piece, at time.Duration, sink leak.Sink) {
	if s.end <= s.start {
		return
	}
	p.mapped.number++
	s.from = p.mapped.number
	p.mapped.held.add(s)
	p.acquire(s, at, sink)
}

func (p *Probe) acquire(s piece, at time.Duration, sink leak.Sink) {
	sink.Acquire(leak.Acquire{At: at, Ref: p.ref(leak.KindMapping, s.start), Size: s.end - s.start, Stack: s.stack, Weight: 1, Exact: true})
}

// takeOut removes a range: each mapping that it touches is released, and what
// is left of it is held from then on by itself.
func (p *Probe) takeOut(start, end uint64, at time.Duration, sink leak.Sink) []piece {
	out, changed, kept := p.mapped.held.cut(start, end)
	for _, s := range changed {
		sink.Release(leak.Release{At: at, Ref: p.ref(leak.KindMapping, s.start)})
	}
	for _, s := range kept {
		p.acquire(s, at, sink)
	}
	return out
}

// putBack undoes takeOut; parts of one mapping become one again.
func (p *Probe) putBack(parts []piece, at time.Duration, sink leak.Sink) {
	for _, s := range parts {
		p.takeOut(s.start, s.end, at, sink)
		for _, side := range []uint64{s.start - 1, s.end} {
			i := p.mapped.held.at(side)
			if i < 0 || p.mapped.held[i].from != s.from {
				continue
			}
			n := p.mapped.held[i]
			p.takeOut(n.start, n.end, at, sink)
			s.start, s.end = min(s.start, n.start), max(s.end, n.end)
		}
		p.mapped.held.add(s)
		p.acquire(s, at, sink)
	}
}

// moved puts what mremap took to its new place. The last part grows or shrinks.
func (p *Probe) moved(was moving, e event, at time.Duration, sink leak.Sink) {
	end := e.at + pages(e.size)
	p.takeOut(e.at, end, at, sink)
	for i, s := range was.parts {
		s.start, s.end = s.start-was.start+e.at, s.end-was.start+e.at
		if i == len(was.parts)-1 && s.end == was.end-was.start+e.at {
			s.end = end
		}
		s.end = min(s.end, end)
		if s.start >= s.end {
			continue
		}
		// In place, it goes on to be one with what it was cut from.
		p.putBack([]piece{s}, at, sink)
	}
}

// moveBreak follows brk(2) and sbrk(3) called by the program itself.
func (p *Probe) moveBreak(mem leak.Memory, e event, sink leak.Sink) error {
	m := &p.mapped
	from, to := m.brk, e.at
	if e.kind == wEventSbrk {
		from, to = e.at, e.at+e.size
	}
	m.brk = to
	at := timeOf(e.time)
	switch {
	case from == 0:
	case to < from:
		p.takeOut(to, from, at, sink)
	case to > from:
		stack, err := p.stackAt(mem, e.stack)
		if err != nil {
			return err
		}
		p.takeOut(from, to, at, sink)
		p.hold(piece{start: from, end: to, stack: stack}, at, sink)
	}
	return nil
}

// thread notes a thread that was made. One that is detached, or was before we
// hear of it, needs nobody.
func (p *Probe) thread(mem leak.Memory, seq uint64, e event, sink leak.Sink) error {
	m := &p.mapped
	gone := m.joined[e.at] > e.more
	delete(m.joined, e.at)
	if e.size != 0 || gone {
		return nil
	}
	stack, err := p.stackAt(mem, e.stack)
	if err != nil {
		return err
	}
	if m.threads == nil {
		m.threads = map[uint64]thread{}
	}
	at := timeOf(e.time)
	if _, dup := m.threads[e.at]; dup {
		sink.Release(leak.Release{At: at, Ref: p.ref(leak.KindThread, e.at)})
	}
	m.threads[e.at] = thread{seq}
	sink.Acquire(leak.Acquire{At: at, Ref: p.ref(leak.KindThread, e.at), Stack: stack, Weight: 1, Exact: true})
	return nil
}
