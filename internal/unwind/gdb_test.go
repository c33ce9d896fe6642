package unwind

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
)

// patience is how long a test waits for another process.
const patience = 2 * time.Minute

// build compiles a program of testdata with g++ or gcc, or skips.
func build(t testing.TB, source string, flags ...string) string {
	t.Helper()
	cc := "gcc"
	if strings.HasSuffix(source, ".cc") {
		cc = "g++"
	}
	if _, err := exec.LookPath(cc); err != nil {
		t.Skip(err)
	}
	exe := filepath.Join(t.TempDir(), "program")
	args := append(flags, "-o", exe, filepath.Join("testdata", source), "-pthread")
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", cc, args, err, out)
	}
	return exe
}

// procMem reads a process that is stopped.
type procMem struct{ f *os.File }

func (m procMem) ReadAt(p []byte, a leak.Addr) (int, error) { return m.f.ReadAt(p, int64(a)) }

func openMem(t testing.TB, pid int) procMem {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("the memory of another process cannot be read: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return procMem{f}
}

// tables keeps the tables of files by path.
type tables map[string]*Table

// modules compiles the tables of everything executable in a process.
func (ts *tables) modules(t testing.TB, pid int, mem leak.Memory) []Module {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	if *ts == nil {
		*ts = tables{}
	}
	var out []Module
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.Contains(fields[1], "x") || fields[5] == "[vsyscall]" {
			continue
		}
		m := leak.Mapping{Path: fields[5]}
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.Start, &m.End); err != nil {
			t.Fatal(err)
		}
		if m.Offset, err = strconv.ParseUint(fields[2], 16, 64); err != nil {
			t.Fatal(err)
		}
		table := (*ts)[m.Path]
		if table == nil {
			if table, err = compileMapped(&m, mem); err != nil {
				t.Fatalf("%s: %v", m.Path, err)
			}
			(*ts)[m.Path] = table
		}
		module, ok := table.Module(&m)
		if !ok {
			t.Fatalf("%s: no segment for %s", m.Path, line)
		}
		out = append(out, module)
	}
	return out
}

func compileMapped(m *leak.Mapping, mem leak.Memory) (*Table, error) {
	if m.Path == "[vdso]" {
		image := make([]byte, m.End-m.Start)
		if _, err := mem.ReadAt(image, m.Start); err != nil {
			return nil, err
		}
		return Compile(bytes.NewReader(image))
	}
	f, err := os.Open(m.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Compile(f)
}

// gdbFrame is a frame as gdb sees it.
type gdbFrame struct {
	pc     uint64
	signal bool // made by the kernel: its caller was interrupted
}

// compareWalk holds a walk against gdb's.
func compareWalk(places []leak.Addr, complete bool, want []gdbFrame) error {
	exact := true
	for i, f := range want {
		if i == len(places) {
			break
		}
		expected := leak.Addr(f.pc)
		if !exact {
			expected--
		}
		if places[i] != expected {
			return fmt.Errorf("frame %d is %v, gdb says %v\n%s", i, places[i], expected, both(places, want))
		}
		exact = f.signal
	}
	if len(places) != len(want) || !complete {
		return fmt.Errorf("%d frames, complete %v; gdb has %d\n%s", len(places), complete, len(want), both(places, want))
	}
	return nil
}

func both(places []leak.Addr, want []gdbFrame) string {
	var b strings.Builder
	for i := range max(len(places), len(want)) {
		fmt.Fprintf(&b, "%3d", i)
		if i < len(places) {
			fmt.Fprintf(&b, " %14v", places[i])
		} else {
			fmt.Fprintf(&b, " %14s", "")
		}
		if i < len(want) {
			fmt.Fprintf(&b, " %#14x %v", want[i].pc, want[i].signal)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// gdbStop is one stop of a program under testdata/stops.py.
type gdbStop struct {
	pid    int
	regs   Regs
	frames []gdbFrame
}

func parseStop(line string) (gdbStop, error) {
	fields := strings.Fields(line)
	if len(fields) < 19 {
		return gdbStop{}, fmt.Errorf("short line %q", line)
	}
	var s gdbStop
	var err error
	if s.pid, err = strconv.Atoi(fields[0]); err != nil {
		return s, err
	}
	var general [16]uint64
	for i := range general {
		if general[i], err = strconv.ParseUint(fields[1+i], 16, 64); err != nil {
			return s, err
		}
	}
	s.regs = Regs{SP: general[regSP], BP: general[regBP], General: &general}
	if s.regs.PC, err = strconv.ParseUint(fields[17], 16, 64); err != nil {
		return s, err
	}
	for _, word := range fields[18:] {
		number, signal := strings.CutSuffix(word, "!")
		pc, err := strconv.ParseUint(number, 16, 64)
		if err != nil {
			return s, err
		}
		s.frames = append(s.frames, gdbFrame{pc, signal})
	}
	return s, nil
}

// gdbStops runs a program under gdb and calls look at each of n random stops.
func gdbStops(t *testing.T, exe, from, places string, stride, n int, look func(gdbStop)) {
	t.Helper()
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answers, answersW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	asksR, asks, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer asks.Close()
	var log bytes.Buffer
	// Names of the system's debug files, which make inlined frames, are slow and not needed.
	cmd := exec.CommandContext(ctx, gdb, "-nx", "-batch", "-iex", "set debug-file-directory /nonexistent", "-iex", "set auto-load no", "-x", "testdata/stops.py", exe)
	cmd.Env = append(os.Environ(), "FROM="+from, "PLACES="+places, "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{answersW, asksR}
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answersW.Close()
	asksR.Close()
	lines := bufio.NewScanner(answers)
	lines.Buffer(nil, 1<<20)
	for range n {
		fmt.Fprintln(asks, stride)
		if !lines.Scan() {
			break
		}
		stop, err := parseStop(lines.Text())
		if err != nil {
			t.Error(err)
			break
		}
		look(stop)
		n--
	}
	asks.Close()
	err = cmd.Wait()
	if err != nil || n > 0 {
		t.Fatalf("gdb: %v, %d stops missing\n%s", err, n, log.Bytes())
	}
}
