package symbol

import (
	"bytes"
	"testing"
)

var cSources = []string{"inline.c", "other.c"}

// TestAgainstAddr2line names every call site of programs as compilers make
// them. addr2line of binutils 2.40 takes the initial file register of DWARF 5
// for 0 (it is 1: DWARF 5, section 6.2.2), and reads neither 64-bit DWARF nor
// .zdebug_rnglists; there it is asked about another build of the same code.
func TestAgainstAddr2line(t *testing.T) {
	cxx := []string{"shapes.cc"}
	for name, c := range map[string]struct {
		sources []string
		flags   []string
		instead []string // ask addr2line about a build with these flags
	}{
		"dwarf5":     {sources: cSources, flags: []string{"-O2", "-g"}},
		"dwarf4":     {sources: cSources, flags: []string{"-O2", "-gdwarf-4"}},
		"dwarf3":     {sources: cSources, flags: []string{"-O2", "-gdwarf-3", "-gstrict-dwarf"}},
		"dwarf64":    {sources: cSources, flags: []string{"-O2", "-g", "-gdwarf64"}, instead: []string{"-O2", "-g"}},
		"O0":         {sources: cSources, flags: []string{"-O0", "-g"}, instead: []string{"-O0", "-gdwarf-4"}},
		"no pie":     {sources: cSources, flags: []string{"-O2", "-g", "-no-pie"}},
		"static":     {sources: cSources, flags: []string{"-O2", "-g", "-static"}},
		"static pie": {sources: cSources, flags: []string{"-O2", "-g", "-static-pie"}},
		"sections":   {sources: cSources, flags: []string{"-O2", "-g", "-ffunction-sections", "-Wl,--gc-sections"}},
		"lto":        {sources: cSources, flags: []string{"-O2", "-g", "-flto"}, instead: []string{"-O2", "-gdwarf-4", "-flto"}},
		"zlib":       {sources: cSources, flags: []string{"-O2", "-g", "-gz=zlib"}},
		"zlib-gnu":   {sources: cSources, flags: []string{"-O2", "-g", "-gz=zlib-gnu"}, instead: []string{"-O2", "-g"}},
		"c++":        {sources: cxx, flags: []string{"-O2", "-g", "-ffunction-sections"}},
		"c++ O0":     {sources: cxx, flags: []string{"-O0", "-g"}},
		"c++ types":  {sources: cxx, flags: []string{"-O2", "-gdwarf-4", "-fdebug-types-section"}},
		"c++ lto":    {sources: cxx, flags: []string{"-O2", "-g", "-flto"}, instead: []string{"-O2", "-gdwarf-4", "-flto"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe := compile(t, c.sources, c.flags...)
			oracle := exe
			if c.instead != nil {
				oracle = compile(t, c.sources, c.instead...)
				sameCode(t, exe, oracle)
			}
			s := New(Options{})
			t.Cleanup(func() { _ = s.Close() })
			compare(t, s, exe, oracle)
			if notes := s.Notes(); len(notes) > 0 {
				t.Errorf("notes: %q", notes)
			}
		})
	}
}

// sameCode makes sure that two builds differ in their debug information only.
func sameCode(t *testing.T, a, b string) {
	t.Helper()
	ca, err := elfFile(t, a).Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	cb, err := elfFile(t, b).Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ca, cb) {
		t.Fatal("the two builds have different code")
	}
}
