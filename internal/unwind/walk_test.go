package unwind

import (
	"os"
	"testing"
)

// TestWalk stops a program with every shape of frame at random instructions
// and compares whole stacks with gdb's. STANCH_LONG=1 makes ten times as many
// stops.
func TestWalk(t *testing.T) {
	const places = "walk step bottom plain with_alloca with_vla realigned compare thrower handler skip_ud2 jumping snprintf malloc _Unwind_RaiseException"
	seen := map[CFA]int{} // how many frames had which kind of row
	inVDSO, wrong := 0, false
	for _, c := range []struct {
		name   string
		from   string
		places string
		stride int
		stops  int
		flags  []string
	}{
		{"loader", "_start", "", 400, 25, []string{"-O2"}},
		{"lazy", "main", "", 200, 40, []string{"-O2"}},
		{"vdso", "main", "clock_gettime", 40, 20, []string{"-O2"}},
		{"longjmp", "main", "longjmp", 60, 20, []string{"-O2"}},
		{"O2", "main", places, 80, 60, []string{"-O2"}},
		{"O0", "main", places, 80, 30, []string{"-O0"}},
		{"realign", "main", places, 80, 40, []string{"-O2", "-mstackrealign"}},
		{"static", "main", places, 80, 30, []string{"-O2", "-static"}},
		{"fixed", "main", places, 80, 30, []string{"-O3", "-no-pie", "-fno-pie", "-fomit-frame-pointer"}},
		{"frame pointers", "main", places, 80, 20, []string{"-O2", "-fno-omit-frame-pointer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			exe := build(t, "shapes.cc", c.flags...)
			if os.Getenv("STANCH_LONG") == "1" {
				c.stops *= 10
			}
			var tables tables
			var mem procMem
			frames, deepest, bad := 0, 0, 0
			gdbStops(t, exe, c.from, c.places, c.stride, c.stops, func(s gdbStop) {
				if mem.f == nil {
					mem = openMem(t, s.pid)
				}
				u := New(tables.modules(t, s.pid, mem))
				places, complete := u.Unwind(s.regs, mem, 500)
				if err := compareWalk(places, complete, s.frames); err != nil {
					wrong = true
					if bad++; bad <= 3 {
						t.Error(err)
					}
				}
				for _, at := range places {
					row, mod := u.lookup(uint64(at))
					seen[row.CFA]++
					if mod >= 0 && u.modules[mod].Table == tables["[vdso]"] {
						inVDSO++
					}
				}
				frames += len(places)
				deepest = max(deepest, len(places))
			})
			t.Logf("%d stops, %d frames, deepest %d, %d wrong", c.stops, frames, deepest, bad)
		})
	}
	t.Logf("frames by kind of row: %v, in the vdso: %d", seen, inVDSO)
	if wrong || t.Failed() || len(seen) == 0 {
		return
	}
	for _, kind := range []CFA{CFASP, CFABP, CFADeref, CFAPLT, CFASignal, CFAOther} {
		if seen[kind] == 0 {
			t.Errorf("no frame had a row of kind %d", kind)
		}
	}
	if inVDSO == 0 {
		t.Error("no frame was in the vdso")
	}
}
