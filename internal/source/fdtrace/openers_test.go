package fdtrace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stanch/internal/leak"
)

// TestOpeners holds that each call that gives a descriptor is seen with the
// function that made it.
func TestOpeners(t *testing.T) {
	exe := build(t, "testdata/openers.c")
	for _, raw := range []bool{true, false} {
		t.Run(fmt.Sprintf("raw=%v", raw), func(t *testing.T) {
			p := run(t, exe)
			w := trace(t, p.target, Options{Raw: raw})
			p.write("go")
			lines := p.until("done")
			w.end()
			checkOpeners(t, w, lines)
		})
	}
}

func checkOpeners(t *testing.T, w *tracing, lines []string) {
	t.Helper()
	names := w.symbolizer()
	want := map[uint64]string{}
	for _, line := range lines {
		var num uint64
		var function string
		if _, err := fmt.Sscan(line, &num, &function); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want[num] = function
	}
	for num, function := range want {
		a, ok := w.open[leak.Ref{Proc: w.target.ID, Kind: leak.KindDescriptor, ID: num}]
		if !ok {
			t.Errorf("%d of %s is not open", num, function)
			continue
		}
		functions, _ := w.names(names, a.Stack)
		if !slices.Contains(functions, function) || !slices.Contains(functions, "main") && function != "deep" {
			t.Errorf("%d of %s, by %q, has stack %q", num, function, a.Call, functions)
		}
	}
	for ref := range w.open {
		if want[ref.ID] == "" {
			t.Errorf("%d is said to be open", ref.ID)
		}
	}
	for _, g := range w.gaps {
		t.Errorf("gap: %s (%d)", g.What, g.Lost)
	}
}

// TestLanguages holds that the stacks of C++ with exceptions and of static Go
// programs are walked to their functions.
func TestLanguages(t *testing.T) {
	golang := filepath.Join(t.TempDir(), "goleak")
	cmd := exec.Command("go", "build", "-o", golang, "./testdata/goleak")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, exe := range map[string]string{"c++": build(t, "testdata/errors.cc"), "go": golang} {
		t.Run(name, func(t *testing.T) {
			p := run(t, exe)
			w := trace(t, p.target, Options{Raw: true})
			p.write("go")
			lines := p.until("done")
			w.end()
			names := w.symbolizer()
			for _, line := range lines {
				var num int
				var function string
				if _, err := fmt.Sscan(line, &num, &function); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				a, ok := w.open[w.ref(p.target.ID.PID, num)]
				functions, places := w.names(names, a.Stack)
				found := slices.ContainsFunc(functions, func(s string) bool { return strings.Contains(s, function) })
				if !ok || !found || strings.HasPrefix(places[slices.IndexFunc(functions, func(s string) bool { return strings.Contains(s, function) })], ":") {
					t.Errorf("%s: %+v by %q at %q", line, a, functions, places)
				}
			}
		})
	}
}
