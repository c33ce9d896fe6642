package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/unwind"
)

// code keeps the unwind tables of what the target executes, by file.
type code struct {
	t      *proc.Target
	tables map[fileKey]*unwind.Table // nil for a file that has none
	rows   map[*unwind.Table][]byte  // encoded
	placed map[*unwind.Table]uint64  // address of its rows in the target
	next   uint64                    // free place in the arena for rows
	end    uint64
	lost   map[*unwind.Table]string // did not fit
	own    *unwind.Module           // the probe's text, where a walk may pass it
	static bool                     // one file holds the program and its libc
}

type fileKey struct {
	dev, inode uint64
	path       string
}

func newCode(t *proc.Target) *code {
	return &code{t: t, tables: map[fileKey]*unwind.Table{}, rows: map[*unwind.Table][]byte{}, placed: map[*unwind.Table]uint64{}, lost: map[*unwind.Table]string{}}
}

// hasCode reports whether functions may lie in m: an executable mapping of a
// file, or the vdso.
func hasCode(m *leak.Mapping) bool { return m.Exec && (m.File() || m.Path == "[vdso]") }

// modules gives the tables for all executable mappings, sorted by address.
func (c *code) modules(ctx context.Context, mem leak.Memory, maps []leak.Mapping) ([]unwind.Module, error) {
	var out []unwind.Module
	for i := range maps {
		m := &maps[i]
		if !hasCode(m) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if table := c.table(mem, m); table != nil {
			if mod, ok := table.Module(m); ok {
				out = append(out, mod)
			}
		}
	}
	return c.withOwn(out), nil
}

// addOwn makes the probe's text part of the code.
func (c *code) addOwn(text region, modules []unwind.Module) []unwind.Module {
	table := ownRows()
	c.rows[table] = table.Bytes()
	c.own = &unwind.Module{Start: leak.Addr(text.start), End: leak.Addr(text.end()), Base: leak.Addr(text.start), Table: table}
	return c.withOwn(modules)
}

func (c *code) withOwn(modules []unwind.Module) []unwind.Module {
	if c.own == nil {
		return modules
	}
	modules = append(slices.Clone(modules), *c.own)
	slices.SortFunc(modules, func(a, b unwind.Module) int { return cmp.Compare(a.Start, b.Start) })
	return modules
}

func (c *code) table(mem leak.Memory, m *leak.Mapping) *unwind.Table {
	key := fileKey{m.Dev, m.Inode, m.Path}
	if table, known := c.tables[key]; known {
		return table
	}
	table, err := c.compile(mem, m)
	if err != nil {
		table = nil // stacks end there
	}
	c.tables[key] = table
	return table
}

func (c *code) compile(mem leak.Memory, m *leak.Mapping) (*unwind.Table, error) {
	var key tableKey
	named := true
	var file *os.File
	if m.File() {
		f, err := c.t.OpenFile(m)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		file = f
		key.static = c.static
		key.file, named = idOf(f)
	} else {
		key.image = vdsoOf(mem, m)
	}
	if k, ok := knownTables.get(key); ok && named {
		if k == nil {
			return nil, errNoTable
		}
		c.rows[k.Table] = k.rows
		return k.Table, nil
	}
	table, err := c.compileFrom(file, mem, m)
	if err != nil {
		knownTables.put(key, nil)
		return nil, err
	}
	k := compiledOf(table)
	c.rows[table] = k.rows
	if named {
		knownTables.put(key, k)
	}
	return table, nil
}

// errNoTable: that a file has none is known from before.
var errNoTable = errors.New("no unwind table")

func (c *code) compileFrom(f *os.File, mem leak.Memory, m *leak.Mapping) (*unwind.Table, error) {
	if f == nil {
		return unwind.Compile(image{mem, m})
	}
	table, err := unwind.Compile(f)
	if err == nil && (table.Assumed || c.static) && m.Size() <= muslMost {
		table = fromCode(f, table)
	}
	return table, err
}

// muslMost bounds the code whose instructions are followed; musl has 0.5 MB.
const muslMost = 8 << 20

// image reads an ELF file that is only in memory.
type image struct {
	mem leak.Memory
	m   *leak.Mapping
}

func (r image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || uint64(off) >= r.m.Size() {
		return 0, io.EOF
	}
	n, err := r.mem.ReadAt(p[:min(uint64(len(p)), r.m.Size()-uint64(off))], r.m.Start+leak.Addr(off))
	if n < len(p) && err == nil {
		err = io.EOF
	}
	return n, err
}

// rowBytes is the room that the tables take.
func rowBytes(modules []unwind.Module) uint64 {
	sum, seen := uint64(0), map[*unwind.Table]bool{}
	for _, m := range modules {
		if !seen[m.Table] {
			seen[m.Table] = true
			sum += uint64(len(m.Table.Rows)) * unwind.RowSize
		}
	}
	return sum
}

// write puts the rows of tables that are not there yet into the arena, small
// ones first, and gives the module list for the target. What does not fit is
// left out: stacks end there.
func (c *code) write(m memory, modules []unwind.Module) ([]byte, error) {
	var fresh []*unwind.Table
	for _, mod := range modules {
		if _, done := c.placed[mod.Table]; !done && c.lost[mod.Table] == "" && !slices.Contains(fresh, mod.Table) {
			fresh = append(fresh, mod.Table)
		}
	}
	slices.SortStableFunc(fresh, func(a, b *unwind.Table) int { return cmp.Compare(len(a.Rows), len(b.Rows)) })
	for _, table := range fresh {
		b := c.rows[table]
		if uint64(len(b)) > c.end-c.next {
			c.lost[table] = c.nameOf(table)
			continue
		}
		if err := m.put(c.next, b); err != nil {
			return nil, err
		}
		c.placed[table] = c.next
		c.next += (uint64(len(b)) + 63) &^ 63
		c.next = min(c.next, c.end)
	}
	var list []byte
	for _, mod := range modules {
		rows, ok := c.placed[mod.Table]
		if !ok || len(list) == wModules*wModuleSize {
			continue
		}
		// struct module: start, end, base, rows, count.
		for _, v := range []uint64{uint64(mod.Start), uint64(mod.End), uint64(mod.Base), rows, uint64(len(mod.Table.Rows))} {
			list = order.AppendUint64(list, v)
		}
	}
	return list, nil
}

func (c *code) nameOf(table *unwind.Table) string {
	for key, t := range c.tables {
		if t == table {
			return key.path
		}
	}
	return "?"
}

// notes says where stacks end.
func (c *code) notes() []string {
	var out []string
	for _, path := range c.lost {
		out = append(out, fmt.Sprintf("stacks end in %s: its unwind table does not fit into the probe's memory", path))
	}
	slices.Sort(out)
	return out
}
