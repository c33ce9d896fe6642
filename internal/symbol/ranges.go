package symbol

// Range list entries: DWARF 5, section 7.25.
const (
	rleEnd          = 0
	rleBaseAddressx = 1
	rleStartxEndx   = 2
	rleStartxLength = 3
	rleOffsetPair   = 4
	rleBaseAddress  = 5
	rleStartEnd     = 6
	rleStartLength  = 7
)

// maxRangeEntries bounds what is read of range lists in one file: a list may be
// long, and a damaged or hostile file may refer to it from every entry.
const maxRangeEntries = 1 << 27

// eachRange calls fn with the address ranges that an entry's low_pc, high_pc
// and ranges tell, until fn returns false. Ranges that the linker emptied may
// be among them.
func (u *unit) eachRange(low, high, ranges value, fn func(lo, hi uint64) bool) {
	if ranges.ok() {
		if u.shape.version >= 5 {
			u.rnglist(ranges, fn)
		} else {
			u.rangeList(ranges, fn)
		}
		return
	}
	if !low.ok() || !high.ok() {
		return
	}
	lo, ok := u.addr(low)
	if !ok {
		return
	}
	if high.address() {
		if hi, ok := u.addr(high); ok && hi > lo {
			fn(lo, hi)
		}
		return
	}
	if hi := lo + high.u; hi > lo { // a constant is a length, since DWARF 4
		fn(lo, hi)
	}
}

// base is the address that offsets in a range list count from.
func (u *unit) base() uint64 {
	if u.skel != nil {
		return u.skel.top().low
	}
	return u.top().low
}

// rangeList reads a list of .debug_ranges: DWARF 4, section 2.17.3.
func (u *unit) rangeList(v value, fn func(lo, hi uint64) bool) {
	sec, off := u.d.rangeLists, v.u
	if u.skel != nil {
		sec, off = u.skel.d.rangeLists, off+u.skel.top().rangesBase
	}
	size := int(u.shape.addrSize)
	highest := uint64(1)<<(8*size) - 1
	base := u.base()
	for c := newCursor(sec, off); c.err == nil && u.d.burn(); {
		lo, hi := c.uint(size), c.uint(size)
		switch {
		case lo == 0 && hi == 0:
			return
		case lo == highest:
			base = hi
		case c.err == nil && lo < hi:
			if !fn(base+lo, base+hi) {
				return
			}
		}
	}
}

// rnglist reads a list of .debug_rnglists.
func (u *unit) rnglist(v value, fn func(lo, hi uint64) bool) {
	off := v.u
	if v.form == formRnglistx {
		first := u.top().rnglistBase
		size := uint64(u.shape.offsetSize())
		c := newCursor(u.d.rnglists, first+v.u*size)
		off = first + c.uint(int(size))
		if c.err != nil {
			return
		}
	}
	size := int(u.shape.addrSize)
	base := u.base()
	c := newCursor(u.d.rnglists, off)
	addrx := func() uint64 {
		a, ok := u.addr(value{form: formAddrx, u: c.uleb()})
		if !ok {
			c.fail()
		}
		return a
	}
	for c.err == nil && u.d.burn() {
		var lo, hi uint64
		switch c.u8() {
		case rleBaseAddressx:
			base = addrx()
			continue
		case rleStartxEndx:
			lo, hi = addrx(), addrx()
		case rleStartxLength:
			lo = addrx()
			hi = lo + c.uleb()
		case rleOffsetPair:
			lo, hi = base+c.uleb(), base+c.uleb()
		case rleBaseAddress:
			base = c.uint(size)
			continue
		case rleStartEnd:
			lo, hi = c.uint(size), c.uint(size)
		case rleStartLength:
			lo = c.uint(size)
			hi = lo + c.uleb()
		default: // rleEnd, or an entry this DWARF does not have
			return
		}
		if c.err == nil && lo < hi && !fn(lo, hi) {
			return
		}
	}
}

// burn takes one from the fuel and reports whether there was any.
func (d *dwarfData) burn() bool {
	d.fuel--
	return d.fuel >= 0
}
