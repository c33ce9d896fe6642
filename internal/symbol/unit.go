package symbol

import (
	"debug/dwarf"
	"sort"
)

// Unit kinds: DWARF 5, section 7.5.1.
const (
	unitCompile  = 1
	unitPartial  = 3
	unitSkeleton = 4
	unitSplit    = 5
)

// maxUnits bounds the units of one file; a browser has some 40,000.
const maxUnits = 1 << 18

// dwarfData is the DWARF of one file: the sections, and an index of which
// units cover which addresses. Entries are read when they are asked for. Its
// owner guards it.
type dwarfData struct {
	info, abbrevs  *section
	strs, lineStrs *section
	strOffs, addrs *section // indexes of DWARF 5
	line           *section
	rangeLists     *section // .debug_ranges, before DWARF 5
	rnglists       *section
	aranges        *section

	alt       *dwarfData                 // the file that dwz moved shared entries to
	split     bool                       // a .dwo or .dwp file
	code      func(lo, hi uint64) bool   // whether addresses can be code
	openSplit func(skeleton *unit) *unit // nil when the unit is not found

	units  []*unit // by offset
	odd    int     // units of an unknown version or form
	index  []unitRange
	tables map[tableKey]*abbrevTable
	specs  int               // in tables, to bound them
	names  map[uint64]string // qualified names by the offset of their entry
	weight int               // entries of the units' indexes, to bound them
	fuel   int               // range list entries that may still be read
}

type tableKey struct {
	off uint64
	s   shape
}

// unit is one compilation or partial unit.
type unit struct {
	d      *dwarfData
	off    uint64 // of its header
	first  uint64 // of its first entry
	end    uint64
	abbrev uint64
	shape  shape
	kind   uint8
	dwoID  uint64
	root   *root
	funcs  []funcRange // nil until they are asked for
	lines  *lineTable  // likewise
	skel   *unit       // for a split unit: the skeleton it belongs to
}

// root is what the first entry of a unit says.
type root struct {
	tag         dwarf.Tag
	lang        uint64
	compDir     string
	dwoName     string
	stmtList    uint64
	hasLines    bool
	low         uint64
	lowValue    value
	highValue   value
	ranges      value
	strOffsBase uint64
	addrBase    uint64
	rnglistBase uint64
	rangesBase  uint64 // GNU split DWARF 4: added to offsets in the .dwo
}

// newDWARF makes the DWARF of an object, nil when it has none. code says which
// addresses can be code.
func newDWARF(o *object, code func(lo, hi uint64) bool) *dwarfData {
	d := &dwarfData{
		info: o.section(".debug_info"), abbrevs: o.section(".debug_abbrev"),
		strs: o.section(".debug_str"), lineStrs: o.section(".debug_line_str"), line: o.section(".debug_line"),
		rangeLists: o.section(".debug_ranges"), rnglists: o.section(".debug_rnglists"),
		addrs: o.section(".debug_addr"), strOffs: o.section(".debug_str_offsets"), aranges: o.section(".debug_aranges"),
		code: code,
	}
	return d.ready()
}

// ready finds the units; nil when there are no entries.
func (d *dwarfData) ready() *dwarfData {
	if d.info == nil || d.abbrevs == nil {
		return nil
	}
	d.tables, d.fuel = map[tableKey]*abbrevTable{}, maxRangeEntries
	d.readUnits()
	return d
}

// readUnits finds the headers of all units; it reads some 20 bytes of each.
func (d *dwarfData) readUnits() {
	c := newCursor(d.info, 0)
	for c.err == nil && c.off() < d.info.size && len(d.units) < maxUnits {
		u := &unit{d: d, off: c.off()}
		known := u.readHeader(&c)
		if c.err != nil || u.end <= c.off() {
			break
		}
		switch {
		case !known:
			d.odd++
		case u.kind == unitCompile || u.kind == unitPartial || u.kind == unitSkeleton || u.kind == unitSplit:
			d.units = append(d.units, u)
		}
		c.seek(u.end)
	}
}

// readHeader reads a unit header (DWARF 5, section 7.5.1; DWARF 4, the same)
// and reports whether it is of a kind that can be read. u.end is set anyway.
func (u *unit) readHeader(c *cursor) bool {
	length := uint64(c.u32())
	if length == 0xffffffff {
		length, u.shape.wide = c.u64(), true
	}
	start := c.off()
	if c.err != nil || length > u.d.info.size-start {
		u.end = 0
		return false
	}
	u.end = start + length
	u.shape.version = c.u16()
	u.kind = unitCompile
	switch v := u.shape.version; {
	case v >= 2 && v <= 4:
		u.abbrev = c.uint(u.shape.offsetSize())
		u.shape.addrSize = c.u8()
	case v == 5:
		u.kind = c.u8()
		u.shape.addrSize = c.u8()
		u.abbrev = c.uint(u.shape.offsetSize())
		if u.kind == unitSkeleton || u.kind == unitSplit {
			u.dwoID = c.u64()
		}
	default:
		return false
	}
	u.first = c.off()
	return (u.shape.addrSize == 8 || u.shape.addrSize == 4) && u.first < u.end
}

// table is the unit's abbreviations. The cache of tables is bounded.
func (u *unit) table() *abbrevTable {
	k := tableKey{u.abbrev, u.shape}
	if t, ok := u.d.tables[k]; ok {
		return t
	}
	t := readAbbrevs(u.d.abbrevs, u.abbrev, u.shape)
	for i := range t.dense {
		u.d.specs += len(t.dense[i].specs) + 4
	}
	if u.d.specs > maxSpecs {
		clear(u.d.tables)
		u.d.specs = 0
	}
	u.d.tables[k] = t
	return t
}

// top reads the unit's first entry, once.
func (u *unit) top() *root {
	if u.root != nil {
		return u.root
	}
	r := &root{}
	u.root = r
	c := newCursor(u.d.info, u.first)
	a, ok := findAbbrev(u.d.abbrevs, u.abbrev, c.uleb(), u.shape)
	if !ok {
		return r
	}
	r.tag = a.tag
	var dir, dwo value
	for i := range a.specs {
		sp := &a.specs[i]
		v := readValue(&c, u.shape, sp.form, sp.implicit)
		switch sp.attr {
		case dwarf.AttrLanguage:
			r.lang = v.u
		case dwarf.AttrCompDir:
			dir = v
		case attrGNUDwoName, dwarf.AttrDwoName:
			dwo = v
		case attrGNUDwoID:
			u.dwoID = v.u
		case dwarf.AttrStmtList:
			r.stmtList, r.hasLines = v.u, true
		case dwarf.AttrLowpc:
			r.lowValue = v
		case dwarf.AttrHighpc:
			r.highValue = v
		case dwarf.AttrRanges:
			r.ranges = v
		case dwarf.AttrStrOffsetsBase:
			r.strOffsBase = v.u
		case dwarf.AttrAddrBase, attrGNUAddrBase:
			r.addrBase = v.u
		case dwarf.AttrRnglistsBase:
			r.rnglistBase = v.u
		case attrGNURangesBase:
			r.rangesBase = v.u
		}
	}
	// A split unit's lists and string offsets begin behind a table header.
	if u.d.split && u.shape.version >= 5 {
		header := uint64(8)
		if u.shape.wide {
			header = 16
		}
		if r.strOffsBase == 0 {
			r.strOffsBase = header
		}
		if r.rnglistBase == 0 {
			r.rnglistBase = header + 4
		}
	}
	// Only now: the bases that these need may stand anywhere in the entry.
	r.compDir, r.dwoName = u.str(dir), u.str(dwo)
	if r.compDir == "" && u.skel != nil {
		r.compDir = u.skel.top().compDir
	}
	if r.lowValue.ok() {
		r.low, _ = u.addr(r.lowValue)
	}
	return r
}

// skeleton reports whether the unit's entries are in another file.
func (u *unit) skeleton() bool { return !u.d.split && u.top().dwoName != "" }

// str gives the string that a value stands for.
func (u *unit) str(v value) string {
	switch v.form {
	case formString:
		return u.d.info.str(v.off)
	case formStrp:
		return u.d.strs.str(v.u)
	case formLineStrp:
		return u.d.lineStrs.str(v.u)
	case formGNUStrpAlt, formStrpSup:
		if u.d.alt != nil {
			return u.d.alt.strs.str(v.u)
		}
	case formStrx, formStrx1, formStrx2, formStrx3, formStrx4, formGNUStrIndex:
		size := uint64(u.shape.offsetSize())
		c := newCursor(u.d.strOffs, u.top().strOffsBase+v.u*size)
		if off := c.uint(int(size)); c.err == nil {
			return u.d.strs.str(off)
		}
	}
	return ""
}

// addr gives the address that a value stands for.
func (u *unit) addr(v value) (uint64, bool) {
	switch v.form {
	case formAddr:
		return v.u, true
	case formAddrx, formAddrx1, formAddrx2, formAddrx3, formAddrx4, formGNUAddrIndex:
		holder := u
		if u.skel != nil {
			holder = u.skel // .debug_addr stays in the linked file
		}
		size := uint64(u.shape.addrSize)
		c := newCursor(holder.d.addrs, holder.top().addrBase+v.u*size)
		a := c.uint(int(size))
		return a, c.err == nil
	}
	return 0, false
}

// target gives the unit and entry that a reference leads to, nil when that
// cannot be found.
func (u *unit) target(v value) (*unit, uint64) {
	switch v.form {
	case formRef1, formRef2, formRef4, formRef8, formRefUdata:
		if off := u.off + v.u; off >= u.first && off < u.end {
			return u, off
		}
	case formRefAddr:
		return u.d.at(v.u), v.u
	case formGNURefAlt, formRefSup4, formRefSup8:
		if u.d.alt != nil {
			return u.d.alt.at(v.u), v.u
		}
	}
	return nil, 0
}

// at finds the unit with an entry at off.
func (d *dwarfData) at(off uint64) *unit {
	i := sort.Search(len(d.units), func(i int) bool { return d.units[i].end > off })
	if i < len(d.units) && off >= d.units[i].first {
		return d.units[i]
	}
	return nil
}
