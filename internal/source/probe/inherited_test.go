package probe

import (
	"slices"
	"syscall"
	"testing"

	"stanch/internal/leak"
)

// TestInherited: a forked child's descriptors have the stacks of its parent, an
// executed program's those of the one before.
func TestInherited(t *testing.T) {
	prog, tr := wrap(t)
	mine := answered(t, prog.Ask("open_read", "ok"))[0]
	pid := answered(t, prog.Ask("fork", "ok"))[0]
	o := options()
	o.Descriptors = true
	child := placeIn(t, pid, o)
	child.look()
	child.same()
	for n, a := range child.heldNumbers() {
		if known := slices.Contains(child.seen.names(a.Stack), "by_open_read"); a.Call != "fork" || known != (n == mine) {
			t.Errorf("child: %d by %q, %v", n, a.Call, child.seen.names(a.Stack))
		}
	}
	tr.look()
	o.Openers = tr.p.Openers()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := tr.p.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	prog.Ask("exec", "ready")
	again := &trial{t: t, clock: tr.clock, seen: tr.seen}
	tr.seen.held = map[leak.Ref]leak.Acquire{}
	o.Clock, o.Atlas = tr.clock, tr.p.o.Atlas
	var err error
	if again.p, err = Place(t.Context(), open(t, prog.PID()), o); err != nil {
		t.Fatal(err)
	}
	again.look()
	again.same()
	if a := again.heldNumbers()[mine]; a.Call != "exec" || !slices.Contains(again.seen.names(a.Stack), "by_open_read") {
		t.Errorf("%d by %q, %v", mine, a.Call, again.seen.names(a.Stack))
	}
	if err := again.p.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	prog.Quit()
}

// TestQuiet: after a time in which stanch was not heard from, nothing that may
// have been closed since keeps its opener.
func TestQuiet(t *testing.T) {
	prog, tr := wrap(t)
	n := answered(t, prog.Ask("open_read", "ok"))[0]
	pair := answered(t, prog.Ask("socketpair", "ok"))
	tr.look()
	if err := put32(tr.p.mem, tr.p.state(wStateOn), 0); err != nil {
		t.Fatal(err)
	}
	prog.Ask("close", "ok")
	prog.Ask("openat", "ok")
	if err := put32(tr.p.mem, tr.p.state(wStateLapsed), 1); err != nil {
		t.Fatal(err)
	}
	tr.look()
	tr.look()
	tr.look()
	tr.same()
	for _, n := range []int{n, pair[0]} {
		if a := tr.heldNumbers()[n]; a.Stack != 0 {
			t.Errorf("%d by %q, %v", n, a.Call, tr.seen.names(a.Stack))
		}
	}
	prog.Quit()
}
