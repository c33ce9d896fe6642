package ptrace

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"sort"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// padding is unused room in executable memory: what lies between the last
// byte of an ELF segment and the end of its last page. The file has no code
// there and nothing jumps there.
type padding struct {
	leak.Range
	where string // the module, for messages
}

func (p *padding) size() int { return int(p.End - p.Start) }

// paddings lists the room behind each executable segment, libc and ld.so
// first, the vdso last; where there is more than a stub needs, its end once
// more by itself: the file may have other bytes right behind the segment, as the
// vdso has its section headers.
func paddings(maps []leak.Mapping, mem leak.Memory) []padding {
	type file struct {
		dev, inode uint64
		vdso       bool
	}
	heads := map[file]leak.Addr{} // where the ELF header of a file is mapped
	var found []padding
	for i := range maps {
		m := &maps[i]
		f := file{m.Dev, m.Inode, m.Path == "[vdso]"}
		if !f.vdso && !m.File() {
			continue
		}
		if m.Offset == 0 && m.Read {
			heads[f] = m.Start
		}
		head, ok := heads[f]
		if !ok || !m.Read || !m.Exec || m.Write || m.Shared {
			continue
		}
		for _, s := range executables(mem, head) {
			last := s.Off + s.Filesz // in the file
			if s.Memsz != s.Filesz || last <= m.Offset || last > m.Offset+m.Size() {
				continue
			}
			end := m.Start + leak.Addr(last-m.Offset)
			start := (end + 15) &^ 15
			limit := (end + pageSize - 1) &^ (pageSize - 1)
			if limit > m.End || start >= limit {
				continue
			}
			found = append(found, padding{leak.Range{Start: start, End: limit}, m.Path})
			if end := limit - atEnd; start < end {
				found = append(found, padding{leak.Range{Start: end, End: limit}, m.Path})
			}
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return rank(found[i].where) < rank(found[j].where) })
	return found
}

// rank orders modules by how surely they stay mapped.
func rank(path string) int {
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case path == "[vdso]":
		return 4
	case strings.HasPrefix(name, "libc.so"), strings.HasPrefix(name, "libc-"), strings.HasPrefix(name, "libc.musl"):
		return 0
	case strings.HasPrefix(name, "ld-"):
		return 1
	case strings.Contains(name, ".so"):
		return 3
	}
	return 2 // the executable
}

// executables reads the program headers at head and returns the loadable
// segments that hold code.
func executables(mem leak.Memory, head leak.Addr) []elf.Prog64 {
	var b [64]byte
	if n, _ := mem.ReadAt(b[:], head); n < len(b) || string(b[:4]) != elf.ELFMAG || b[elf.EI_CLASS] != byte(elf.ELFCLASS64) {
		return nil
	}
	phoff, size, count := order.Uint64(b[32:]), order.Uint16(b[54:]), order.Uint16(b[56:])
	const most = 128 // real files have about a dozen
	if size != 56 || count == 0 || count > most || phoff > 1<<20 {
		return nil
	}
	table := make([]byte, int(size)*int(count))
	if n, _ := mem.ReadAt(table, head+leak.Addr(phoff)); n < len(table) {
		return nil
	}
	var out []elf.Prog64
	for ; len(table) >= 56; table = table[56:] {
		p := elf.Prog64{
			Type: order.Uint32(table), Flags: order.Uint32(table[4:]),
			Off: order.Uint64(table[8:]), Vaddr: order.Uint64(table[16:]),
			Filesz: order.Uint64(table[32:]), Memsz: order.Uint64(table[40:]),
		}
		if elf.ProgType(p.Type) == elf.PT_LOAD && elf.ProgFlag(p.Flags)&elf.PF_X != 0 {
			out = append(out, p)
		}
	}
	return out
}

// magic starts every stub, so that a later stanch finds what a killed one left.
var magic = [16]byte{'\x0f', '\x0b', 's', 't', 'a', 'n', 'c', 'h', ' ', 's', 't', 'u', 'b', ' ', '1', '\n'}

// headerSize is what precedes the code of a stub: the magic, then
//
//	+16 uint32  length of all that was written, header included
//	+20 uint32  the byte that filled the room before
//
// It is written first and restored last, so that an interrupted stanch leaves
// either nothing or something that says how to remove it.
const headerSize = 24

// atEnd is the room of a stub that stands at the end of a page.
const atEnd = (headerSize + stubRoom + 15) &^ 15

// site is room that holds a stub now.
type site struct {
	padding
	size int  // bytes written, header included
	fill byte // what the room was filled with
}

// errNoRoom: no module has enough unused room for a stub.
var errNoRoom = errors.New("no module has unused room for a system call stub at the end of its code")

// choose finds room for a stub of n bytes and prepares its site.
func choose(maps []leak.Mapping, mem leak.Memory, n int) (*site, error) {
	for _, p := range paddings(maps, mem) {
		want := headerSize + n
		if p.size() < want {
			continue
		}
		old := make([]byte, want)
		if got, _ := mem.ReadAt(old, p.Start); got < want {
			continue
		}
		if bytes.HasPrefix(old, magic[:]) {
			continue // left by a killed stanch; a thread may still be in it
		}
		// Some linkers let the next segment's bytes begin here. Room that is
		// filled evenly can be restored without keeping its bytes.
		if bytes.Count(old, old[:1]) != len(old) {
			continue
		}
		return &site{padding: p, size: want, fill: old[0]}, nil
	}
	return nil, fmt.Errorf("%w: %w", errNoRoom, proc.ErrUnsupported)
}

// head is the header of a stub at this site.
func (s *site) head() []byte {
	b := append([]byte(nil), magic[:]...)
	b = order.AppendUint32(b, uint32(s.size))
	return order.AppendUint32(b, uint32(s.fill))
}

// filled is n bytes of what was here before.
func (s *site) filled(n int) []byte { return bytes.Repeat([]byte{s.fill}, n) }

// entry is where the code starts.
func (s *site) entry() leak.Addr { return s.Start + headerSize }

// span is all that was changed in the target.
func (s *site) span() leak.Range {
	return leak.Range{Start: s.Start, End: s.Start + leak.Addr(s.size)}
}
