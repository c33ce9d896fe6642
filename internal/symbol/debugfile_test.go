package symbol

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// strip moves the debug information of exe into a file of its own and returns
// its path.
func strip(t testing.TB, exe string) (debug string) {
	t.Helper()
	debug = exe + ".debug"
	tool(t, "", "objcopy", "--only-keep-debug", exe, debug)
	tool(t, "", "strip", "--strip-all", exe)
	return debug
}

// keep copies a file and returns the path of the copy, for an oracle that is
// not stripped.
func keep(t testing.TB, p string) string {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(p))
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// install puts a debug file where its build-id says, below dir.
func install(t testing.TB, dir, exe, debug string) {
	t.Helper()
	o, err := openObject(hostTree{}, exe, newBlockCache(cacheBlocks))
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	to := byBuildID(dir, o.buildID)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(debug, to); err != nil {
		t.Fatal(err)
	}
}

func symbolizer(t testing.TB, o Options) *Symbolizer {
	t.Helper()
	s := New(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestDebugFileByBuildID(t *testing.T) {
	for _, packed := range []string{"none", "zlib", "zstd"} {
		exe := compile(t, cSources, "-O2", "-g")
		full, dir := keep(t, exe), t.TempDir()
		debug := strip(t, exe)
		tool(t, "", "objcopy", "--compress-debug-sections="+packed, debug)
		install(t, dir, exe, debug)
		s := symbolizer(t, Options{DebugDirs: []string{"/nonexistent", dir}})
		compare(t, s, exe, full)
		if notes := s.Notes(); len(notes) > 0 {
			t.Errorf("notes: %q", notes)
		}
	}
}

func TestDebugFileByLink(t *testing.T) {
	exe := compile(t, cSources, "-O2", "-g", "-Wl,--build-id=none")
	full, debug := keep(t, exe), strip(t, exe)
	tool(t, filepath.Dir(exe), "objcopy", "--add-gnu-debuglink="+debug, exe)
	s := symbolizer(t, Options{})
	compare(t, s, exe, full)

	// Below .debug, and below a debug directory with the program's path.
	for _, dir := range []string{filepath.Join(filepath.Dir(exe), ".debug"), filepath.Join(t.TempDir(), filepath.Dir(exe))} {
		to := filepath.Join(dir, filepath.Base(debug))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(debug, to); err != nil {
			t.Fatal(err)
		}
		debug = to
		s := symbolizer(t, Options{DebugDirs: []string{strings.TrimSuffix(dir, filepath.Dir(exe))}})
		compare(t, s, exe, full)
	}

	// Of another build: the CRC tells.
	f, err := os.OpenFile(debug, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s = symbolizer(t, Options{DebugDirs: []string{strings.TrimSuffix(filepath.Dir(debug), filepath.Dir(exe))}})
	m, place := mapping(t, exe, elfFile(t, full), callSites(t, full)[0])
	if got := s.Frames(m, place); got[0].File != "" {
		t.Errorf("named from a debug file of another build: %v", got)
	}
	if notes := s.Notes(); !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "CRC differs") }) {
		t.Errorf("notes do not tell of the CRC: %q", notes)
	}
}

func TestMiniDebugInfo(t *testing.T) {
	exe := compile(t, cSources, "-O2", "-g", "-rdynamic")
	full := keep(t, exe)
	dir := filepath.Dir(exe)
	// As the manual of GDB says to make it, but with all symbols.
	tool(t, dir, "objcopy", "--only-keep-debug", exe, "mini")
	tool(t, dir, "objcopy", "-S", "--remove-section=.gdb_index", "--remove-section=.comment", "--keep-symbol=open_all", "--keep-symbol=main", "mini")
	tool(t, dir, "xz", "mini")
	tool(t, dir, "strip", "--strip-all", exe)
	tool(t, dir, "objcopy", "--add-section=.gnu_debugdata=mini.xz", exe)
	s := symbolizer(t, Options{})
	f := elfFile(t, full)
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"open_all": true, "unlikely_path": true, "main": true}
	for _, sym := range syms {
		if !want[sym.Name] {
			continue
		}
		delete(want, sym.Name)
		m, place := mapping(t, exe, f, sym.Value)
		if got := s.Frames(m, place); len(got) != 1 || got[0].Function != sym.Name {
			t.Errorf("%s is named %v", sym.Name, got)
		}
	}
	if len(want) > 0 {
		t.Errorf("the program has no %v", want)
	}
	if notes := s.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "no file and line in prog:") {
		t.Errorf("notes: %q", notes)
	}
}

// TestSharedDebugFile is what Debian's packages look like: dwz moves what
// several programs have in common to a file of its own.
func TestSharedDebugFile(t *testing.T) {
	for name, c := range map[string]struct {
		sources []string
		flags   []string
		dwz     []string
	}{
		"c":          {cSources, []string{"-O2", "-g"}, nil},
		"c dwarf4":   {cSources, []string{"-O2", "-gdwarf-4"}, nil},
		"c dwarf5":   {cSources, []string{"-O2", "-g"}, []string{"--dwarf-5"}},
		"c++ dwarf4": {[]string{"shapes.cc"}, []string{"-O2", "-gdwarf-4"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := compile(t, c.sources, c.flags...)
			full, twin := keep(t, a), a+"2"
			// Another program with the same functions in it.
			tool(t, "", "objcopy", "--update-section", ".note.gnu.build-id="+otherBuildID(t, a), a, twin)
			dir := t.TempDir()
			shared := filepath.Join(dir, ".dwz", "shared.debug")
			if err := os.MkdirAll(filepath.Dir(shared), 0o755); err != nil {
				t.Fatal(err)
			}
			da, db := strip(t, a), strip(t, twin)
			tool(t, "", "dwz", append(c.dwz, "-m", shared, "-M", shared, da, db)...)
			install(t, dir, a, da)
			s := symbolizer(t, Options{DebugDirs: []string{dir}})
			compare(t, s, a, full)
			if s.modules[only(t, s)].alt == nil {
				t.Error("the shared file was not used")
			}
			if notes := s.Notes(); len(notes) > 0 {
				t.Errorf("notes: %q", notes)
			}

			// Without it, what it had is missing, and that is said.
			if err := os.Remove(shared); err != nil {
				t.Fatal(err)
			}
			s = symbolizer(t, Options{DebugDirs: []string{dir}})
			m, place := mapping(t, a, elfFile(t, full), callSites(t, full)[0])
			if got := s.Frames(m, place); got[len(got)-1].Function == "" {
				t.Errorf("no function: %v", got)
			}
			if notes := s.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "shared.debug") {
				t.Errorf("notes: %q", notes)
			}
		})
	}
}

func only(t testing.TB, s *Symbolizer) moduleKey {
	t.Helper()
	for k := range s.modules {
		return k
	}
	t.Fatal("no module")
	return moduleKey{}
}

// otherBuildID writes a build-id note that differs from the file's.
func otherBuildID(t testing.TB, exe string) string {
	t.Helper()
	b, err := elfFile(t, exe).Section(".note.gnu.build-id").Data()
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	p := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSplitDWARF(t *testing.T) {
	for name, flags := range map[string][]string{
		"dwarf5": {"-O2", "-g", "-gsplit-dwarf"},
		"dwarf4": {"-O2", "-gdwarf-4", "-gsplit-dwarf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe := compile(t, cSources, flags...)
			full := compile(t, cSources, flags[:2]...)
			sameCode(t, exe, full)
			compare(t, symbolizer(t, Options{}), exe, full)

			dwos, err := filepath.Glob(filepath.Join(filepath.Dir(exe), "*.dwo"))
			if err != nil || len(dwos) != 2 {
				t.Fatalf("%d .dwo files", len(dwos))
			}
			if name == "dwarf4" { // dwp of binutils 2.40 knows no DWARF 5
				tool(t, filepath.Dir(exe), "dwp", "-e", exe)
			}
			for _, f := range dwos {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
			if name == "dwarf4" {
				compare(t, symbolizer(t, Options{}), exe, full)
				if err := os.Remove(exe + ".dwp"); err != nil {
					t.Fatal(err)
				}
			}

			// The skeleton still has functions by symbol, and lines.
			s := symbolizer(t, Options{})
			sites := callSites(t, full)
			want := addr2line(t, full, sites)
			for _, pc := range sites {
				m, place := mapping(t, exe, elfFile(t, full), pc)
				got, w := s.Frames(m, place), want[pc]
				last := w[len(w)-1].function
				if len(got) != 1 || !sameName(got[0].Function, last, aliases(t, full)) || w[0].line > 0 && (got[0].File != w[0].file || got[0].Line != w[0].line) {
					t.Errorf("%#x: got %s, want %v", pc, show(got), w)
				}
			}
			if notes := s.Notes(); len(notes) != 1 || !strings.Contains(notes[0], ".dwo was not found") {
				t.Errorf("notes: %q", notes)
			}
		})
	}
}
