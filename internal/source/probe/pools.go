package probe

import (
	"debug/elf"
	"fmt"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/unwind"
)

// island is a page within reach of a file's code, from where jumps go to the
// text, which is near the allocator.
type island struct {
	region
	near  region // the file's place
	sites []site
	calls []callSite // of libc instead
	bytes []byte
	there bool // it stayed from before, and a thread may be in it
}

// Layout of an island: magic, then for each function a jump to the text and
// its displaced instructions.
const (
	islandFirst = 64
	islandSlot  = 128
	farJump     = 14 // jmp *0(%rip) and the address
)

// jumpFar is a jump to any address.
func jumpFar(to uint64) []byte {
	return order.AppendUint64([]byte{0xff, 0x25, 0, 0, 0, 0}, to)
}

// check makes sure that a Hook says what can be done.
func (h *Hook) check() error {
	bad := func(why string) error { return fmt.Errorf("hook %q: %s: %w", h.Name, why, proc.ErrUnsupported) }
	switch {
	case h.Name == "":
		return bad("a function needs a name")
	case !h.Alloc && !h.Free:
		return bad("it neither returns blocks nor takes them back")
	case h.Free && h.Ptr == 0:
		return bad("it does not say which argument is the block")
	case h.Alloc && strings.HasPrefix(h.Name, "_Z"):
		return bad("a C++ function that returns blocks may throw, and an exception cannot pass the hook")
	}
	for _, n := range []int{h.Size, h.Count, h.Ptr} {
		if n < 0 || n > 6 {
			return bad("only the first six arguments can be seen")
		}
	}
	return nil
}

// poolHook is the index in hooks of the first function of Options.Hooks.
func poolHook() int { return slices.IndexFunc(hooks, func(h hook) bool { return h.kind == "POOL" }) }

// pools finds the functions of Options.Hooks and decides about each.
func (p *Probe) pools(v *view) error {
	if len(p.o.Hooks) == 0 {
		return nil
	}
	if len(p.o.Hooks) > wPools {
		return fmt.Errorf("%d functions to hook, at most %d can be: %w", len(p.o.Hooks), wPools, proc.ErrUnsupported)
	}
	objects, err := v.objects()
	if err != nil {
		return err
	}
	files := map[int]*allocator{}
	for n := range p.o.Hooks {
		h := &p.o.Hooks[n]
		if err := h.check(); err != nil {
			return err
		}
		i, at, err := v.symbol(objects, h.Name, files)
		if err != nil {
			return err
		}
		a := files[i]
		f, err := v.function(a, at)
		if err != nil {
			return fmt.Errorf("hook %q: %w", h.Name, err)
		}
		d, err := f.displace()
		if err != nil {
			return fmt.Errorf("hook %q of %s: %w: %w", h.Name, a.name(), err, proc.ErrUnsupported)
		}
		s := site{hook: poolHook() + n, moved: d}
		if err := v.checkLongBranches(&plan{alloc: a, sites: []site{s}}); err != nil {
			return fmt.Errorf("hook %q: %w", h.Name, err)
		}
		lo, hi := span(v.maps, &a.m)
		place := region{lo, hi - lo}
		k := slices.IndexFunc(p.islands, func(x *island) bool { return x.near == place })
		if k < 0 {
			if len(p.islands) == wIslands-1 {
				return fmt.Errorf("hook %q: functions of more than %d files: %w", h.Name, wIslands-1, proc.ErrUnsupported)
			}
			p.islands = append(p.islands, &island{region: region{size: pageSize}, near: place})
			k = len(p.islands) - 1
		}
		p.islands[k].sites = append(p.islands[k].sites, s)
	}
	return nil
}

// symbol finds a function by name in the first object that has it; static ones
// count. files are those that were opened.
func (v *view) symbol(objects []object, name string, files map[int]*allocator) (i int, at uint64, err error) {
	for i := range objects {
		o := &objects[i]
		a := files[i]
		if a == nil {
			f, err := v.openObject(o)
			if err != nil {
				continue
			}
			file, err := elf.NewFile(f)
			if err != nil {
				_ = f.Close()
				continue
			}
			v.close = append(v.close, f)
			a = &allocator{object: *o, file: file, names: map[string]uint64{}, sizes: map[uint64]uint64{}}
			files[i] = a
		}
		static, _ := a.file.Symbols()
		dynamic, _ := a.file.DynamicSymbols()
		found := map[uint64]uint64{}
		for _, s := range append(static, dynamic...) {
			if s.Name == name && s.Section != elf.SHN_UNDEF && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
				found[s.Value+o.bias] = max(found[s.Value+o.bias], s.Size)
			}
		}
		if len(found) > 1 {
			return 0, 0, fmt.Errorf("hook %q: %s has %d functions of that name: %w", name, o.name(), len(found), proc.ErrUnsupported)
		}
		for at, size := range found {
			a.sizes[at] = size
			return i, at, nil
		}
	}
	return 0, 0, fmt.Errorf("hook %q: no loaded file has a function of that name (stripped?): %w", name, ErrNoFunction)
}

// placeIslands chooses a page for each island, apart from what was chosen
// already.
func (p *Probe) placeIslands(h held, lowest uint64, taken []region) error {
	for _, x := range p.islands {
		if len(x.calls) > 0 && len(p.stayed) > 0 {
			x.region, x.there = p.stayed[0], true
			continue
		}
		maps := slices.Clone(h.Maps())
		for _, r := range taken {
			maps = append(maps, leak.Mapping{Start: leak.Addr(r.start), End: leak.Addr(r.end())})
		}
		sort.Slice(maps, func(i, j int) bool { return maps[i].Start < maps[j].Start })
		at, err := near(gaps(maps, p.exeMapping(maps), lowest), x.near.start, x.near.end(), x.size, pageSize)
		if err != nil {
			return err
		}
		x.start = at
		taken = append(taken, x.region)
		p.head.islands = append(p.head.islands, x.region)
	}
	p.head.islands = append(p.head.islands, p.stayed...)
	return nil
}

// fillIslands makes the islands' code, and tells text and patches of it.
func (p *Probe) fillIslands(text []byte) ([]patch, error) {
	var patches []patch
	for _, x := range p.islands {
		x.bytes = make([]byte, x.size)
		if x.there {
			if err := readInto(p.mem, x.bytes, x.start); err != nil {
				return nil, err
			}
		}
		order.PutUint64(x.bytes, magic)
		for i := range x.calls {
			s := &x.calls[i]
			at := islandFirst + uint64(s.stub)*wStub
			code, err := s.code(x.start+at, p.text.start+hooks[siteHook()].fast, true)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", proc.ErrUnsupported, err)
			}
			copy(x.bytes[at:at+wStub], code)
			patches = append(patches, patch{at: s.moved.at, target: x.start + at, old: s.moved.bytes, hook: s.hook})
		}
		for i := range x.sites {
			s := &x.sites[i]
			at := uint64(islandFirst + islandSlot*i)
			tramp := at + 16
			code, err := s.moved.relocate(x.start + tramp)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", proc.ErrUnsupported, err)
			}
			copy(x.bytes[at:], jumpFar(p.text.start+s.def().slow))
			copy(x.bytes[tramp:], code)
			copy(text[s.def().tramp:], jumpFar(x.start+tramp))
			patches = append(patches, patch{at: s.moved.at, target: x.start + at, old: s.moved.bytes, hook: s.hook})
		}
	}
	return patches, nil
}

// islandMappings are to be made with the others.
func (p *Probe) islandMappings(h held) []mapping {
	var out []mapping
	for _, x := range p.islands {
		out = append(out, mapping{region: x.region, prot: unix.PROT_READ | unix.PROT_EXEC, mapped: x.there, begin: func() error { return put64(h, x.start, magic) }})
	}
	return out
}

// poolState is struct pool for each of Options.Hooks.
func (p *Probe) poolState() []byte {
	b := make([]byte, wPools*wPoolSize)
	for i := range p.o.Hooks {
		h := &p.o.Hooks[i]
		copy(b[i*wPoolSize:], []byte{flag(h.Alloc), flag(h.Free), byte(h.Size), byte(h.Count), byte(h.Ptr)})
	}
	return b
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// ownRows tells the walk how to pass the hooks of pools, which stay around
// their originals. In both places the return address is known.
func ownRows() *unwind.Table {
	var rows []unwind.Row
	add := func(back uint64, off int32) {
		rows = append(rows, unwind.Row{PC: uint32(back - 5), CFA: unwind.CFASP, CFAOff: off}, unwind.Row{PC: uint32(back)})
	}
	first := poolHook()
	for i, words := range poolWords {
		add(words, wFrameSize+8+64)
		add(hooks[first+i].ret, wFrameSize+8)
	}
	return &unwind.Table{Rows: rows}
}
