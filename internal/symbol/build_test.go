package symbol

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stanch/internal/leak"
)

// tool runs a program and skips the test when it is not installed.
func tool(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// compile builds testdata/sources into a program in a new directory.
func compile(t testing.TB, sources []string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	compiler := "gcc"
	var args []string
	for _, s := range sources {
		if strings.HasSuffix(s, ".cc") {
			compiler = "g++"
		}
		abs, err := filepath.Abs(filepath.Join("testdata", s))
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, abs)
	}
	exe := filepath.Join(dir, "prog")
	tool(t, dir, compiler, append(append(args, flags...), "-o", exe)...)
	return exe
}

// elfFile opens a file for the test's own look at it.
func elfFile(t testing.TB, p string) *elf.File {
	t.Helper()
	f, err := elf.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// mapping is what /proc/PID/maps would show of the segment of file p that
// holds vaddr, and the place of vaddr in it.
func mapping(t testing.TB, p string, f *elf.File, vaddr uint64) (leak.Mapping, leak.Frame) {
	t.Helper()
	st, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD || vaddr < s.Vaddr || vaddr >= s.Vaddr+s.Memsz {
			continue
		}
		low := s.Vaddr &^ (pageSize - 1)
		m := leak.Mapping{
			ID: 1, Start: leak.Addr(0x555500000000 + low), End: leak.Addr(0x555500000000 + (s.Vaddr+s.Filesz+pageSize-1)&^(pageSize-1)),
			Read: true, Write: s.Flags&elf.PF_W != 0, Exec: s.Flags&elf.PF_X != 0,
			Offset: s.Off &^ (pageSize - 1), Dev: sys.Dev, Inode: sys.Ino, Path: p,
		}
		return m, m.Frame(leak.Addr(0x555500000000 + vaddr))
	}
	t.Fatalf("%s: nothing is loaded at %#x", p, vaddr)
	return leak.Mapping{}, leak.Frame{}
}

// callSites gives the addresses that stacks of the program can hold: one byte
// before the end of each call instruction.
func callSites(t testing.TB, p string) []uint64 {
	t.Helper()
	var sites []uint64
	sc := bufio.NewScanner(strings.NewReader(tool(t, "", "objdump", "-d", "-w", "-j", ".text", p)))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		field := strings.Split(sc.Text(), "\t")
		if len(field) < 3 || !strings.HasPrefix(field[2], "call") && !strings.HasPrefix(field[2], "bnd call") && !strings.HasPrefix(field[2], "notrack call") {
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(field[0]), ":"), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		sites = append(sites, addr+uint64(len(strings.Fields(field[1])))-1)
	}
	if len(sites) == 0 {
		t.Fatalf("%s has no calls", p)
	}
	return sites
}

// said is one frame as addr2line prints it.
type said struct {
	function string
	file     string
	line     int
}

// addr2line asks binutils: innermost first, for each address.
func addr2line(t testing.TB, p string, addrs []uint64) map[uint64][]said {
	t.Helper()
	var in strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&in, "%#x\n", a)
	}
	bin, err := exec.LookPath("addr2line")
	if err != nil {
		t.Skip("addr2line is not installed")
	}
	cmd := exec.Command(bin, "-a", "-i", "-f", "-e", p)
	cmd.Stdin = strings.NewReader(in.String())
	cmd.Env = append(os.Environ(), "DEBUGINFOD_URLS=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("addr2line: %v", err)
	}
	all := map[uint64][]said{}
	var at uint64
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		if a, err := strconv.ParseUint(lines[i], 0, 64); err == nil {
			at = a
			continue
		}
		function := lines[i]
		i++
		where, _, _ := strings.Cut(lines[i], " (")
		colon := strings.LastIndexByte(where, ':')
		line, _ := strconv.Atoi(where[colon+1:])
		file := where[:colon]
		if line == 0 {
			file = "" // "??", or the name that the symbol table has of the object file
		}
		if file != "" {
			file = path.Clean(file)
		}
		all[at] = append(all[at], said{function, file, line})
	}
	return all
}

// aliases gives all names that nm has for the function at an address.
func aliases(t testing.TB, p string) map[string][]string {
	t.Helper()
	byAddr, byName := map[string][]string{}, map[string][]string{}
	for line := range strings.Lines(tool(t, "", "nm", p)) {
		if f := strings.Fields(line); len(f) == 3 && strings.ContainsAny(f[1], "tTwWiV") {
			byAddr[f[0]] = append(byAddr[f[0]], readable(f[2]))
		}
	}
	for _, names := range byAddr {
		for _, n := range names {
			byName[n] = append(byName[n], names...)
		}
	}
	return byName
}

// sameName compares a name of ours with a mangled or plain one of addr2line's.
// Where DWARF has no mangled name, addr2line tells no scope, and template
// arguments as the compiler writes them.
func sameName(got, oracle string, alias map[string][]string) bool {
	want := readable(oracle)
	if !mangled(oracle) && strings.Contains(want, "<") {
		got, want = bare(got), bare(want)
	}
	return got == want || strings.HasSuffix(got, "::"+want) || slices.Contains(alias[want], got)
}

// compare holds the names of all call sites of p against addr2line's on the
// file oracle, which has the same addresses.
func compare(t *testing.T, s *Symbolizer, p, oracle string) {
	t.Helper()
	sites := callSites(t, oracle)
	want := addr2line(t, oracle, sites)
	alias := aliases(t, oracle)
	f := elfFile(t, oracle)
	bad, inlined := 0, 0
	for _, pc := range sites {
		m, place := mapping(t, p, f, pc)
		got := s.Frames(m, place)
		if difference := differ(got, want[pc], alias); difference != "" {
			if bad++; bad <= 10 {
				t.Errorf("%#x: %s\n got %s\nwant %v", pc, difference, show(got), want[pc])
			}
		}
		inlined += len(got) - 1
	}
	t.Logf("%d call sites, %d inlined frames, %d differ", len(sites), inlined, bad)
}

func differ(got []leak.StackFrame, want []said, alias map[string][]string) string {
	if len(got) != len(want) {
		return "number of frames"
	}
	for i, w := range want {
		g := got[i]
		// Where the innermost inlined function has no mangled name, addr2line
		// tells that of the outermost.
		unsure := i == 0 && g.Inlined && readable(w.function) == got[len(got)-1].Function
		switch {
		case w.function != "??" && !unsure && !sameName(g.Function, w.function, alias):
			return fmt.Sprintf("function %d", i)
		case w.line > 0 && g.File != w.file:
			return fmt.Sprintf("file %d", i)
		case w.line > 0 && g.Line != w.line:
			return fmt.Sprintf("line %d", i)
		case g.Inlined != (i < len(want)-1):
			return fmt.Sprintf("inlined %d", i)
		}
	}
	return ""
}

func show(frames []leak.StackFrame) string {
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "{%s %s %d inlined=%v} ", f.Function, f.File, f.Line, f.Inlined)
	}
	return b.String()
}

func number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
