package probe

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"stanch/internal/unwind"
)

// callSite is a place in libc just before or just after a system call, where a
// stub is called from. Functions are left alone: one that waits in the kernel
// has no frame of ours below it, so that it is cancelled as ever, and those that
// libc calls inside of itself are seen too.
type callSite struct {
	site
	info uint32 // struct site's
	stub int    // which stub is its own, always the same one for a file
}

// nr is the system call.
func (s *callSite) nr() uint64 { return uint64(s.info & (wSiteAny)) }

func (s *callSite) after() bool { return s.info&wSiteAfter != 0 }

func siteHook() int { return slices.IndexFunc(hooks, func(h hook) bool { return h.kind == "SITE" }) }

// fillSites writes the stubs of all sites.
func (p *Probe) fillSites(text []byte) ([]patch, error) {
	if p.sited.size == 0 {
		return nil, nil // they are on an island
	}
	h := &hooks[siteHook()]
	var patches []patch
	for i := range p.sites {
		s := &p.sites[i]
		at := h.tramp + uint64(s.stub)*wStub
		code, err := s.code(p.text.start+at, p.text.start+h.fast, false)
		if err != nil {
			return nil, err
		}
		copy(text[at:at+wStub], code)
		patches = append(patches, patch{at: s.moved.at, target: p.text.start + at, old: s.moved.bytes, hook: siteHook()})
	}
	return patches, nil
}

// code is the stub at an address. Around it, the displaced instructions are done
// where they belong: those before a call set its registers. It spares the 128
// bytes below the stack pointer, which belong to the function, and every
// register; flags do not live across a system call. far says that common may be
// too far away for a call.
func (s *callSite) code(at, common uint64, far bool) ([]byte, error) {
	var b []byte
	var err error
	if !s.after() {
		if b, err = s.moved.moved(at); err != nil {
			return nil, err
		}
	}
	b = append(b, 0x48, 0x8d, 0x64, 0x24, 0x80) // lea -128(%rsp),%rsp
	b = append(b, 0x68)                         // push $info
	b = binary.LittleEndian.AppendUint32(b, s.info)
	if far {
		b = append(b, 0xff, 0x15) // call *end-8(%rip)
		b = order.AppendUint32(b, uint32(wStub-8-len(b)-4))
	} else {
		call, err := branch([]byte{0xe8}, at+uint64(len(b)), common)
		if err != nil {
			return nil, err
		}
		b = append(b, call...)
	}
	b = append(b, 0x48, 0x8d, 0xa4, 0x24, 136, 0, 0, 0) // lea 136(%rsp),%rsp
	if s.after() {
		more, err := s.moved.moved(at + uint64(len(b)))
		if err != nil {
			return nil, err
		}
		b = append(b, more...)
	}
	back, err := branch([]byte{0xe9}, at+uint64(len(b)), s.moved.end())
	if err != nil {
		return nil, err
	}
	b = append(b, back...)
	room := wStub
	if far {
		room -= 8
	}
	if len(b) > room {
		return nil, fmt.Errorf("%w: its instructions take %d bytes elsewhere", errDetour, len(b))
	}
	if far {
		b = order.AppendUint64(append(b, make([]byte, room-len(b))...), common)
	}
	return b, nil
}

// siteFinder looks for system calls in the code of a file.
type siteFinder struct {
	file   *elf.File
	table  *unwind.Table
	base   uint64   // virtual address of the table's pc 0
	starts []uint64 // of functions
	names  []elf.Symbol
	want   func(nr uint64) bool
	sites  []callSite
	missed map[uint64]bool // system calls of which one place cannot be hooked
}

// findSites lists the places before and after each system call of a file that
// want names. Addresses are those of the file.
func findSites(file *elf.File, table *unwind.Table, want func(nr uint64) bool) (*siteFinder, error) {
	f := &siteFinder{file: file, table: table, base: ^uint64(0), want: want, missed: map[uint64]bool{}}
	for _, p := range file.Progs {
		if p.Type == elf.PT_LOAD {
			f.base = min(f.base, p.Vaddr&^(pageSize-1))
		}
	}
	f.functions()
	for _, p := range file.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_X == 0 || p.Filesz > 64<<20 {
			continue
		}
		code := make([]byte, p.Filesz)
		if _, err := p.ReadAt(code, 0); err != nil {
			return nil, err
		}
		for i := 0; i+2 < len(code); i++ {
			if code[i] == 0x0f && code[i+1] == 0x05 {
				f.at(code, p.Vaddr, uint64(i))
			}
		}
		f.withoutEntries(code, p.Vaddr)
	}
	return f, nil
}

// functions finds where functions begin: by the index of .eh_frame, which a
// stripped library has too, and by symbols.
func (f *siteFinder) functions() {
	if s := f.file.Section(".eh_frame_hdr"); s != nil {
		b, err := s.Data()
		// Linux Standard Base Core, .eh_frame_hdr: version 1, three encodings:
		// of the table's rows pairs of signed 4-byte distances from the section.
		if err == nil && len(b) >= 12 && b[0] == 1 && b[2] == 0x03 && b[3] == 0x3b {
			for b = b[12:]; len(b) >= 8; b = b[8:] {
				f.starts = append(f.starts, s.Addr+uint64(int64(int32(binary.LittleEndian.Uint32(b)))))
			}
		}
	}
	static, _ := f.file.Symbols()
	dynamic, _ := f.file.DynamicSymbols()
	f.names = append(static, dynamic...)
	for _, s := range f.names {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF {
			f.starts = append(f.starts, s.Value)
		}
	}
	slices.Sort(f.starts)
	f.starts = slices.Compact(f.starts)
}

// inFunction reports whether a call stands in the function of that name. Others
// may lead to a place that makes any call, as musl's do.
func (f *siteFinder) inFunction(name string, nr uint64) bool {
	for i := range f.names {
		s := &f.names[i]
		if s.Name == name && slices.ContainsFunc(f.sites, func(c callSite) bool {
			return c.nr() == nr && c.moved.at >= s.Value && c.moved.at < s.Value+s.Size
		}) {
			return true
		}
	}
	return false
}

// function gives the function that holds an address.
func (f *siteFinder) function(code []byte, base, at uint64) (function, bool) {
	i, exact := slices.BinarySearch(f.starts, at)
	if !exact {
		i--
	}
	if i < 0 || f.starts[i] < base {
		return function{}, false
	}
	lo, hi := f.starts[i]-base, uint64(len(code))
	if i+1 < len(f.starts) {
		hi = min(hi, f.starts[i+1]-base)
	}
	return function{addr: f.starts[i], code: code[lo:min(hi, lo+64<<10)]}, at-base < hi
}

// at looks at what may be a system call at offset i of code.
func (f *siteFinder) at(code []byte, base, i uint64) {
	fn, ok := f.function(code, base, base+i)
	if !ok {
		return
	}
	call := int(base + i - fn.addr)
	before, ok := fn.until(call)
	if !ok {
		return // bytes of another instruction
	}
	nr, ok := callNumber(before)
	if !ok || !f.want(nr) {
		return
	}
	// A branch to the instruction itself would bring another number.
	if _, joins := fn.entersAt(before[len(before)-1].next(), uint64(call)+fn.addr+1); joins {
		return
	}
	if beforeCall(nr) || nr == wSiteAny {
		if d, err := fn.displaceEnd(before); err == nil {
			f.add(d, uint32(nr))
		} else {
			f.missed[nr] = true
		}
	}
	if afterCall(nr) || nr == wSiteAny {
		if d, err := fn.displaceAt(call + 2); err == nil && !d.calls {
			f.add(d, uint32(nr)|wSiteAfter|f.frame(d.at))
		} else {
			f.missed[nr] = true
		}
	}
}

func (f *siteFinder) add(d *displaced, info uint32) {
	f.sites = append(f.sites, callSite{site: site{hook: siteHook(), moved: d}, info: info})
}

// frame says where the caller of the function is to be found.
func (f *siteFinder) frame(at uint64) uint32 {
	row, ok := f.table.Lookup(uint32(at - f.base))
	words, saved := row.CFAOff/8, -row.BPOff/8
	if !ok || row.CFA != unwind.CFASP || row.Flags != 0 || row.CFAOff%8 != 0 || words < 1 || words >= 1<<wSiteCfaBits || row.BPOff == unwind.BPLost {
		return 0
	}
	if row.BPOff != unwind.BPSame && (row.BPOff%8 != 0 || saved < 1 || saved >= 1<<wSiteBpBits) {
		return 0
	}
	return uint32(words)<<wSiteCfaShift | uint32(saved)<<wSiteBpShift
}

// withoutEntries leaves out the sites between whose instructions something may
// jump from afar.
func (f *siteFinder) withoutEntries(code []byte, base uint64) {
	lo, hi := ^uint64(0), uint64(0)
	for i := range f.sites {
		lo, hi = min(lo, f.sites[i].moved.at+1), max(hi, f.sites[i].moved.end())
	}
	into := func(to uint64) int {
		return slices.IndexFunc(f.sites, func(s callSite) bool { return to > s.moved.at && to < s.moved.end() })
	}
	for {
		_, to, found := longBranches(code, base, lo, hi, func(to uint64) bool { return into(to) >= 0 })
		if !found {
			return
		}
		i := into(to)
		f.missed[f.sites[i].nr()] = true
		f.sites = slices.Delete(f.sites, i, i+1)
	}
}

// until decodes f up to the instruction at off; false when none begins there.
func (f *function) until(off int) ([]inst, bool) {
	var out []inst
	for at := 0; at < off; {
		in, err := f.decode(at)
		if err != nil {
			return nil, false
		}
		out = append(out, in)
		at += len(in.bytes)
	}
	return out, len(out) > 0 && out[len(out)-1].next() == f.addr+uint64(off)
}

// callNumber reads the number that the last instructions put into eax, wSiteAny
// for one that comes from an argument.
func callNumber(before []inst) (uint64, bool) {
	for n := 1; n <= 8 && n <= len(before); n++ {
		x := &before[len(before)-n].x86
		to, ok := x.Args[0].(x86asm.Reg)
		if !ok || to != x86asm.EAX && to != x86asm.RAX && to != x86asm.AL {
			if _, relative := before[len(before)-n].relative(); relative || before[len(before)-n].ends() {
				return 0, false
			}
			continue
		}
		imm, constant := x.Args[1].(x86asm.Imm)
		switch {
		case x.Op == x86asm.MOV && constant && imm >= 0 && imm < wSiteAny:
			return uint64(imm), true
		case x.Op == x86asm.XOR && x.Args[1] == x86asm.Arg(x86asm.EAX):
			return 0, true
		case x.Op == x86asm.MOV && x.Args[1] == x86asm.Arg(x86asm.RDI):
			return wSiteAny, true
		}
		return 0, false
	}
	return 0, false
}

// displaceEnd takes the last of the instructions away, which lead straight to
// what follows them.
func (f *function) displaceEnd(before []inst) (*displaced, error) {
	d := &displaced{}
	size := 0
	for n := len(before); size < jumpSize; {
		if n--; n < 0 {
			return nil, errDetour
		}
		in := before[n]
		if _, relative := in.relative(); relative || in.ends() || in.x86.Op == x86asm.CALL || in.x86.Op == x86asm.SYSCALL {
			return nil, errDetour
		}
		size += len(in.bytes)
		d.at, d.insts = in.at, append([]inst{in}, d.insts...)
	}
	if d.at>>12 != (d.at+jumpSize-1)>>12 || size > patchBytes {
		return nil, errDetour
	}
	d.bytes = f.code[d.at-f.addr:][:size]
	if _, ok := f.entersAt(d.at+1, d.end()+1); ok {
		return nil, errDetour
	}
	return d, nil
}
