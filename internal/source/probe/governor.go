package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ptrace"
)

// What the fast paths cost, measured by the benchmark of this package: an
// allocation and its release that are not recorded. The slow paths measure
// themselves.
const fastSeconds = 3e-9

// negligible is the share of one processor below which the hooks are let be,
// however little the target itself does: a daemon that idles most of the time
// does not miss a millisecond in a second.
const negligible = 0.001

// cost is what the hooks and the target have used so far.
type cost struct {
	at            time.Duration // when it was read
	hooks, target float64       // CPU seconds
	slow          float64       // of hooks, in slow paths
	over          int           // looks in a row that were too dear
	mean          uint32        // index of the sampling interval
	deaf          bool          // allocations are not seen any more
	off           bool
}

// measure reads both.
func (p *Probe) measure() (cost, slotSums, error) {
	b, err := p.slots(p.mem)
	if err != nil {
		return cost{}, slotSums{}, err
	}
	s := sumSlots(b)
	st, err := p.t.Stat()
	if err != nil {
		return cost{}, s, err
	}
	c := cost{at: p.o.Clock.Now(), target: st.CPU().Seconds()}
	if s.timed > 0 {
		c.slow = p.clock.seconds(s.cycles / s.timed * s.slow)
	}
	c.hooks = c.slow + s.calls*fastSeconds
	return c, s, nil
}

// resident is how much memory the probe occupies, from /proc/PID/pagemap: pages
// that are the target's own, in memory or swapped out. Pages that were only
// read are the kernel's one page of zeros.
func (p *Probe) resident(head *bookHead) float64 {
	f, err := os.Open(p.t.Path("pagemap"))
	if err != nil {
		return float64(p.info.Memory)
	}
	defer func() { _ = f.Close() }()
	// Documentation/admin-guide/mm/pagemap.rst: 56 exclusively mapped, 62 swapped.
	const own = 1<<56 | 1<<62
	n := 0
	for _, r := range append([]region{p.text, p.near()}, p.data.used(head)...) {
		b := make([]byte, r.size/pageSize*8)
		if _, err := f.ReadAt(b, int64(r.start/pageSize*8)); err != nil {
			return float64(p.info.Memory)
		}
		for ; len(b) > 0; b = b[8:] {
			if order.Uint64(b)&own != 0 {
				n++
			}
		}
	}
	return float64(n * pageSize)
}

// govern says what the probe costs, and lessens it when it is too much.
func (p *Probe) govern(ctx context.Context, sink leak.Sink) error {
	now, s, err := p.measure()
	if err != nil {
		return err
	}
	head, err := p.bookHead(p.mem)
	if err != nil {
		return err
	}
	last := p.watch.cost
	gauge := func(name leak.GaugeName, v float64) {
		sink.Gauge(leak.Gauge{At: p.o.Clock.Now(), Proc: p.t.ID, Name: name, Value: v})
	}
	gauge(leak.GaugeProbeCalls, s.calls)
	gauge(leak.GaugeProbeSeconds, now.hooks)
	gauge(leak.GaugeProbeBytes, p.resident(head))
	if mean := p.books.means[last.mean]; mean > 0 && !last.deaf && !last.off {
		gauge(leak.GaugeProbeInterval, float64(mean))
	}
	hooks, target, slow := now.hooks-last.hooks, now.target-last.target, now.slow-last.slow
	first := last.target == 0
	now.over, now.mean, now.deaf, now.off = 0, last.mean, last.deaf, last.off
	// CPU time comes in hundredths of a second: a look at an idle target says
	// nothing.
	const least = 0.05
	dear := hooks > p.o.MaxOverhead*target && hooks > negligible*(now.at-last.at).Seconds()
	if !first && target >= least && dear && p.o.MaxOverhead > 0 {
		now.over = last.over + 1
	} else if target < least {
		now.over = last.over
		if !first { // wait for more
			now.at, now.hooks, now.target, now.slow = last.at, last.hooks, last.target, last.slow
		}
	}
	p.watch.cost = now
	if now.over < 2 || now.off {
		return nil
	}
	p.watch.cost.over = 0
	return p.lessen(ctx, sink, 100*hooks/target, slow > hooks/2)
}

// sampleOnly goes from exact recording to sampling. The blocks that are recorded
// stay so, which the filter has to tell the fast paths from now on.
func (p *Probe) sampleOnly(ctx context.Context) error {
	stops := &pauses{t: p.t, max: p.o.MaxPause}
	err := stops.patiently(ctx, func(h held) error {
		if err := p.nobodyInside(h); err != nil {
			return err
		}
		head, err := p.bookHead(h)
		if err != nil {
			return err
		}
		filter := make([]byte, filterLarge)
		err = p.blocks(h, head, func(b block) {
			if cell := &filter[b.addr>>4&(filterLarge-1)]; *cell < 128 && !b.pool {
				*cell++
			}
		})
		if err != nil {
			return err
		}
		p.o.Exact, p.o.NoSampling, p.o.Aim, p.complete = false, false, leak.Aim{}, false
		p.books.means = p.means()
		gen, err := get32(h, p.state(wStateGen))
		if err != nil {
			return err
		}
		// Hooks inside of an original keep out: they see another gen.
		return errors.Join(h.put(p.near().start+wNearFilter, filter), put64(h, p.state(wStateMean), p.books.means...),
			put32(h, p.state(wStateFromStart), 0), put32(h, p.state(wStateExact), 0), put64(h, p.state(wStateFilterMask), filterLarge-1),
			put32(h, p.state(wStateGen), gen+2), p.putAimIn(h, leak.Aim{}), p.drawIntervals(h))
	})
	p.info.Pauses = append(p.info.Pauses, stops.took...)
	return err
}

// drawIntervals gives each thread a distance to its first sample; the hooks
// draw those that follow.
func (p *Probe) drawIntervals(h held) error {
	slots, err := p.slots(h)
	if err != nil {
		return err
	}
	for i := range uint64(wSlots) {
		if order.Uint64(slots[i*wSlotSize+wSlotOwner:]) == 0 {
			continue
		}
		counter := uint64(rand.ExpFloat64() * float64(p.books.means[0]))
		if err := put64(h, p.near().start+wNearSlot+i*wSlotSize+wSlotCounter, counter); err != nil {
			return err
		}
	}
	return nil
}

// lessen takes one step: from exact to sampled; a longer sampling interval, then one aimed size less,
// when the slow paths are what costs; else the hooks of allocations go, at last
// all.
func (p *Probe) lessen(ctx context.Context, sink leak.Sink, percent float64, slow bool) error {
	limit := 100 * p.o.MaxOverhead
	c := &p.watch.cost
	if p.o.Exact {
		err := p.sampleOnly(ctx)
		if err == nil {
			p.gap(sink, fmt.Sprintf("the probe used %.1f %% of the target's CPU, above %.1f %%: from here on it records one block in about %d KiB of them; what is allocated from now on is estimated, a small leak may not show, and invalid releases are not told",
				percent, limit, p.o.SampleBytes>>10), 0)
			return nil
		}
		if !errors.Is(err, ErrBusy) && !errors.Is(err, ptrace.ErrPause) {
			return err
		}
		// What follows misses blocks: no release is invalid for being unknown.
		if err := put32(p.mem, p.state(wStateFromStart), 0); err != nil {
			return err
		}
	}
	if mean := p.books.means[c.mean]; slow && mean > 0 && c.mean < 5 && len(p.o.Aim.Sizes) == 0 {
		c.mean++
		p.gap(sink, fmt.Sprintf("the probe used %.1f %% of the target's CPU, above %.1f %%: it samples every %d KiB now", percent, limit, p.books.means[c.mean]>>10), 0)
		return put32(p.mem, p.state(wStateMeanNow), c.mean)
	}
	if n := len(p.o.Aim.Sizes); slow && n > 0 {
		busiest, err := p.busiest()
		if err != nil {
			return err
		}
		r := p.o.Aim.Sizes[busiest]
		aim := leak.Aim{}
		aim.Sizes = append(append(aim.Sizes, p.o.Aim.Sizes[:busiest]...), p.o.Aim.Sizes[busiest+1:]...)
		p.o.Aim = aim
		still := "only sampled"
		if p.o.NoSampling {
			still = "not recorded"
		}
		p.gap(sink, fmt.Sprintf("the probe used %.1f %% of the target's CPU, above %.1f %%: blocks of %d to %d bytes are %s now", percent, limit, r.Min, r.Max, still), 0)
		return p.putAim(aim)
	}
	if !c.deaf {
		// The calls themselves are what costs. Without the hooks of
		// functions that only allocate, what is recorded stays true: releases
		// are still seen.
		c.deaf = true
		err := p.deafen(ctx)
		if err == nil {
			p.gap(sink, fmt.Sprintf("the probe used %.1f %% of the target's CPU, above %.1f %%: it records no new blocks from here on, only releases", percent, limit), 0)
			return nil
		}
		if !errors.Is(err, ErrBusy) && !errors.Is(err, ptrace.ErrPause) {
			return err
		}
	}
	c.off = true
	p.gap(sink, fmt.Sprintf("the probe used %.1f %% of the target's CPU, above %.1f %%: it records nothing from here on", percent, limit), 0)
	return p.off(p.mem)
}

// deafen takes the hooks of functions that release nothing out.
func (p *Probe) deafen(ctx context.Context) error {
	stops := &pauses{t: p.t, max: p.o.MaxPause}
	err := stops.patiently(ctx, func(h held) error {
		_, err := p.restore(h, func(k *hook) bool { return k.allocates() })
		return err
	})
	p.info.Pauses = append(p.info.Pauses, stops.took...)
	return err
}

// busiest is the aimed range that most held blocks fall into.
func (p *Probe) busiest() (int, error) {
	n := make([]int, len(p.o.Aim.Sizes))
	head, err := p.bookHead(p.mem)
	if err != nil {
		return 0, err
	}
	err = p.blocks(p.mem, head, func(b block) {
		for i, r := range p.o.Aim.Sizes {
			if b.exact && b.size >= r.Min && b.size <= r.Max {
				n[i]++
			}
		}
	})
	best := 0
	for i := range n {
		if n[i] > n[best] {
			best = i
		}
	}
	return best, err
}
