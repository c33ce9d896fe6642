package heap

import (
	"context"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/proc"
)

// scanned takes one look at a live process.
func scanned(tb testing.TB, pid int, o Options) *book {
	tb.Helper()
	target, err := proc.Default.Open(pid)
	if err != nil {
		tb.Fatal(err)
	}
	o.Clock = proc.NewClock()
	if o.MaxPause == 0 {
		o.MaxPause = patience
	}
	b := newBook()
	s := &Scanner{Options: o, stopWait: patience}
	if err := s.Scan(context.Background(), target, b); err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestScan(t *testing.T) {
	p := fixture.Start(t, fixture.Build(t, "direct"))
	p.Ask("keep 10", "ok")
	p.Ask("leak 100", "ok")
	truth := p.Blocks()
	b := scanned(t, p.PID(), Options{})
	t.Logf("%+v", b.looks)
	agree(t, b, truth, 0.995)
}

// TestKernelWords looks at programs whose blocks only the kernel points to.
func TestKernelWords(t *testing.T) {
	for _, c := range []struct {
		name    string
		args    []string
		say     []string
		pending bool // nothing can be said for sure
	}{
		{"epollserver", nil, []string{"keep 40", "leak 20", "free 5"}, false},
		{"timers", nil, []string{"keep 10", "leak 10", "free 2"}, false},
		{"iouring", nil, []string{"leak 10", "done 5"}, false},
		{"iouring", nil, []string{"leak 10", "done 5", "queued 4"}, false},
		{"iouring", nil, []string{"leak 10", "keep 7"}, true},
		{"aiopending", nil, []string{"leak 10", "keep 7"}, true},
		{"sighandler", nil, []string{"leak 10", "keep 7"}, false},
		{"coroutine", nil, []string{"leak 10", "keep 7"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fixture.Start(t, fixture.Build(t, c.name), c.args...)
			for _, line := range c.say {
				p.Ask(line, "ok")
			}
			truth := p.Blocks()
			b := scanned(t, p.PID(), Options{})
			look := b.looks[0]
			t.Logf("%+v", look)
			if look.PendingIO != c.pending {
				t.Errorf("pending requests: %v", look.PendingIO)
			}
			if c.pending {
				return // the reader of the look knows that nothing is certain
			}
			agree(t, b, truth, 0.995)
		})
	}
}

// TestBuilds looks at one program built in different ways.
func TestBuilds(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
		strip bool
	}{
		{"stripped", nil, true},
		{"static", []string{"-static"}, false},
		{"static stripped", []string{"-static"}, true},
		{"static-pie", []string{"-static-pie"}, true},
		{"no-pie", []string{"-no-pie"}, true},
	} {
		for _, program := range []string{"freed", "threads", "mmapped"} {
			t.Run(c.name+" "+program, func(t *testing.T) {
				exe := fixture.Build(t, program, c.flags...)
				if c.strip {
					exe = fixture.Strip(t, exe)
				}
				p := fixture.Start(t, exe)
				for _, line := range []string{"keep 16", "leak 16", "free 3"} {
					p.Ask(line, "ok")
				}
				truth := p.Blocks()
				asleep(t, p.PID())
				b := scanned(t, p.PID(), Options{})
				t.Logf("%+v", b.looks[0])
				if !b.looks[0].Walked || len(b.looks[0].Uncertainty) > 0 {
					t.Errorf("not walked, or with doubts: %v", b.gaps)
				}
				agree(t, b, truth, 0.995)
			})
		}
	}
}
