// Package ledger keeps the books of an observation: what is held and lost, by
// whom, and how the numbers moved. A [Ledger] takes events as a leak.Sink; a
// [View] is a frozen copy of its conclusions for detectors.
//
// Memory, per process: 20 bytes for each block that the last look found lost,
// and 24 more while a look comes in; about 65 bytes for each block in the
// probe's live table; up to 2.6 KB for each stack with tallies, 8 KB for
// each gauge and 1 MB for invalid releases, however long the watch. Nothing is
// kept of blocks that are reachable and unrecorded. Of descriptors: about 300
// bytes for each of the last listing, 200 more for a socket, twice that while
// a listing comes in, and 150 for each that a tracer saw come and not go; at
// most 3 MB for the places that opened them, 5 MB for limits, and 1 MB for
// sockets without an owner, calls that failed and inputs.
//
// Events may come in any order, as a damaged recording holds them. What cannot
// be placed is left out and counted in a gap.
package ledger

import (
	"fmt"
	"math"
	"slices"
	"time"

	"stanch/internal/leak"
)

// Ledger is a leak.Sink that keeps the books. It belongs to one goroutine; use
// leak.Serial before it when several sources say to it at once.
type Ledger struct {
	maps    map[leak.MapID]leak.Mapping
	stacks  map[leak.StackID][]leak.Frame
	byID    map[leak.ProcID]*books
	procs   []*books // in the order in which they were first heard of
	looking *books   // who was looked at latest
	gaps    []leak.Gap
	end     time.Duration
	astray  uint64 // verdicts outside of a look
	crowded uint64 // limits, failures, inputs and ownerless sockets there was no room for
}

var _ leak.Sink = (*Ledger)(nil)

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{
		maps:   map[leak.MapID]leak.Mapping{},
		stacks: map[leak.StackID][]leak.Frame{},
		byID:   map[leak.ProcID]*books{},
	}
}

// books are what is known of one process.
type books struct {
	id      leak.ProcID
	looks   []leak.Look // those that listed blocks; lostSet.since points here
	phases  []uint16    // when each of them was sealed
	blind   []leak.Look // those that could not walk the heap
	open    *incoming   // the verdicts of the look that is coming in, or nil
	lost    *lostSet    // of the last complete look; never changed once made
	groups  groups
	release map[uint64]time.Duration // lost blocks that were given back later
	held    heldBooks
	live    live
	tallies map[tallyKey]*tallies
	invalid invalids
	gauges  map[leak.GaugeName]*series
	probeAt time.Duration // first word of a probe; negative when there is none
	fds     descriptors
	resources
}

// The most gaps that are kept one by one, and the most looks.
const (
	maxGaps  = 1000
	maxLooks = 1 << 16
)

func (l *Ledger) books(id leak.ProcID) *books {
	if b, ok := l.byID[id]; ok {
		return b
	}
	b := &books{
		id: id, groups: newGroups(), release: map[uint64]time.Duration{},
		held: newHeldBooks(), live: newLive(), tallies: map[tallyKey]*tallies{},
		invalid: newInvalids(),
		gauges:  map[leak.GaugeName]*series{}, probeAt: -1,
		fds: newDescriptors(), resources: newResources(),
	}
	l.byID[id] = b
	l.procs = append(l.procs, b)
	return b
}

func (l *Ledger) seen(at time.Duration) { l.end = max(l.end, at) }

func (b *books) probed(at time.Duration) {
	if b.probeAt < 0 || at < b.probeAt {
		b.probeAt = max(at, 0)
	}
}

// Map takes a mapping.
func (l *Ledger) Map(m leak.Mapping) { l.maps[m.ID] = m }

// Stack takes a stack. The slice is copied.
func (l *Ledger) Stack(id leak.StackID, frames []leak.Frame) { l.stacks[id] = slices.Clone(frames) }

// Acquire notes a held thing. Said again with about the same time, and the same
// size and stack, it only confirms that it is still held; else it is a new thing in the place of
// the old one, whose release nobody saw.
func (l *Ledger) Acquire(a leak.Acquire) {
	l.seen(a.At)
	b := l.books(a.Ref.Proc)
	if a.Ref.Kind == leak.KindDescriptor {
		b.fds.acquire(a)
		return
	}
	b.probed(a.At)
	b.live.acquire(a, b.phase())
}

// Release notes that a thing was given back.
func (l *Ledger) Release(r leak.Release) {
	l.seen(r.At)
	if r.Call == "exit" && l.byID[r.Ref.Proc] == nil {
		return // of a process that is forgotten
	}
	b := l.books(r.Ref.Proc)
	if r.Ref.Kind == leak.KindDescriptor {
		b.fds.release(r)
		return
	}
	b.live.release(r.Ref)
	// A block that was lost and is now given back was not lost.
	if r.Ref.Kind == leak.KindMemory && (b.open != nil || b.lost.has(r.Ref.ID)) {
		b.release[r.Ref.ID] = r.At
	}
}

// Invalid notes a release of what was not held.
func (l *Ledger) Invalid(i leak.Invalid) {
	l.seen(i.At)
	b := l.books(i.Ref.Proc)
	b.probed(i.At)
	b.invalid.add(i)
}

// sane reports whether all are numbers that a machine can have: a damaged
// recording may hold others.
func sane(fs ...float64) bool {
	for _, f := range fs {
		if !(math.Abs(f) < 1<<62) {
			return false
		}
	}
	return true
}

// Tally notes the totals of a stack.
func (l *Ledger) Tally(y leak.Tally) {
	l.seen(y.At)
	if !sane(y.Acquired.N, y.Acquired.Bytes, y.Released.N, y.Released.Bytes) {
		return
	}
	b := l.books(y.Proc)
	b.probed(y.At)
	k := tallyKey{y.Kind, y.Stack, y.Exact}
	t, ok := b.tallies[k]
	if !ok {
		t = &tallies{}
		b.tallies[k] = t
	}
	t.add(y)
}

// Gauge notes a number.
func (l *Ledger) Gauge(g leak.Gauge) {
	l.seen(g.At)
	if !sane(g.Value) {
		return
	}
	b := l.books(g.Proc)
	switch g.Name {
	case leak.GaugeProbeBytes, leak.GaugeProbeCalls, leak.GaugeProbeInterval, leak.GaugeProbeSeconds:
		b.probed(g.At)
	}
	s, ok := b.gauges[g.Name]
	if !ok {
		s = &series{max: maxPoints}
		if g.Name == leak.GaugePause {
			s.max = 1 << 20 // every single one counts
		}
		b.gauges[g.Name] = s
	}
	s.add(Point{g.At, g.Value})
}

// Look opens a look; it closes the one before.
func (l *Ledger) Look(k leak.Look) {
	l.seen(k.At)
	b := l.books(k.Proc)
	b.seal()
	b.open = &incoming{look: k}
	l.looking = b
}

// Verdicts takes lost blocks of the look that is open at their process.
// Several processes may be looked at in turns.
func (l *Ledger) Verdicts(vs []leak.Verdict) {
	for i := range vs {
		b := l.open(vs[i].Ref.Proc)
		if b == nil {
			l.astray++
			continue
		}
		b.open.add(&vs[i], &b.groups)
	}
}

// Held takes holders of reachable blocks of the look that is open at their
// process.
func (l *Ledger) Held(hs []leak.Held) {
	for i := range hs {
		b := l.looking
		if hs[i].Proc != (leak.ProcID{}) {
			b = l.open(hs[i].Proc)
		}
		if b != nil && b.open != nil {
			b.open.held = append(b.open.held, hs[i])
		}
	}
}

// open gives the books of a process when a look at it is open. The latest look
// is most often the one.
func (l *Ledger) open(id leak.ProcID) *books {
	b := l.looking
	if b == nil || b.id != id {
		b = l.byID[id]
	}
	if b == nil || b.open == nil {
		return nil
	}
	return b
}

// Gap takes what nobody could see. What is said again, as at every look, is one
// gap with the sum of what it lost.
func (l *Ledger) Gap(g leak.Gap) {
	l.seen(g.At)
	for i := range l.gaps {
		if k := &l.gaps[i]; k.Source == g.Source && k.What == g.What && k.Proc == g.Proc {
			k.Lost += g.Lost
			return
		}
	}
	if len(l.gaps) < maxGaps {
		l.gaps = append(l.gaps, g)
		return
	}
	last := &l.gaps[maxGaps-1]
	if last.Source != "ledger" {
		*last = leak.Gap{At: last.At, Source: "ledger", What: fmt.Sprintf("more than %d gaps; the rest are only counted", maxGaps), Lost: 1}
	}
	last.Lost++
}
