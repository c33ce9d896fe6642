package ledger

import (
	"math"
	"time"

	"stanch/internal/leak"
)

// record is what is known of one acquired block: 32 bytes.
type record struct {
	at     time.Duration
	size   uint64
	weight float32
	stack  leak.StackID
	said   uint16 // phase in which it was first said
	last   uint16 // phase in which it was last said
	exact  bool
}

// live are the recorded things that are still held, as far as it is known.
type live struct {
	memory map[uint64]record
	other  map[leak.Ref]record
	// A source that repeats its whole table at every look never says what was
	// released. Once a repetition was seen in a phase, what is not repeated
	// in it is gone.
	repeated uint16
	large    map[largeKey]uint64
}

type largeKey struct {
	size  uint64
	stack leak.StackID
}

// Requested sizes from here on are kept apart by size, since they can tell a
// story of their own; and so many of them at most.
const (
	largeSize = 1 << 16
	maxLarge  = 4096
)

func newLive() live {
	return live{memory: map[uint64]record{}, other: map[leak.Ref]record{}, large: map[largeKey]uint64{}}
}

func (l *live) acquire(a leak.Acquire, phase uint16) {
	r := record{at: a.At, size: a.Size, weight: float32(a.Weight), stack: a.Stack, said: phase, last: phase, exact: a.Exact}
	if !(a.Weight >= 1) || math.IsInf(a.Weight, 1) {
		r.weight = 1
	}
	old, known := l.get(a.Ref)
	if known && (old.at-r.at).Abs() <= clockSlack(r.at) && old.size == r.size && old.stack == r.stack {
		r.at, r.said = old.at, old.said
		if phase > old.last {
			l.repeated = max(l.repeated, phase)
		}
	} else if a.Size >= largeSize && a.Ref.Kind == leak.KindMemory {
		k := largeKey{a.Size, a.Stack}
		if _, ok := l.large[k]; ok || len(l.large) < maxLarge {
			l.large[k]++
		}
	}
	if a.Ref.Kind == leak.KindMemory {
		l.memory[a.Ref.ID] = r
	} else {
		l.other[a.Ref] = r
	}
}

func (l *live) get(ref leak.Ref) (record, bool) {
	if ref.Kind == leak.KindMemory {
		r, ok := l.memory[ref.ID]
		return r, ok
	}
	r, ok := l.other[ref]
	return r, ok
}

func (l *live) release(ref leak.Ref) {
	if ref.Kind == leak.KindMemory {
		delete(l.memory, ref.ID)
		return
	}
	delete(l.other, ref)
}

// held reports whether the record still stands.
func (l *live) held(r *record) bool { return r.last >= l.repeated }

// maxSlack is the most by which the usable size of a block exceeds the request
// for it: the rest of a page for mapped blocks, 31 bytes for others.
// glibc: request2size rounds r+8 up to 16 with at least 32, and a chunk may be
// 16 larger when the rest would be too small to stand alone.
func maxSlack(usable uint64) uint64 {
	if usable >= 64<<10 {
		return 4096 + 31
	}
	return 31
}

// Fits reports whether a block of usable bytes can be the answer to a request.
func Fits(requested, usable uint64) bool {
	return requested <= usable && usable-requested <= maxSlack(usable)
}

// block finds who acquired the lost block at addr of usable bytes.
func (l *live) block(addr, usable uint64) (record, bool) {
	r, ok := l.memory[addr]
	return r, ok && l.held(&r) && aligned(r.size, usable)
}

// aligned is Fits for a block at the very address that was recorded, which may
// have been asked for with an alignment: glibc's _int_memalign leaves up to 32
// bytes more in the heap; a mapped block keeps what lies behind it, and is
// taken for the same while it is no more than four times as large.
func aligned(requested, usable uint64) bool {
	switch {
	case requested > usable:
		return false
	case usable >= 64<<10 && requested >= usable/4:
		return true
	}
	return usable-requested <= maxSlack(usable)+32
}
