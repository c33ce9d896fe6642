package symbol

import (
	"debug/dwarf"
	"slices"
	"sort"
)

const (
	maxUnitRanges = 1 << 21 // of one file
	maxCovering   = 16      // units asked about one place
)

// unitRange says that a unit has code at [low, high).
type unitRange struct {
	low, high uint64
	reach     uint64 // highest high up to here
	unit      *unit
}

// unitsAt gives the units that say they cover pc, those that start closest
// before it first.
func (d *dwarfData) unitsAt(pc uint64) []*unit {
	if d.index == nil {
		d.buildIndex()
	}
	var found []*unit
	i := sort.Search(len(d.index), func(i int) bool { return d.index[i].low > pc })
	for i--; i >= 0 && d.index[i].reach > pc && len(found) < maxCovering; i-- {
		if r := &d.index[i]; r.high > pc && !slices.Contains(found, r.unit) {
			found = append(found, r.unit)
		}
	}
	return found
}

// buildIndex asks the first entry of each unit what it covers, and
// .debug_aranges for the units whose entry does not say.
func (d *dwarfData) buildIndex() {
	d.index = []unitRange{}
	add := func(u *unit, lo, hi uint64) {
		if lo < hi && d.code(lo, hi) && len(d.index) < maxUnitRanges {
			d.index = append(d.index, unitRange{low: lo, high: hi, unit: u})
		}
	}
	silent := map[uint64]*unit{}
	for _, u := range d.units {
		r := u.top()
		if u.kind == unitPartial || r.tag == dwarf.TagPartialUnit {
			continue
		}
		n := len(d.index)
		u.eachRange(r.lowValue, r.highValue, r.ranges, func(lo, hi uint64) bool {
			add(u, lo, hi)
			return true
		})
		if len(d.index) == n {
			silent[u.off] = u
		}
	}
	d.readAranges(silent, add)
	slices.SortFunc(d.index, func(a, b unitRange) int {
		if a.low != b.low {
			return cmpUint(a.low, b.low)
		}
		return cmpUint(b.high, a.high) // the tightest is found first
	})
	var reach uint64
	for i := range d.index {
		reach = max(reach, d.index[i].high)
		d.index[i].reach = reach
	}
}

func cmpUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// readAranges reads .debug_aranges (DWARF 5, section 6.1.2) for the units in
// want, by the offset of their headers.
func (d *dwarfData) readAranges(want map[uint64]*unit, add func(u *unit, lo, hi uint64)) {
	if d.aranges == nil || len(want) == 0 {
		return
	}
	c := newCursor(d.aranges, 0)
	for c.err == nil && c.off() < d.aranges.size {
		start, size := c.off(), 4
		length := uint64(c.u32())
		if length == 0xffffffff {
			length, size = c.u64(), 8
		}
		end := c.off() + length
		if end < c.off() || end > d.aranges.size {
			return
		}
		c.skip(2)
		u := want[c.uint(size)]
		addrSize, segSize := int(c.u8()), c.u8()
		if u != nil && segSize == 0 && (addrSize == 8 || addrSize == 4) {
			tuple := uint64(2 * addrSize)
			c.seek(start + (c.off()-start+tuple-1)/tuple*tuple)
			for c.err == nil && c.off()+tuple <= end {
				lo, n := c.uint(addrSize), c.uint(addrSize)
				if lo == 0 && n == 0 {
					break
				}
				add(u, lo, lo+n)
			}
		}
		c.seek(end)
	}
}
