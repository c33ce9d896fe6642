package ptrace

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestDeath kills stanch at every point between two effects on a target. Each
// time the target must run on and check out, and Clean must find it clean or
// make it so.
func TestDeath(t *testing.T) {
	exe, err := helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"busy", []string{build(t, "busy"), "blocks", "regs", "rseq", "timer"}},
		{"waits", []string{build(t, "waits"), t.TempDir(), "tolerant"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launch(t, c.args[0], c.args[1:]...)
			s.growsFDs = true
			cmd := exec.Command(exe, helperWord, fmt.Sprint(s.ID.PID))
			cmd.Env = append(os.Environ(), "STANCH_STEPS=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			names := steps(string(out))
			for n := 1; n <= len(names); n++ {
				if c.name == "waits" && n%23 != 0 && between(n, names) {
					continue // one thread's part of many equal ones
				}
				cmd := exec.Command(exe, helperWord, fmt.Sprint(s.ID.PID))
				cmd.Env = append(os.Environ(), fmt.Sprintf("STANCH_DIE_AT=%d", n))
				// A signal more or less makes a run a few steps longer.
				if out, err := cmd.CombinedOutput(); !killed(err) && (err != nil || n < len(names)-8) {
					t.Fatalf("step %d of %d (%s): %v\n%s", n, len(names), names[n-1], err, out)
				}
				cleaned, err := Clean(context.Background(), s.Target)
				if err != nil {
					t.Error(err)
				}
				s.check()
				if t.Failed() {
					t.Fatalf("after being killed at step %d of %d (%s), and cleaning %q", n, len(names), names[n-1], cleaned)
				}
			}
			t.Logf("%d steps: %s", len(names), s.check())
		})
	}
}

// between reports whether the steps around n do the same.
func between(n int, names []string) bool {
	return n > 1 && n < len(names) && names[n-2] == names[n-1] && names[n] == names[n-1]
}

func steps(out string) []string {
	var names []string
	for line := range strings.Lines(out) {
		if f := strings.SplitN(strings.TrimSpace(line), " ", 3); len(f) == 3 && f[0] == "step" {
			names = append(names, f[2])
		}
	}
	return names
}
