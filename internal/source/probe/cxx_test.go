package probe

import (
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// TestBadAlloc: an operator new that is recorded and fails throws as it did
// before, through frames that know nothing of the probe; what succeeds is
// recorded.
func TestBadAlloc(t *testing.T) {
	exe := compile(t, "throws.cc", "-std=c++17")
	for _, v := range []variant{glibc, jemalloc, tcmalloc} {
		t.Run(v.name, func(t *testing.T) {
			prog := fixture.StartEnv(t, v.env, exe)
			o := options()
			o.Aim = leak.Aim{Sizes: []leak.SizeRange{{Min: 40e6, Max: 60e6}}}
			tr := place(t, prog, o)
			tr.look()
			t.Log(tr.p.Placement().Functions, tr.p.Placement().Notes)
			prog.Ask("limit 700", "ok")
			for _, more := range []string{"", "handler"} {
				if more != "" {
					prog.Ask(more, "ok")
				}
				prog.Ask("throw", "ok")
				var caught, held, handled int
				if _, err := sscan(prog.Ask("check", "ok"), "ok %d %d %d", &caught, &held, &handled); err != nil {
					t.Fatal(err)
				}
				want := 5
				if more != "" {
					want = 10
				}
				n := 0
				for _, a := range tr.books() {
					if a.Exact {
						n++
					}
				}
				if caught != want || held < 2 || n != held {
					t.Errorf("caught %d of %d, %d blocks held, %d recorded", caught, want, held, n)
				}
			}
			if err := tr.p.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			prog.Quit()
		})
	}
}
