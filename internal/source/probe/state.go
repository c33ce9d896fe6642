package probe

import (
	"crypto/rand"
	"errors"

	"stanch/internal/unwind"
)

func (p *Probe) putBooks(modules []unwind.Module) error {
	t := &p.data
	if len(p.o.Hooks) > 0 {
		modules = p.code.addOwn(p.text, modules)
	}
	p.code.next, p.code.end = t.rows, t.rowsEnd
	list, err := p.code.write(p.mem, modules)
	if err != nil {
		return err
	}
	if err := p.mem.put(t.modules[0], list); err != nil {
		return err
	}
	b := make([]byte, wBooksSize)
	order.PutUint64(b[wBooksMagic:], magic)
	order.PutUint32(b[wBooksVersion:], wProbeVersion)
	for off, v := range map[int]uint64{
		wBooksLength: t.size, wBooksBuckets: t.buckets, wBooksRegions: t.regions,
		wBooksStacks: t.stacks, wBooksStacksMax: t.stackCount, wBooksStacksUsed: wStacksUnknown,
		wBooksIndex: t.index[0], wBooksIndex + 8: t.index[1], wBooksIndexMask: t.groups[0] - 1, wBooksIndexMask + 8: t.groups[1] - 1,
		wBooksFrames: t.frames, wBooksFramesMax: t.frameCount,
		wBooksScratch: t.scratch, wBooksNotes: t.notes, wBooksFreed: t.freed, wBooksEvents: t.events, wBooksFds: t.fds, wBooksFdsMax: t.fdCount, wBooksCalls: t.calls, wBooksWhens: t.whens, wBooksInputs: t.inputs, wBooksCache: t.cache, wBooksModule: t.modules[0], wBooksModule + 8: t.modules[1],
	} {
		order.PutUint64(b[off:], v)
	}
	order.PutUint32(b[wBooksModules:], uint32(len(list)/wModuleSize))
	order.PutUint32(b[wBooksMaxFrames:], uint32(p.o.MaxFrames))
	order.PutUint32(b[wBooksLevelMax:], uint32(t.levels-1))
	calls, whens := callTables()
	return errors.Join(p.mem.put(t.start, b), p.mem.put(t.calls, calls), p.mem.put(t.whens, whens))
}

// putState writes struct state with the hooks off, and the aim.
func (p *Probe) putState() error {
	var seed [16]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	b := make([]byte, wStateAim)
	order.PutUint64(b[wStateMagic:], magic)
	order.PutUint32(b[wStateVersion:], wProbeVersion)
	order.PutUint32(b[wStateGen:], order.Uint32(seed[:])|1)
	order.PutUint64(b[wStateBooks:], p.data.start)
	filter := uint64(filterSmall)
	if len(p.o.Aim.Sizes) > 0 {
		filter = filterLarge
	}
	order.PutUint64(b[wStateFilterMask:], filter-1)
	if p.o.Exact {
		// Any block may have a record: a filter of one cell that says so.
		order.PutUint32(b[wStateExact:], 1)
		order.PutUint64(b[wStateFilterMask:], 0)
		if err := p.mem.put(p.near().start+wNearFilter, []byte{255}); err != nil {
			return err
		}
	}
	b[wStateFds], b[wStateInputs] = flag(p.o.Descriptors && !p.unseen), flag(p.o.Inputs)
	if p.complete {
		order.PutUint32(b[wStateFromStart:], 1)
	}
	order.PutUint64(b[wStateAllocLo:], p.inside.start)
	order.PutUint64(b[wStateAllocHi:], p.inside.end())
	order.PutUint64(b[wStateLibcLo:], p.libc.start)
	order.PutUint64(b[wStateLibcHi:], p.libc.end())
	p.books.means = p.means()
	for i, mean := range p.books.means {
		order.PutUint64(b[wStateMean+8*i:], mean)
	}
	order.PutUint64(b[wStateSeed:], order.Uint64(seed[8:]))
	if err := p.mem.put(p.near().start, b); err != nil {
		return err
	}
	if err := p.mem.put(p.state(wStatePool), p.poolState()); err != nil {
		return err
	}
	if err := p.putAim(p.o.Aim); err != nil {
		return err
	}
	return p.putRoom()
}

// putRoom says how much below a thread pointer surely is stack. glibc and musl
// put the thread control block at the upper end of the stack's mapping, which
// has at least PTHREAD_STACK_MIN (16 KiB, glibc's limits.h) bytes.
func (p *Probe) putRoom() error {
	room := uint64(wTcbRoomMax)
	if p.musl {
		room = 0 // PTHREAD_STACK_MIN is 2 KiB there
	}
	maps, err := p.t.Maps()
	if err != nil {
		return err
	}
	return errors.Join(put64(p.mem, p.state(wStateTcbRoom), room), p.putStacks(maps))
}

// means are the sampling intervals, each twice the one before.
func (p *Probe) means() []uint64 {
	m := make([]uint64, wMeans)
	for i := range m {
		if !p.o.NoSampling {
			m[i] = min(p.o.SampleBytes<<i, 64<<30)
		}
	}
	return m
}
