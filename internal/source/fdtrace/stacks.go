package fdtrace

import (
	"encoding/binary"
	"io"
	"os"
	"sort"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/unwind"
)

// stackMost bounds the frames of a stack.
const stackMost = 128

// stacksMost bounds the stacks whose names are remembered for a process.
const stacksMost = 1 << 16

// code is the program that runs in a process: what its stacks are walked with.
type code struct {
	target   *proc.Target
	atlas    *leak.Atlas
	tables   *tables
	maps     []leak.Mapping
	modules  []unwind.Module
	unwinder *unwind.Unwinder
	read     uint64                  // when the mappings were read, CLOCK_BOOTTIME in ns
	stacks   map[string]leak.StackID // by the places
	// execs tells when the process executed a program last, in the kernel's
	// time; executed is when the one did whose events are being read. Where they
	// differ the mappings are those of a later program.
	execs    func() uint64
	executed uint64
	key      []byte
}

// tables are the unwind tables of files, shared by all processes.
type tables struct{ known map[fileKey]*unwind.Table }

type fileKey struct {
	dev, inode uint64
	path       string
}

func newCode(target *proc.Target, atlas *leak.Atlas, tables *tables) *code {
	return &code{target: target, atlas: atlas, tables: tables, stacks: map[string]leak.StackID{}}
}

// inherit makes a forked child's code that of its parent, until it is read.
func (c *code) inherit(from *code) {
	c.maps, c.modules, c.read, c.executed = from.maps, from.modules, 0, 0
	c.atlas.Update(c.maps)
	if c.modules != nil {
		c.unwinder = unwind.New(c.modules)
	}
}

// refresh reads the mappings anew.
func (c *code) refresh() bool {
	c.read = bootNow()
	maps, err := c.target.Maps()
	if err != nil || len(maps) == 0 {
		return false
	}
	if c.execs() != c.executed {
		return false
	}
	c.maps = maps
	c.atlas.Update(maps)
	c.modules = c.modules[:0:0]
	for i := range maps {
		m := &maps[i]
		if !m.Exec {
			continue
		}
		if table := c.table(m); table != nil {
			if mod, ok := table.Module(m); ok {
				c.modules = append(c.modules, mod)
			}
		}
	}
	sort.Slice(c.modules, func(i, j int) bool { return c.modules[i].Start < c.modules[j].Start })
	c.unwinder = unwind.New(c.modules)
	clear(c.stacks)
	return true
}

// replaced forgets the program: another one runs now.
func (c *code) replaced(at uint64) {
	c.modules, c.unwinder, c.read, c.executed = nil, nil, 0, at
	clear(c.stacks)
	c.refresh()
}

// table gives the unwind table of a mapping's file; nil when it has none.
func (c *code) table(m *leak.Mapping) *unwind.Table {
	if m.Path == "[vdso]" {
		return c.vdso(m)
	}
	if !m.File() {
		return nil
	}
	key := fileKey{m.Dev, m.Inode, m.Path}
	if table, ok := c.tables.known[key]; ok {
		return table
	}
	f, err := c.target.OpenFile(m)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	table, err := unwind.Compile(f)
	if err != nil {
		table = nil // stacks end there
	}
	c.tables.known[key] = table
	return table
}

// vdso compiles the kernel's own library, which is in memory alone and the
// same for all processes: stanch's own copy is read.
func (c *code) vdso(m *leak.Mapping) *unwind.Table {
	key := fileKey{path: m.Path}
	if table, ok := c.tables.known[key]; ok {
		return table
	}
	c.tables.known[key] = nil
	self, err := c.target.Root.Open(os.Getpid())
	if err != nil {
		return nil
	}
	maps, err := self.Maps()
	if err != nil {
		return nil
	}
	mem, err := self.Mem()
	if err != nil {
		return nil
	}
	defer func() { _ = mem.Close() }()
	for i := range maps {
		if maps[i].Path == m.Path && maps[i].Size() == m.Size() {
			image := make([]byte, maps[i].Size())
			if n, _ := mem.ReadAt(image, maps[i].Start); n == len(image) {
				if table, err := unwind.Compile(readerAt(image)); err == nil {
					c.tables.known[key] = table
				}
			}
		}
	}
	return c.tables.known[key]
}

type readerAt []byte

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(r)) {
		return 0, io.EOF
	}
	n := copy(p, r[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// stack names the stack of an event. cut says that the copied piece ended
// before the stack did.
func (c *code) stack(e *event, tail []byte) (id leak.StackID, cut bool) {
	if len(tail) == 0 {
		return 0, false
	}
	if c.unwinder == nil && !c.stale(e) {
		return 0, false
	}
	places, complete := c.walk(e, tail)
	if !complete && !c.all(places) && c.stale(e) {
		places, complete = c.walk(e, tail)
	}
	return c.name(places), !complete && e.Bytes == e.Most && e.Most < wideStack
}

func (c *code) walk(e *event, tail []byte) ([]leak.Addr, bool) {
	if c.unwinder == nil {
		return nil, false
	}
	return c.unwinder.Unwind(e.regs(), unwind.Stack{Start: leak.Addr(e.Regs[regSP]), Bytes: tail}, stackMost)
}

// stale reads the mappings anew when they were read before the event.
func (c *code) stale(e *event) bool { return c.read < e.Exit && c.refresh() }

// all reports whether all places lie in modules.
func (c *code) all(places []leak.Addr) bool {
	for _, p := range places {
		i := sort.Search(len(c.modules), func(i int) bool { return c.modules[i].End > p })
		if i == len(c.modules) || c.modules[i].Start > p {
			return false
		}
	}
	return true
}

func (c *code) name(places []leak.Addr) leak.StackID {
	c.key = c.key[:0]
	for _, p := range places {
		c.key = binary.LittleEndian.AppendUint64(c.key, uint64(p))
	}
	if id, ok := c.stacks[string(c.key)]; ok {
		return id
	}
	frames := make([]leak.Frame, 0, len(places))
	for _, p := range places {
		if f := c.atlas.Frame(p); f != (leak.Frame{}) {
			frames = append(frames, f)
		}
	}
	id := c.atlas.Stack(frames)
	if len(c.stacks) >= stacksMost {
		clear(c.stacks)
	}
	c.stacks[string(c.key)] = id
	return id
}
