package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"stanch/internal/leak"
)

// Invalid counts the releases of things that were not held which have their
// stacks in common.
type Invalid struct {
	Kind     leak.Kind
	Double   bool         // given back before; else never acquired
	Stack    leak.StackID // who gave them back
	Acquired leak.StackID // of double ones: who had acquired them
	Released leak.StackID // of double ones: who gave them back the first time
	N        uint64
	Bytes    uint64 // requested, as far as it is known
	MinSize  uint64 // the smallest request, zero when none is known
	MaxSize  uint64
	First    time.Duration
	Last     time.Duration
}

// invalidKey is what releases that count as the same have in common.
type invalidKey struct {
	kind                      leak.Kind
	double                    bool
	stack, acquired, released leak.StackID
}

// maxInvalid is how many kinds of invalid releases are told apart. What comes
// beyond them is counted without stacks.
const maxInvalid = 4096

type invalids map[invalidKey]*Invalid

func newInvalids() invalids { return invalids{} }

func (m invalids) add(i leak.Invalid) {
	k := invalidKey{i.Ref.Kind, i.Double, i.Stack, i.Acquired, i.Released}
	if !i.Double {
		k.acquired, k.released = 0, 0
	}
	e := m[k]
	if e == nil && len(m) >= maxInvalid {
		k = invalidKey{kind: k.kind, double: k.double}
		e = m[k]
	}
	if e == nil {
		e = &Invalid{Kind: k.kind, Double: k.double, Stack: k.stack, Acquired: k.acquired, Released: k.released, First: i.At, Last: i.At}
		m[k] = e
	}
	e.N++
	e.Bytes += i.Size
	e.First, e.Last = min(e.First, i.At), max(e.Last, i.At)
	if i.Size == 0 {
		return
	}
	if e.MinSize == 0 || i.Size < e.MinSize {
		e.MinSize = i.Size
	}
	e.MaxSize = max(e.MaxSize, i.Size)
}

// view gives them in the order in which they were first seen.
func (m invalids) view() []Invalid {
	out := make([]Invalid, 0, len(m))
	for _, k := range slices.SortedFunc(maps.Keys(m), func(a, b invalidKey) int {
		return cmp.Or(cmp.Compare(m[a].First, m[b].First), cmp.Compare(a.kind, b.kind), leak.CompareBool(a.double, b.double),
			cmp.Compare(a.stack, b.stack), cmp.Compare(a.acquired, b.acquired), cmp.Compare(a.released, b.released))
	}) {
		out = append(out, *m[k])
	}
	return out
}
