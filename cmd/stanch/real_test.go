package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// TestRealPrograms diagnoses servers as Debian ships them while they serve:
// they go on serving, and nothing in them is called a leak.
func TestRealPrograms(t *testing.T) {
	privileged(t)
	for name, c := range map[string]struct {
		start  func(testing.TB) *fixture.Server
		worker int // which of its processes does the work
		code   int
		reason string
	}{
		"nginx":         {fixture.Nginx, 1, 0, ""},
		"redis":         {fixture.Redis, 0, 4, "jemalloc"},
		"memcached":     {fixture.Memcached, 0, 0, ""},
		"python":        {func(tb testing.TB) *fixture.Server { return fixture.PythonHTTP(tb) }, 0, 0, ""},
		"python malloc": {func(tb testing.TB) *fixture.Server { return fixture.PythonHTTP(tb, "PYTHONMALLOC=malloc") }, 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.start(t)
			pid := s.PIDs()[c.worker]
			load := s.Load(3, 150)
			for deadline := time.Now().Add(limit); load.SoFar().Requests < 100 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond) // until it is warm, with a deadline
			}
			before := look(t, pid)

			o := stanch(t, "diagnose", roomy, "--for", "5s", "--format", "json", strconv.Itoa(pid))
			o.wantCode(t, c.code)
			r := o.report(t)
			noLeaks(t, r)
			if c.reason == "" && (len(r.Targets) != 1 || r.Targets[0].HeapBlocks == nil || *r.Targets[0].HeapBlocks == 0) {
				t.Errorf("no heap was walked:\n%s", o.out)
			}
			if words := strings.Join(append(r.Notes, r.Gaps...), "\n"); !strings.Contains(words, c.reason) {
				t.Errorf("it is not said that %q is the reason:\n%s", c.reason, words)
			}
			if p := r.Observed.ProbeRemoved; p == nil || !*p {
				t.Errorf("no probe was placed and removed; notes: %q", r.Notes)
			}
			for _, n := range r.Notes {
				t.Log(n)
			}
			t.Logf("pauses %v ms", r.Observed.PauseMS)

			asked := load.SoFar().Requests
			for deadline := time.Now().Add(limit); load.SoFar().Requests < asked+50 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond) // until it has served on, with a deadline
			}
			got := load.Stop()
			if got.Errors > 0 || got.Requests < asked+50 {
				t.Errorf("of %d requests %d failed: %v", got.Requests, got.Errors, got.First)
			}
			t.Logf("%d requests, the longest took %v", got.Requests, got.Longest)
			if err := s.Serving(); err != nil {
				t.Error(err)
			}
			sameCode(t, pid, before, look(t, pid))
		})
	}
}

// TestRealAllocations diagnoses python3 while it makes and drops objects, each
// of them a block of malloc.
func TestRealAllocations(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.PythonAlloc(t, "PYTHONMALLOC=malloc")
	before := look(t, p.PID())
	o := stanch(t, "diagnose", roomy, "--for", "5s", "--format", "json", pid(p))
	o.wantCode(t, 0)
	noLeaks(t, o.report(t))
	p.Ask("check", "ok")
	sameCode(t, p.PID(), before, look(t, p.PID()))
	p.Quit()
}

// noLeaks fails the test when something is called a leak.
func noLeaks(t *testing.T, r *leak.Report) {
	t.Helper()
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity == leak.SeverityLeak {
			t.Errorf("%s: %d blocks of %d bytes, before %+v, %q", f.Title, f.Count, f.Bytes, f.BeforeAttach, f.Evidence)
		}
	}
}

// TestHeldByKernel: blocks whose only pointer the kernel has are not lost:
// connections in epoll, values of timers, requests in rings.
func TestHeldByKernel(t *testing.T) {
	privileged(t)
	for _, c := range []struct {
		name     string
		commands []string
		unseen   bool // requests that only the kernel knows: a note may tell of them
	}{
		{"epollserver", []string{"keep 60", "free 10"}, false},
		{"timers", []string{"keep 60", "free 10"}, false},
		{"iouring", []string{"done 20", "queued 10"}, false},
		{"iouring", []string{"keep 30", "done 20"}, true},
		{"aiopending", []string{"keep 20"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := fixture.Start(t, fixture.Build(t, c.name))
			for _, line := range c.commands {
				p.Ask(line, "ok")
			}
			for _, command := range [][]string{{"scan"}, {"diagnose", "--for", "2s"}} {
				o := stanch(t, append(command, roomy, "--format", "json", pid(p))...)
				o.wantCode(t, 0)
				r := o.report(t)
				noLeaks(t, r)
				if n := r.Targets[0].LostBlocks; !c.unseen && (n == nil || *n != 0) {
					t.Errorf("lost blocks:\n%s", o.out)
				}
			}
			p.Quit()
		})
	}
}

// TestEpollServerUnderLoad: connections that come and go while stanch looks,
// and a real loss among them.
func TestEpollServerUnderLoad(t *testing.T) {
	privileged(t)
	t.Parallel()
	server := fixture.Start(t, fixture.Build(t, "epollserver", "-O2"), "-t", "2")
	port := strings.TrimPrefix(server.Ask("port", "port "), "port ")
	server.Ask("keep 40", "ok")
	load := fixture.Start(t, fixture.Build(t, "echoload", "-O2"), port, "-c", "8", "-r", "800")
	load.Ask("start", "ok")
	o := stanch(t, "diagnose", roomy, "--for", "4s", "--format", "json", pid(server))
	o.wantCode(t, 0)
	noLeaks(t, o.report(t))

	server.Ask("leak 30", "ok")
	o = stanch(t, "scan", roomy, "--format", "json", pid(server))
	o.wantCode(t, 3)
	if s := sumLeaks(o.report(t)); s.count < 29 || s.count > 30 {
		t.Errorf("%d blocks are called leaked, 30 are:\n%s", s.count, o.out)
	}
	t.Log(load.Ask("stop", "requests "))
	load.Quit()
	server.Quit()
}
