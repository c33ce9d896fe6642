package probe

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// object is one ELF file that is loaded in the target.
type object struct {
	m    leak.Mapping // one of its mappings
	bias uint64       // what is added to its addresses
	exe  bool
}

func (o *object) name() string { return filepath.Base(o.m.Path) }

// view is the target as it was when the probe was planned.
type view struct {
	t    *proc.Target
	mem  leak.Memory
	maps []leak.Mapping

	close []io.Closer // when the planning is over
}

func (v *view) word(a uint64) (uint64, error) {
	var b [8]byte
	if _, err := v.mem.ReadAt(b[:], leak.Addr(a)); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// errNotLoaded: the dynamic linker has not yet done its work.
var errNotLoaded = errors.New("the program is still being loaded")

// objects lists what is loaded, in the order in which symbols are looked up.
// For a static program that is the program alone.
func (v *view) objects() ([]object, error) {
	f, err := v.t.OpenExe()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("executable: %w", err)
	}
	entry, err := v.t.Auxv(proc.AuxEntry)
	if err != nil {
		return nil, err
	}
	exe := object{bias: entry - file.Entry, exe: true}
	m := proc.Find(v.maps, leak.Addr(entry))
	if m == nil {
		return nil, fmt.Errorf("no mapping holds the entry point %#x: %w", entry, proc.ErrUnsupported)
	}
	exe.m = *m
	debug, dynamic, err := v.debugger(file, exe.bias)
	if err != nil {
		return nil, err
	}
	if !dynamic {
		return []object{exe}, nil
	}
	if debug == 0 {
		return nil, fmt.Errorf("pid %d: %w", v.t.ID.PID, errNotLoaded)
	}
	return v.linkMap(debug, exe)
}

// debugger finds struct r_debug, which the dynamic linker fills for debuggers
// (link.h; glibc and musl alike). dynamic is false for a static program.
func (v *view) debugger(file *elf.File, bias uint64) (at uint64, dynamic bool, err error) {
	interp := false
	for _, p := range file.Progs {
		interp = interp || p.Type == elf.PT_INTERP
		if p.Type != elf.PT_DYNAMIC {
			continue
		}
		b := make([]byte, min(p.Memsz, 64<<10))
		if _, err := v.mem.ReadAt(b, leak.Addr(p.Vaddr+bias)); err != nil {
			return 0, false, err
		}
		for ; len(b) >= 16; b = b[16:] {
			if elf.DynTag(binary.LittleEndian.Uint64(b)) == elf.DT_DEBUG {
				at = binary.LittleEndian.Uint64(b[8:])
				// A static PIE has the entry too, and nobody fills it.
				return at, interp, nil
			}
		}
	}
	if !interp {
		// The dynamic linker run as a program, with the program as argument.
		if at, ok := exported(file, "_r_debug"); ok {
			return at + bias, true, nil
		}
		return 0, false, nil
	}
	return v.interpreterDebug()
}

// interpreterDebug finds _r_debug in the dynamic linker, for programs linked
// without DT_DEBUG.
func (v *view) interpreterDebug() (uint64, bool, error) {
	base, err := v.t.Auxv(proc.AuxBase)
	if err != nil {
		return 0, true, err
	}
	m := proc.Find(v.maps, leak.Addr(base))
	if m == nil {
		return 0, true, fmt.Errorf("no mapping holds the dynamic linker at %#x: %w", base, proc.ErrUnsupported)
	}
	f, err := v.t.OpenFile(m)
	if err != nil {
		return 0, true, err
	}
	defer f.Close()
	file, err := elf.NewFile(f)
	if err != nil {
		return 0, true, fmt.Errorf("%s: %w", m.Path, err)
	}
	at, ok := exported(file, "_r_debug")
	if !ok {
		return 0, true, fmt.Errorf("%s does not tell debuggers what is loaded: %w", m.Path, proc.ErrUnsupported)
	}
	return at + base, true, nil
}

func exported(file *elf.File, name string) (uint64, bool) {
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, false
	}
	for _, s := range symbols {
		if s.Name == name && s.Section != elf.SHN_UNDEF {
			return s.Value, true
		}
	}
	return 0, false
}

// linkMap follows struct link_map from struct r_debug: l_addr 0, l_name 8,
// l_ld 16, l_next 24 (link.h). r_map is at 8.
func (v *view) linkMap(debug uint64, exe object) ([]object, error) {
	const most = 8192
	at, err := v.word(debug + 8)
	if err != nil {
		return nil, err
	}
	if at == 0 {
		return nil, fmt.Errorf("pid %d: %w", v.t.ID.PID, errNotLoaded)
	}
	var out []object
	for at != 0 {
		if len(out) == most {
			return nil, fmt.Errorf("more than %d objects are loaded: %w", most, proc.ErrUnsupported)
		}
		var b [32]byte
		if _, err := v.mem.ReadAt(b[:], leak.Addr(at)); err != nil {
			return nil, err
		}
		bias, ld := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[16:])
		at = binary.LittleEndian.Uint64(b[24:])
		if m := proc.Find(v.maps, leak.Addr(ld)); m != nil && m.File() {
			o := object{m: *m, bias: bias}
			o.exe = m.Dev == exe.m.Dev && m.Inode == exe.m.Inode && bias == exe.bias
			out = append(out, o)
		}
	}
	return out, nil
}
