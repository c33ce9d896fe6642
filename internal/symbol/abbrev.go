package symbol

import "debug/dwarf"

// The DWARF here is read by hand, not through debug/dwarf: that package needs
// whole sections in memory and cannot follow references into the file that
// dwz shares between packages. The names of tags and attributes are its.

// The attribute forms: DWARF 5, section 7.5.6, and the GNU extensions of
// binutils' dwarf2.def.
const (
	formAddr          = 0x01
	formBlock2        = 0x03
	formBlock4        = 0x04
	formData2         = 0x05
	formData4         = 0x06
	formData8         = 0x07
	formString        = 0x08
	formBlock         = 0x09
	formBlock1        = 0x0a
	formData1         = 0x0b
	formFlag          = 0x0c
	formSdata         = 0x0d
	formStrp          = 0x0e
	formUdata         = 0x0f
	formRefAddr       = 0x10
	formRef1          = 0x11
	formRef2          = 0x12
	formRef4          = 0x13
	formRef8          = 0x14
	formRefUdata      = 0x15
	formIndirect      = 0x16
	formSecOffset     = 0x17
	formExprloc       = 0x18
	formFlagPresent   = 0x19
	formStrx          = 0x1a
	formAddrx         = 0x1b
	formRefSup4       = 0x1c
	formStrpSup       = 0x1d
	formData16        = 0x1e
	formLineStrp      = 0x1f
	formRefSig8       = 0x20
	formImplicitConst = 0x21
	formLoclistx      = 0x22
	formRnglistx      = 0x23
	formRefSup8       = 0x24
	formStrx1         = 0x25
	formStrx2         = 0x26
	formStrx3         = 0x27
	formStrx4         = 0x28
	formAddrx1        = 0x29
	formAddrx2        = 0x2a
	formAddrx3        = 0x2b
	formAddrx4        = 0x2c
	formGNUAddrIndex  = 0x1f01
	formGNUStrIndex   = 0x1f02
	formGNURefAlt     = 0x1f20
	formGNUStrpAlt    = 0x1f21
)

// Attributes that debug/dwarf has no name for.
const (
	attrMIPSLinkageName dwarf.Attr = 0x2007
	attrGNUDwoName      dwarf.Attr = 0x2130
	attrGNUDwoID        dwarf.Attr = 0x2131
	attrGNURangesBase   dwarf.Attr = 0x2132
	attrGNUAddrBase     dwarf.Attr = 0x2133
)

// shape is what the size of an attribute's value depends on.
type shape struct {
	version  uint16
	addrSize uint8
	wide     bool // 64-bit DWARF
}

func (s shape) offsetSize() int {
	if s.wide {
		return 8
	}
	return 4
}

// fixed is the size in bytes of a value of that form, -1 when it depends on
// the value.
func (s shape) fixed(form uint16) int {
	switch form {
	case formAddr:
		return int(s.addrSize)
	case formData1, formFlag, formRef1, formStrx1, formAddrx1:
		return 1
	case formData2, formRef2, formStrx2, formAddrx2:
		return 2
	case formStrx3, formAddrx3:
		return 3
	case formData4, formRef4, formRefSup4, formStrx4, formAddrx4:
		return 4
	case formData8, formRef8, formRefSig8, formRefSup8:
		return 8
	case formData16:
		return 16
	case formFlagPresent, formImplicitConst:
		return 0
	case formStrp, formSecOffset, formLineStrp, formStrpSup, formGNURefAlt, formGNUStrpAlt:
		return s.offsetSize()
	case formRefAddr:
		if s.version <= 2 {
			return int(s.addrSize)
		}
		return s.offsetSize()
	}
	return -1
}

// maxSpecs bounds the attributes of one table; whole programs compiled as one
// unit have some tens of thousands.
const maxSpecs = 1 << 20

type spec struct {
	attr     dwarf.Attr
	form     uint16
	implicit int64
}

// abbrev is one abbreviation: the layout of an entry.
type abbrev struct {
	tag      dwarf.Tag
	children bool
	code     bool  // has a low_pc or ranges: it may be code
	size     int32 // of all values together, -1 when that varies
	specs    []spec
}

type abbrevTable struct {
	dense  []abbrev          // codes 1, 2, 3, ...
	sparse map[uint64]abbrev // the others
}

func (t *abbrevTable) get(code uint64) *abbrev {
	if code-1 < uint64(len(t.dense)) {
		return &t.dense[code-1]
	}
	if a, ok := t.sparse[code]; ok {
		return &a
	}
	return nil
}

// readAbbrev reads the next abbreviation; code is 0 at the end of a table.
func readAbbrev(c *cursor, s shape, specs []spec) (code uint64, a abbrev) {
	code = c.uleb()
	if code == 0 || c.err != nil {
		return 0, abbrev{}
	}
	a.tag = dwarf.Tag(c.uleb())
	a.children = c.u8() != 0
	for c.err == nil {
		attr, form := c.uleb(), c.uleb()
		if attr == 0 && form == 0 {
			break
		}
		sp := spec{attr: dwarf.Attr(attr), form: uint16(form)}
		if form > 0xffff {
			sp.form = 0xffff
		}
		if form == formImplicitConst {
			sp.implicit = c.sleb()
		}
		if sp.attr == dwarf.AttrLowpc || sp.attr == dwarf.AttrRanges {
			a.code = true
		}
		if n := s.fixed(sp.form); n < 0 {
			a.size = -1
		} else if a.size >= 0 {
			a.size += int32(n)
		}
		specs = append(specs, sp)
	}
	a.specs = specs
	return code, a
}

// readAbbrevs reads the table at off.
func readAbbrevs(sec *section, off uint64, s shape) *abbrevTable {
	t := &abbrevTable{}
	c := newCursor(sec, off)
	var pool []spec
	for total := 0; c.err == nil && total < maxSpecs; {
		if cap(pool)-len(pool) < 64 {
			pool = make([]spec, 0, 1024)
		}
		code, a := readAbbrev(&c, s, pool[len(pool):])
		if code == 0 {
			break
		}
		n := len(a.specs)
		if n <= cap(pool)-len(pool) {
			pool = pool[:len(pool)+n]
		}
		total += n + 1
		switch {
		case code == uint64(len(t.dense))+1:
			t.dense = append(t.dense, a)
		default:
			if t.sparse == nil {
				t.sparse = map[uint64]abbrev{}
			}
			t.sparse[code] = a
		}
	}
	return t
}

// findAbbrev reads one abbreviation of the table at off; it is for a unit's
// first entry, whose code nearly always comes first in the table.
func findAbbrev(sec *section, off, want uint64, s shape) (abbrev, bool) {
	c := newCursor(sec, off)
	var buf [32]spec
	for c.err == nil {
		code, a := readAbbrev(&c, s, buf[:0])
		if code == want && code != 0 {
			return a, true
		}
		if code == 0 {
			break
		}
	}
	return abbrev{}, false
}
