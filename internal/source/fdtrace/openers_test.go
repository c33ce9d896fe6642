package fdtrace

import (
	"fmt"
	"slices"
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
