package probe

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestForkedChildPlaced: a forked child of a watched process has a copy of its probe,
// which is quiet; a probe of its own takes its place, while the parent's goes
// on.
func TestForkedChildPlaced(t *testing.T) {
	prog := fixture.Start(t, "/bin/sh", "-c", "echo ready; while read a; do (echo child; read b; echo ended); echo parent; done")
	o := options()
	o.Exact = true
	parent := place(t, prog, o)
	for range 3 {
		prog.Ask("fork", "child")
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", prog.PID(), prog.PID()))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatalf("children %q", b)
		}
		target := open(t, pid)
		began := time.Now()
		c := options()
		c.Exact, c.Clock, c.Atlas = true, proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
		p, err := Place(context.Background(), target, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("placed in %v, %v still", time.Since(began), p.Placement().Pauses)
		if err := p.Books(nil, leak.Ignore{}); err != nil {
			t.Error(err)
		}
		prog.Ask("go on", "ended")
		prog.Expect("parent")
		if err := p.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	}
	parent.look()
	if calls := parent.seen.gauges[leak.GaugeProbeCalls]; calls == 0 {
		t.Error("the parent's probe sees nothing")
	}
	for _, g := range parent.seen.gaps {
		t.Errorf("gap: %v", g)
	}
}
