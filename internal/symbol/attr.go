package symbol

import "debug/dwarf"

// value is an attribute's value before it is interpreted: for strings and
// references often only where they are.
type value struct {
	form uint16 // 0: the attribute is absent
	u    uint64 // constant, offset, index or length
	off  uint64 // section offset of an inline string
}

func (v value) ok() bool { return v.form != 0 }

// address reports whether v is an address rather than a constant.
func (v value) address() bool {
	switch v.form {
	case formAddr, formAddrx, formAddrx1, formAddrx2, formAddrx3, formAddrx4, formGNUAddrIndex:
		return true
	}
	return false
}

// readValue reads a value of that form; unknown forms end the cursor, since
// nothing after them can be found.
func readValue(c *cursor, s shape, form uint16, implicit int64) value {
	v := value{form: form}
	switch form {
	case formImplicitConst:
		v.u = uint64(implicit)
	case formFlagPresent:
		v.u = 1
	case formData16:
		c.skip(16)
	case formSdata:
		v.u = uint64(c.sleb())
	case formUdata, formRefUdata, formStrx, formAddrx, formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		v.u = c.uleb()
	case formString:
		v.off = c.off()
		c.skipStr()
	case formBlock1:
		v.u = uint64(c.u8())
		c.skip(v.u)
	case formBlock2:
		v.u = uint64(c.u16())
		c.skip(v.u)
	case formBlock4:
		v.u = uint64(c.u32())
		c.skip(v.u)
	case formBlock, formExprloc:
		v.u = c.uleb()
		c.skip(v.u)
	case formIndirect:
		// The form stands before the value; DWARF forbids a second level.
		f := uint16(c.uleb())
		if f == formIndirect || f == formImplicitConst {
			c.fail()
			return value{}
		}
		return readValue(c, s, f, 0)
	default:
		n := s.fixed(form)
		if n < 0 || n > 8 {
			c.fail()
			return value{}
		}
		v.u = c.uint(n)
	}
	return v
}

// skipValue passes over a value of that form.
func skipValue(c *cursor, s shape, form uint16) {
	if n := s.fixed(form); n >= 0 {
		c.skip(uint64(n))
		return
	}
	readValue(c, s, form, 0)
}

// entry is what stanch uses of a debugging information entry.
type entry struct {
	off      uint64
	tag      dwarf.Tag
	children bool
	sibling  uint64 // section offset, 0 when not told
	name     value
	linkage  value
	low      value
	high     value
	ranges   value
	origin   value // abstract origin or specification
	callFile value
	callLine value
}

// read reads the entry at the cursor and leaves the cursor behind its
// attributes. A null entry has tag 0; ok is false when the data ends or makes
// no sense.
func (u *unit) read(c *cursor, t *abbrevTable) (e entry, ok bool) {
	e.off = c.off()
	if e.off >= u.end {
		return e, false
	}
	code := c.uleb()
	if c.err != nil {
		return e, false
	}
	if code == 0 {
		return e, true
	}
	a := t.get(code)
	if a == nil {
		return e, false
	}
	e.tag, e.children = a.tag, a.children
	for i := range a.specs {
		sp := &a.specs[i]
		var to *value
		switch sp.attr {
		case dwarf.AttrSibling:
			if v := readValue(c, u.shape, sp.form, sp.implicit); v.u < u.end-u.off {
				e.sibling = u.off + v.u
			}
			continue
		case dwarf.AttrName:
			to = &e.name
		case dwarf.AttrLinkageName, attrMIPSLinkageName:
			to = &e.linkage
		case dwarf.AttrLowpc:
			to = &e.low
		case dwarf.AttrHighpc:
			to = &e.high
		case dwarf.AttrRanges:
			to = &e.ranges
		case dwarf.AttrAbstractOrigin, dwarf.AttrSpecification:
			to = &e.origin
		case dwarf.AttrCallFile:
			to = &e.callFile
		case dwarf.AttrCallLine:
			to = &e.callLine
		default:
			skipValue(c, u.shape, sp.form)
			continue
		}
		*to = readValue(c, u.shape, sp.form, sp.implicit)
	}
	if e.sibling != 0 && e.sibling <= c.off() && e.children {
		e.sibling = 0 // would lead backwards
	}
	return e, c.err == nil
}

// skip passes over the next entry without its children and tells its
// abbreviation, nil for a null entry.
func (u *unit) skip(c *cursor, t *abbrevTable) (*abbrev, bool) {
	if c.off() >= u.end {
		return nil, false
	}
	code := c.uleb()
	if code == 0 {
		return nil, c.err == nil
	}
	a := t.get(code)
	if a == nil {
		return nil, false
	}
	if a.size >= 0 {
		c.skip(uint64(a.size))
		return a, c.err == nil
	}
	for i := range a.specs {
		skipValue(c, u.shape, a.specs[i].form)
	}
	return a, c.err == nil
}

// skipChildren passes over the children of e, which was just read.
func (u *unit) skipChildren(c *cursor, t *abbrevTable, e *entry) bool {
	if !e.children {
		return true
	}
	if e.sibling != 0 {
		c.seek(e.sibling)
		return c.err == nil
	}
	for depth := 1; depth > 0; {
		a, ok := u.skip(c, t)
		if !ok {
			return false
		}
		if a == nil {
			depth--
		} else if a.children {
			depth++
		}
	}
	return true
}
