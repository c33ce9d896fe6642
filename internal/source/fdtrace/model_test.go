package fdtrace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"stanch/internal/leak"
)

// model is the program that knows what it has open.
const model = "../../../testdata/leaky/fdmodel.c"

// TestModel holds a random sequence of calls, over threads, forks, execs and
// passing, against the program's own books: the open set is the kernel's, and
// each opener is right or declared unknown.
func TestModel(t *testing.T) {
	exe := build(t, model)
	for seed := 1; seed <= 2; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := run(t, exe, fmt.Sprint(seed), "100000")
			w := trace(t, p.target, Options{Scope: Tree, Raw: true, NoUses: true})
			p.write("go")
			for _, line := range p.until("done") {
				t.Error(line)
			}
			w.end()
			p.write("report")
			checkModel(t, w, p.until("end"))
		})
	}
}

func checkModel(t *testing.T, w *tracing, lines []string) {
	t.Helper()
	names := w.symbolizer()
	want := map[leak.Ref]string{}
	pid := 0
	for _, line := range lines {
		var n int
		if rest, ok := strings.CutPrefix(line, "process "); ok {
			if _, err := fmt.Sscan(rest, &pid, &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			continue
		}
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want[w.ref(pid, n)] = line
	}
	right, unknown, wrong := 0, 0, 0
	pid0 := w.target.ID.PID
	for ref, line := range want {
		if strings.HasSuffix(line, " unknown") && pid0 == ref.Proc.PID {
			continue // older than the trace: others say them
		}
		a, ok := w.open[ref]
		if !ok {
			wrong++
			t.Errorf("process %d: not open: %s", ref.Proc.PID, line)
			continue
		}
		who := line[strings.LastIndexByte(line, ' ')+1:]
		_, lines := w.names(names, a.Stack)
		functions, _ := w.names(names, a.Stack)
		places := []string{}
		for i := range functions {
			_, number, _ := strings.Cut(lines[i], ":")
			places = append(places, functions[i]+":"+number)
		}
		switch {
		case a.Stack == 0:
			unknown++
			t.Logf("process %d: unknown (%q): %s", ref.Proc.PID, a.Call, line)
		case slices.ContainsFunc(strings.Split(who, "|"), func(s string) bool { return slices.Contains(places, s) }):
			right++
		default:
			wrong++
			t.Errorf("process %d: %q: %s is said to be by %q", ref.Proc.PID, line, a.Call, places)
		}
	}
	for ref, a := range w.open {
		if _, ok := want[ref]; !ok {
			wrong++
			t.Errorf("process %d: %d is said to be open, by %q", ref.Proc.PID, ref.ID, a.Call)
		}
	}
	s := w.tracer.Stats()
	t.Logf("%d right, %d unknown, %d wrong; %d acquired; %+v", right, unknown, wrong, len(w.acquires), s)
	for _, g := range w.gaps {
		t.Logf("gap: %s (%d)", g.What, g.Lost)
	}
}

// ref finds the process of a PID among what was said.
func (w *tracing) ref(pid, num int) leak.Ref {
	ref := leak.Ref{Proc: leak.ProcID{PID: pid}, Kind: leak.KindDescriptor, ID: uint64(num)}
	for r := range w.open {
		if r.Proc.PID == pid {
			ref.Proc = r.Proc
		}
	}
	return ref
}
