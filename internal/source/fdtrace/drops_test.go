package fdtrace

import "testing"

// TestDrops holds that what a ring loses that is too small is counted, and
// that no opener is wrong then.
func TestDrops(t *testing.T) {
	p := run(t, build(t, model), "3", "20000")
	w := trace(t, p.target, Options{Scope: Tree, Raw: true, RingBytes: 1 << 16})
	p.write("go")
	for _, line := range p.until("done") {
		t.Error(line)
	}
	w.end()
	p.write("report")
	checkModel(t, w, p.until("end"))
	s := w.tracer.Stats()
	if s.Dropped == 0 || s.Dropped >= s.Events {
		t.Errorf("%d of %d events were dropped", s.Dropped, s.Events)
	}
	told := false
	for _, g := range w.gaps {
		told = told || g.Lost == s.Dropped
	}
	if !told {
		t.Errorf("%d were dropped, the gaps are %+v", s.Dropped, w.gaps)
	}
}
