package symbol

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"stanch/internal/leak"
)

// fuzzModule is a module whose file is data.
func fuzzModule(data []byte) (*module, error) {
	s := New(Options{DebugDirs: []string{}})
	o, err := newObject("/prog", bytes.NewReader(data), nil, s.cache)
	if err != nil {
		return nil, err
	}
	m := leak.Mapping{ID: 1, Start: 0x10000, End: 0x20000, Exec: true, Inode: 1, Path: "/prog"}
	mod := s.module(&m)
	mod.opened, mod.main = true, o
	mod.readNames()
	return mod, nil
}

// FuzzFile names places in a damaged program: no panic, no endless loop, and
// never an empty answer.
func FuzzFile(f *testing.F) {
	for _, flags := range [][]string{
		{"-g", "-O1"}, {"-gdwarf-4", "-O1"}, {"-g", "-O1", "-gz=zlib"}, {"-g", "-O1", "-s", "-rdynamic"}, {"-g", "-gsplit-dwarf"}, {"-g", "-gdwarf64"},
	} {
		if b, err := tiny(f, flags...); err == nil {
			f.Add(b, uint64(0x1139))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		mod, err := fuzzModule(data)
		if err != nil {
			return
		}
		defer mod.close()
		m := mod.mapping
		addrs := []uint64{addr}
		for _, p := range mod.main.elf.Progs {
			if p.Type == elf.PT_LOAD && len(addrs) < 12 {
				addrs = append(addrs, p.Vaddr, p.Vaddr+p.Filesz/2)
			}
		}
		for i := range mod.syms.funcs {
			if i < 8 {
				addrs = append(addrs, mod.syms.funcs[i].addr)
			}
		}
		for _, a := range addrs {
			for _, p := range mod.main.elf.Progs {
				if p.Type == elf.PT_LOAD && a >= p.Vaddr && a-p.Vaddr < p.Filesz {
					a = a - p.Vaddr + p.Off
					break
				}
			}
			frames, _ := mod.frames(&m, a)
			if len(frames) == 0 {
				t.Fatalf("no frame for %#x", a)
			}
			for _, fr := range frames {
				if strings.ContainsFunc(fr.Function+fr.File+fr.Module, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Fatalf("a name can drive a terminal: %+q", show(frames))
				}
			}
			mod.object(a)
		}
		mod.unread()
	})
}

// tiny compiles a small program, so that its bytes can be changed one by one.
func tiny(tb testing.TB, flags ...string) ([]byte, error) {
	tb.Helper()
	const source = `struct s { int a; struct s *next; };
static inline __attribute__((always_inline)) int in(struct s *p) { return p->next ? p->next->a : 2; }
int global; void *stub(void);
__attribute__((noinline)) int f(struct s *p) { { int k = in(p); global += k; } return global; }
int main(int n, char **v) { struct s x = {n, 0}; return f(&x); }
`
	dir := tb.TempDir()
	src, exe := filepath.Join(dir, "t.c"), filepath.Join(dir, "t")
	if err := os.WriteFile(src, []byte(source), 0o644); err != nil {
		return nil, err
	}
	args := append([]string{"-nostdlib", "-Wl,-e,main", "-Wl,-z,noseparate-code", "-o", exe, src}, flags...)
	if err := exec.Command("gcc", args...).Run(); err != nil {
		return nil, err
	}
	return os.ReadFile(exe)
}

// FuzzSections gives the bytes to the readers of DWARF directly, where the
// fuzzer need not find its way through an ELF file.
func FuzzSections(f *testing.F) {
	for _, flags := range [][]string{{"-g", "-O1"}, {"-gdwarf-4", "-O1"}, {"-gdwarf-2", "-gstrict-dwarf"}, {"-g", "-gdwarf64"}} {
		b, err := tiny(f, flags...)
		if err != nil {
			continue
		}
		e, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			f.Fatal(err)
		}
		get := func(name string) []byte {
			if s := e.Section(name); s != nil {
				d, _ := s.Data()
				return d
			}
			return nil
		}
		f.Add(get(".debug_info"), get(".debug_abbrev"), get(".debug_line"), append(get(".debug_ranges"), get(".debug_rnglists")...), get(".debug_str"), get(".debug_aranges"), uint64(0x1010))
	}
	f.Fuzz(func(t *testing.T, info, abbrev, line, ranges, str, aranges []byte, pc uint64) {
		d := (&dwarfData{
			info: memSection(info), abbrevs: memSection(abbrev), line: memSection(line), rangeLists: memSection(ranges), rnglists: memSection(ranges),
			strs: memSection(str), lineStrs: memSection(str), addrs: memSection(ranges), strOffs: memSection(aranges), aranges: memSection(aranges),
			code: func(lo, hi uint64) bool { return lo < hi && hi < 1<<40 },
		}).ready()
		d.alt = d
		for _, u := range d.units {
			pcs := []uint64{pc, u.top().low, u.top().low + 8}
			for _, fn := range u.functions() {
				if len(pcs) < 8 {
					pcs = append(pcs, fn.low)
				}
			}
			for _, pc := range pcs {
				levels, _, _ := d.place(pc)
				for i := range levels {
					levels[i].name()
					levels[i].callSite()
				}
			}
		}
	})
}

func FuzzBuildID(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd\x00\x00"), uint64(4))
	f.Add([]byte("\x04\x00\x00\x00\x10\x00\x00\x00\x05\x00\x00\x00GNU\x00\x02\x00\x00\xc0\x04\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"), uint64(8))
	f.Fuzz(func(t *testing.T, b []byte, align uint64) {
		if id := parseBuildID(b, align); len(id)%2 != 0 {
			t.Errorf("odd build-id %q", id)
		}
	})
}

func FuzzPerfMap(f *testing.F) {
	f.Add("7f00 10 f\n7f10 20 g h\n", uint64(0x7f12))
	f.Add("0x1 ffffffffffffffff \x1b\n\n1 2\n", uint64(5))
	f.Fuzz(func(t *testing.T, text string, addr uint64) {
		list, err := parsePerfMap(strings.NewReader(text))
		if err != nil {
			return
		}
		j := jitTable{list: list}
		if name := j.find(addr); name != "" && !strings.Contains(text, name) {
			t.Errorf("invented %q", name)
		}
	})
}

func FuzzPackageIndex(f *testing.F) {
	f.Add(append([]byte("\x05\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"), make([]byte, 40)...), uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, id uint64) {
		for column, part := range packageUnit(memSection(b), id) {
			if column > 0 && part.size > 0 {
				memSection(b).part(part.off, part.size)
			}
		}
	})
}

func FuzzReadable(f *testing.F) {
	for _, s := range []string{"malloc@@GLIBC_2.2.5", "_ZNSt6vectorIiSaIiEE9push_backEOi.cold", "_RNvCs1234_7mycrate3foo", "_ZN4core3ptr13drop_in_place17h0123456789abcdefE", "operator<=><a<b>>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s != "" && readable(s) == "" {
			t.Errorf("%q lost its name", s)
		}
		tidy(s)
		if p := printable(s); strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not printable", p)
		}
	})
}
