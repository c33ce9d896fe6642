package sampler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"stanch/internal/series"
)

var worker = fake{comm: "server", exe: "/usr/bin/server", args: []string{"server", "-x"}, cgroup: "0::/\n"}

func (p fake) with(pid int) fake {
	p.pid = pid
	return p
}

// TestFirstSweep says all that there is to say of one process.
func TestFirstSweep(t *testing.T) {
	f := newTree(t)
	f.run(fake{pid: 7, ppid: 1, comm: "a) (b c", exe: "/usr/bin/server", args: []string{"server", "-x"}, cgroup: "0::/\n", threads: 3})
	f.run(fake{pid: 8, ppid: 7, comm: "x", state: "Z", start: 350_000})
	f.link("7/fd/0", "/dev/null")
	f.link("7/fd/1", "pipe:[77]")
	f.link("7/fd/2", "socket:[500]")
	f.link("7/fd/3", "socket:[501]")
	f.link("7/fd/4", "socket:[502]")
	f.link("7/fd/5", "anon_inode:[eventpoll]")
	f.link("7/fd/6", "anon_inode:kvm-vcpu:3")
	f.link("7/fd/7", "/memfd:x (deleted)")
	f.link("7/fd/8", "(unreachable)/x")
	f.link("7/ns/net", "net:[4026531840]")
	f.write("7/net/tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"+
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 500 1 0000000000000000 100 0 0 10 0\n"+
		"   1: 0100007F:1F90 0100007F:CAFE 08 00000000:00000000 00:00000000 00000000     0        0 501 1 0000000000000000 100 0 0 10 0\n"+
		"   2: 0100007F:1F90 0100007F:CAFF 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 100 0 0 10 0\n")
	h := f.host()
	h.Slow = time.Second // the costly part comes within a minute else
	f.sweep(h)
	s := f.sweep(h)
	got := values(t, s)
	key := func(m series.Metric, part ...string) series.Key {
		k := series.Key{Metric: m, Service: "server -x", Worker: "0"}
		if len(part) > 0 {
			k.Part = part[0]
		}
		return k
	}
	page := float64(os.Getpagesize())
	want := map[series.Key]float64{
		key(series.RSS): 50 * page, key(series.Virtual): 1000 * page, key(series.Anonymous): 10 * page, key(series.Threads): 3, key(series.CPU): 3,
		key(series.Minor): 100, key(series.Major): 7, key(series.PID): 7, key(series.Started): 1_700_001_800.07, key(series.FDs): 9,
		key(series.Data): 512 << 10, key(series.Swap): 8 << 10, key(series.PSS): 60 << 10, key(series.PrivateDirty): 44 << 10,
		key(series.Received): 12345, key(series.Sent): 678, key(series.FDLimit): 1024, key(series.Zombies): 1,
		key(series.FDKinds, "file"): 1, key(series.FDKinds, "pipe"): 1, key(series.FDKinds, "socket"): 3, key(series.FDKinds, "eventpoll"): 1,
		key(series.FDKinds, "kvm-vcpu"): 1, key(series.FDKinds, "memfd"): 1, key(series.FDKinds, "other"): 1,
		key(series.Sockets, "LISTEN"): 1, key(series.Sockets, "CLOSE_WAIT"): 1,
		{Metric: series.HostProcesses}: 2,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	p := h.Processes()
	if len(p) != 1 || p[0].Comm != "a) (b c" || p[0].PPID != 1 || p[0].Exe != "/usr/bin/server" || !p[0].Started.Equal(time.Unix(1_700_001_800, 70e6)) {
		t.Errorf("%+v", p)
	}
	// What is gone is said to be zero, also when the one that had it has ended.
	f.end(7, 8)
	f.run(worker.with(9))
	f.link("9/fd/0", "/dev/null")
	f.sweep(h)
	got = values(t, f.sweep(h))
	for _, k := range []series.Key{key(series.FDKinds, "socket"), key(series.Sockets, "CLOSE_WAIT"), key(series.FDKinds, "memfd")} {
		if v, said := got[k]; !said || v != 0 {
			t.Errorf("%v is %v (said: %v), want 0", k, v, said)
		}
	}
	if got[key(series.PID)] != 9 || got[key(series.FDKinds, "file")] != 1 {
		t.Errorf("the successor: %v", got)
	}
}

func TestWhoIsSampled(t *testing.T) {
	f := newTree(t)
	f.run(worker.with(10))
	f.run(fake{pid: 2, comm: "kthreadd", flags: 0x200000})
	f.run(fake{pid: 3, ppid: 2, comm: "kworker/0:0", flags: 0x200000})
	f.run(fake{pid: 11, comm: "young", exe: "/usr/bin/young", args: []string{"young"}, start: 355_000, cgroup: "0::/\n"})
	f.run(fake{pid: 12, comm: "dead", state: "Z", ppid: 10})
	f.run(fake{pid: 13, comm: "headless", exe: "/usr/bin/headless", args: []string{"headless"}, state: "Z", threads: 4, cgroup: "0::/\n"})
	h := f.host()
	asked := map[string]int{}
	h.Only = func(p *Process) bool { asked[p.Service]++; return p.Service != "server -x" }
	got := values(t, f.sweep(h))
	if got[series.Key{Metric: series.HostProcesses}] != 5-1 {
		t.Errorf("processes: %v", got)
	}
	if len(h.Processes()) != 1 || h.Processes()[0].Comm != "headless" {
		t.Errorf("sampled are %+v", h.Processes())
	}
	if _, said := got[series.Key{Metric: series.RSS, Service: "headless", Worker: "0"}]; said {
		t.Error("a process whose memory the kernel does not show has some")
	}
	f.sweep(h)
	f.now.Boot += time.Minute
	f.sweep(h)
	if d := cmp.Diff(map[string]int{"server -x": 1, "young": 1, "headless": 1}, asked); d != "" {
		t.Error(d)
	}
	// It becomes a zombie: it has ended, and goes on to be counted.
	f.run(fake{pid: 11, comm: "young", state: "Z", start: 355_000})
	s := f.sweep(h)
	if len(s.Ended) != 1 || s.Ended[0].Service != "young" {
		t.Errorf("ended: %+v", s.Ended)
	}
	// Another program in the same process: it is asked for again.
	f.run(fake{pid: 10, comm: "other", exe: "/usr/bin/other", args: []string{"other"}, cgroup: "0::/\n"})
	if s := f.sweep(h); len(s.Began) != 1 || s.Began[0].Service != "other" {
		t.Errorf("began: %+v", s.Began)
	}
	f.run(fake{pid: 10, comm: "third", exe: "/usr/bin/third", args: []string{"third"}, cgroup: "0::/\n"})
	f.now.Boot += h.slow()
	if s := f.sweep(h); len(s.Ended) != 1 || s.Ended[0].Service != "other" {
		t.Errorf("ended: %+v", s.Ended)
	}
	if s := f.sweep(h); len(s.Began) != 1 || s.Began[0].Service != "third" {
		t.Errorf("began: %+v", s.Began)
	}
}

// TestTooMany samples those with the most memory, and lets them not take turns.
func TestTooMany(t *testing.T) {
	f := newTree(t)
	big := func(pid, rss int) {
		f.run(fake{pid: pid, comm: "p", exe: "/p", args: []string{"p", strconv.Itoa(pid)}, cgroup: "0::/\n", rss: rss})
	}
	for i := range 10 {
		big(100+i, 100+10*i)
	}
	h := f.host()
	h.Most = 5
	s := f.sweep(h)
	sampled := func() (pids []int) {
		for _, p := range h.Processes() {
			pids = append(pids, p.ID.PID)
		}
		return pids
	}
	if d := cmp.Diff([]int{105, 106, 107, 108, 109}, sampled()); d != "" || len(s.Notes) != 1 {
		t.Errorf("%s, notes %q", d, s.Notes)
	}
	big(200, 200) // not twice the smallest of those
	big(201, 1000)
	s = f.sweep(h)
	if d := cmp.Diff([]int{106, 107, 108, 109, 201}, sampled()); d != "" || len(s.Notes) != 0 {
		t.Errorf("%s, notes %q", d, s.Notes)
	}
	if len(values(t, s)) == 0 {
		t.Error("nothing is said")
	}
}

// TestSweepEnds ends with its context, and says when there is no procfs.
func TestSweepEnds(t *testing.T) {
	f := newTree(t)
	f.run(worker.with(10))
	h := f.host()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.Sweep(ctx, f.now); !errors.Is(err, context.Canceled) {
		t.Errorf("the sweep ends with %v", err)
	}
	none := &Host{Root: "/nonexistent"}
	if _, err := none.Sweep(context.Background(), f.now); err == nil {
		t.Error("a sweep without a procfs")
	}
	if err := errors.Join(none.Close(), h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
}

// TestTornFiles meets files that are gone, empty or cut.
func TestTornFiles(t *testing.T) {
	f := newTree(t)
	full := worker.with(10)
	whole := func() { f.run(full) }
	h := f.host()
	h.Slow = time.Second
	whole()
	f.sweep(h)
	for _, name := range []string{"stat", "statm", "status", "limits", "io", "smaps_rollup", "cgroup", "cmdline", "exe"} {
		path := filepath.Join(f.dir, "10", name)
		for _, text := range []string{"", "10 (server", "10 (server) S", "\x00\xff", fmt.Sprint(10)} {
			whole()
			_ = os.Remove(path) // exe is a link
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			values(t, f.sweep(h))
			values(t, f.sweep(h))
		}
		f.end(10)
		whole()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		values(t, f.sweep(h))
		values(t, f.sweep(h))
	}
}

// TestEnding says nothing of a process that has given back its memory, which
// takes a large one seconds, and nothing of one whose first thread has ended:
// the kernel's zeros are no numbers of theirs.
func TestEnding(t *testing.T) {
	f := newTree(t)
	h := f.host()
	h.Slow = time.Second
	said := func() (n int) {
		for k := range values(t, f.sweep(h)) {
			if k.Worker != "" {
				n++
			}
		}
		return n
	}
	for _, c := range []struct{ file, text string }{
		{"10/statm", "0 0 0 0 0 0 0\n"},
		{"10/stat", "10 (server) Z 1 1 1 0 -1 0 100 0 7 0 250 50 0 0 20 0 4 0 180010 4096 1\n"},
	} {
		f.run(worker.with(10))
		f.link("10/fd/0", "/dev/null")
		said()
		if n := said(); n < 15 {
			t.Errorf("of one that lives %d numbers are said", n)
		}
		f.write(c.file, c.text)
		if err := os.Remove(filepath.Join(f.dir, "10/fd/0")); err != nil {
			t.Fatal(err)
		}
		if n := said(); n != 0 {
			t.Errorf("%s %q: %d numbers are said", c.file, c.text, n)
		}
	}
}

// TestHidden says that there are processes that are not seen.
func TestHidden(t *testing.T) {
	f := newTree(t)
	f.run(worker.with(10))
	h := f.host()
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	h.real = true // of a procfs; process 1 is hidden
	if s := f.sweep(h); len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "hidepid") {
		t.Errorf("notes %q", s.Notes)
	}
	f.run(worker.with(1))
	h = f.host()
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	h.real = true
	if s := f.sweep(h); len(s.Notes) != 0 {
		t.Errorf("nothing is hidden, and notes are %q", s.Notes)
	}
}

// TestNoDescriptorsLeft takes no process for ended because stanch, or the host,
// has no descriptor left to read it with.
func TestNoDescriptorsLeft(t *testing.T) {
	f := newTree(t)
	f.run(worker.with(10))
	h := f.host()
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	h.mostGrips = 0
	f.sweep(h)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // what is open stays so
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	s, err := h.Sweep(context.Background(), f.now)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != nil || len(s.Ended) != 0 || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "too many open files") {
		t.Errorf("ended %v, notes %q, %v", s.Ended, s.Notes, err)
	}
	f.now.At, f.now.Boot = f.now.At+10_000, f.now.Boot+10*time.Second
	if s := f.sweep(h); len(s.Began) != 0 || len(s.Samples) < 10 {
		t.Errorf("began %v, %d samples", s.Began, len(s.Samples))
	}
}
