package symbol

import (
	"debug/dwarf"
	"slices"
	"sort"
)

const (
	maxIndexed   = 1 << 20 // entries in the function and line indexes of one file: 32 MB
	maxOrigins   = 16      // references from an entry to the one with its name
	maxQualified = 1 << 14 // names kept of one file
	maxNested    = 256     // inlined functions and blocks around one place
)

// funcRange is a piece of code of a function.
type funcRange struct {
	low, high uint64
	reach     uint64 // highest high up to here
	off       uint64 // of the function's entry
}

// functions is the index of the unit's functions, sorted by address. It reads
// the whole unit once, entry by entry, and keeps nothing else.
func (u *unit) functions() []funcRange {
	if u.funcs != nil {
		return u.funcs
	}
	fs := []funcRange{}
	c, t := newCursor(u.d.info, u.first), u.table()
	for {
		off := c.off()
		if off >= u.end {
			break
		}
		code := c.uleb()
		if c.err != nil || len(fs) > maxIndexed {
			break
		}
		if code == 0 {
			continue
		}
		a := t.get(code)
		if a == nil {
			break
		}
		if a.tag != dwarf.TagSubprogram || !a.code {
			if a.size >= 0 {
				c.skip(uint64(a.size))
				continue
			}
			for i := range a.specs {
				skipValue(&c, u.shape, a.specs[i].form)
			}
			continue
		}
		c.seek(off)
		e, ok := u.read(&c, t)
		if !ok {
			break
		}
		u.eachRange(e.low, e.high, e.ranges, func(lo, hi uint64) bool {
			if u.d.code(lo, hi) {
				fs = append(fs, funcRange{low: lo, high: hi, off: off})
			}
			return true
		})
	}
	slices.SortFunc(fs, func(a, b funcRange) int {
		if a.low != b.low {
			return cmpUint(a.low, b.low)
		}
		return cmpUint(b.high, a.high)
	})
	var reach uint64
	for i := range fs {
		reach = max(reach, fs[i].high)
		fs[i].reach = reach
	}
	u.d.weigh(len(fs))
	u.funcs = fs
	return fs
}

// weigh counts n more index entries, and throws all indexes away when there
// are too many: they can be made again.
func (d *dwarfData) weigh(n int) {
	d.weight += n
	if d.weight <= maxIndexed {
		return
	}
	for _, u := range d.units {
		u.funcs, u.lines = nil, nil
	}
	d.weight = n
}

// function finds the innermost function of the unit with pc in it.
func (u *unit) function(pc uint64) (funcRange, bool) {
	fs := u.functions()
	i := sort.Search(len(fs), func(i int) bool { return fs[i].low > pc })
	for i--; i >= 0 && fs[i].reach > pc; i-- {
		if fs[i].high > pc {
			return fs[i], true
		}
	}
	return funcRange{}, false
}

// call is one level of the functions at a place: the function, and where the
// next inner one was called.
type call struct {
	unit     *unit
	off      uint64 // of the function's or inlined call's entry
	callFile uint64 // for an inlined one: where its caller calls it
	callLine uint64
	entry    entry
}

// calls gives the function whose entry is at off and the inlined ones at pc,
// outermost first.
func (u *unit) calls(off, pc uint64) []call {
	c, t := newCursor(u.d.info, off), u.table()
	e, ok := u.read(&c, t)
	if !ok {
		return nil
	}
	chain := []call{{unit: u, off: off, entry: e}}
	if !e.children {
		return chain
	}
	inner := 0 // depth of the innermost children whose parent holds pc
	for depth := 1; depth > inner && depth < maxNested; {
		e, ok := u.read(&c, t)
		if !ok {
			return chain
		}
		if e.tag == 0 {
			depth--
			continue
		}
		switch e.tag {
		case dwarf.TagInlinedSubroutine:
			if u.holds(&e, pc) {
				chain = append(chain, call{unit: u, off: e.off, callFile: e.callFile.u, callLine: e.callLine.u, entry: e})
				if !e.children {
					return chain
				}
				inner = depth
				depth++
				continue
			}
		case dwarf.TagLexDwarfBlock, dwarf.TagTryDwarfBlock, dwarf.TagCatchDwarfBlock, dwarf.TagWithStmt:
			bare := !e.low.ok() && !e.ranges.ok()
			if e.children && (bare || u.holds(&e, pc)) {
				if !bare {
					inner = depth
				}
				depth++
				continue
			}
		}
		if !u.skipChildren(&c, t, &e) {
			return chain
		}
	}
	return chain
}

// holds reports whether the ranges of e contain pc.
func (u *unit) holds(e *entry, pc uint64) bool {
	found := false
	u.eachRange(e.low, e.high, e.ranges, func(lo, hi uint64) bool {
		found = pc >= lo && pc < hi
		return !found
	})
	return found
}

// title is what an entry and those it refers to say of a function's name.
type title struct {
	linkage string // mangled, "" when not told
	name    string // as in the source, unqualified
	unit    *unit  // the unit and entry that has the name
	off     uint64
}

// title follows the references from e to the entries with its names.
func (u *unit) title(e *entry) title {
	var tl title
	for range maxOrigins {
		if tl.linkage == "" && e.linkage.ok() {
			tl.linkage = u.str(e.linkage)
		}
		if e.name.ok() {
			if tl.name == "" {
				tl.name = u.str(e.name)
			}
			tl.unit, tl.off = u, e.off // the last one stands in its scope
		}
		if !e.origin.ok() || tl.linkage != "" && tl.name != "" {
			break
		}
		next, off := u.target(e.origin)
		if next == nil {
			break
		}
		c := newCursor(next.d.info, off)
		n, ok := next.read(&c, next.table())
		if !ok || n.tag == 0 {
			break
		}
		u, e = next, &n
	}
	return tl
}

// DW_LANG codes whose functions have no scope to be named.
var flatLanguage = map[uint64]bool{0x01: true, 0x02: true, 0x0c: true, 0x1d: true, 0x2c: true, 0x16: true, 0x8001: true}

// qualified puts the names of the enclosing namespaces and types before the
// name of the entry at off. It reads the unit from its start, passing over
// what does not lead there.
func (u *unit) qualified(name string, off uint64) string {
	if flatLanguage[u.top().lang] {
		return name
	}
	if full, ok := u.d.names[off]; ok {
		return full
	}
	var stack []entry
	c, t := newCursor(u.d.info, u.first), u.table()
	for c.off() < off {
		e, ok := u.read(&c, t)
		if !ok {
			return name
		}
		if e.tag == 0 {
			if len(stack) == 0 {
				return name
			}
			stack = stack[:len(stack)-1]
			continue
		}
		if !e.children {
			continue
		}
		if e.sibling != 0 && e.sibling <= off {
			c.seek(e.sibling)
			continue
		}
		stack = append(stack, e)
	}
	if c.off() != off {
		return name
	}
	full := ""
	for i := range stack {
		full = u.scope(full, &stack[i], name)
	}
	full += name
	if u.d.names == nil || len(u.d.names) >= maxQualified {
		u.d.names = map[uint64]string{}
	}
	u.d.names[off] = full
	return full
}

// scope puts the name of one more enclosing entry behind outer.
func (u *unit) scope(outer string, e *entry, name string) string {
	part := ""
	switch e.tag {
	case dwarf.TagNamespace, dwarf.TagModule:
		if part = u.str(e.name); part == "" {
			part = "(anonymous namespace)"
		}
	case dwarf.TagClassType, dwarf.TagStructType, dwarf.TagUnionType:
		if part = u.str(e.name); part == "" && name == "operator()" {
			part = "{lambda}"
		}
	case dwarf.TagSubprogram:
		t := u.title(e)
		if mangled(t.linkage) {
			return readable(t.linkage) + "::"
		}
		part = t.name
	}
	if part == "" {
		return outer
	}
	return outer + part + "::"
}
