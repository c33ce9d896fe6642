package unwind

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/leak"
)

// walkParked waits until the first thread of a program is in pause(), stops the
// program and walks that stack.
func walkParked(t *testing.T, pid int) (u *Unwinder, places []leak.Addr, complete bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil {
			t.Skipf("the system call of another process cannot be read: %v", err)
		}
		if strings.HasPrefix(string(b), strconv.Itoa(syscall.SYS_PAUSE)+" ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program does not wait in pause")
		}
	}
	tids := stop(t, pid)
	mem := openMem(t, pid)
	regs := registers(t, tids)
	var tables tables
	u = New(tables.modules(t, pid, mem))
	places, complete = u.Unwind(regs[pid], mem, 200)
	return u, places, complete
}

// TestGo walks the stack of a Go program with and without .debug_frame.
func TestGo(t *testing.T) {
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct{ name, ldflags string }{{"debug_frame", ""}, {"stripped", "-s -w"}} {
		t.Run(c.name, func(t *testing.T) {
			exe := filepath.Join(t.TempDir(), "park")
			if out, err := exec.Command(golang, "build", "-o", exe, "-ldflags", c.ldflags, "testdata/park.go").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			pid, said := start(t, exe)
			var want []leak.Addr
			for _, line := range said {
				pc, err := strconv.ParseUint(line, 16, 64)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, leak.Addr(pc)-1)
			}
			u, places, complete := walkParked(t, pid)
			if !complete || len(places) < len(want) || !slices.Equal(places[len(places)-len(want):], want) {
				t.Errorf("complete %v: %v; the program says %v", complete, places, want)
			}
			if table := u.modules[0].Table; !table.golang || !table.Assumed {
				t.Errorf("not seen as a Go program: %v %v", table.golang, table.Assumed)
			}
		})
	}
}

// TestCgo walks from C, which runs on the thread's stack, to the Go code that
// called it.
func TestCgo(t *testing.T) {
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	exe := filepath.Join(t.TempDir(), "park")
	cmd := exec.Command(golang, "build", "-o", exe, "testdata/cgo.go")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pid, _ := start(t, exe)
	_, places, complete := walkParked(t, pid)
	names := functions(t, exe, places)
	if want := regexp.MustCompile(`^\S+ _cgo_\S+_Cfunc_park runtime.asmcgocall.abi0 runtime.cgocall main._Cfunc_park(?:.abi0)? (main.deeper ){7}main.main runtime.main runtime.goexit.abi0$`); !complete || !want.MatchString(names) {
		t.Errorf("complete %v, functions %s, want %v", complete, names, want)
	}
}

// TestFramePointers walks the stack of a program with frame pointers on musl,
// which has none and no unwind data.
func TestFramePointers(t *testing.T) {
	cc, err := exec.LookPath("musl-gcc")
	if err != nil {
		t.Skip(err)
	}
	exe := filepath.Join(t.TempDir(), "park")
	if out, err := exec.Command(cc, "-O2", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-no-pie", "-static", "-o", exe, "testdata/park.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pid, _ := start(t, exe)
	_, places, complete := walkParked(t, pid)
	if complete {
		t.Error("a walk by assumed frame pointers is never sure to be complete")
	}
	names := functions(t, exe, places)
	if want := regexp.MustCompile(`^\S+ (deeper ){11}handler \S+ (deeper ){14}main `); !want.MatchString(names + " ") {
		t.Errorf("functions %s, want %v", names, want)
	}
}

// functions names places in an executable that is where it was linked to be.
func functions(t *testing.T, exe string, places []leak.Addr) string {
	t.Helper()
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	sort.Slice(symbols, func(i, j int) bool { return symbols[i].Value < symbols[j].Value })
	var names []string
	for _, at := range places {
		i := sort.Search(len(symbols), func(i int) bool { return symbols[i].Value > uint64(at) })
		names = append(names, symbols[i-1].Name)
	}
	return strings.Join(names, " ")
}
