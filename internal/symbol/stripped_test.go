package symbol

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"stanch/internal/leak"
)

// TestStripped has only the dynamic symbols: what they do not cover must have
// no name rather than a neighbour's.
func TestStripped(t *testing.T) {
	exe := compile(t, cSources, "-O2", "-g", "-rdynamic")
	full := keep(t, exe)
	tool(t, "", "strip", "--strip-all", exe)
	f := elfFile(t, full)
	sites := callSites(t, full)
	want := addr2line(t, full, sites)
	s := symbolizer(t, Options{})
	exported := map[string]bool{}
	syms, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, sym := range syms {
		exported[sym.Name] = sym.Section != elf.SHN_UNDEF
	}
	named := 0
	for _, pc := range sites {
		m, place := mapping(t, exe, f, pc)
		got := s.Frames(m, place)
		w := want[pc][len(want[pc])-1].function
		if len(got) != 1 || got[0].Inlined || got[0].File != "" || got[0].Module != "prog" || got[0].Offset != place.Off {
			t.Errorf("%#x: %v", pc, got)
		}
		if !exported[w] {
			w = ""
		}
		// also_named is at the address of named.
		if got[0].Function != w && (w == "" || got[0].Function == "") {
			t.Errorf("%#x is named %q, want %q", pc, got[0].Function, w)
		}
		if w != "" {
			named++
		}
	}
	if named == 0 {
		t.Error("no site had an exported function")
	}
	if notes := s.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "no function names in prog: stripped (") {
		t.Errorf("notes: %q", notes)
	}
}

// TestPLT names the stubs that calls into libraries go through.
func TestPLT(t *testing.T) {
	for _, flags := range [][]string{
		{"-O2"}, {"-O2", "-no-pie"}, {"-O2", "-Wl,-z,lazy"}, {"-O2", "-fcf-protection=full", "-Wl,-z,ibtplt,-z,lazy"},
		{"-O2", "-fcf-protection=full", "-Wl,-z,ibtplt,-z,now"}, {"-O2", "-fno-plt", "-Wl,-z,lazy"},
	} {
		exe := compile(t, cSources, flags...)
		full := keep(t, exe)
		tool(t, "", "strip", "--strip-all", exe)
		f := elfFile(t, full)
		s := symbolizer(t, Options{})
		checked := 0
		for line := range strings.Lines(tool(t, "", "objdump", "-d", "-w", full)) {
			// "0000000000001050 <malloc@plt>:"
			addr, name, ok := strings.Cut(strings.TrimSpace(line), " <")
			name, at := strings.CutSuffix(name, "@plt>:")
			if !ok || !at {
				continue
			}
			m, place := mapping(t, exe, f, number(t, addr)+4)
			if got := s.Frames(m, place); got[0].Function != name+"@plt" {
				t.Errorf("%v: %s@plt is named %v", flags, name, got)
			}
			checked++
		}
		if checked == 0 && flags[1] != "-fno-plt" {
			t.Errorf("%v: no stubs", flags)
		}
	}
}

// TestObjects names variables, and classes with and without symbols.
func TestObjects(t *testing.T) {
	for _, flags := range [][]string{{"-O1"}, {"-O1", "-no-pie"}, {"-O1", "-static"}, {"-O1", "-Wl,-z,norelro"}} {
		exe := compile(t, []string{"classes.cc"}, flags...)
		full := keep(t, exe)
		tool(t, "", "strip", "--strip-all", exe)
		f := elfFile(t, full)
		syms, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		whole, stripped := symbolizer(t, Options{}), symbolizer(t, Options{})
		classes := map[string]string{
			"_ZTVN3net4ConnE": "vtable for net::Conn", "_ZTVN3net6SecureE": "vtable for net::Secure", "_ZTVN12_GLOBAL__N_16HiddenE": "vtable for (anonymous namespace)::Hidden",
		}
		for _, sym := range syms {
			want, ok := classes[sym.Name]
			if !ok {
				continue
			}
			delete(classes, sym.Name)
			m, place := mapping(t, full, f, sym.Value+16)
			if name, delta, ok := whole.Object(m, place.Off); !ok || name != want || delta != 16 {
				t.Errorf("%v: %s is named %q+%d", flags, want, name, delta)
			}
			m, place = mapping(t, exe, f, sym.Value+16)
			if name, delta, ok := stripped.Object(m, place.Off); !ok || name != want || delta != 16 {
				t.Errorf("%v, stripped: %s is named %q+%d", flags, want, name, delta)
			}
			// Other words there are not the start of a table.
			if name, _, ok := stripped.Object(m, place.Off+8); ok {
				t.Errorf("%v, stripped: a word inside a table is named %q", flags, name)
			}
		}
		if len(classes) > 0 {
			t.Errorf("%v: the program has no %v", flags, classes)
		}
		// The second base of Secure has its own table within the first.
		i := slices.IndexFunc(syms, func(s elf.Symbol) bool { return s.Name == "_ZTVN3net6SecureE" })
		m, place := mapping(t, exe, f, syms[i].Value+8*8)
		if name, _, ok := stripped.Object(m, place.Off); !ok || name != "vtable for net::Secure" {
			t.Errorf("%v, stripped: the table of a base is named %q", flags, name)
		}
	}
	exe := compile(t, cSources, "-O2")
	f := elfFile(t, exe)
	s := symbolizer(t, Options{})
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, sym := range syms {
		if sym.Name == "counter_of_calls" {
			m, place := mapping(t, exe, f, sym.Value+2)
			if name, delta, ok := s.Object(m, place.Off); !ok || name != "counter_of_calls" || delta != 2 {
				t.Errorf("a variable is named %q+%d", name, delta)
			}
		}
	}
}

// TestUnknownPlaces are never without module and offset.
func TestUnknownPlaces(t *testing.T) {
	s := symbolizer(t, Options{})
	for want, m := range map[string]leak.Mapping{
		"[unknown]":   {},
		"[anonymous]": {Start: 0x1000, End: 0x2000, Exec: true},
		"[heap]":      {Start: 0x1000, End: 0x2000, Path: "[heap]"},
		"[vdso]":      {Start: 0x1000, End: 0x2000, Path: "[vdso]", Exec: true},
		"gone.so":     {Start: 0x1000, End: 0x2000, Path: "/nonexistent/gone.so", Inode: 3, Exec: true, BuildID: "abcd"},
		"hostname":    {Start: 0x1000, End: 0x2000, Path: "/etc/hostname", Inode: 3, Exec: true, BuildID: "abcd"},
		"evil?[2J.so": {Start: 0x1000, End: 0x2000, Path: "/nonexistent/evil\x1b[2J.so", Inode: 3, Exec: true},
	} {
		for range 2 {
			got := s.Frames(m, leak.Frame{Off: 0x123})
			if len(got) != 1 || got[0].Module != want || got[0].Offset != 0x123 || got[0].Function != "" || got[0].BuildID != m.BuildID {
				t.Errorf("%s: %v", want, got)
			}
		}
		if name, _, ok := s.Object(m, 0x123); ok {
			t.Errorf("%s: a variable %q", want, name)
		}
	}
	notes := s.Notes()
	if len(notes) != 3 {
		t.Errorf("notes: %q", notes)
	}
	for _, n := range notes {
		if strings.ContainsRune(n, 0x1b) {
			t.Errorf("a note can drive a terminal: %q", n)
		}
	}
}

// TestParallel asks for the same and for different places at once.
func TestParallel(t *testing.T) {
	exe := compile(t, cSources, "-O2", "-g")
	f := elfFile(t, exe)
	sites := callSites(t, exe)
	one, many := symbolizer(t, Options{}), symbolizer(t, Options{})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range sites {
				pc := sites[(i+n*5)%len(sites)]
				m, place := mapping(t, exe, f, pc)
				many.Frames(m, place)
				many.Object(m, place.Off)
				if i%16 == 0 {
					many.Notes()
				}
			}
		})
	}
	wg.Wait()
	for _, pc := range sites {
		m, place := mapping(t, exe, f, pc)
		if a, b := one.Frames(m, place), many.Frames(m, place); !slices.Equal(a, b) {
			t.Errorf("%#x: %v alone, %v in parallel", pc, a, b)
		}
	}
	if err := many.Close(); err != nil {
		t.Error(err)
	}
	m, place := mapping(t, exe, f, sites[0])
	if a, b := one.Frames(m, place), many.Frames(m, place); !slices.Equal(a, b) {
		t.Errorf("after Close a known place is named %v", b)
	}
	if got := many.Frames(m, leak.Frame{Off: place.Off + 1}); len(got) != 1 || got[0].Function != "" {
		t.Errorf("after Close: %v", got)
	}
	m.BuildID = "another"
	if got := many.Frames(m, place); len(got) != 1 || got[0].Function != "" {
		t.Errorf("a new module after Close: %v", got)
	}
}

// TestPackageToInstall names the package with the debug symbols of a program
// that Debian shipped stripped.
func TestPackageToInstall(t *testing.T) {
	const program, owner = "/bin/true", "coreutils"
	if _, err := os.Stat("/var/lib/dpkg/info/" + owner + ".list"); err != nil {
		t.Skip("not a Debian system")
	}
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		t.Fatal(err)
	}
	f := elfFile(t, real)
	s := symbolizer(t, Options{DebugDirs: []string{}})
	m, place := mapping(t, real, f, f.Entry)
	m.Path = "/usr" + strings.TrimPrefix(real, "/usr") // as the kernel shows it with a merged /usr
	if got := s.Frames(m, place); len(got) != 1 || got[0].Function != "" {
		t.Errorf("the entry of a stripped program is named %v", got)
	}
	if notes := s.Notes(); len(notes) != 1 || notes[0] != "no function names in true: stripped (install coreutils-dbgsym)" {
		t.Errorf("notes: %q", notes)
	}
}
