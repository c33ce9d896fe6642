package sampler

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
	"stanch/internal/series"
)

// TestPace says what is fast each time, and what is slow once in its time, also
// when many began together.
func TestPace(t *testing.T) {
	f := newTree(t)
	for pid := 100; pid < 200; pid++ {
		f.run(fake{pid: pid, comm: "server", exe: "/usr/bin/server", args: []string{"server"}, cgroup: "0::/\n"})
	}
	h := f.host()
	f.sweep(h)
	times := map[series.Key]int{}
	most := 0
	f.now.Boot += time.Hour // a suspend, after which all are due at once
	f.sweep(h)
	const sweeps = 24 * 2 // twice 4 minutes
	for range sweeps {
		slow := 0
		for k := range values(t, f.sweep(h)) {
			times[k]++
			if k.Metric == series.PSS || k.Metric == series.Data {
				slow++
			}
		}
		most = max(most, slow)
	}
	for k, n := range times {
		info, _ := series.Describe(k.Metric)
		switch {
		case k.Worker == "":
		case !info.Slow && k.Metric != series.FDs && n != sweeps:
			t.Errorf("%v was said %d times in %d sweeps", k, n, sweeps)
		case info.Slow && (n < 2 || n > 3):
			t.Errorf("%v was said %d times in twice its pace", k, n)
		}
	}
	if most > 30 { // 100 processes, two turns of either kind in 24 sweeps, and the first round in a minute
		t.Errorf("one sweep had %d slow turns", most)
	}
}

// TestBudget holds the time in which page tables are walked, and that all have
// their turn; the largest are left alone.
func TestBudget(t *testing.T) {
	f := newTree(t)
	const pages = 1 << 30 / 4096 // 15 ms each, of a budget of 10 ms a sweep
	busy := func(faults int) {
		for pid := 10; pid < 20; pid++ {
			f.run(fake{pid: pid, comm: "big", exe: "/big", args: []string{"big"}, cgroup: "0::/\n", rss: pages, faults: faults})
		}
	}
	busy(0)
	f.run(fake{pid: 30, comm: "huge", exe: "/huge", args: []string{"huge"}, cgroup: "0::/\n", rss: 3 * pages})
	h := f.host()
	notes := 0
	walked := map[series.Key]int{}
	const sweeps = 60
	for i := range sweeps {
		if i == sweeps/2 {
			f.now.Boot += 24 * time.Hour // a suspend
		}
		busy(i)
		s := f.sweep(h)
		notes += len(s.Notes)
		n := 0
		for k := range values(t, s) {
			if k.Metric == series.PSS {
				walked[k]++
				n++
			}
		}
		if n > 1 && i != sweeps/2 || n > 5 {
			t.Errorf("sweep %d walks the page tables of %d GiB", i, n)
		}
	}
	all := 0
	for k, n := range walked {
		all += n
		if k.Service != "big" || n < 2 || n > 5 {
			t.Errorf("%v was measured %d times", k, n)
		}
	}
	if len(walked) != 10 || all > sweeps*10/15 || notes != 1 {
		t.Errorf("%d processes were measured, %d times in all; %d notes", len(walked), all, notes)
	}
}

// TestPagesAreSaidAgain walks the page tables only of what has had page faults,
// and of all now and then.
func TestPagesAreSaidAgain(t *testing.T) {
	f := newTree(t)
	f.run(worker.with(10))
	h := f.host()
	h.Slow = time.Second
	key := series.Key{Metric: series.PSS, Service: "server -x", Worker: "0"}
	f.sweep(h)
	if v := values(t, f.sweep(h))[key]; v != 60<<10 {
		t.Fatalf("pss is %v", v)
	}
	f.write("10/smaps_rollup", "Pss: 61 kB\nPrivate_Dirty: 1 kB\n")
	for i := range sayAgain {
		if v, said := values(t, f.sweep(h))[key]; !said || v != 60<<10 {
			t.Errorf("turn %d: pss is %v (said: %v)", i, v, said)
		}
	}
	if v := values(t, f.sweep(h))[key]; v != 61<<10 {
		t.Errorf("in the end pss is %v", v)
	}
	f.write("10/smaps_rollup", "Pss: 62 kB\nPrivate_Dirty: 1 kB\n")
	f.write("10/stat", "10 (server) S 1 1 1 0 -1 0 101 0 7 0 250 50 0 0 20 0 1 0 180010 4096 1\n")
	if v := values(t, f.sweep(h))[key]; v != 62<<10 {
		t.Errorf("after a page fault pss is %v", v)
	}
}

// TestTablesAreKept reads a table of sockets the less often the more it cost,
// whoever asks for it.
func TestTablesAreKept(t *testing.T) {
	f := newTree(t)
	var b strings.Builder
	const sockets = 100_000 // 208 ms, which are worth 14 minutes
	for i := range sockets {
		fmt.Fprintf(&b, "   0: 0100007F:1F90 00000000:0000 08 00000000:00000000 00:00000000 00000000     0        0 %d 1\n", 500+i)
	}
	f.write("tcp", b.String())
	for pid := 10; pid < 50; pid++ {
		f.run(worker.with(pid))
		f.link(fmt.Sprintf("%d/fd/0", pid), "socket:[500]")
		f.link(fmt.Sprintf("%d/ns/net", pid), "net:[4026531840]")
		f.link(fmt.Sprintf("%d/net/tcp", pid), f.dir+"/tcp")
	}
	h := f.host()
	reads, last := 0, time.Duration(0)
	for range 2 * 360 { // two hours
		f.sweep(h)
		for _, table := range h.tables {
			if table.read != last {
				reads, last = reads+1, table.read
			}
		}
	}
	if reads < 4 || reads > 9 {
		t.Errorf("in two hours the table was read %d times", reads)
	}
	f.end(10)
	for pid := 11; pid < 50; pid++ {
		f.end(pid)
	}
	for range 360 {
		f.sweep(h)
	}
	if len(h.tables) != 0 {
		t.Error("a table that nobody needs is kept")
	}
}

// TestWhyDenied says for each case what is true and what to do.
func TestWhyDenied(t *testing.T) {
	for want, r := range map[string]proc.Rights{
		"run it as root":       {User: 1000},
		"--cap-add SYS_PTRACE": {Files: true},
		"CAP_DAC_READ_SEARCH":  {User: 1000, Ptrace: true},
		"the kernel refuses":   {Ptrace: true, Files: true},
	} {
		if got := whyDenied(r); !strings.Contains(got, want) {
			t.Errorf("%+v: %q", r, got)
		}
	}
	if got := some([]string{"a", "b", "c", "d"}); got != "a, b, c, ..." {
		t.Errorf("some are %q", got)
	}
}

// TestStuck leaves the memory of a process alone that hangs in the kernel: the
// watch would hang with it.
func TestStuck(t *testing.T) {
	f := newTree(t)
	f.run(worker.with(10))
	f.link("10/fd/0", "/dev/null")
	h := f.host()
	h.Slow = time.Second
	f.sweep(h)
	stuck := worker.with(10)
	stuck.state, stuck.comm, stuck.faults = "D", "renamed", 1
	f.run(stuck)
	young := worker.with(11)
	young.state = "D"
	f.run(young)
	for _, file := range []string{"10/smaps_rollup", "10/cmdline", "11/cmdline"} {
		if err := os.Remove(filepath.Join(f.dir, file)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(f.dir, file), 0o600); err != nil { // whoever opens it hangs
			t.Fatal(err)
		}
	}
	got := values(t, f.sweep(h))
	of := func(m series.Metric, part string) series.Key {
		return series.Key{Metric: m, Service: "server -x", Worker: "0", Part: part}
	}
	if _, said := got[of(series.PSS, "")]; said || got[of(series.RSS, "")] == 0 || got[of(series.FDKinds, "file")] != 1 {
		t.Errorf("of a process that hangs these are said: %v", got)
	}
	for _, file := range []string{"10/smaps_rollup", "10/cmdline", "11/cmdline"} {
		if err := os.Remove(filepath.Join(f.dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	f.run(worker.with(10))
	f.run(worker.with(11))
	f.sweep(h)
	if w := workers(h, "server -x"); w != "0=10 1=11" {
		t.Errorf("after that the workers are %s", w)
	}
}
