package probe

import (
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
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

// TestExactMemory: books of exact blocks take little, and grow with them.
func TestExactMemory(t *testing.T) {
	prog := fixture.Start(t, compile(t, "pairs.c"))
	o := options()
	o.Exact = true
	tr := place(t, prog, o)
	tr.watching()
	occupied := func() float64 {
		tr.look()
		return tr.seen.gauges[leak.GaugeProbeBytes]
	}
	few := occupied()
	prog.Ask("fill 1000 40", "ok")
	small := occupied()
	if small-few > 300<<10 || small > 4<<20 {
		t.Errorf("%.0f KiB for a thousand blocks, %.0f KiB before", small/1024, few/1024)
	}
	const n = 1000000
	prog.Ask("empty", "ok")
	prog.Ask("fill 1000000 40", "ok")
	many := occupied()
	if held := len(tr.books()); held < n || held > n+20 {
		t.Errorf("%d records of %d blocks", held, n)
	}
	if per := (many - small) / n; per > 64 {
		t.Errorf("%.1f bytes for each of a million blocks", per)
	}
	t.Logf("%.0f KiB empty, %.0f KiB with a thousand blocks, %.1f MiB with a million", few/1024, small/1024, many/(1<<20))
	prog.Ask("empty", "ok")
	if held := len(tr.books()); held > 20 {
		t.Errorf("%d records after all was freed", held)
	}
	for _, g := range tr.seen.gaps {
		t.Errorf("gap: %v", g)
	}
	prog.Quit()
}

// TestExactFull: books without room say so once, and what they hold stays true.
func TestExactFull(t *testing.T) {
	prog := fixture.Start(t, compile(t, "pairs.c"))
	o := options()
	o.Exact, o.MaxMemory = true, 16<<20
	tr := place(t, prog, o)
	tr.watching()
	prog.Ask("fill 600000 40", "ok")
	tr.look()
	held := len(tr.books())
	if held < 50000 || held >= 600000 {
		t.Errorf("%d records in 16 MiB", held)
	}
	prog.Ask("random 300000", "ns")
	tr.look()
	tr.look()
	if n := len(tr.seen.gaps); n != 1 || !tr.seen.gapAbout("held blocks is full") {
		t.Errorf("%d gaps: %v", n, tr.seen.gaps)
	}
	prog.Ask("empty", "ok")
	if held := len(tr.books()); held > 20 {
		t.Errorf("%d records after all was freed", held)
	}
	prog.Quit()
}
