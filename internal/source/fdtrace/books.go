package fdtrace

import (
	"sync/atomic"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/unwind"
)

// grace is how long an event may come after a later one: the time between what
// a call does to the table of descriptors and its end, when the event is
// noted, and the time until the ring is read.
const grace = uint64(60 * time.Millisecond)

// books are what is known of all traced processes. They belong to the goroutine
// of Watch.
type books struct {
	t       *Tracer
	sink    leak.Sink
	target  *process
	live    map[uint32]*process // by PID in the initial namespace
	tables  map[uint64]*table   // by address of the kernel's
	files   *tables
	due     []dueSlot
	copies  []*copied
	syncs   []*listing
	fails   map[failKey]*failure
	strange map[uint32]uint64 // processes that were looked for in vain, and when
	allLost uint64            // since when nothing is certain
	told    uint64            // dropped events that have been dealt with
	unknown uint64            // descriptors whose opener could not be told
	stacks0 uint64            // openings without a stack
	seen    atomic.Int64
	cpu     atomic.Int64
}

// process is one traced process.
type process struct {
	id    leak.ProcID
	tgid  uint32
	code  *code
	table *table
	since uint64 // when it was seen first, CLOCK_BOOTTIME in ns
}

// table is a table of descriptors: of a process, or of several that share it.
type table struct {
	owner *process
	users int
	slots map[int32]*slot
	// vague: what was open when the table was first seen is not known yet.
	vague bool
	// quiet: what was open then is said by others.
	quiet    bool
	copy     *copied          // what it was copied from, until that is settled
	suspects map[int32]uint64 // open, and nobody saw them come; since when
	doubt    uint64           // something was lost that was done to any number until then
}

// dueSlot is a slot that is to be settled once nothing earlier can come.
type dueSlot struct {
	table *table
	num   int32
	at    uint64
}

func newBooks(t *Tracer, target *proc.Target) *books {
	b := &books{
		t: t, live: map[uint32]*process{}, tables: map[uint64]*table{}, files: &tables{known: map[fileKey]*unwind.Table{}},
		fails: map[failKey]*failure{}, strange: map[uint32]uint64{},
	}
	b.target = &process{id: target.ID, code: newCode(target, t.o.Atlas, b.files)}
	return b
}

// at converts a time of an event to that of the observation.
func (b *books) at(ns uint64) time.Duration { return time.Duration(ns - b.t.zero) }

// process finds or makes the books of a process.
func (b *books) add(tgid, visible uint32, start uint64) *process {
	if p := b.live[tgid]; p != nil {
		return p
	}
	b.seen.Add(1)
	p := b.target
	if p.tgid != 0 || int(visible) != p.id.PID {
		id := leak.ProcID{PID: int(visible), Start: startTicks(start)}
		target := &proc.Target{ID: id, Root: b.t.target.Root}
		p = &process{id: id, code: newCode(target, b.t.o.Atlas.Beside(target.BuildID), b.files)}
	}
	p.tgid, p.since = tgid, bootNow()
	p.code.execs = func() (at uint64) {
		if b.t.objects.Maps["watch"].Lookup(tgid, &at) != nil {
			return goneSince
		}
		return at
	}
	b.live[tgid] = p
	return p
}

// goneSince stands for a process that is not watched any more.
const goneSince = ^uint64(0)

// join makes a process use the table at an address.
func (b *books) join(p *process, files uint64) *table {
	t := b.tables[files]
	if t == nil {
		t = &table{owner: p, slots: map[int32]*slot{}, vague: true, suspects: map[int32]uint64{}}
		b.tables[files] = t
	}
	if p.table != t {
		if p.table != nil {
			b.leave(p, bootNow())
		}
		p.table = t
		t.users++
	}
	return t
}

// tableOf is the table at an address that a process uses at a time.
func (b *books) tableOf(p *process, files, at uint64) *table {
	if t := b.tables[files]; t != nil && (t == p.table || t.owner == p) {
		return t
	}
	return b.strayed(p, files, at)
}

// strayed gives a process the table it uses when the event that said how it
// came to it was lost, as that of an execve.
func (b *books) strayed(p *process, files, at uint64) *table {
	delete(b.tables, files)
	if p.table == nil || p.table.users > 1 {
		return b.join(p, files)
	}
	b.move(p.table, files)
	b.doubtAll(p.table, at)
	return p.table
}

// leave takes the table from a process.
func (b *books) leave(p *process, at uint64) {
	p.table.users--
	if p.table.users > 0 {
		if p.table.owner == p {
			b.handOver(p, at)
		}
		p.table = nil
		return
	}
	for files, t := range b.tables {
		if t == p.table {
			delete(b.tables, files)
		}
	}
	p.table = nil
}

// handOver makes another user of the table its owner, under whose name its
// descriptors are said from now on.
func (b *books) handOver(p *process, at uint64) {
	t := p.table
	for _, other := range b.live {
		if other == p || other.table != t {
			continue
		}
		t.owner = other
		for _, num := range t.numbers() {
			if s := t.slots[num]; s.said.open {
				b.sink.Release(leak.Release{At: b.at(at), Ref: ref(p, num), Call: "exit"})
				b.sink.Acquire(leak.Acquire{At: b.at(at), Ref: ref(other, num), Stack: s.said.stack, Weight: 1, Exact: true, Call: "fork"})
			}
		}
		return
	}
}

// ref names a descriptor of a process.
func ref(p *process, num int32) leak.Ref {
	return leak.Ref{Proc: p.id, Kind: leak.KindDescriptor, ID: uint64(num)}
}

// slot finds or makes a number's slot.
func (t *table) slot(num int32) *slot {
	s := t.slots[num]
	if s == nil {
		s = &slot{base: holder{maybe: t.vague}, doubt: t.doubt}
		t.slots[num] = s
	}
	return s
}

// event takes one event from the ring.
func (b *books) event(e *event, tail []byte) {
	switch e.Kind {
	case eventFork:
		b.forked(e, tail)
		return
	case eventExit:
		b.exited(e)
		return
	}
	p := b.live[e.Tgid]
	if p == nil {
		if p = b.late(e.Tgid); p == nil {
			return
		}
	}
	switch e.Kind {
	case eventExec:
		b.executed(p, e, tail)
	case eventTable:
		b.parted(p, e, tail)
	case eventFail:
		b.failed(p, e, tail)
	case eventCall:
		b.called(p, e, tail)
	}
}

// called notes what a call did.
func (b *books) called(p *process, e *event, tail []byte) {
	t := b.tableOf(p, e.Files, e.Exit)
	a := action{enter: e.Enter, exit: e.Exit, call: callNames[e.Nr]}
	switch classOf[e.Nr&511] {
	case classCloseRange:
		b.closedRange(t, e, &a)
		return
	case classClose:
		a.closes = true
		a.stack = b.stack(p, e, tail)
		b.act(t, int32(e.Regs[regArg1]), a)
		return
	case classRecvmsg:
		a.call = "received"
	case classDup:
		a.closes = true
	}
	a.opens = true
	a.stack = b.stack(p, e, tail)
	if a.stack == 0 {
		b.stacks0++
	}
	for _, num := range e.Numbers[:e.Count] {
		b.act(t, num, a)
	}
}

// stack names the stack of an event, and has the kernel copy more of it next
// time when it was cut.
func (b *books) stack(p *process, e *event, tail []byte) leak.StackID {
	id, cut := p.code.stack(e, tail)
	if cut {
		_ = b.t.objects.Maps["wide"].Put(e.site(), uint8(1)) // else the next is cut too
	}
	return id
}

// act notes an action on one number, to be settled when nothing that overlaps
// it can come any more.
func (b *books) act(t *table, num int32, a action) {
	if num < 0 {
		return
	}
	delete(t.suspects, num)
	if t.copy != nil {
		b.inherit(t.copy, num)
	}
	s := t.slot(num)
	if len(s.recent) > 0 && a.enter > s.last() {
		b.say(t, num, s)
		s.base, s.recent = s.now(), s.recent[:0]
	}
	if len(s.recent) >= historyMost {
		b.say(t, num, s)
		s.base, s.recent = s.now(), s.recent[:0]
		s.base.maybe = true
	}
	s.recent = append(s.recent, a)
	for _, c := range b.copies {
		if t == c.from && a.enter <= c.exit && a.exit >= c.enter {
			b.doubtCopy(c, num) // it may have taken effect before the copy was made, or after
		}
	}
	b.later(t, num, s, a.exit)
}

// later settles a number at a time, when all events from before will have come.
func (b *books) later(t *table, num int32, s *slot, at uint64) {
	if !s.due {
		s.due = true
		b.due = append(b.due, dueSlot{t, num, at + grace})
	}
}

// historyMost bounds the actions on one number that overlap each other.
const historyMost = 64

// now is what the number stands for as far as it is known: settled, or of an
// unknown opener.
func (s *slot) now() holder {
	end, sure := s.settle()
	if !sure {
		end.stack, end.call, end.maybe = 0, "", end.maybe || len(s.recent) == 0
	}
	return end
}

// say tells the sink what has become of a number.
func (b *books) say(t *table, num int32, s *slot) {
	end, sure := s.settle()
	if !sure && end.open && len(s.recent) > 0 {
		b.unknown++
		end.stack, end.call = 0, ""
	}
	ref := ref(t.owner, num)
	var closer *action
	for i := range s.recent {
		a := &s.recent[i]
		if a.closes && (closer == nil || a.exit > closer.exit) {
			closer = a
		}
	}
	release := func(at uint64) {
		r := leak.Release{At: b.at(at), Ref: ref}
		if closer != nil {
			r.Call, r.Stack = closer.call, closer.stack
		}
		b.sink.Release(r)
	}
	// Those that came and went between.
	for i := range s.recent {
		a := &s.recent[i]
		if !a.opens || a.counted {
			continue
		}
		a.counted = true
		h := a.holder()
		if h == end || h == s.said {
			continue
		}
		if s.said.open {
			release(a.exit)
			s.said = holder{}
		}
		b.acquire(ref, h)
		release(a.exit)
	}
	if end == s.said || !end.open && !s.said.open {
		s.said = end
		return
	}
	if s.said.open {
		release(end.at)
	}
	if end.open && !end.quiet {
		b.acquire(ref, end)
	}
	s.said = end
}

func (b *books) acquire(ref leak.Ref, h holder) {
	b.sink.Acquire(leak.Acquire{At: b.at(h.at), Ref: ref, Stack: h.stack, Weight: 1, Exact: true, Call: h.call})
}

// closedRange closes what is open in a range, or marks it close-on-exec, which
// counts when it comes to that.
func (b *books) closedRange(t *table, e *event, a *action) {
	const cloexec = 4 // CLOSE_RANGE_CLOEXEC
	if e.Regs[regArg3]&cloexec != 0 {
		return
	}
	a.closes = true
	first, last := uint32(e.Regs[regArg1]), uint32(e.Regs[regArg2])
	for num, s := range t.slots {
		if uint32(num) >= first && uint32(num) <= last && s.mayBeOpen() {
			b.act(t, num, *a)
		}
	}
}

// mayBeOpen reports whether a close of everything would meet this number.
func (s *slot) mayBeOpen() bool {
	end, sure := s.settle()
	return end.open || !sure
}
