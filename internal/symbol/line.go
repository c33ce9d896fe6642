package symbol

import (
	"path"
	"slices"
	"sort"
)

// Line number opcodes: DWARF 5, section 7.22.
const (
	lnsCopy             = 1
	lnsAdvancePC        = 2
	lnsAdvanceLine      = 3
	lnsSetFile          = 4
	lnsSetColumn        = 5
	lnsNegateStmt       = 6
	lnsSetBasicBlock    = 7
	lnsConstAddPC       = 8
	lnsFixedAdvancePC   = 9
	lneEndSequence      = 1
	lneSetAddress       = 2
	lneDefineFile       = 3
	lnctPath            = 1
	lnctDirectoryIndex  = 2
	maxLineNames        = 1 << 18 // directories and files of one table
	maxNameBytes        = 1 << 24 // of all of them together
	rowsPerMark         = 256
	maxLineOperations   = 1 << 28 // of one program; a hostile one may be endless
	versionOfFirstIndex = 5       // from here on directories and files count from 0
)

// lineTable is a unit's line number program. Its rows are not kept: the state
// of the program at every 256th row is, and a lookup runs on from there.
type lineTable struct {
	u          *unit
	sec        *section
	version    uint16
	shape      shape
	minInst    uint64
	lineBase   int64
	lineRange  uint64
	opcodeBase uint8
	operands   []uint8 // of the standard opcodes, from opcode 1
	start, end uint64  // of the program
	dirs       []string
	files      []lineFile
	complete   bool // the program ran to its end once: files has all
	seqs       []lineSeq
	marks      []lineMark
}

type lineFile struct {
	name string
	dir  uint32
}

// lineSeq is one run of rows with growing addresses.
type lineSeq struct {
	low, high   uint64
	reach       uint64
	first, last int // its marks are marks[first:last]
}

// lineMark is the state of the program just behind the row it gave.
type lineMark struct {
	addr uint64
	off  uint64
	file uint32
	line uint32
}

// lineTable reads the header and runs the program once. It is nil when the
// unit has none.
func (u *unit) lineTable() *lineTable {
	if u.lines != nil {
		return u.lines
	}
	t := &lineTable{u: u, sec: u.d.line}
	u.lines = t
	r := u.top()
	if !r.hasLines || t.sec == nil || !t.readHeader(r.stmtList) {
		return t
	}
	t.scan()
	u.d.weigh(len(t.seqs) + len(t.marks) + len(t.files))
	u.lines = t // weighing may have dropped it
	return t
}

// readHeader reads the program header at off: DWARF 5, section 6.2.4, and the
// same of versions 2 to 4.
func (t *lineTable) readHeader(off uint64) bool {
	c := newCursor(t.sec, off)
	length := uint64(c.u32())
	if length == 0xffffffff {
		length, t.shape.wide = c.u64(), true
	}
	if c.err != nil || length > t.sec.size-c.off() {
		return false
	}
	t.end = c.off() + length
	t.version = c.u16()
	t.shape.version, t.shape.addrSize = t.version, 8
	if t.version < 2 || t.version > 5 {
		return false
	}
	if t.version >= 5 {
		t.shape.addrSize = c.u8()
		c.u8() // segment selector size
	}
	headerLength := c.uint(t.shape.offsetSize())
	if c.err != nil || headerLength > t.end-c.off() {
		return false
	}
	t.start = c.off() + headerLength
	t.minInst = uint64(c.u8())
	if t.version >= 4 {
		c.u8() // operations per instruction: 1 but on VLIW machines
	}
	c.u8() // default is_stmt
	t.lineBase = int64(int8(c.u8()))
	t.lineRange = uint64(c.u8())
	t.opcodeBase = c.u8()
	if t.lineRange == 0 || t.opcodeBase == 0 {
		return false
	}
	t.operands = make([]uint8, t.opcodeBase-1)
	for i := range t.operands {
		t.operands[i] = c.u8()
	}
	if t.version >= versionOfFirstIndex {
		t.readNames(&c)
	} else {
		t.readOldNames(&c)
	}
	return c.err == nil
}

// readOldNames reads the directories and files of versions 2 to 4. Directory
// 0 is the compilation directory, file 0 does not exist.
func (t *lineTable) readOldNames(c *cursor) {
	t.dirs = append(t.dirs, t.u.top().compDir)
	for c.err == nil && len(t.dirs) < maxLineNames {
		d := c.str()
		if d == "" {
			break
		}
		t.dirs = append(t.dirs, d)
	}
	t.files = append(t.files, lineFile{})
	for c.err == nil && len(t.files) < maxLineNames {
		name := c.str()
		if name == "" {
			break
		}
		dir := c.uleb()
		c.uleb() // time
		c.uleb() // size
		t.files = append(t.files, lineFile{name, uint32(dir)})
	}
}

// readNames reads the self-describing tables of version 5.
func (t *lineTable) readNames(c *cursor) {
	t.readTable(c, func(name string, _ uint64) { t.dirs = append(t.dirs, name) })
	t.readTable(c, func(name string, dir uint64) { t.files = append(t.files, lineFile{name, uint32(dir)}) })
}

func (t *lineTable) readTable(c *cursor, add func(name string, dir uint64)) {
	type format struct{ content, form uint16 }
	formats := make([]format, c.u8())
	for i := range formats {
		formats[i] = format{uint16(c.uleb()), uint16(c.uleb())}
	}
	n := c.uleb()
	if n > maxLineNames || len(formats) == 0 && n > 0 {
		c.fail()
		return
	}
	size := 0
	for ; n > 0 && c.err == nil && size < maxNameBytes; n-- {
		var name string
		var dir uint64
		for _, f := range formats {
			v := readValue(c, t.shape, f.form, 0)
			switch f.content {
			case lnctPath:
				if v.form == formString {
					name = t.sec.str(v.off)
				} else {
					name = t.u.str(v)
				}
			case lnctDirectoryIndex:
				dir = v.u
			}
		}
		size += len(name)
		add(name, dir)
	}
}

// path gives the full path of a file by its number, "" when there is none.
func (t *lineTable) path(file uint64) string {
	if file >= uint64(len(t.files)) || t.files[file].name == "" {
		return ""
	}
	f := t.files[file]
	p := f.name
	if !path.IsAbs(p) && int(f.dir) < len(t.dirs) {
		p = path.Join(t.dirs[f.dir], p)
	}
	// Directory 0 is the compilation directory, which may be a relative path;
	// the others count from it.
	if dir := t.u.top().compDir; f.dir != 0 && !path.IsAbs(p) {
		p = path.Join(dir, p)
	}
	return path.Clean(p)
}

// lineState is the part of the state machine that matters for file and line.
type lineState struct {
	lineMark
	row bool // a row was just given
	end bool // it ends its sequence
}

// step runs the program to the next row. It is false at the end.
func (t *lineTable) step(c *cursor, s *lineState, fuel *int) bool {
	if s.end {
		s.lineMark = lineMark{file: 1, line: 1}
	}
	s.row, s.end = false, false
	for !s.row {
		*fuel--
		if c.err != nil || c.off() >= t.end || *fuel < 0 {
			return false
		}
		op := c.u8()
		if op >= t.opcodeBase {
			adj := uint64(op - t.opcodeBase)
			s.addr += adj / t.lineRange * t.minInst
			s.line += uint32(t.lineBase + int64(adj%t.lineRange))
			s.row = true
			continue
		}
		switch op {
		case 0:
			t.extended(c, s)
		case lnsCopy:
			s.row = true
		case lnsAdvancePC:
			s.addr += c.uleb() * t.minInst
		case lnsAdvanceLine:
			s.line += uint32(c.sleb())
		case lnsSetFile:
			s.file = uint32(c.uleb())
		case lnsConstAddPC:
			s.addr += uint64(255-t.opcodeBase) / t.lineRange * t.minInst
		case lnsFixedAdvancePC:
			s.addr += uint64(c.u16())
		case lnsNegateStmt, lnsSetBasicBlock:
		default: // set_column and whatever else the header told the operands of
			for range t.operands[op-1] {
				c.uleb()
			}
		}
	}
	s.off = c.off()
	return c.err == nil
}

func (t *lineTable) extended(c *cursor, s *lineState) {
	n := c.uleb()
	if n == 0 {
		return
	}
	next := c.off() + n
	if next < n || next > t.end {
		c.fail()
		return
	}
	switch c.u8() {
	case lneEndSequence:
		s.row, s.end = true, true
	case lneSetAddress:
		if n-1 >= 1 && n-1 <= 8 {
			s.addr = c.uint(int(n - 1))
		}
	case lneDefineFile:
		if !t.complete && len(t.files) < maxLineNames {
			t.files = append(t.files, lineFile{c.str(), uint32(c.uleb())})
		}
	}
	c.seek(next)
}

// scan runs the whole program and keeps its sequences and marks.
func (t *lineTable) scan() {
	c := newCursor(t.sec, t.start)
	s := lineState{lineMark: lineMark{file: 1, line: 1}}
	fuel := maxLineOperations
	rows := -1 // in the open sequence since the last mark; -1: none is open
	var seq lineSeq
	closeSeq := func(high uint64) {
		seq.high, seq.last = high, len(t.marks)
		if t.u.d.code(seq.low, seq.high) {
			t.seqs = append(t.seqs, seq)
		} else {
			t.marks = t.marks[:seq.first]
		}
		rows = -1
	}
	var last uint64
	for t.step(&c, &s, &fuel) {
		if rows >= 0 && (s.end || s.addr < last) {
			closeSeq(max(s.addr, last))
		}
		if s.end {
			continue
		}
		if rows < 0 {
			seq = lineSeq{low: s.addr, first: len(t.marks)}
			rows = rowsPerMark
		}
		if rows++; rows >= rowsPerMark {
			t.marks = append(t.marks, s.lineMark)
			rows = 0
			if len(t.marks) > maxIndexed {
				break
			}
		}
		last = s.addr
	}
	t.complete = true
	slices.SortFunc(t.seqs, func(a, b lineSeq) int {
		if a.low != b.low {
			return cmpUint(a.low, b.low)
		}
		return cmpUint(b.high, a.high)
	})
	var reach uint64
	for i := range t.seqs {
		reach = max(reach, t.seqs[i].high)
		t.seqs[i].reach = reach
	}
}

// find gives file and line of pc.
func (t *lineTable) find(pc uint64) (file string, line int, ok bool) {
	i := sort.Search(len(t.seqs), func(i int) bool { return t.seqs[i].low > pc })
	for i--; i >= 0 && t.seqs[i].reach > pc; i-- {
		seq := t.seqs[i]
		if seq.high <= pc {
			continue
		}
		marks := t.marks[seq.first:seq.last]
		j := sort.Search(len(marks), func(j int) bool { return marks[j].addr > pc })
		if j == 0 {
			continue
		}
		s := lineState{lineMark: marks[j-1]}
		best := s.lineMark
		c := newCursor(t.sec, s.off)
		fuel := maxLineOperations
		for t.step(&c, &s, &fuel) && !s.end && s.addr <= pc && s.addr >= best.addr {
			best = s.lineMark
		}
		return t.path(uint64(best.file)), int(best.line), true
	}
	return "", 0, false
}
