package detect

import (
	"cmp"
	"slices"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// Holders says who holds what is reachable, by the last look at each process:
// what one object holds of one kind is one line, largest first. The most
// lines are given by limit.
func Holders(v *ledger.View, p *ledger.Process, c Config, limit int) []leak.ReportHeld {
	n := newNames(v, &c)
	type key struct {
		holder, what string
		size         uint64
	}
	sums := map[key]*leak.ReportHeld{}
	out := []leak.ReportHeld{}
	for i := range p.Holders {
		h := &p.Holders[i]
		if h.Last.N == 0 {
			continue
		}
		k := key{n.root(h.Root), n.kind(&ledger.Group{Size: h.Size, Shape: h.Shape, Type: h.Type}), h.Size}
		s := sums[k]
		if s == nil {
			s = &leak.ReportHeld{Holder: k.holder, Type: k.what, Size: k.size}
			sums[k] = s
		}
		s.Count += h.Last.N
		s.Bytes += h.Last.Bytes
	}
	for _, s := range sums {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b leak.ReportHeld) int {
		return cmp.Or(-cmp.Compare(a.Bytes, b.Bytes), cmp.Compare(a.Holder, b.Holder), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Type, b.Type))
	})
	return out[:min(len(out), limit)]
}
