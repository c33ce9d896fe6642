package heap

import (
	"testing"

	"stanch/internal/fixture"
)

// TestMainArena looks at main arenas that are not one piece of memory.
func TestMainArena(t *testing.T) {
	exe := compile(t, "brk.c")
	for _, c := range []struct {
		name string
		say  []string
	}{
		{"pages", []string{"leak 200", "foreign 12288", "leak 300", "free 30", "leak 100"}},
		{"bytes", []string{"leak 200", "foreign 104", "leak 300", "free 30"}},
		{"twice", []string{"leak 200", "foreign 4096", "leak 300", "foreign 8200", "leak 300", "free 30"}},
		{"elsewhere", []string{"leak 200", "blocked", "leak 3000", "free 100", "leak 100"}},
		{"elsewhere after bytes", []string{"leak 200", "foreign 104", "leak 200", "blocked", "leak 1500"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fixture.Start(t, exe)
			for _, line := range c.say {
				p.Ask(line, "ok")
			}
			truth := p.Blocks()
			b := scanned(t, p.PID(), Options{})
			t.Logf("%+v %+v", b.looks[0], b.gaps)
			if b.looks[0].Walked {
				agree(t, b, truth, 0.99)
			} else if len(b.verdicts) > 0 {
				t.Error("verdicts without a walk")
			}
		})
	}
}

// TestNoFork looks at a process that can have no child.
func TestNoFork(t *testing.T) {
	p := fixture.Start(t, compile(t, "nofork.c"))
	p.Ask("keep 10", "ok")
	p.Ask("leak 50", "ok")
	truth := p.Blocks()
	b := scanned(t, p.PID(), Options{})
	t.Logf("%+v", b.looks[0])
	if !b.looks[0].Walked || len(b.looks[0].Uncertainty) > 0 {
		t.Errorf("not walked, or with doubts: %v", b.gaps)
	}
	agree(t, b, truth, 0.995)
}
