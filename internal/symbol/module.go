package symbol

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"stanch/internal/leak"
)

const maxVDSO = 1 << 20

// module is one file, or one piece of memory without a file.
type module struct {
	s       *Symbolizer
	name    string
	mapping leak.Mapping // the first that was asked for

	cacheMu sync.RWMutex
	places  map[uint64][]leak.StackFrame

	mu      sync.Mutex // guards all below, and the reading of the files
	opened  bool
	closed  bool
	why     string // why there is no file to look into
	main    *object
	debug   *object // the separate debug file
	alt     *object // what dwz moved out of the one with DWARF
	dwarf   *dwarfData
	syms    symbolTable
	plt     []stub
	isGo    bool
	golang  *goTable
	jit     jitTable
	perf    *os.File
	asked   bool // for code, not only for variables
	objects map[uint64]variable
	notes   []string
	dwos    dwoFiles
}

type variable struct {
	name  string
	delta uint64
}

func (mod *module) close() {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	if mod.closed {
		return
	}
	mod.opened, mod.closed = true, true
	for _, o := range append([]*object{mod.main, mod.debug, mod.alt}, mod.dwos.objects()...) {
		if o != nil {
			o.close()
		}
	}
	if mod.perf != nil {
		mod.perf.Close()
	}
	mod.main, mod.debug, mod.alt, mod.dwarf, mod.plt, mod.golang, mod.perf = nil, nil, nil, nil, nil, nil, nil
	mod.syms = symbolTable{}
	mod.dwos = dwoFiles{}
}

// open opens the file and finds out what it has, once.
func (mod *module) open() {
	if mod.opened {
		return
	}
	mod.opened = true
	m := &mod.mapping
	var err error
	switch {
	case m.File():
		mod.main, err = mod.openFile(m)
	case m.Path == "[vdso]":
		mod.main, err = mod.openVDSO(m)
	default:
		return
	}
	if err != nil {
		mod.why = err.Error()
		return
	}
	mod.readNames()
}

// openFile opens the file of a mapping if it is still the one that was mapped.
func (mod *module) openFile(m *leak.Mapping) (*object, error) {
	var first error
	if mod.s.o.Open != nil {
		f, err := mod.s.o.Open(m)
		if err == nil {
			o, bad := newObject(m.Path, f, f, mod.s.cache)
			if bad != nil {
				return nil, fmt.Errorf("read %s: %w", m.Path, bad)
			}
			if m.BuildID == "" || o.buildID == m.BuildID {
				o.tree = mod.s.trees[0]
				return o, nil
			}
			o.close()
			err = fmt.Errorf("%s changed since it was mapped", m.Path)
		}
		first = err
	}
	o, err := openObject(hostTree{}, m.Path, mod.s.cache)
	if err == nil {
		if err = same(o, m); err == nil {
			return o, nil
		}
		o.close()
	}
	if first != nil {
		return nil, first
	}
	return nil, err
}

// same reports whether an open file is the one behind m.
func same(o *object, m *leak.Mapping) error {
	if m.BuildID != "" {
		if o.buildID != m.BuildID {
			return fmt.Errorf("%s has build-id %s here, what was mapped has %s", m.Path, orNone(o.buildID), m.BuildID)
		}
		return nil
	}
	st, err := o.file.Stat()
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); m.Inode == 0 || !ok || sys.Dev != m.Dev || sys.Ino != m.Inode {
		return fmt.Errorf("%s cannot be told to be what was mapped: no build-id, and another device or inode", m.Path)
	}
	return nil
}

func orNone(id string) string {
	if id == "" {
		return "none"
	}
	return id
}

// memoryReader reads one mapping as if it were a file.
type memoryReader struct {
	mem   leak.Memory
	start leak.Addr
}

func (r memoryReader) ReadAt(p []byte, off int64) (int, error) {
	return r.mem.ReadAt(p, r.start+leak.Addr(off))
}

// openVDSO reads the kernel's library from memory.
func (mod *module) openVDSO(m *leak.Mapping) (*object, error) {
	mem := mod.s.o.Memory
	if mem == nil {
		if mod.s.o.Target == nil {
			return nil, fmt.Errorf("%s is not in a recording", m.Path)
		}
		live, err := mod.s.o.Target.Mem()
		if err != nil {
			return nil, err
		}
		defer func() { _ = live.Close() }() // it was only read
		mem = live
	}
	b := make([]byte, min(m.Size(), maxVDSO))
	n, err := io.ReadFull(io.NewSectionReader(memoryReader{mem, m.Start}, 0, int64(len(b))), b)
	if n == 0 {
		return nil, err
	}
	return newObject(m.Path, bytes.NewReader(b[:n]), nil, mod.s.cache)
}

// readNames finds the debug files and reads the symbol tables.
func (mod *module) readNames() {
	o, dirs := mod.main, mod.s.o.DebugDirs
	mod.syms.layout = o
	mod.isGo = o.has(".gopclntab") || o.has(".data.rel.ro.gopclntab")
	if o.file != nil && (!o.has(".debug_info") || !o.has(".symtab")) {
		mod.debug, mod.notes = findDebug(o, mod.mapping.Path, mod.s.trees, dirs, mod.s.cache)
	}
	withDWARF := o
	if !o.has(".debug_info") && mod.debug != nil {
		withDWARF = mod.debug
	}
	mod.readSymbols()
	if !withDWARF.has(".debug_info") {
		mod.golang = newGoTable(o)
		return
	}
	mod.dwarf = newDWARF(withDWARF, o.executable)
	if mod.dwarf == nil {
		return
	}
	mod.dwarf.openSplit = mod.openSplit
	alt, missing := findAlt(withDWARF, mod.s.trees, dirs, mod.s.cache)
	if missing != "" {
		mod.note("%s: some names are in %s, which was not found", mod.name, missing)
	}
	if alt != nil {
		mod.alt = alt
		mod.dwarf.alt = newDWARF(alt, o.executable)
	}
}

// readSymbols reads the most complete symbol table there is; without one, the
// dynamic symbols and those that distributions keep in .gnu_debugdata.
func (mod *module) readSymbols() {
	defer mod.syms.finish()
	if mod.syms.add(mod.main, elf.SHT_SYMTAB) {
		return
	}
	if mod.debug != nil && mod.syms.add(mod.debug, elf.SHT_SYMTAB) {
		return
	}
	mod.syms.add(mod.main, elf.SHT_DYNSYM)
	mini, err := miniDebugInfo(mod.main, mod.s.cache)
	if err != nil {
		mod.note("%s: .gnu_debugdata cannot be read: %v", mod.name, err)
	}
	if mini != nil {
		mod.syms.add(mini, elf.SHT_SYMTAB)
	}
}

// address turns a file offset of m into the virtual address that the file's
// tables speak of.
func (mod *module) address(m *leak.Mapping, off uint64) (uint64, bool) {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	mod.open()
	if mod.main == nil {
		return 0, false
	}
	seg := mod.main.segment(off, m.Exec, m.Write)
	if seg == nil {
		return 0, false
	}
	return off - seg.Off + seg.Vaddr, true
}

// object names the variable at a virtual address.
func (mod *module) object(addr uint64) (string, uint64, bool) {
	mod.mu.Lock()
	defer mod.mu.Unlock()
	if v, ok := mod.objects[addr]; ok {
		return v.name, v.delta, v.name != ""
	}
	var v variable
	if name, start := mod.syms.object(addr); name != "" {
		v = variable{printable(readable(name)), addr - start}
	} else if mod.main != nil {
		if name := mod.main.vtable(addr); name != "" {
			v = variable{printable(name), 16} // behind offset-to-top and type information
		}
	}
	if mod.objects == nil || len(mod.objects) >= maxPlaces {
		mod.objects = map[uint64]variable{}
	}
	mod.objects[addr] = v
	return v.name, v.delta, v.name != ""
}

// frames names a place; final is false when a later try may know more.
func (mod *module) frames(m *leak.Mapping, off uint64) (frames []leak.StackFrame, final bool) {
	plain := leak.StackFrame{Module: mod.name, BuildID: m.BuildID, Offset: off}
	addr, ok := mod.address(m, off)
	mod.mu.Lock()
	defer mod.mu.Unlock()
	mod.asked = true
	if mod.closed {
		return []leak.StackFrame{plain}, false
	}
	if mod.main == nil && jitted(m) {
		plain.Function = printable(mod.jitName(uint64(m.Start) + off - m.Offset))
		return []leak.StackFrame{plain}, false
	}
	if !ok {
		return []leak.StackFrame{plain}, true
	}
	if plain.BuildID == "" {
		plain.BuildID = mod.main.buildID
	}
	levels, file, line := mod.levels(addr)
	if len(levels) == 0 {
		plain.Function, plain.File, plain.Line = mod.symbolAt(addr, file, line)
		return []leak.StackFrame{plain}, true
	}
	// levels are outermost first, and each tells where it was called from.
	for i := len(levels) - 1; i >= 0; i-- {
		f := plain
		f.File, f.Line = printable(file), line
		f.Inlined = i > 0
		if f.Inlined {
			f.Function = printable(levels[i].name())
			file, line = levels[i].callSite()
		} else {
			f.Function = printable(mod.outermost(&levels[0], addr))
		}
		frames = append(frames, f)
	}
	return frames, true
}

// levels asks DWARF for the functions at addr, outermost first, and for file
// and line.
func (mod *module) levels(addr uint64) (levels []level, file string, line int) {
	if mod.dwarf == nil {
		return nil, "", 0
	}
	return mod.dwarf.place(addr)
}

// outermost names the function that really is at addr. The symbol table knows
// the name that others call it by, DWARF the one in the source. A part that was
// split off is named by the symbol of the function's other parts.
func (mod *module) outermost(l *level, addr uint64) string {
	t := l.title()
	best, sure := mod.syms.function(addr, t.linkage, t.name)
	if best == "" || !sure {
		return l.name()
	}
	if !mod.isGo && part(best) {
		l.unit.eachRange(l.entry.low, l.entry.high, l.entry.ranges, func(lo, _ uint64) bool {
			whole, sure := mod.syms.function(lo, t.linkage, t.name)
			found := whole != "" && sure && !part(whole)
			if found {
				best = whole
			}
			return !found
		})
	}
	return mod.readable(best)
}

// readable is the function of that name, but for Go's symbols: they are as in
// the source, and a method may be called cold.
func (mod *module) readable(symbol string) string {
	if !mod.isGo || mangled(symbol) {
		return readable(symbol)
	}
	return strings.TrimSuffix(symbol, ".abi0") // assembly's calling convention
}

// symbolAt names a place that DWARF has no function for.
func (mod *module) symbolAt(addr uint64, file string, line int) (string, string, int) {
	if mod.golang != nil {
		if name, gofile, goline := mod.golang.find(addr); name != "" {
			return printable(name), printable(gofile), goline
		}
	}
	name, _ := mod.syms.function(addr)
	if name != "" {
		return printable(mod.readable(name)), printable(file), line
	}
	if mod.plt == nil {
		mod.plt = append([]stub{}, stubs(mod.main)...)
	}
	return printable(stubAt(mod.plt, addr)), printable(file), line
}

// jitted reports whether m may hold code that was compiled at run time.
func jitted(m *leak.Mapping) bool {
	return m.Exec && (!m.File() || strings.HasPrefix(m.Path, "/memfd:") || strings.HasPrefix(m.Path, "/dev/zero"))
}

// jitName asks the map that the target's compiler writes for perf.
func (mod *module) jitName(addr uint64) string {
	if mod.s.o.Target == nil || mod.mapping.Path != "" && mod.mapping.Path[0] == '[' && !strings.HasPrefix(mod.mapping.Path, "[anon") {
		return ""
	}
	if mod.perf == nil {
		f, err := perfMap(mod.s.o.Target)
		if err != nil {
			return "" // most programs write none
		}
		mod.perf = f
	}
	// A map that cannot be read has no names.
	_ = mod.jit.refresh(mod.perf)
	return mod.jit.find(addr)
}

func (mod *module) note(format string, args ...any) {
	mod.notes = append(mod.notes, printable(fmt.Sprintf(format, args...)))
}
