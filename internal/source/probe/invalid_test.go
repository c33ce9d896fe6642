package probe

import (
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// alone is a static program with room behind its code for a system call, which
// stanch needs to map anything.
var alone = variant{name: "static", flags: []string{"-falign-functions=256", "-static"}}

// fromStart places an exact probe in a program that has not allocated yet.
func fromStart(t *testing.T, v variant) (*fixture.Proc, *trial) {
	t.Helper()
	prog := fixture.StartEnv(t, v.env, compile(t, "invalid.c", append([]string{"-Wno-use-after-free"}, v.flags...)...))
	o := options()
	o.Exact, o.FromStart = true, true
	return prog, place(t, prog, o)
}

// invalids reads what was said since the last time.
func (tr *trial) invalids() []leak.Invalid {
	tr.t.Helper()
	tr.seen.mu.Lock()
	tr.seen.invalid = nil
	tr.seen.mu.Unlock()
	tr.look()
	return tr.seen.invalid
}

// TestInvalid: what is freed twice, or never was a block, is said with its
// stacks; what is freed as it should be is not.
func TestInvalid(t *testing.T) {
	for _, v := range []variant{glibc, alone} {
		t.Run(v.name, func(t *testing.T) { invalid(t, v) })
	}
}

func invalid(t *testing.T, v variant) {
	prog, tr := fromStart(t, v)
	path := func(id leak.StackID) string { return strings.Join(tr.seen.names(id), " < ") }
	one := func(command string) leak.Invalid {
		t.Helper()
		prog.Ask(command, "ok")
		list := tr.invalids()
		if len(list) != 1 {
			t.Fatalf("%s: %d said: %+v", command, len(list), list)
		}
		return list[0]
	}
	prog.Ask("fine", "ok")
	prog.Ask("reused", "ok")
	if list := tr.invalids(); len(list) > 0 {
		for _, i := range list {
			t.Errorf("%+v: %s; acquired %s; released %s", i, path(i.Stack), path(i.Acquired), path(i.Released))
		}
	}
	i := one("double")
	if !i.Double || i.Size != 40 || i.Ref.Kind != leak.KindMemory {
		t.Errorf("double: %+v", i)
	}
	for what, have := range map[string]string{"again < main": path(i.Stack), "make < main": path(i.Acquired), "give_back < main": path(i.Released)} {
		if !strings.HasPrefix(have, what) {
			t.Errorf("double: stack %q, want %q", have, what)
		}
	}
	i = one("wild")
	if i.Double || !strings.HasPrefix(path(i.Stack), "give_back < main") {
		t.Errorf("wild: %+v from %s", i, path(i.Stack))
	}
	i = one("resize")
	if i.Double || !strings.HasPrefix(path(i.Stack), "resize < main") {
		t.Errorf("resize: %+v from %s", i, path(i.Stack))
	}
	// A child's are none of ours.
	prog.Ask("fork", "ok")
	if list := tr.invalids(); len(list) > 0 {
		t.Errorf("fork: %+v", list)
	}
	for _, g := range tr.seen.gaps {
		t.Errorf("gap: %v", g)
	}
	// More than there is room for: the newest, and how many are missing.
	prog.Ask("many", "ok")
	list := tr.invalids()
	if len(list) != wEvents || len(tr.seen.gaps) != 1 || tr.seen.gaps[0].Lost != 10000-wEvents {
		t.Errorf("%d of 10000 said, gaps %v", len(list), tr.seen.gaps)
	}
	prog.Quit()
}

// TestInvalidNever: other allocators' functions call each other; none of that
// is invalid.
func TestInvalidNever(t *testing.T) {
	for _, v := range []variant{glibc, alone, jemalloc, tcmalloc} {
		t.Run(v.name, func(t *testing.T) {
			prog, tr := fromStart(t, v)
			if v.name != glibc.name {
				// They allocate for themselves before main; those blocks are
				// theirs.
				prog.Ask("reused", "ok")
			}
			prog.Ask("fine", "ok")
			for _, i := range tr.invalids() {
				t.Errorf("%+v: %v", i, tr.seen.names(i.Stack))
			}
			prog.Quit()
		})
	}
}
