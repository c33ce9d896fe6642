package detect

import (
	"cmp"
	"slices"
)

// The most findings without a site, and how many sizes that otherwise look
// alike are told apart; those beyond go into one.
const (
	maxKinds = 12
	maxSizes = 3
)

// fold puts small kinds without a site together: first sizes that otherwise
// look alike and are less than a tenth of all such, then whatever is too much.
func fold(p *Pass, ls []*loss) []*loss {
	slices.SortStableFunc(ls, func(a, b *loss) int { return -cmp.Compare(a.bytes(), b.bytes()) })
	like := func(l *loss) likeness {
		g := &p.Proc.Groups[l.group]
		return likeness{g.Shape, g.Type, g.Magic}
	}
	sizes, bytes := map[likeness]int{}, map[likeness]uint64{}
	for _, l := range ls {
		if l.site == nil {
			sizes[like(l)]++
			bytes[like(l)] += l.bytes()
		}
	}
	var out []*loss
	alike := map[likeness]*loss{}
	for _, l := range ls {
		k := like(l)
		switch {
		case l.site != nil || sizes[k] <= maxSizes || l.bytes() >= bytes[k]/10:
			out = append(out, l)
		case alike[k] == nil:
			alike[k] = l
			out = append(out, l)
		default:
			alike[k].join(l)
		}
	}
	slices.SortStableFunc(out, func(a, b *loss) int { return -cmp.Compare(a.bytes(), b.bytes()) })
	kinds, kept := 0, out[:0:0]
	var rest *loss
	for _, l := range out {
		if l.site == nil {
			kinds++
		}
		switch {
		case l.site != nil || kinds <= maxKinds:
			kept = append(kept, l)
		case rest == nil:
			rest = l
			rest.others = true
			kept = append(kept, l)
		default:
			rest.join(l)
		}
	}
	return kept
}

// bytes are all usable bytes of a loss, however sure.
func (l *loss) bytes() uint64 { return l.old.bytes() + l.new.bytes() + l.once.bytes() }

func (l *loss) join(o *loss) {
	for _, x := range []struct{ to, from *part }{{&l.old, &o.old}, {&l.new, &o.new}, {&l.once, &o.once}, {&l.since, &o.since}} {
		x.to.direct += x.from.direct
		x.to.directBytes += x.from.directBytes
		x.to.indirect += x.from.indirect
		x.to.indirectBytes += x.from.indirectBytes
	}
	for k := range o.kinds {
		l.kinds[k] = true
	}
	if l.earliest < 0 || o.earliest >= 0 && o.earliest < l.earliest {
		l.earliest = o.earliest
	}
}
