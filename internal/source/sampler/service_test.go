package sampler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/series"
)

func TestRestartKeepsPlace(t *testing.T) {
	f := newTree(t)
	for pid := 10; pid < 14; pid++ {
		f.run(worker.with(pid))
	}
	h := f.host()
	f.sweep(h)
	check := func(want string) {
		t.Helper()
		if got := workers(h, "server -x"); got != want {
			t.Errorf("the workers are %s, want %s", got, want)
		}
	}
	check("0=10 1=11 2=12 3=13")
	f.end(10)
	f.sweep(h)
	check("1=11 2=12 3=13")
	// Within one sweep the successor has the place of the one it replaces, not
	// the one that was free before.
	f.end(12)
	f.run(worker.with(20))
	s := f.sweep(h)
	check("1=11 2=20 3=13")
	if len(s.Began) != 1 || len(s.Ended) != 1 || s.Began[0].ID.PID != 20 || s.Ended[0].ID.PID != 12 || s.Ended[0].Worker != "2" {
		t.Errorf("began %+v, ended %+v", s.Began, s.Ended)
	}
	f.run(worker.with(21))
	f.run(worker.with(22))
	f.sweep(h)
	check("0=21 1=11 2=20 3=13 4=22")
	// The same PID with another start is another process.
	next := worker.with(20)
	next.start = 355_000
	f.run(next)
	h.MinAge = time.Second
	s = f.sweep(h)
	check("0=21 1=11 2=20 3=13 4=22")
	if len(s.Began) != 1 || len(s.Ended) != 1 || s.Began[0].ID.Start != 355_000 {
		t.Errorf("began %+v, ended %+v", s.Began, s.Ended)
	}
	if v := values(t, s)[series.Key{Metric: series.Started, Service: "server -x", Worker: "2"}]; v != 1_700_003_550 {
		t.Errorf("started at %f", v)
	}
	// All at once, as a service restarts.
	f.end(21, 11, 20, 13, 22)
	f.sweep(h)
	check("")
	for pid := 30; pid < 35; pid++ {
		f.run(worker.with(pid))
	}
	f.sweep(h)
	check("0=30 1=31 2=32 3=33 4=34")
}

// TestPlacesOfPrograms keeps the places of a unit's programs apart.
func TestPlacesOfPrograms(t *testing.T) {
	f := newTree(t)
	in := func(pid int, comm string) fake {
		return fake{pid: pid, comm: comm, exe: "/usr/bin/" + comm, args: []string{comm}, cgroup: "0::/system.slice/app.service\n"}
	}
	f.run(in(10, "master"))
	f.run(in(11, "helper"))
	f.run(in(12, "worker"))
	h := f.host()
	f.sweep(h)
	f.end(11)
	f.run(in(13, "worker"))
	f.sweep(h)
	if got := workers(h, "app.service"); got != "0=10 2=12 3=13" {
		t.Errorf("a worker took the helper's place: %s", got)
	}
	f.run(in(14, "helper"))
	f.sweep(h)
	if got := workers(h, "app.service"); got != "0=10 1=14 2=12 3=13" {
		t.Errorf("the helper did not find its place: %s", got)
	}
	for i := range 200 {
		f.run(in(1000+i, "once"+strconv.Itoa(i)))
		f.sweep(h)
		f.end(1000 + i)
	}
	f.sweep(h)
	if n := len(h.services["app.service"].slots); n > 4+spare {
		t.Errorf("ever new programs made %d places", n)
	}
}

// TestKnown goes on with the places that an earlier watch gave.
func TestKnown(t *testing.T) {
	f := newTree(t)
	for pid := 10; pid < 13; pid++ {
		f.run(worker.with(pid))
	}
	h := f.host()
	f.sweep(h)
	f.end(10)
	f.sweep(h)
	again := f.host()
	again.Known = h.Processes()
	f.run(worker.with(13))
	f.sweep(again)
	if got := workers(again, "server -x"); got != "0=13 1=11 2=12" {
		t.Errorf("after a restart of the watch the workers are %s", got)
	}
}

// TestEverNewCommands holds the number of services of one program.
func TestEverNewCommands(t *testing.T) {
	f := newTree(t)
	h := f.host()
	names := map[string]bool{}
	for i := range manyCommands + 30 {
		f.run(fake{pid: 10 + i, comm: "job", exe: "/usr/bin/job", args: []string{"job", strconv.Itoa(i)}, cgroup: "0::/\n"})
		if i%10 == 9 {
			for _, p := range f.sweep(h).Began {
				names[p.Service] = true
			}
		}
		if i > 20 {
			f.end(10 + i - 20)
		}
	}
	if len(names) != manyCommands+1 || !names["job *"] {
		t.Errorf("%d services: %q", len(names), slices.Sorted(maps.Keys(names)))
	}
	// All at once, of a program whose name is no text.
	for i := range manyCommands + 30 {
		f.run(fake{pid: 1000 + i, comm: "job", exe: "/usr/bin/a\x1b[1m\nb", args: []string{"x", strconv.Itoa(i)}, cgroup: "0::/\n"})
	}
	s := f.sweep(h)
	names = map[string]bool{}
	for _, p := range s.Began {
		names[p.Service] = true
	}
	if len(names) != manyCommands+1 || !names["a?[1m b *"] {
		t.Errorf("%d services: %q", len(names), slices.Sorted(maps.Keys(names)))
	}
	if len(s.Notes) != 1 || strings.ContainsAny(s.Notes[0], "\x1b\n") {
		t.Errorf("notes %q", s.Notes)
	}
}
