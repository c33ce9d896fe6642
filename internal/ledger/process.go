package ledger

import (
	"cmp"
	"maps"
	"slices"

	"stanch/internal/leak"
)

// LostSizes gives the usable sizes of the blocks that are directly lost in the
// last look of any process, those with the most lost bytes first: what a probe
// should be aimed at.
func (v *View) LostSizes() []uint64 {
	bytes := map[uint64]uint64{}
	for _, p := range v.Procs {
		for i := range p.Lost {
			if c := &p.Lost[i]; c.Direct > 0 {
				bytes[p.Groups[c.Group].Size] += c.DirectBytes + c.IndirectBytes
			}
		}
	}
	return slices.SortedFunc(maps.Keys(bytes), func(a, b uint64) int {
		return cmp.Or(-cmp.Compare(bytes[a], bytes[b]), cmp.Compare(a, b))
	})
}

// Ended reports whether the process was followed to its end: all numbers are
// final then, and rates mean nothing.
func (p *Process) Ended() bool {
	final := func(k leak.Look) bool { return k.Final }
	return slices.ContainsFunc(p.Looks, final) || slices.ContainsFunc(p.Blind, final)
}

// FinalLook gives the look at the exit, nil when there was none that listed
// blocks.
func (p *Process) FinalLook() *leak.Look {
	if k := p.LastLook(); k != nil && k.Final {
		return k
	}
	return nil
}

// LastLook gives the last look that listed blocks, nil when there was none.
func (p *Process) LastLook() *leak.Look {
	if len(p.Looks) == 0 {
		return nil
	}
	return &p.Looks[len(p.Looks)-1]
}
