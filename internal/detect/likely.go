package detect

import (
	"cmp"
	"slices"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// rival is a site that loses blocks of the same kind now.
type rival struct {
	key  string
	site *site
	n    uint64
}

// recordedKinds are the kinds of lost blocks that were recorded, by what must
// be equal for two blocks to look the same but for their size.
type recordedKinds map[likeness][]recordedKind

type likeness struct {
	shape leak.Shape
	typ   leak.Frame
	magic uint8
}

type recordedKind struct {
	min, max uint64
	site     *site
	n        uint64
}

func (r recordedKinds) add(g *ledger.Group, c *ledger.Cell, s *site) {
	k := likeness{g.Shape, g.Type, g.Magic}
	r[k] = append(r[k], recordedKind{c.MinRequest, c.MaxRequest, s, c.Direct})
}

// match gives the sites that lose blocks which look like those of g, the one
// with the most first.
func (r recordedKinds) match(g *ledger.Group) []rival {
	var out []rival
	for _, k := range r[likeness{g.Shape, g.Type, g.Magic}] {
		if k.n == 0 || !ledger.Fits(min(k.max, g.Size), g.Size) || k.min > g.Size {
			continue
		}
		i := slices.IndexFunc(out, func(v rival) bool { return v.key == k.site.key })
		if i < 0 {
			out = append(out, rival{k.site.key, k.site, 0})
			i = len(out) - 1
		}
		out[i].n += k.n
	}
	slices.SortStableFunc(out, func(a, b rival) int { return cmp.Or(-cmp.Compare(a.n, b.n), cmp.Compare(a.key, b.key)) })
	return out
}

// dominant gives the first rival when its line alone has four fifths of the
// blocks, whoever called it.
func dominant(rs []rival) *rival {
	lines := map[string]uint64{}
	var all uint64
	for i := range rs {
		lines[rs[i].site.place] += rs[i].n
		all += rs[i].n
	}
	for i := range rs {
		if lines[rs[i].site.place]*5 >= all*4 {
			return &rs[i]
		}
	}
	return nil
}
