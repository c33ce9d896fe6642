package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// errBooks means that the probe's memory does not hold what it should: the
// target executed another program, or somebody wrote there.
var errBooks = errors.New("unreadable books")

// watch is what Watch remembers between two looks.
type watch struct {
	maps, before []leak.Mapping // the last look's and the one's before
	said         map[string]uint64
	rest         int // looks for which the mappings are not read again
	cost         cost
}

// frame gives the place of an address by the current mappings, or by those of
// the look before when it was unmapped since.
func (w *watch) frame(atlas *leak.Atlas, a leak.Addr) leak.Frame {
	if proc.Find(w.maps, a) == nil && proc.Find(w.before, a) != nil {
		atlas.Update(w.before)
		defer atlas.Update(w.maps)
	}
	return atlas.Frame(a)
}

// Watch looks at the books every Options.Every until ctx ends or the target
// does: each stack's sums as Tallies, the probe's own numbers as Gauges. It
// renews the hooks' lease, without which they go quiet after five seconds, and
// keeps their tables up to date: libraries loaded and unloaded, new threads'
// stacks. When the hooks cost more than Options.MaxOverhead it makes them do
// less, and says each such step as a Gap.
//
// The probe stays when Watch returns; Remove takes it out.
func (p *Probe) Watch(ctx context.Context, t *proc.Target, sink leak.Sink) error {
	if t.ID != p.t.ID {
		return fmt.Errorf("the probe is in pid %d, not in pid %d: %w", p.t.ID.PID, t.ID.PID, proc.ErrUnsupported)
	}
	tick := time.NewTicker(p.o.Every)
	defer tick.Stop()
	renew := time.NewTicker(renewal)
	defer renew.Stop()
	for {
		err := p.look(ctx, sink)
		if over, end := p.ended(err, sink); over {
			return end
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return nil
			case <-renew.C:
				if err := p.renew(); err != nil {
					if over, end := p.ended(err, sink); over {
						return end
					}
				}
			case <-tick.C:
				again = false
			}
		}
	}
}

// ended turns the ways in which a watch ends by itself into no error.
func (p *Probe) ended(err error, sink leak.Sink) (bool, error) {
	if err == nil {
		return false, nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errOff) {
		return true, nil
	}
	if p.t.Check() != nil {
		return true, nil // it exited
	}
	now, e := p.t.ExecID()
	if e == nil && now != p.exec || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errBooks) {
		p.gap(sink, "the process executed another program; the probe went with the old one", 0)
		return true, nil
	}
	return true, err
}

// errOff ends a watch whose hooks were switched off for good.
var errOff = errors.New("the hooks are off")

func (p *Probe) gap(sink leak.Sink, what string, lost uint64) {
	sink.Gap(leak.Gap{At: p.o.Clock.Now(), Proc: p.t.ID, Source: "probe", What: what, Lost: lost})
}

// renew extends the lease.
func (p *Probe) renew() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return errOff
	}
	return p.renewLease(p.mem)
}

// renewLease tells the hooks the time, and writes the lease's two words one
// after the other: a hook that reads one half-written still finds the other
// whole.
func (p *Probe) renewLease(m memory) error {
	until := p.clock.after(leaseTime)
	return errors.Join(put32(m, p.state(wStateNow), timeCode(p.o.Clock.Now())),
		put64(m, p.state(wStateLease), until), put64(m, p.state(wStateLease+8), until))
}

// look is one look at everything.
func (p *Probe) look(ctx context.Context, sink leak.Sink) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return errOff
	}
	p.clock.tune()
	if err := p.renewLease(p.mem); err != nil {
		return err
	}
	maps, err := p.maps()
	if err != nil {
		return err
	}
	if p.mapsChanged(maps) {
		if err := p.refresh(ctx, maps, sink); err != nil {
			return err
		}
	}
	p.o.Atlas.Update(maps)
	head, err := p.bookHead(p.mem)
	if err != nil {
		return err
	}
	if err := p.putStacks(maps); err != nil {
		return err
	}
	if _, err := p.tally(p.mem, head, sink); err != nil {
		return err
	}
	if err := p.drain(p.mem, head, false, sink); err != nil {
		return err
	}
	if err := p.followDescriptors(head, false, sink); err != nil {
		return err
	}
	if err := p.sayInputs(sink); err != nil {
		return err
	}
	if err := p.losses(head, sink); err != nil {
		return err
	}
	if err := p.lapsed(sink); err != nil {
		return err
	}
	return p.govern(ctx, sink)
}

// maps reads the target's mappings, or gives those of the look before: reading
// takes its mmap_lock, which a target with very many mappings may wait for.
func (p *Probe) maps() ([]leak.Mapping, error) {
	if p.watch.rest > 0 {
		p.watch.rest--
		return p.watch.maps, nil
	}
	maps, err := p.t.Maps()
	p.watch.rest = len(maps) / 5000
	return maps, err
}

// mapsChanged notes the new mappings; true when code came or went.
func (p *Probe) mapsChanged(maps []leak.Mapping) bool {
	w := &p.watch
	changed := !sameCode(w.maps, maps)
	if changed {
		w.before = w.maps
	}
	w.maps = maps
	return changed
}

// sameCode compares the executable mappings of files.
func sameCode(a, b []leak.Mapping) bool {
	next := func(maps []leak.Mapping, i int) int {
		for i < len(maps) && !hasCode(&maps[i]) {
			i++
		}
		return i
	}
	i, j := next(a, 0), next(b, 0)
	for i < len(a) && j < len(b) {
		if a[i] != b[j] {
			return false
		}
		i, j = next(a, i+1), next(b, j+1)
	}
	return i == len(a) && j == len(b)
}

// codeGone reports whether code that was mapped is not there any more.
func codeGone(before, now []leak.Mapping) bool {
	for i := range before {
		m := &before[i]
		if !hasCode(m) {
			continue
		}
		if n := proc.Find(now, m.Start); n == nil || *n != *m {
			return true
		}
	}
	return false
}

// refresh gives the hooks the unwind tables of what is loaded now.
func (p *Probe) refresh(ctx context.Context, maps []leak.Mapping, sink leak.Sink) error {
	modules, err := p.code.modules(ctx, p.mem, maps)
	if err != nil {
		return err
	}
	lost := len(p.code.lost)
	list, err := p.code.write(p.mem, modules)
	if err != nil {
		return err
	}
	if len(p.code.lost) > lost {
		for _, note := range p.code.notes()[lost:] {
			p.gap(sink, note, 0)
		}
	}
	b, err := read(p.mem, p.data.start, wBooksSize)
	if err != nil {
		return err
	}
	other := 1 - uint64(order.Uint32(b[wBooksModuleNow:]))&1
	if err := p.mem.put(p.data.modules[other], list); err != nil {
		return err
	}
	if err := put32(p.mem, p.data.start+wBooksModules+4*other, uint32(len(list)/wModuleSize)); err != nil {
		return err
	}
	if codeGone(p.watch.before, maps) {
		// The same addresses may soon be other functions: no stack recorded
		// before is one recorded after, and no remembered row holds.
		if err := put32(p.mem, p.data.start+wBooksEpoch, order.Uint32(b[wBooksEpoch:])+1); err != nil {
			return err
		}
	}
	return errors.Join(put32(p.mem, p.data.start+wBooksModuleNow, uint32(other)),
		put32(p.mem, p.data.start+wBooksTables, order.Uint32(b[wBooksTables:])+1))
}

// putStacks tells the hooks where stacks surely are: the main thread's, and
// for every other thread the mapping below its thread control block.
func (p *Probe) putStacks(maps []leak.Mapping) error {
	var lo, hi uint64
	for i := range maps {
		if m := &maps[i]; m.Path == "[stack]" {
			// It grows downwards; the kernel keeps stack_guard_gap, 1 MiB, free below.
			lo, hi = uint64(m.Start), uint64(m.End)
			below := uint64(1 << 20)
			if i > 0 {
				below = min(below, lo-uint64(maps[i-1].End))
			}
			lo -= below
		}
	}
	if err := put64(p.mem, p.state(wStateMainLo), lo, hi); err != nil {
		return err
	}
	slots, err := p.slots(p.mem)
	if err != nil {
		return err
	}
	for i := range uint64(wSlots) {
		b := slots[i*wSlotSize:][:wSlotSize]
		fs := order.Uint64(b[wSlotOwner:]) &^ 1
		if fs == 0 {
			continue
		}
		var lo, hi uint64
		if m := proc.Find(maps, leak.Addr(fs)); m != nil && m.Write && !m.Shared {
			lo, hi = uint64(m.Start), fs
		}
		if lo == order.Uint64(b[wSlotLo:]) && hi == order.Uint64(b[wSlotHi:]) {
			continue
		}
		// Never a moment at which an old bound stands beside a new one.
		at := p.near().start + wNearSlot + i*wSlotSize
		if err := errors.Join(put64(p.mem, at+wSlotLo, ^uint64(0)), put64(p.mem, at+wSlotHi, hi), put64(p.mem, at+wSlotLo, lo)); err != nil {
			return err
		}
	}
	return nil
}

// losses says what the books had no room for, each time it has doubled.
func (p *Probe) losses(head *bookHead, sink leak.Sink) error {
	b, err := read(p.mem, p.near().start, wStateAim)
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what string
		n    uint64
	}{
		{"the probe's table of held blocks is full: blocks were not recorded", head.lostLive},
		{"the probe's table of stacks is full: blocks were recorded without one", head.lostStacks},
		{"more threads than the probe has books for: allocations were not seen", order.Uint64(b[wStateNoSlot:])},
		{"releases were not seen, their records were replaced", head.stale},
	} {
		p.lost(l.what, l.n, sink)
	}
	return nil
}

// lost says a Gap when its number has doubled since it was said last; once when
// nothing but everything would do.
func (p *Probe) lost(what string, n uint64, sink leak.Sink) {
	if p.watch.said == nil {
		p.watch.said = map[string]uint64{}
	}
	last := p.watch.said[what]
	if n > 0 && (last == 0 || n >= 2*last && !p.o.Exact) {
		p.gap(sink, what, n-last)
		p.watch.said[what] = n
	}
}

// lapsed notices that the hooks went quiet because stanch was not heard from
// for too long: it was stopped, or the machine slept. Releases since then were
// missed, so the books begin anew.
func (p *Probe) lapsed(sink leak.Sink) error {
	n, err := get32(p.mem, p.state(wStateLapsed))
	if err != nil || n == 0 {
		return err
	}
	p.gap(sink, "stanch was not running for more than five seconds; the probe was quiet and began anew", 0)
	return p.restart()
}

// restart empties the books of quiet hooks and switches them on again.
func (p *Probe) restart() error {
	gen, err := get32(p.mem, p.state(wStateGen))
	if err != nil {
		return err
	}
	// Hooks that are still inside of an original see another gen and keep out.
	if err := put32(p.mem, p.state(wStateGen), gen+2); err != nil {
		return err
	}
	head, err := p.bookHead(p.mem)
	if err != nil {
		return err
	}
	wipe := []region{{p.data.buckets, bucketsIn(uint64(head.level)+1) * wBucketSize}}
	if !p.o.Exact {
		wipe = append(wipe, region{p.near().start + wNearFilter, nearSize(filterLarge) - wNearFilter})
	}
	zero := make([]byte, 256<<10)
	for _, r := range wipe {
		for at := r.start; at < r.end(); at += uint64(len(zero)) {
			if err := p.mem.put(at, zero[:min(uint64(len(zero)), r.end()-at)]); err != nil {
				return err
			}
		}
	}
	p.descriptors.recheck(p.t)
	return errors.Join(put32(p.mem, p.state(wStateLapsed), 0), put32(p.mem, p.state(wStateFromStart), 0),
		p.renewLease(p.mem), put32(p.mem, p.state(wStateOn), 1))
}

// SetAim changes which sizes are recorded each time. At most 32 ranges are
// taken, the first ones. Blocks recorded under the old aim stay recorded.
func (p *Probe) SetAim(aim leak.Aim) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return errOff
	}
	if p.o.Exact {
		return nil // everything is recorded as it is
	}
	p.o.Aim = aim
	return p.putAim(aim)
}

// putAim writes the exact intervals, then the map of 16-byte classes that the
// fast paths look at: (size + 7) / 16.
func (p *Probe) putAim(aim leak.Aim) error { return p.putAimIn(p.mem, aim) }

func (p *Probe) putAimIn(m memory, aim leak.Aim) error {
	ranges := aim.Sizes[:min(len(aim.Sizes), wAims)]
	classes := make([]byte, wAimClasses)
	var list []byte
	for _, r := range ranges {
		list = order.AppendUint64(order.AppendUint64(list, r.Min), r.Max)
		for c := (r.Min + 7) >> 4; c < wAimClasses && c <= (min(r.Max, 1<<40)+7)>>4 && r.Min <= r.Max && r.Min < 1<<40; c++ {
			classes[c] = 1
		}
	}
	at := p.near().start
	return errors.Join(put32(m, at+wStateAims, 0), m.put(at+wStateAim, list),
		put32(m, at+wStateAims, uint32(len(ranges))), m.put(at+wNearAim, classes))
}
