package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// TestCycles places and removes the probe again and again under load, with
// sizes aimed at that are allocated all the time.
func TestCycles(t *testing.T) {
	prog := fixture.Start(t, compile(t, "load.c"))
	target := open(t, prog.PID())
	n := 100
	if testing.Short() {
		n = 10
	}
	var sum, most time.Duration
	for i := range n {
		o := options()
		o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
		if i%2 == 0 {
			o.Aim.Sizes = []leak.SizeRange{{Min: 0, Max: 500}}
		}
		o.Inputs, o.Descriptors = i%3 > 0, i%3 > 1
		p, err := Place(context.Background(), target, o)
		if err != nil {
			t.Fatalf("cycle %d: place: %v", i, err)
		}
		for range 2 {
			if err := p.look(context.Background(), leak.Ignore{}); err != nil {
				t.Fatalf("cycle %d: look: %v", i, err)
			}
		}
		if err := p.Remove(context.Background()); err != nil {
			t.Fatalf("cycle %d: remove: %v", i, err)
		}
		for _, d := range p.Placement().Pauses {
			sum += d
			most = max(most, d)
		}
		if i%10 == 9 {
			prog.Ask("check", "ok")
		}
	}
	t.Logf("%d cycles: %v stopped each, longest stop %v", n, sum/time.Duration(n), most)
	clean(t, target)
	prog.Ask("check", "ok")
	prog.Quit()
}

// clean makes sure that nothing but quiet memory is left of any probe.
func clean(t testing.TB, target *proc.Target) {
	t.Helper()
	maps, err := target.Maps()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := target.Mem()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	left := findPlaced(target, maps, mem)
	if len(left) > 1 {
		t.Errorf("%d texts are left", len(left))
	}
	for _, p := range left {
		if !p.quiet() {
			t.Errorf("the probe at %#x is not quiet: %d functions, %d data ranges", p.text.start, len(p.head.patches), len(p.head.data))
		}
	}
	for i := range maps {
		if orphan(maps, i, mem) {
			t.Errorf("a text without header is left at %v", maps[i].Start)
		}
		if m := &maps[i]; anonymous(m) && m.Write && m.Size() >= minData {
			if w, err := get64(mem, uint64(m.Start)); err == nil && w == magic {
				t.Errorf("books are left at %v", m.Start)
			}
		}
	}
	if st, err := target.Status(); err != nil || st.TracerPID != 0 {
		t.Errorf("traced by %d: %v", st.TracerPID, err)
	}
}

// helperCommand runs this test binary, or another build of it, as a small
// stanch.
func helperCommand(exe, job string, env ...string) *exec.Cmd {
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), helperWord+"="+job), env...)
	return cmd
}

// stay starts a stanch that watches pid until it is killed.
func stay(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := helperCommand(exe, fmt.Sprintf("stay %d", pid))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "placed\n" {
		t.Fatalf("the helper says %q: %v", line, err)
	}
	return cmd
}

// TestTwoStanches: while one watches, another is refused and changes nothing;
// once the first was killed, the hooks go quiet by themselves, Detach finds
// what is left, and a new probe can be placed.
func TestTwoStanches(t *testing.T) {
	prog := fixture.Start(t, compile(t, "load.c"))
	target := open(t, prog.PID())
	first := stay(t, prog.PID())
	o := options()
	o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
	if _, err := Place(context.Background(), target, o); !errors.Is(err, ErrPlaced) {
		t.Errorf("a second placement: %v, want ErrPlaced", err)
	}
	if _, err := Detach(context.Background(), target, o); !errors.Is(err, ErrPlaced) {
		t.Errorf("detach while a stanch watches: %v, want ErrPlaced", err)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	mem, err := target.Mem()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	maps, err := target.Maps()
	if err != nil {
		t.Fatal(err)
	}
	left := findPlaced(target, maps, mem)
	if len(left) != 1 || len(left[0].head.patches) == 0 {
		t.Fatalf("%d probes are left", len(left))
	}
	if got := Leftovers(maps, mem); len(got) != 3 {
		t.Errorf("%d leftover ranges, want text, state and books", len(got))
	}
	eventually(t, "the hooks go quiet", func() bool {
		on, err := get32(mem, left[0].state(wStateOn))
		return err == nil && on == 0
	})
	prog.Ask("check", "ok")
	found, err := Detach(context.Background(), target, o)
	if err != nil || !found {
		t.Errorf("detach: %v %v", found, err)
	}
	clean(t, target)
	if found, err := Detach(context.Background(), target, o); err != nil || found {
		t.Errorf("detach again: %v %v", found, err)
	}
	prog.Ask("check", "ok")
	tr := place(t, prog, options())
	tr.look()
	prog.Ask("check", "ok")
	if calls := tr.seen.gauges[leak.GaugeProbeCalls]; calls != 0 {
		t.Logf("%g calls", calls)
	}
	tr.look()
	if tr.seen.gauges[leak.GaugeProbeCalls] == 0 {
		t.Error("the new probe sees nothing")
	}
}

// TestKilled kills stanch at every point between two effects on the target.
// Each time the target runs on, and the next stanch cleans up.
func TestKilled(t *testing.T) {
	exe := t.TempDir() + "/helper"
	if out, err := exec.Command("go", "test", "-c", "-tags", "faults", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	prog := fixture.Start(t, compile(t, "load.c"))
	target := open(t, prog.PID())
	out, err := helperCommand(exe, fmt.Sprintf("cycle %d", prog.PID()), "STANCH_STEPS=1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, which := range []struct{ prefix, env string }{{"step", "STANCH_DIE_AT"}, {"probe step", "STANCH_PROBE_DIE_AT"}} {
		var names []string
		for line := range strings.Lines(string(out)) {
			if rest, ok := strings.CutPrefix(line, which.prefix+" "); ok {
				_, name, _ := strings.Cut(strings.TrimSpace(rest), " ")
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			t.Fatalf("no %s in:\n%s", which.prefix, out)
		}
		t.Logf("%d points", len(names))
		row := 0
		for n := 1; n <= len(names); n++ {
			// Stops with more threads than one repeat their requests: the
			// package that makes them tests each. Here the writes count, of a long
			// row of them the first.
			if strings.HasPrefix(names[n-1], "write") {
				row++
			} else {
				row = 0
			}
			if n%5 != 0 && (row > 12 || row == 0 && which.prefix == "step") {
				continue
			}
			cmd := helperCommand(exe, fmt.Sprintf("cycle %d", prog.PID()), fmt.Sprintf("%s=%d", which.env, n))
			said, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.Success() {
				continue // fewer steps this time: threads come to a stop in their own time
			}
			if !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%s %d of %d (%s): %v\n%s", which.prefix, n, len(names), names[n-1], err, said)
			}
			if _, err := ptrace.Clean(context.Background(), target); err != nil {
				t.Errorf("clean: %v", err)
			}
			o := options()
			if _, err := Detach(context.Background(), target, o); err != nil {
				t.Errorf("detach: %v", err)
			}
			clean(t, target)
			prog.Ask("check", "ok")
			if t.Failed() {
				t.Fatalf("after being killed at %s %d of %d (%s)", which.prefix, n, len(names), names[n-1])
			}
		}
	}
	prog.Quit()
}
