package fdtrace

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestAccepts measures a server under 10,000 connections a second: nothing may
// be lost with the default ring.
func TestAccepts(t *testing.T) {
	p := run(t, build(t, "../../../testdata/leaky/fdaccept.c"))
	w := trace(t, p.target, Options{Raw: true, NoUses: true})
	p.write("accept 20000 10000")
	began := time.Now()
	said := ""
	for line := range p.lines {
		if said = line; strings.HasPrefix(line, "ok") {
			break
		}
	}
	took := time.Since(began)
	w.end()
	s := w.tracer.Stats()
	var seconds float64
	if _, err := fmt.Sscanf(said, "ok %f", &seconds); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	t.Logf("20,000 accepts in %.1f s, %d events, %d dropped; the reader used %v of CPU, %.1f %%", seconds, s.Events, s.Dropped, s.CPU, 100*s.CPU.Seconds()/took.Seconds())
	accepted := 0
	for _, a := range w.acquires {
		if strings.HasPrefix(a.Call, "accept") && a.Stack != 0 {
			accepted++
		}
	}
	if accepted != 20000 || s.Dropped > 0 {
		t.Errorf("%d of 20,000 accepts were seen with their stack, %d events dropped", accepted, s.Dropped)
	}
}
