package probe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// TestServers watches real servers under load, with many sizes aimed at: every
// answer stays right, blocks are recorded with stacks up to main, and the
// probe comes out again.
func TestServers(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func() *fixture.Server
		pid   func(*fixture.Server) int
	}{
		{"nginx", func() *fixture.Server { return fixture.Nginx(t) }, func(s *fixture.Server) int { return s.PIDs()[1] }},
		{"redis", func() *fixture.Server { return fixture.Redis(t) }, func(s *fixture.Server) int { return s.PID() }},
		{"memcached", func() *fixture.Server { return fixture.Memcached(t) }, func(s *fixture.Server) int { return s.PID() }},
		{"python", func() *fixture.Server { return fixture.PythonHTTP(t, "PYTHONMALLOC=malloc") }, func(s *fixture.Server) int { return s.PID() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.start()
			load := s.Load(4, 400)
			eventually(t, "the server answers", func() bool { return load.SoFar().Requests > 20 })
			o := options()
			o.Aim = leak.Aim{Sizes: []leak.SizeRange{{Min: 1, Max: 1000}}}
			o.SampleBytes = 64 << 10
			o.Inputs, o.Descriptors = true, true
			tr := placeIn(t, c.pid(s), o)
			stop := tr.watching()
			from := load.SoFar().Requests
			eventually(t, "it goes on", func() bool { return load.SoFar().Requests > from+200 })
			stop()
			tr.look()
			if err := tr.p.Books(nil, tr.seen); err != nil {
				t.Error(err)
			}
			checkTallies(t, tr)
			if err := tr.p.Remove(t.Context()); err != nil {
				t.Errorf("remove: %v", err)
			}
			from = load.SoFar().Requests
			eventually(t, "it goes on without", func() bool { return load.SoFar().Requests > from+50 })
			got := load.Stop()
			if got.Errors > 0 {
				t.Errorf("%d of %d requests failed, the first: %v", got.Errors, got.Requests, got.First)
			}
			t.Logf("%s: %d requests, longest %v; pauses %v; %v", tr.p.Placement().Allocator, got.Requests, got.Longest.Round(time.Millisecond),
				tr.p.Placement().Pauses, tr.p.Placement().Notes)
		})
	}
}

// checkTallies expects that no stack releases more than it acquired, and that
// nearly all stacks are complete.
func checkTallies(t *testing.T, tr *trial) {
	t.Helper()
	n, whole := 0, 0
	var broken []string
	for k, y := range tr.seen.tallies {
		if y.Released.N > y.Acquired.N || y.Released.Bytes > y.Acquired.Bytes {
			t.Errorf("a stack acquired %v and released %v", y.Acquired, y.Released)
		}
		names := strings.Join(tr.seen.names(k.stack), " < ")
		n++
		if strings.Contains(names, "main") || strings.Contains(names, "start_thread") || strings.Contains(names, "clone3") || strings.Contains(names, "_start") {
			whole++
		} else if len(broken) < 5 {
			broken = append(broken, names)
		}
	}
	if n == 0 || whole < n*95/100 { // memcached asks for memory rarely, and in large pieces
		t.Errorf("%d of %d stacks are complete, such as not:\n\t%s", whole, n, strings.Join(broken, "\n\t"))
	}
	t.Log(fmt.Sprintf("%d stacks, %d complete", n, whole), tr.seen.gaps)
}
