package unwind

import "math"

// fullRow is a row of kind CFAOther as Go follows it: the rules as they were
// written, with their expressions.
type fullRow struct {
	cfa, bp, sp, ra fullRule
}

// fullRule is a rule that does not need the section any more.
type fullRule struct {
	kind ruleKind
	reg  uint8
	off  int64
	expr string // the bytes of the expression
}

// maxExpression bounds the expressions that are kept, in bytes; assembler code
// has some of a dozen.
const maxExpression = 256

// row converts what is known at one address to a row. What only Go can follow
// comes as CFAOther without an index.
func (f *frames) row(s *state, signal bool) Row {
	if s.ra.kind == ruleNone || s.cfa.kind == ruleNone {
		return Row{}
	}
	var r Row
	if signal {
		r.Flags |= FlagSignal
	}
	other := Row{CFA: CFAOther, Flags: r.Flags}
	if max(s.cfa.n, s.bp.n, s.sp.n, s.ra.n) > maxExpression {
		other = Row{}
	}
	switch s.cfa.kind {
	case ruleRegister:
		if s.cfa.off != int64(int32(s.cfa.off)) {
			return Row{}
		}
		r.CFAOff = int32(s.cfa.off)
		switch s.cfa.reg {
		case regSP:
			r.CFA = CFASP
		case regBP:
			r.CFA = CFABP
		default:
			r.CFA = CFAOther
		}
	case ruleValExpr:
		r.CFA, r.CFAOff = f.known(s.cfa)
	}
	if s.ra.kind == ruleUndefined {
		r.Flags |= FlagOutermost
		r.BPOff = BPLost
		if r.CFA == CFAOther || r.CFA == CFASignal {
			r.CFA, r.CFAOff = CFANone, 0
		}
		return r
	}
	if r.CFA == CFASignal {
		if !signal || !f.isSignalFrame(s, int64(r.CFAOff)) {
			return other
		}
		return r
	}
	if r.CFA == CFAOther || s.ra != (rule{kind: ruleOffset, off: -8}) ||
		s.sp.kind != ruleNone && s.sp != (rule{kind: ruleValOffset}) {
		return other
	}
	f.setBP(&r, s.bp)
	return r
}

// setBP says in r where the caller's rbp is. Rules that a row has no room for
// make it lost: code that uses rbp that way is rare, and its callers can still
// be found as long as they do not count from rbp.
func (f *frames) setBP(r *Row, bp rule) {
	r.BPOff = BPLost
	switch bp.kind {
	case ruleNone, ruleSame: // a callee saves rbp, so one that does not say so keeps it
		r.BPOff = BPSame
	case ruleOffset:
		if bp.off >= math.MinInt16 && bp.off <= math.MaxInt16 && bp.off != BPSame && bp.off != BPLost {
			r.BPOff = int16(bp.off)
		}
	case ruleExpr:
		e := f.bytes(bp)
		off := e.sleb1(opBReg0+regBP, nil)
		if e.ok && off >= math.MinInt16 && off <= math.MaxInt16 {
			r.Flags |= FlagBPAtBP
			r.BPOff = int16(off)
		}
	}
}

// known recognises the CFA expressions that have a kind of their own.
func (f *frames) known(cfa rule) (CFA, int32) {
	e := f.bytes(cfa)
	if off := e.sleb1(opBReg0+regBP, []byte{opDeref}); e.ok && off == int64(int32(off)) {
		return CFADeref, int32(off)
	}
	e = f.bytes(cfa)
	if off := e.sleb1(opBReg0+regSP, []byte{opDeref}); e.ok && off == int64(int32(off)) {
		return CFASignal, int32(off)
	}
	// The linkers write: rsp + 8 + ((rip & 15) >= N) << 3.
	e = f.bytes(cfa)
	if b := e.b; len(b) == 11 && b[6] >= opLit0 && b[6] < opLit0+16 {
		want := [11]byte{opBReg0 + regSP, 8, opBReg0 + regRA, 0, opLit0 + 15, opAnd, b[6], opGE, opLit0 + 3, opShl, opPlus}
		if [11]byte(b) == want {
			return CFAPLT, int32(b[6] - opLit0)
		}
	}
	return CFAOther, 0
}

// isSignalFrame checks that all registers of a row are where the kernel puts
// them, with rsp itself at rsp+off.
func (f *frames) isSignalFrame(s *state, off int64) bool {
	at := func(r rule, want int64) bool {
		e := f.bytes(r)
		got := e.sleb1(opBReg0+regSP, nil)
		return r.kind == ruleExpr && e.ok && got == want
	}
	return at(s.ra, off+8) && at(s.bp, off-40) && (s.sp.kind == ruleNone || at(s.sp, off))
}

// pattern is an expression being compared.
type pattern struct {
	b  []byte
	ok bool
}

func (f *frames) bytes(r rule) pattern {
	if r.kind != ruleExpr && r.kind != ruleValExpr {
		return pattern{}
	}
	return pattern{b: f.data[r.off : r.off+int64(r.n)]}
}

// sleb1 matches an operation with one signed operand, then exactly rest, and
// gives the operand.
func (p *pattern) sleb1(op byte, rest []byte) int64 {
	if len(p.b) == 0 || p.b[0] != op {
		return 0
	}
	c := cursor{b: p.b, at: 1}
	v := c.sleb()
	p.ok = !c.bad && string(c.b[c.at:]) == string(rest)
	return v
}

// full takes the rules of a state out of the section.
func (f *frames) full(s *state) fullRow {
	take := func(r rule) fullRule {
		out := fullRule{kind: r.kind, reg: r.reg, off: r.off}
		if r.kind == ruleExpr || r.kind == ruleValExpr {
			out.off, out.expr = 0, string(f.data[r.off:r.off+int64(r.n)])
		}
		return out
	}
	return fullRow{cfa: take(s.cfa), bp: take(s.bp), sp: take(s.sp), ra: take(s.ra)}
}
