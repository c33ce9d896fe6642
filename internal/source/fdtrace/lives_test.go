package fdtrace

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"stanch/internal/leak"
)

// TestLives holds how descriptors come and go besides the plain calls: threads,
// fork, vfork, exec, close-on-exec, passing, exit; and failures and uses.
func TestLives(t *testing.T) {
	p := run(t, build(t, "testdata/lives.c"))
	w := trace(t, p.target, Options{Scope: Tree, Raw: true})
	p.write("go")
	num := map[string]int{}
	child := 0
	for _, line := range p.until("done") {
		var what string
		var a, b int
		n, _ := fmt.Sscan(line, &what, &a, &b)
		num[what] = a
		if n == 3 {
			child, num[what] = a, b
		}
	}
	defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
	w.end()
	names := w.symbolizer()
	has := func(id leak.StackID, function string) bool {
		functions, _ := w.names(names, id)
		return slices.Contains(functions, function)
	}
	ref := func(pid, n int) leak.Ref { return w.ref(pid, n) }
	own := p.target.ID.PID
	for what, call := range map[string]string{"used": "socket", "thread": "openat", "received": "received", "kept": "openat", "after": "openat"} {
		function := map[string]string{"used": "connects", "received": "receives"}[what]
		if function == "" {
			function = "opener"
		}
		a, ok := w.open[ref(own, num[what])]
		if !ok || a.Call != call || !has(a.Stack, function) {
			functions, _ := w.names(names, a.Stack)
			t.Errorf("%s: %d is %+v of %q, want %s in %s", what, num[what], a, functions, call, function)
		}
	}
	if num["after"] != num["cloexec"] {
		t.Errorf("the number that close-on-exec freed was %d, the next is %d", num["cloexec"], num["after"])
	}
	if a, ok := w.open[ref(child, num["child"])]; ok {
		t.Errorf("the child has closed %+v", a)
	}
	if a := w.open[ref(child, num["received"])]; a.Call != "fork" || !has(a.Stack, "receives") {
		t.Errorf("the child has inherited %+v", a)
	}
	exec := slices.ContainsFunc(w.releases, func(r leak.Release) bool { return r.Call == "exec" && int(r.Ref.ID) == num["cloexec"] })
	closed := slices.ContainsFunc(w.releases, func(r leak.Release) bool { return r.Call == "close" && has(r.Stack, "closer") })
	if !exec || !closed {
		t.Errorf("close-on-exec seen: %v; the stack of a close seen: %v", exec, closed)
	}
	if f := w.failures["dup EMFILE"]; f.N != 5 || !has(f.Stack, "exhausts") {
		t.Errorf("failures are %+v", w.failures)
	}
	if f := w.failures["mmap ENOMEM"]; f.N != 1 || !has(f.Stack, "maps") {
		t.Errorf("failures are %+v", w.failures)
	}
	if u := w.uses[uint64(num["used"])]; u.Call != "connect" || u.Error != "ECONNREFUSED" {
		t.Errorf("the socket was last used by %+v", u)
	}
	for _, g := range w.gaps {
		t.Errorf("gap: %s (%d)", g.What, g.Lost)
	}
}

// TestExit holds that Watch ends with the target, whose descriptors its exit
// closes.
func TestExit(t *testing.T) {
	p := run(t, build(t, "testdata/openers.c"))
	w := trace(t, p.target, Options{Raw: true})
	p.write("go")
	p.until("done")
	p.write("end")
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	if len(w.open) > 0 || len(w.acquires) < 30 {
		t.Errorf("%d of %d are open after the exit", len(w.open), len(w.acquires))
	}
	exits := 0
	for _, r := range w.releases {
		if r.Call == "exit" {
			exits++
		}
	}
	if exits < 30 {
		t.Errorf("the exit has closed %d", exits)
	}
}
