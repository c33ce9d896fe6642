package proc

import (
	"debug/elf"
	"slices"
	"sort"
	"strings"

	"stanch/internal/leak"
)

// vsyscall is where x86-64 kernels map the legacy page, the only mapping above
// the user half of the address space.
const vsyscall = 0xffffffffff600000

// layOut makes the mappings and the list of dumped memory.
func (c *Core) layOut(segments []segment, files []fileRange) {
	sort.SliceStable(files, func(i, j int) bool { return files[i].start < files[j].start })
	inodes := map[string]uint64{}
	for _, s := range segments {
		if s.kind != ptLoad || s.memsz == 0 {
			continue
		}
		start := leak.Addr(s.vaddr)
		if s.filesz > 0 {
			c.dumped = append(c.dumped, dumped{start, start + leak.Addr(min(s.filesz, s.memsz)), s.off})
		}
		whole := leak.Mapping{
			Start: start, End: start + leak.Addr(s.memsz),
			Read: s.flags&uint32(elf.PF_R) != 0, Write: s.flags&uint32(elf.PF_W) != 0, Exec: s.flags&uint32(elf.PF_X) != 0,
		}
		c.maps = append(c.maps, split(whole, files, inodes)...)
	}
	sort.SliceStable(c.dumped, func(i, j int) bool { return c.dumped[i].start < c.dumped[j].start })
	sort.SliceStable(c.maps, func(i, j int) bool { return c.maps[i].Start < c.maps[j].Start })
	c.addUndumped(files, inodes)
	c.nameSpecial()
	c.findBuildIDs()
}

// split cuts a segment where a mapped file begins or ends. The kernel writes
// one segment for each mapping; other writers may join them.
func split(whole leak.Mapping, files []fileRange, inodes map[string]uint64) []leak.Mapping {
	var parts []leak.Mapping
	part := func(start, end leak.Addr) *leak.Mapping {
		m := whole
		m.Start, m.End = start, end
		parts = append(parts, m)
		return &parts[len(parts)-1]
	}
	at := whole.Start
	i := overlapping(len(files), whole.Start, func(i int) leak.Addr { return files[i].end })
	for ; i < len(files) && files[i].start < whole.End; i++ {
		f := &files[i]
		if f.start > at {
			part(at, f.start)
			at = f.start
		}
		end := min(f.end, whole.End)
		if end <= at {
			continue // overlapping entries: the first wins
		}
		nameFile(part(at, end), f, inodes)
		at = end
	}
	if at < whole.End {
		part(at, whole.End)
	}
	return parts
}

// nameFile makes m the mapping of a file.
func nameFile(m *leak.Mapping, f *fileRange, inodes map[string]uint64) {
	m.Path, m.Deleted = strings.CutSuffix(f.path, " (deleted)")
	m.Offset = f.off + uint64(m.Start-f.start)
	if inodes[f.path] == 0 {
		inodes[f.path] = uint64(len(inodes) + 1)
	}
	m.Inode = inodes[f.path]
	for _, shared := range []string{"/dev/zero", "/SYSV", "/memfd:", "/dev/shm/"} {
		m.Shared = m.Shared || strings.HasPrefix(m.Path, shared)
	}
}

// addUndumped adds files that have no segment at all: gcore leaves out what it
// does not dump. Their rights are unknown; the program headers of the file on
// disk tell them when it is the same file, else they are taken as readable.
func (c *Core) addUndumped(files []fileRange, inodes map[string]uint64) {
	known := len(c.maps)
	for i := range files {
		f := &files[i]
		j := overlapping(known, f.start, func(i int) leak.Addr { return c.maps[i].End })
		if j < known && c.maps[j].Start < f.end {
			continue
		}
		m := leak.Mapping{Start: f.start, End: f.end, Read: true}
		nameFile(&m, f, inodes)
		c.maps = append(c.maps, m)
	}
	added := slices.Clone(c.maps[known:])
	if len(added) == 0 {
		return
	}
	sort.SliceStable(c.maps, func(i, j int) bool { return c.maps[i].Start < c.maps[j].Start })
	c.findBuildIDs() // they decide which file on disk may tell
	rights := map[string][]segment{}
	for _, a := range added {
		segments, known := rights[a.Path]
		if !known {
			segments = c.fileSegments(a.Path)
			rights[a.Path] = segments
		}
		m := Find(c.maps, a.Start)
		if s := c.segmentOf(m, segments); s != nil {
			m.Write, m.Exec = s.flags&uint32(elf.PF_W) != 0, s.flags&uint32(elf.PF_X) != 0
		}
	}
}

// segmentOf finds the segment of its file that m maps. Neighbouring segments
// may share a page of the file, so the address decides: it must fit the place
// of the first segment.
func (c *Core) segmentOf(m *leak.Mapping, segments []segment) *segment {
	page := func(n uint64) uint64 { return n &^ (pageSize - 1) }
	first := slices.IndexFunc(segments, func(s segment) bool { return s.kind == ptLoad })
	if first < 0 {
		return nil
	}
	f := &segments[first]
	for i := range segments {
		s := &segments[i]
		if s.kind != ptLoad || m.Offset < page(s.off) || m.Offset >= s.off+s.filesz {
			continue
		}
		bias := uint64(m.Start) - (m.Offset - page(s.off)) - page(s.vaddr)
		start := Find(c.maps, leak.Addr(bias+page(f.vaddr)))
		if start != nil && start.Path == m.Path && start.Offset == page(f.off) {
			return s
		}
	}
	return nil
}

// fileSegments reads the program headers of a file on disk, nil when it is not
// the one that was mapped or no ELF file.
func (c *Core) fileSegments(path string) []segment {
	b := c.backing(path)
	if b.err != nil {
		return nil
	}
	h, err := readHead(b.f)
	if err != nil {
		return nil
	}
	segments, err := readSegments(b.f, h)
	if err != nil {
		return nil
	}
	return segments
}

// findBuildIDs takes the build-ids from the ELF headers that stand in the core.
func (c *Core) findBuildIDs() {
	for i := range c.maps {
		m := &c.maps[i]
		if m.File() && m.Offset == 0 && m.BuildID == "" {
			if id := MemoryBuildID(dumpedOnly{c}, m); id != "" {
				c.setBuildID(m.Path, id)
			}
		}
	}
}

// nameSpecial names the stack of the main thread, the vdso and the legacy page.
func (c *Core) nameSpecial() {
	name := func(a leak.Addr, path string) bool {
		m := Find(c.maps, a)
		if a == 0 || m == nil || m.Path != "" {
			return false
		}
		m.Path = path
		return true
	}
	name(leak.Addr(c.auxv[AuxVDSO]), "[vdso]")
	name(vsyscall, "[vsyscall]")
	if name(leak.Addr(c.auxv[AuxRandom]), "[stack]") || name(leak.Addr(c.auxv[AuxExecFn]), "[stack]") {
		return
	}
	main := slices.IndexFunc(c.threads, func(t CoreThread) bool { return t.TID == c.PID })
	if main >= 0 {
		name(leak.Addr(c.threads[main].Regs.Rsp), "[stack]")
	}
}

// setBuildID sets the build-id of every mapping of a file.
func (c *Core) setBuildID(path, id string) {
	for i := range c.maps {
		if c.maps[i].Path == path {
			c.maps[i].BuildID = id
		}
	}
}

// dumpedOnly is the memory that stands in the core itself.
type dumpedOnly struct{ c *Core }

func (d dumpedOnly) ReadAt(p []byte, a leak.Addr) (int, error) {
	list := d.c.dumped
	i := overlapping(len(list), a, func(i int) leak.Addr { return list[i].end })
	if i == len(list) || list[i].start > a {
		return 0, errNotDumped
	}
	n := min(uint64(len(p)), uint64(list[i].end-a))
	done, err := d.c.f.ReadAt(p[:n], int64(list[i].off+uint64(a-list[i].start)))
	if err == nil && n < uint64(len(p)) {
		err = errNotDumped
	}
	return done, err
}
