package probe

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
	"stanch/internal/proc"
)

var poolHooks = []Hook{
	{Name: "pool_get", Alloc: true, Size: 1},
	{Name: "pool_put", Free: true, Ptr: 2},
	{Name: "pool_array", Alloc: true, Count: 1, Size: 2},
	{Name: "pool_resize", Alloc: true, Free: true, Ptr: 1, Size: 2},
	{Name: "pool_many", Alloc: true, Size: 2},
	{Name: "pool_named", Alloc: true, Size: 1},
}

// TestPools: blocks of the program's own allocator are recorded beside
// malloc's, with their own stacks, whatever its functions call inside.
func TestPools(t *testing.T) {
	for _, exact := range []bool{false, true} {
		t.Run(fmt.Sprintf("exact=%v", exact), func(t *testing.T) { poolsOf(t, exact) })
	}
}

func poolsOf(t *testing.T, exact bool) {
	prog := fixture.Start(t, compile(t, "pools.c"))
	o := options()
	o.Exact, o.Hooks = exact, poolHooks
	tr := place(t, prog, o)
	tr.look()
	chunks := 0
	want := func(list ...string) {
		t.Helper()
		have, wanted := map[string]int{}, map[string]int{}
		for _, a := range tr.books() {
			names := tr.seen.names(a.Stack)
			switch {
			case a.Ref.Kind == leak.KindPool:
				if !a.Exact || len(names) < 2 || names[0] == "?" {
					t.Errorf("a block of %d bytes: %v", a.Size, names)
				}
				have[fmt.Sprintf("%d %s", a.Size, names[0])]++
			case exact && a.Size == 64*512:
				chunks++
				if path := strings.Join(names, " < "); !strings.HasPrefix(path, "refill < pool_get < main") {
					t.Errorf("stack of malloc inside of a pool: %s", path)
				}
			}
		}
		for _, line := range list {
			var n int
			var what string
			if _, err := sscan(line, "%d", &n); err != nil {
				t.Fatal(err)
			}
			_, what, _ = strings.Cut(line, " ")
			wanted[what] = n
		}
		if fmt.Sprint(have) != fmt.Sprint(wanted) {
			t.Errorf("held %v, want %v", have, wanted)
		}
	}
	prog.Ask("get 100", "ok")
	want("100 40 main")
	prog.Ask("put 90", "ok")
	want("10 40 main")
	prog.Ask("array", "ok")
	want("10 40 main", "1 77 main")
	prog.Ask("resize", "ok")
	want("10 40 main", "1 99 main")
	prog.Ask("many", "ok")
	prog.Ask("named", "ok")
	want("10 40 main", "1 99 main", "1 123 main", "1 124 main")
	prog.Ask("put 13", "ok")
	want()
	if exact && chunks == 0 {
		t.Error("malloc inside of a pool is not recorded")
	}
	for key, y := range tr.seen.tallies {
		if key.kind == leak.KindPool && (y.Acquired != y.Released || y.Acquired.N == 0) {
			t.Errorf("tally %+v", y)
		}
	}
	for _, g := range tr.seen.gaps {
		t.Errorf("gap: %v", g)
	}
	if err := tr.p.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	prog.Ask("get 100", "ok")
	again := place(t, prog, o)
	again.look()
	prog.Ask("put 50", "ok")
	prog.Ask("get 20", "ok")
	n := 0
	for _, a := range again.books() {
		if a.Ref.Kind == leak.KindPool {
			n++
		}
	}
	if n != 20 {
		t.Errorf("%d records after the second placement, want 20", n)
	}
	if err := again.p.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	prog.Ask("put 10", "ok")
	prog.Quit()
}

// TestPoolsRefused: what cannot be hooked is refused in one line, and the
// target is left as it was.
func TestPoolsRefused(t *testing.T) {
	prog := fixture.Start(t, compile(t, "pools.c"))
	for _, c := range []struct {
		hook Hook
		want string
	}{
		{Hook{Name: "pool_nothing", Alloc: true}, "no loaded file has a function of that name"},
		{Hook{Name: "tiny", Alloc: true}, "it is shorter than 5 bytes"},
		{Hook{Name: "pool_get"}, "neither returns blocks nor takes them back"},
		{Hook{Name: "pool_put", Free: true}, "which argument is the block"},
		{Hook{Name: "pool_put", Free: true, Ptr: 7}, "first six arguments"},
		{Hook{Name: "_Z3getm", Alloc: true, Size: 1}, "may throw"},
	} {
		o := options()
		o.Hooks = []Hook{c.hook}
		o.Clock, o.Atlas = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil)
		target := open(t, prog.PID())
		_, err := Place(t.Context(), target, o)
		if !errors.Is(err, proc.ErrUnsupported) && !errors.Is(err, ErrNoFunction) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", c.hook, err)
		}
		clean(t, target)
	}
	prog.Ask("get 5", "ok")
	prog.Quit()
}
