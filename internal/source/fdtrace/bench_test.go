package fdtrace

import (
	"fmt"
	"testing"
)

// TestCost measures what tracing costs the traced process and others, and says
// it: a bound would fail on a busy machine.
func TestCost(t *testing.T) {
	exe := build(t, "testdata/pairs.c")
	traced, other := run(t, exe), run(t, exe)
	ask := func(p *program, what string) []float64 {
		p.write(what)
		lines := p.until("done")
		var out []float64
		var v [3]float64
		n, _ := fmt.Sscan(lines[0], &v[0], &v[1], &v[2])
		return append(out, v[:n]...)
	}
	nativePair, nativeCalls := ask(traced, "pairs"), ask(other, "calls")
	t.Logf("native: a pair %.0f ns; in others a call, a read, a pair %.0f ns", nativePair, nativeCalls)
	for _, o := range []Options{{Raw: true}, {Raw: true, NoUses: true}, {NoUses: true}} {
		w := trace(t, traced.target, o)
		pair, calls := ask(traced, "pairs"), ask(other, "calls")
		w.end()
		s := w.tracer.Stats()
		t.Logf("raw %v, no uses %v: a pair %.0f ns, %.2f times native; in others a call %+.0f, a read %+.0f, a pair %+.0f ns; %d events, %d dropped, CPU %v",
			o.Raw, o.NoUses, pair, pair[0]/nativePair[0], calls[0]-nativeCalls[0], calls[1]-nativeCalls[1], calls[2]-nativeCalls[2], s.Events, s.Dropped, s.CPU)
		if err := w.tracer.Close(); err != nil {
			t.Error(err)
		}
	}
}
