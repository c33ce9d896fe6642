package symbol

// level is one function at a place: the one whose code it is, or one that the
// compiler inlined there.
type level struct{ call }

// place gives the functions at pc, outermost first, and file and line of pc.
// It is empty where no function is known; file and line may be known still.
func (d *dwarfData) place(pc uint64) (levels []level, file string, line int) {
	for _, u := range d.unitsAt(pc) {
		f, n, known := u.lineTable().find(pc)
		body := u
		if u.skeleton() && d.openSplit != nil {
			if s := d.openSplit(u); s != nil {
				body = s
			}
		}
		if fn, ok := body.function(pc); ok {
			for _, c := range body.calls(fn.off, pc) {
				levels = append(levels, level{c})
			}
			if len(levels) > 0 {
				return levels, f, n
			}
		}
		if known && file == "" {
			file, line = f, n
		}
	}
	return nil, file, line
}

// title is what DWARF calls the function.
func (l *level) title() title { return l.unit.title(&l.entry) }

// name is the function's name for a reader.
func (l *level) name() string {
	t := l.title()
	if mangled(t.linkage) {
		return readable(t.linkage)
	}
	if t.name == "" {
		return base(t.linkage)
	}
	return tidy(t.unit.qualified(t.name, t.off))
}

// callSite is where the caller calls an inlined function.
func (l *level) callSite() (file string, line int) {
	return l.unit.fileNames().path(l.entry.callFile.u), int(l.entry.callLine.u)
}

// fileNames is the table that numbers of files in the unit's entries refer to.
func (u *unit) fileNames() *lineTable {
	if u.skel == nil {
		return u.lineTable()
	}
	// GCC gives a .dwo its own table of files, LLVM uses the linked file's.
	if u.lines == nil {
		u.lines = &lineTable{u: u, sec: u.d.line}
		if u.d.line != nil {
			u.lines.readHeader(u.top().stmtList)
		}
	}
	if len(u.lines.files) > 0 {
		return u.lines
	}
	return u.skel.lineTable()
}
