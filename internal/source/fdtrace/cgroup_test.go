package fdtrace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// TestCgroup holds that all processes of a cgroup are traced, also one that
// came later, and none besides.
func TestCgroup(t *testing.T) {
	exe := build(t, "testdata/openers.c")
	group := newCgroup(t)
	first, outside := run(t, exe), run(t, exe)
	group.enter(first)
	w := trace(t, first.target, Options{Scope: Cgroup, Raw: true})
	second := run(t, exe)
	group.enter(second)
	lines := map[*program][]string{}
	for _, p := range []*program{first, second, outside} {
		p.write("go")
		lines[p] = p.until("done")
	}
	w.end()
	names := w.symbolizer()
	for _, p := range []*program{first, second} {
		for _, line := range lines[p] {
			var num int
			var function string
			if _, err := fmt.Sscan(line, &num, &function); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			a, ok := w.open[leak.Ref{Proc: p.target.ID, Kind: leak.KindDescriptor, ID: uint64(num)}]
			if functions, _ := w.names(names, a.Stack); !ok || !slices.Contains(functions, function) {
				t.Errorf("process %d: %s: %+v by %q", p.target.ID.PID, line, a, functions)
			}
		}
	}
	for ref, a := range w.open {
		if ref.Proc == outside.target.ID {
			t.Errorf("a process outside the cgroup is said to have opened %+v", a)
		}
	}
}

// cgroup is a control group of version 2.
type cgroup struct {
	t   testing.TB
	dir string
}

func newCgroup(t testing.TB) *cgroup {
	t.Helper()
	for _, mount := range cgroupMounts {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
			continue
		}
		g := &cgroup{t, filepath.Join(mount, "stanch-test-"+strconv.Itoa(os.Getpid()))}
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.remove)
		return g
	}
	t.Fatal("no cgroup of version 2 is mounted")
	return nil
}

func (g *cgroup) enter(p *program) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(p.target.ID.PID)), 0); err != nil {
		g.t.Fatal(err)
	}
}

// remove waits until the kernel has noticed that the processes are gone.
func (g *cgroup) remove() {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		if err := unix.Rmdir(g.dir); !errors.Is(err, unix.EBUSY) {
			return
		}
	}
}
