package probe

import (
	"strings"
	"testing"

	"stanch/internal/fixture"
)

// TestExactOdd: whatever way a program allocates, what it holds at the end is
// recorded, what it freed is not, and no release is called invalid.
func TestExactOdd(t *testing.T) {
	prog := fixture.Start(t, compile(t, "odd.c"))
	o := options()
	o.Exact, o.FromStart, o.Mappings = true, true, true
	tr := place(t, prog, o)
	held := 0
	for _, command := range []string{"vfork", "clone", "threads", "signals", "realloc", "fork", "threads", "vfork"} {
		var more int
		if _, err := sscan(prog.Ask(command, "ok"), "ok %d", &more); err != nil {
			t.Fatal(err)
		}
		held += more
		for _, i := range tr.invalids() {
			t.Errorf("%s: %+v: %v", command, i, tr.seen.names(i.Stack))
		}
		own := 0
		for _, a := range tr.books() {
			// The thread library keeps the stacks of ended threads, with what
			// it allocated for them.
			if names := strings.Join(tr.seen.names(a.Stack), " < "); !strings.Contains(names, "pthread_create") && !strings.Contains(names, "dl_allocate_tls") {
				own++
			}
		}
		if own != held {
			t.Errorf("%s: %d blocks are recorded, want %d: %v", command, own, held, tr.sites(tr.books()))
		}
		balance(t, tr)
	}
	for _, g := range tr.seen.gaps {
		t.Errorf("gap: %v", g)
	}
	prog.Quit()
}

// TestExactLibraries: stacks of a library that was unloaded keep their names,
// and the next one at its place has its own.
func TestExactLibraries(t *testing.T) {
	plugin := fixture.Build(t, "plugin", "-O2", "-shared", "-fPIC")
	prog := fixture.Start(t, fixture.Build(t, "dlopener", "-O2"), plugin)
	o := options()
	o.Exact = true
	tr := place(t, prog, o)
	tr.look()
	for range 3 {
		prog.Ask("load", "ok")
		tr.look()
		prog.Ask("leak 5", "ok")
		tr.look()
		prog.Ask("unload", "ok")
		tr.look()
	}
	n := 0
	for stack, count := range tr.sites(tr.books()) {
		if strings.HasPrefix(stack, "plugin_lose < leak < ") && strings.Contains(stack, " < main < ") {
			n += count
		}
	}
	if n != 15 {
		t.Errorf("%d blocks of the plugin with complete stacks, want 15: %v", n, tr.sites(tr.books()))
	}
	balance(t, tr)
	prog.Quit()
}
