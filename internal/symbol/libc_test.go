package symbol

import (
	"debug/dwarf"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const libcPath = "/lib/x86_64-linux-gnu/libc.so.6"

// TestLibc names call sites of a real library whose debug file a distribution
// made: Debian's libc6-dbg.
func TestLibc(t *testing.T) {
	real, err := filepath.EvalSymlinks(libcPath)
	if err != nil {
		t.Skip("no glibc at " + libcPath)
	}
	o, err := openObject(hostTree{}, real, newBlockCache(1))
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	debug := byBuildID(DebugDirs[0], o.buildID)
	if _, err := os.Stat(debug); err != nil {
		t.Skip("libc6-dbg is not installed")
	}
	f := elfFile(t, real)
	var sites []uint64
	for i, pc := range callSites(t, real) {
		if i%23 == 0 {
			sites = append(sites, pc)
		}
	}
	want, alias := addr2line(t, debug, sites), aliases(t, debug)
	for _, frames := range want {
		for i, w := range frames {
			// Debian's compilation directory is relative; addr2line joins it twice.
			if dir, rest, ok := strings.Cut(w.file, "/"); ok && strings.HasPrefix(rest, dir+"/") {
				frames[i].file = rest
			}
		}
	}
	lines, err := elfFile(t, debug).DWARF()
	if err != nil {
		t.Fatal(err)
	}
	s := symbolizer(t, Options{})
	bad := 0
	for _, pc := range sites {
		m, place := mapping(t, real, f, pc)
		got := s.Frames(m, place)
		if difference := differ(got, want[pc], alias); difference != "" && (difference != "file 0" || !strings.HasSuffix(goFile(t, lines, pc), "/"+path.Base(got[0].File))) {
			if bad++; bad <= 10 {
				t.Errorf("%#x: %s\n got %s\nwant %v", pc, difference, show(got), want[pc])
			}
		}
	}
	t.Logf("%d call sites, %d differ", len(sites), bad)

	// Names that people know, whatever glibc calls them inside.
	syms, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"malloc": true, "calloc": true, "realloc": true, "free": true, "strdup": true, "fopen": true, "getaddrinfo": true, "memalign": true, "posix_memalign": true, "qsort": true}
	for _, sym := range syms {
		if !known[sym.Name] {
			continue
		}
		m, place := mapping(t, real, f, sym.Value)
		if got := s.Frames(m, place); got[len(got)-1].Function != sym.Name {
			t.Errorf("%s is named %s", sym.Name, show(got))
		}
	}
	if name, delta, ok := objectNamed(t, s, real, "main_arena"); !ok || delta != 8 {
		t.Errorf("main_arena+8 is named %s+%d %v", name, delta, ok)
	}
}

// objectNamed asks for the place 8 bytes into the variable of that name in
// glibc's debug symbols.
func objectNamed(t *testing.T, s *Symbolizer, p, want string) (string, uint64, bool) {
	t.Helper()
	f := elfFile(t, p)
	o := elfFile(t, byBuildID(DebugDirs[0], mustBuildID(t, p)))
	syms, err := o.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, sym := range syms {
		if sym.Name == want {
			m, place := mapping(t, p, f, sym.Value+8)
			name, delta, ok := s.Object(m, place.Off)
			return name, delta, ok && name == want
		}
	}
	t.Fatalf("no %s", want)
	return "", 0, false
}

func mustBuildID(t *testing.T, p string) string {
	t.Helper()
	o, err := openObject(hostTree{}, p, newBlockCache(1))
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	return o.buildID
}

// goFile asks debug/dwarf for the file, where addr2line takes the initial file
// register of DWARF 5 for 0.
func goFile(t *testing.T, d *dwarf.Data, pc uint64) string {
	t.Helper()
	cu, err := d.Reader().SeekPC(pc)
	if err != nil {
		t.Fatal(err)
	}
	lr, err := d.LineReader(cu)
	if err != nil {
		t.Fatal(err)
	}
	var line dwarf.LineEntry
	if err := lr.SeekPC(pc, &line); err != nil {
		return ""
	}
	return path.Join("/", line.File.Name)
}
