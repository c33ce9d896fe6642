package unwind

import "math/bits"

// Call frame instructions, DWARF 5 section 6.4.2 and 7.24, with GNU's own.
const (
	cfaAdvance      = 0x40 // high two bits; delta below
	cfaOffset       = 0x80 // high two bits; register below
	cfaRestore      = 0xc0 // high two bits; register below
	cfaNop          = 0x00
	cfaSetLoc       = 0x01
	cfaAdvance1     = 0x02
	cfaAdvance2     = 0x03
	cfaAdvance4     = 0x04
	cfaOffsetExt    = 0x05
	cfaRestoreExt   = 0x06
	cfaUndefined    = 0x07
	cfaSame         = 0x08
	cfaRegister     = 0x09
	cfaRemember     = 0x0a
	cfaRestoreState = 0x0b
	cfaDef          = 0x0c
	cfaDefReg       = 0x0d
	cfaDefOffset    = 0x0e
	cfaDefExpr      = 0x0f
	cfaExpr         = 0x10
	cfaOffsetExtSF  = 0x11
	cfaDefSF        = 0x12
	cfaDefOffsetSF  = 0x13
	cfaValOffset    = 0x14
	cfaValOffsetSF  = 0x15
	cfaValExpr      = 0x16
	cfaArgsSize     = 0x2e // GNU: for exception handling, one operand
	cfaNegOffsetExt = 0x2f // GNU: before offset_extended_sf existed
)

// maxRemembered bounds nested remember_state; compilers nest a few.
const maxRemembered = 256

// ruleKind is how a register of the caller is found.
type ruleKind uint8

const (
	ruleNone      ruleKind = iota // not said
	ruleUndefined                 // lost
	ruleSame                      // unchanged
	ruleOffset                    // saved at CFA+off
	ruleValOffset                 // is CFA+off
	ruleRegister                  // is in reg; for the CFA: reg+off
	ruleExpr                      // saved where the expression says
	ruleValExpr                   // is what the expression says
)

// rule is comparable: an expression is a place in the section's data.
type rule struct {
	kind ruleKind
	reg  uint8
	n    int32 // length of the expression
	off  int64 // the offset, or where the expression begins
}

// state is what is known at one address, of the registers that a walk needs.
type state struct{ cfa, bp, sp, ra, bx rule }

// machine runs call frame instructions.
type machine struct {
	f        *frames
	e        *cie
	function uint64
	loc      uint64
	now      state
	saved    []state
}

// start makes the machine ready for an FDE of e at a virtual address.
func (m *machine) start(f *frames, e *cie, function uint64) {
	m.f, m.e, m.function, m.loc = f, e, function, function
	m.now, m.saved = e.initial, m.saved[:0]
}

// run executes the rest of c and calls emit for each address below end from
// which on a new state holds, in order. False means that from m.loc on nothing
// is known.
func (m *machine) run(c *cursor, end uint64, emit func(from uint64, s *state)) bool {
	changed := true
	for c.at < len(c.b) {
		from := m.loc
		op := c.u8()
		delta, moves := m.advance(c, op)
		if c.bad {
			return false
		}
		if !moves {
			if op != cfaNop && op != cfaArgsSize {
				changed = true
			}
			if !m.step(c, op) || c.bad {
				return false
			}
			continue
		}
		if delta == 0 {
			continue
		}
		if changed && emit != nil {
			emit(from, &m.now)
		}
		changed = false
		if delta >= end-from {
			return true
		}
		m.loc = from + delta
	}
	if changed && emit != nil {
		emit(m.loc, &m.now)
	}
	return true
}

// advance gives how far op moves the location, if it is its purpose.
func (m *machine) advance(c *cursor, op uint8) (delta uint64, moves bool) {
	switch {
	case op&0xc0 == cfaAdvance:
		delta = uint64(op & 0x3f)
	case op == cfaAdvance1:
		delta = uint64(c.u8())
	case op == cfaAdvance2:
		delta = uint64(c.u16())
	case op == cfaAdvance4:
		delta = uint64(c.u32())
	case op == cfaSetLoc:
		to, ok := m.f.pointer(c, m.e.encoding, m.function)
		if !ok || to < m.loc {
			c.bad = true
			return 0, true
		}
		return to - m.loc, true
	default:
		return 0, false
	}
	hi, lo := bits.Mul64(delta, m.e.codeAlign)
	if hi != 0 {
		lo = ^uint64(0)
	}
	return lo, true
}

// step executes one instruction that is not an advance.
func (m *machine) step(c *cursor, op uint8) bool {
	switch op & 0xc0 {
	case cfaOffset:
		m.set(uint64(op&0x3f), rule{kind: ruleOffset, off: int64(c.uleb()) * m.e.dataAlign})
		return true
	case cfaRestore:
		m.restore(uint64(op & 0x3f))
		return true
	}
	switch op {
	case cfaNop:
	case cfaArgsSize:
		c.uleb()
	case cfaOffsetExt:
		m.set(c.uleb(), rule{kind: ruleOffset, off: int64(c.uleb()) * m.e.dataAlign})
	case cfaOffsetExtSF:
		m.set(c.uleb(), rule{kind: ruleOffset, off: c.sleb() * m.e.dataAlign})
	case cfaNegOffsetExt:
		m.set(c.uleb(), rule{kind: ruleOffset, off: -int64(c.uleb()) * m.e.dataAlign})
	case cfaValOffset:
		m.set(c.uleb(), rule{kind: ruleValOffset, off: int64(c.uleb()) * m.e.dataAlign})
	case cfaValOffsetSF:
		m.set(c.uleb(), rule{kind: ruleValOffset, off: c.sleb() * m.e.dataAlign})
	case cfaRestoreExt:
		m.restore(c.uleb())
	case cfaUndefined:
		m.set(c.uleb(), rule{kind: ruleUndefined})
	case cfaSame:
		m.set(c.uleb(), rule{kind: ruleSame})
	case cfaRegister:
		reg := c.uleb()
		in := c.uleb()
		if in >= regCount {
			m.set(reg, rule{kind: ruleUndefined}) // a vector register: not carried here
		} else {
			m.set(reg, rule{kind: ruleRegister, reg: uint8(in)})
		}
	case cfaExpr:
		reg := c.uleb()
		m.set(reg, expression(c, ruleExpr))
	case cfaValExpr:
		reg := c.uleb()
		m.set(reg, expression(c, ruleValExpr))
	case cfaRemember:
		if len(m.saved) == maxRemembered {
			return false
		}
		m.saved = append(m.saved, m.now)
	case cfaRestoreState:
		if len(m.saved) == 0 {
			return false
		}
		m.now = m.saved[len(m.saved)-1]
		m.saved = m.saved[:len(m.saved)-1]
	default:
		return m.define(c, op)
	}
	return true
}

// define executes one of the instructions that define the CFA; false for any
// other.
func (m *machine) define(c *cursor, op uint8) bool {
	cfa := &m.now.cfa
	switch op {
	case cfaDef, cfaDefSF:
		reg := c.uleb()
		off := int64(0)
		if op == cfaDef {
			off = int64(c.uleb())
		} else {
			off = c.sleb() * m.e.dataAlign
		}
		*cfa = rule{kind: ruleRegister, reg: uint8(reg), off: off}
		return reg < regCount
	case cfaDefReg:
		reg := c.uleb()
		cfa.reg = uint8(reg)
		return reg < regCount && cfa.kind == ruleRegister
	case cfaDefOffset:
		cfa.off = int64(c.uleb())
		return cfa.kind == ruleRegister
	case cfaDefOffsetSF:
		cfa.off = c.sleb() * m.e.dataAlign
		return cfa.kind == ruleRegister
	case cfaDefExpr:
		*cfa = expression(c, ruleValExpr)
		return true
	}
	return false
}

// expression reads a block of DWARF expression.
func expression(c *cursor, kind ruleKind) rule {
	n := c.uleb()
	r := rule{kind: kind, off: int64(c.at), n: int32(n)}
	c.skip(n)
	return r
}

// register gives the rule of a register that a walk needs, else nil.
func (s *state) register(reg uint64) *rule {
	switch reg {
	case regBP:
		return &s.bp
	case regSP:
		return &s.sp
	case regRA:
		return &s.ra
	case regRBX:
		return &s.bx
	}
	return nil
}

func (m *machine) set(reg uint64, r rule) {
	if p := m.now.register(reg); p != nil {
		*p = r
	}
}

// restore gives a register the rule that the CIE said.
func (m *machine) restore(reg uint64) {
	if p := m.now.register(reg); p != nil {
		*p = *m.e.initial.register(reg)
	}
}
