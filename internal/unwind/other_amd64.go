package unwind

import "sort"

// other goes to the caller by a rule that has no kind of its own. It may name
// any register: they are known in the innermost frame and where a signal
// interrupted, rbx also elsewhere.
func (w *walk) other(f *fullRow) (more, end bool) {
	sp := w.regs.r[regSP]
	if !w.regs.has(regRBX) {
		w.recoverRBX()
	}
	cfa, ok := w.cfa(&f.cfa)
	if !ok {
		return false, false
	}
	ra, ok := w.value(&f.ra, regRA, cfa)
	if !ok {
		return false, false
	}
	newSP := cfa
	if f.sp.kind != ruleNone {
		if newSP, ok = w.value(&f.sp, regSP, cfa); !ok {
			return false, false
		}
	}
	// Code that has popped its return address leaves the stack as it is; longjmp
	// goes up. Only the innermost frame can be such.
	if newSP < sp || newSP == sp && !w.exact || newSP&7 != 0 {
		return false, false
	}
	bp, known := w.value(&f.bp, regBP, cfa)
	w.u.trail = append(w.u.trail, visited{w.at, cfa, w.mod})
	return w.caller(ra, newSP, bp, known)
}

// cfa computes the CFA of a rule.
func (w *walk) cfa(r *fullRule) (uint64, bool) {
	switch r.kind {
	case ruleRegister:
		return w.regs.r[r.reg] + uint64(r.off), w.regs.has(r.reg)
	case ruleValExpr:
		v, err := evaluate(r.expr, &w.regs, &w.u.window, w.u.expr[:0])
		return v, err == nil
	}
	return 0, false
}

// value computes what a register was in the caller.
func (w *walk) value(r *fullRule, reg uint8, cfa uint64) (uint64, bool) {
	switch r.kind {
	case ruleNone, ruleSame:
		return w.regs.r[reg], w.regs.has(reg)
	case ruleOffset:
		return w.u.window.word(cfa + uint64(r.off))
	case ruleValOffset:
		return cfa + uint64(r.off), true
	case ruleRegister:
		return w.regs.r[r.reg], w.regs.has(r.reg)
	case ruleExpr, ruleValExpr:
		// The CFA is on the stack when such an expression begins (DWARF 5, 6.4.3).
		v, err := evaluate(r.expr, &w.regs, &w.u.window, append(w.u.expr[:0], cfa))
		if err != nil {
			return 0, false
		}
		if r.kind == ruleValExpr {
			return v, true
		}
		return w.u.window.word(v)
	}
	return 0, false
}

// recoverRBX finds rbx for the present frame by what the inner frames saved,
// from the last one on in which all registers were known.
func (w *walk) recoverRBX() {
	rbx, known := w.rbx, w.rbxKnown
	for _, f := range w.u.trail {
		m := &w.u.modules[f.mod]
		switch off := m.Table.lookupRBX(uint32(f.at - uint64(m.Base))); off {
		case 0:
		case rbxLost:
			known = false
		default:
			rbx, known = w.u.window.word(f.cfa + uint64(off))
		}
	}
	if known {
		w.regs.put(regRBX, rbx)
	}
}

// lookupRBX gives where the function at pc saved rbx, from its CFA; 0 when it
// did not.
func (t *Table) lookupRBX(pc uint32) int32 {
	i := sort.Search(len(t.rbx), func(i int) bool { return t.rbx[i].pc > pc })
	if i == 0 {
		return 0
	}
	return t.rbx[i-1].off
}
