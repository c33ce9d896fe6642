package symbol

import (
	"encoding/binary"
	"io"
	"path"
)

const (
	maxDwos     = 64 // .dwo files open at once
	maxDwpUnits = 1 << 20
)

// Columns of a package file's index: DWARF 5, section 7.3.5.3, and for version
// 2 the GNU proposal it came from (gcc.gnu.org/wiki/DebugFissionDWP).
const (
	sectInfo       = 1
	sectAbbrev     = 3
	sectLine       = 4
	sectStrOffsets = 6
	sectRnglists   = 8 // version 5; in version 2 this is something else
)

// dwoFiles are the files that -gsplit-dwarf left the entries in.
type dwoFiles struct {
	open    map[uint64]*dwo // by dwo id
	pkg     *object         // the .dwp file
	looked  bool            // for the .dwp file
	missing map[uint64]string
}

type dwo struct {
	o *object // nil when it is from the package
	u *unit   // nil when the file has no such unit
}

func (f *dwoFiles) objects() []*object {
	all := []*object{f.pkg}
	for _, d := range f.open {
		all = append(all, d.o)
	}
	return all
}

// openSplit finds the unit that a skeleton stands for, nil when it is not to
// be found.
func (mod *module) openSplit(skel *unit) *unit {
	f := &mod.dwos
	if d, ok := f.open[skel.dwoID]; ok {
		return d.u
	}
	if _, ok := f.missing[skel.dwoID]; ok {
		return nil
	}
	if f.open == nil || len(f.open) >= maxDwos {
		for _, d := range f.open {
			if d.o != nil {
				d.o.close()
			}
		}
		f.open = map[uint64]*dwo{}
	}
	d := mod.packaged(skel)
	if d == nil {
		d = mod.dwoFile(skel)
	}
	if d == nil {
		if f.missing == nil {
			f.missing = map[uint64]string{}
		}
		f.missing[skel.dwoID] = skel.top().dwoName
		return nil
	}
	f.open[skel.dwoID] = d
	return d.u
}

// dwoFile opens the .dwo file that the skeleton names.
func (mod *module) dwoFile(skel *unit) *dwo {
	r := skel.top()
	p := r.dwoName
	if !path.IsAbs(p) {
		p = path.Join(r.compDir, p)
	}
	if !path.IsAbs(p) {
		p = path.Join(path.Dir(mod.mapping.Path), p)
	}
	for _, t := range mod.s.trees {
		o, err := openObject(t, p, mod.s.cache)
		if err != nil {
			continue
		}
		get := func(name string) *section { return o.section(name + ".dwo") }
		if u := splitUnit(get, skel); u != nil {
			return &dwo{o, u}
		}
		o.close()
	}
	return nil
}

// splitUnit finds the unit of a skeleton among split sections.
func splitUnit(get func(name string) *section, skel *unit) *unit {
	d := (&dwarfData{
		info: get(".debug_info"), abbrevs: get(".debug_abbrev"), strs: get(".debug_str"), line: get(".debug_line"),
		rnglists: get(".debug_rnglists"), strOffs: get(".debug_str_offsets"),
		split: true, alt: skel.d.alt, code: skel.d.code,
	}).ready()
	if d == nil {
		return nil
	}
	for _, u := range d.units {
		u.skel = skel
		if u.top(); u.dwoID == skel.dwoID {
			return u
		}
	}
	return nil
}

// packaged finds the unit in the .dwp file beside the program.
func (mod *module) packaged(skel *unit) *dwo {
	f := &mod.dwos
	if !f.looked {
		f.looked = true
		places := []string{mod.mapping.Path + ".dwp"}
		if mod.debug != nil {
			places = append(places, mod.debug.path+".dwp")
		}
		for _, t := range mod.s.trees {
			for _, p := range places {
				if o, err := openObject(t, p, mod.s.cache); err == nil && f.pkg == nil {
					f.pkg = o
				} else if err == nil {
					o.close()
				}
			}
		}
	}
	if f.pkg == nil {
		return nil
	}
	parts := packageUnit(f.pkg.section(".debug_cu_index"), skel.dwoID)
	if parts == nil {
		return nil
	}
	get := func(name string) *section {
		s := f.pkg.section(name + ".dwo")
		column := map[string]uint32{".debug_info": sectInfo, ".debug_abbrev": sectAbbrev, ".debug_line": sectLine,
			".debug_str_offsets": sectStrOffsets, ".debug_rnglists": sectRnglists}[name]
		if part, ok := parts[column]; ok && column != 0 {
			return s.part(part.off, part.size)
		}
		return s
	}
	if u := splitUnit(get, skel); u != nil {
		return &dwo{nil, u}
	}
	return nil
}

type dwpPart struct{ off, size uint64 }

// packageUnit looks a unit up in .debug_cu_index and gives its parts of the
// sections by column number; nil when it is not there.
func packageUnit(s *section, id uint64) map[uint32]dwpPart {
	if s == nil || s.size < 16 {
		return nil
	}
	h, err := s.bytes(0, 16)
	if err != nil {
		return nil
	}
	version := binary.LittleEndian.Uint32(h)
	if version != 2 && version&0xffff != 5 {
		return nil
	}
	columns, units, slots := uint64(binary.LittleEndian.Uint32(h[4:])), uint64(binary.LittleEndian.Uint32(h[8:])), uint64(binary.LittleEndian.Uint32(h[12:]))
	if columns > 16 || units > maxDwpUnits || slots > 4*maxDwpUnits || slots&(slots-1) != 0 || slots == 0 {
		return nil
	}
	rows := 16 + slots*8
	heads := rows + slots*4
	offsets := heads + columns*4
	sizes := offsets + units*columns*4
	slot, stride := id&(slots-1), (id>>32)&(slots-1)|1
	for range slots {
		c := newCursor(s, 16+slot*8)
		sig := c.u64()
		c.seek(rows + slot*4)
		row := uint64(c.u32())
		if c.err != nil || row == 0 || row > units {
			return nil
		}
		if sig != id {
			slot = (slot + stride) & (slots - 1)
			continue
		}
		parts := map[uint32]dwpPart{}
		for i := range columns {
			c := newCursor(s, heads+i*4)
			column := c.u32()
			c.seek(offsets + ((row-1)*columns+i)*4)
			off := uint64(c.u32())
			c.seek(sizes + ((row-1)*columns+i)*4)
			parts[column] = dwpPart{off, uint64(c.u32())}
		}
		return parts
	}
	return nil
}

// part is a piece of s as a section of its own, nil when it does not lie in s.
func (s *section) part(off, size uint64) *section {
	if s == nil || off > s.size || size > s.size-off {
		return nil
	}
	if s.r == nil {
		return memSection(s.mem[off : off+size])
	}
	return &section{r: io.NewSectionReader(s.r, int64(off), int64(size)), size: size, cache: s.cache}
}
