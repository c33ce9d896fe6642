package probe

import (
	"context"
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// TestC runs the checks of the probe's C, compiled for this machine.
func TestC(t *testing.T) {
	probe := "../../../probe/"
	for _, flags := range [][]string{{"-O2"}, {"-O1", "-fsanitize=address,undefined"}} {
		exe := filepath.Join(t.TempDir(), "check")
		args := append([]string{"-g", "-Wall", "-Wextra", "-Werror", "-I" + probe, "-o", exe, "testdata/books_check.c",
			probe + "hooks.c", probe + "books.c", probe + "stack.c", probe + "sample.c", "-lm", "-pthread"}, flags...)
		if b, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("gcc %v: %v\n%s", args, err, b)
		}
		if b, err := exec.Command(exe).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", flags, err, b)
		}
	}
}

// TestUnbiased compares what sampling estimates with what a program did: the
// sum over blocks of each size, in four threads, held and released apart.
func TestUnbiased(t *testing.T) {
	prog := fixture.Start(t, compile(t, "count.c"))
	o := options()
	o.SampleBytes = 16 << 10
	tr := place(t, prog, o)
	const threads, rounds = 4, 20000
	prog.Ask("make 4 20000", "ok")
	tr.look()

	// What is held, by size: the sum of weights estimates the number, with the
	// variance of a Horvitz-Thompson estimate.
	n, variance := map[uint64]float64{}, map[uint64]float64{}
	for _, a := range tr.books() {
		if a.Exact {
			t.Fatal("an exact record without an aim")
		}
		n[a.Size] += a.Weight
		variance[a.Size] += a.Weight * (a.Weight - 1)
	}
	for _, size := range []uint64{1, 24, 100, 400, 3000, 70000} {
		const held = threads * rounds / 2
		if d := math.Abs(n[size] - held); d > 5*math.Sqrt(variance[size])+1 {
			t.Errorf("%d bytes: %.0f held are estimated, %d are", size, n[size], held)
		}
		t.Logf("%6d bytes: %.0f of %d, deviation %.0f", size, n[size], held, math.Sqrt(variance[size]))
	}

	// The tallies, computed in the target: by call site.
	var take, give leak.Tally
	for k, y := range tr.seen.tallies {
		switch names := tr.seen.names(k.stack); {
		case len(names) > 0 && names[0] == "take":
			take.Acquired, take.Released = plus(take.Acquired, y.Acquired), plus(take.Released, y.Released)
		case len(names) > 0 && names[0] == "give":
			give.Acquired, give.Released = plus(give.Acquired, y.Acquired), plus(give.Released, y.Released)
		}
	}
	bytes := float64(threads*rounds/2) * (1 + 24 + 100 + 400 + 3000 + 70000)
	// 70000 bytes are nearly always sampled; 3000 dominate the error.
	tolerance := 5 * math.Sqrt(threads*rounds/2*3000.0*16384)
	for _, c := range []struct {
		what       string
		have, want float64
	}{
		{"bytes acquired and held", take.Acquired.Bytes, bytes}, {"bytes acquired and freed", give.Acquired.Bytes, bytes},
		{"bytes released of held", take.Released.Bytes, 0}, {"bytes released of freed", give.Released.Bytes, give.Acquired.Bytes},
		{"blocks released of freed", give.Released.N, give.Acquired.N},
	} {
		if math.Abs(c.have-c.want) > tolerance {
			t.Errorf("%s: %.0f, want %.0f (within %.0f)", c.what, c.have, c.want, tolerance)
		}
	}
	if give.Acquired != give.Released {
		t.Errorf("all of give was freed: acquired %v, released %v", give.Acquired, give.Released)
	}
	calls := tr.seen.gauges[leak.GaugeProbeCalls]
	if want := float64(threads * rounds * 6); calls < want || calls > want+200 {
		t.Errorf("%.0f allocations counted, the program made %.0f and a few", calls, want)
	}
}

// TestForkedChild: hooks that a child inherits are quiet, its memory shows
// nothing of the books, and Detach takes them out of it.
func TestForkedChild(t *testing.T) {
	prog := fixture.Start(t, compile(t, "count.c"))
	o := options()
	o.Aim = aim(400)
	tr := place(t, prog, o)
	tr.look()
	prog.Ask("make 1 10", "ok")
	before := len(tr.books())
	if before < 5 {
		t.Fatalf("%d records", before)
	}
	var pid int
	if _, err := sscan(prog.Ask("fork", "child"), "child %d", &pid); err != nil {
		t.Fatal(err)
	}
	child := open(t, pid)
	mem, err := child.Mem()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	near, err := read(mem, tr.p.near().start, tr.p.near().size)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range near {
		if b != 0 {
			t.Fatalf("the child's state is %#x at %#x", b, i)
		}
	}
	if after := len(tr.books()); after != before {
		t.Errorf("%d records after a fork, %d before", after, before)
	}
	found, err := Detach(context.Background(), child, options())
	if err != nil || !found {
		t.Errorf("detach from the child: %v %v", found, err)
	}
	clean(t, child)
	prog.Ask("make 1 10", "ok")
	if after := len(tr.books()); after < before+5 {
		t.Errorf("%d records after more allocations, %d before", after, before)
	}
}

// TestResident: what the probe occupies is far less than what it may.
func TestResident(t *testing.T) {
	prog := fixture.Start(t, compile(t, "basic.c"))
	tr := place(t, prog, options())
	tr.look()
	prog.Ask("churn 100000", "ok")
	tr.look()
	bytes := tr.seen.gauges[leak.GaugeProbeBytes]
	if bytes < 16<<10 || bytes > 4<<20 {
		t.Errorf("%.0f bytes are occupied, %d may be", bytes, tr.p.Placement().Memory)
	}
	t.Logf("%.0f KiB", bytes/1024)
}
