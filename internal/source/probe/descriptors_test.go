package probe

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// heldNumbers are the descriptors that the sink holds.
func (tr *trial) heldNumbers() map[int]leak.Acquire {
	tr.seen.mu.Lock()
	defer tr.seen.mu.Unlock()
	out := map[int]leak.Acquire{}
	for ref, a := range tr.seen.held {
		if ref.Kind == leak.KindDescriptor {
			out[int(ref.ID)] = a
		}
	}
	return out
}

// numbers lists /proc/PID/fd.
func numbers(t testing.TB, pid int) map[int]bool {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]bool{}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			out[n] = true
		}
	}
	return out
}

// same compares what is held with what is open.
func (tr *trial) same() {
	tr.t.Helper()
	held := tr.heldNumbers()
	open := numbers(tr.t, tr.p.t.ID.PID)
	for n := range open {
		if _, ok := held[n]; !ok {
			tr.t.Errorf("%d is open and not held", n)
		}
	}
	for n, a := range held {
		if !open[n] {
			tr.t.Errorf("%d is held (%s, %v) and not open", n, a.Call, tr.seen.names(a.Stack))
		}
	}
}

// TestDescriptorModel: after a random sequence the open set is that of the
// kernel, and each opener is right or declared unknown.
func TestDescriptorModel(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			prog := fixture.FDModel(t, seed, 30_000)
			o := options()
			o.Descriptors = true
			tr := place(t, prog, o)
			for _, note := range tr.p.Placement().Notes {
				t.Errorf("note: %s", note)
			}
			stop := tr.watching()
			prog.Ask("go", "done")
			stop()
			tr.look()
			if err := tr.p.Books(nil, tr.seen); err != nil {
				t.Fatal(err)
			}
			tr.same()
			held := tr.heldNumbers()
			right, unknown, received := 0, 0, 0
			for _, o := range prog.Opened() {
				if o.PID != prog.PID() {
					continue
				}
				a := held[o.Num]
				names := tr.seen.names(a.Stack)
				switch {
				case a.Stack == 0 || len(o.By) == 0:
					unknown++
					continue
				case a.Call == "received" && o.Received:
					received++
				case o.Call == "?" || o.Call == "pipe" && a.Call == "pipe2": // glibc's pipe makes that call
				case a.Call != o.Call && !o.Received:
					t.Errorf("%d came by %s, not %s; %v", o.Num, o.Call, a.Call, o.By)
				}
				if !slices.ContainsFunc(o.By, func(by string) bool {
					f, _, _ := strings.Cut(by, ":")
					return slices.Contains(names, f)
				}) {
					t.Errorf("%d was opened by %v, not %s by %v", o.Num, o.By, a.Call, names)
				}
				right++
			}
			t.Logf("%d right, %d received, %d unknown", right, received, unknown)
			for _, g := range tr.seen.gaps {
				t.Errorf("gap: %v", g)
			}
			prog.Quit()
		})
	}
}

// wrap starts fdwrap with a probe that records descriptors.
func wrap(t *testing.T, flags ...string) (*fixture.Proc, *trial) {
	t.Helper()
	prog := fixture.Start(t, fixture.Build(t, "fdwrap", append([]string{"-O2", "-fexceptions"}, flags...)...))
	o := options()
	o.Descriptors = true
	tr := place(t, prog, o)
	tr.look()
	tr.same()
	for n, a := range tr.heldNumbers() {
		if a.Call != "" || a.Stack != 0 {
			t.Errorf("%d was open before the probe: %+v", n, a)
		}
	}
	return prog, tr
}

// answered gives the numbers of an answer.
func answered(t *testing.T, answer string) []int {
	t.Helper()
	var out []int
	for _, word := range strings.Fields(answer)[1:] {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// ofWrapper is the system call that glibc makes for a wrapper, where it is not
// the one of its name.
var ofWrapper = map[string]string{
	"open_read": "openat", "open_create": "openat", "pipe": "pipe2", "fcntl_cloexec": "fcntl", "eventfd": "eventfd2", "signalfd": "signalfd4",
	"syscall": "openat", "recvmsg": "received", "recvmmsg": "received", "fopen": "openat", "fopen_c": "openat", "freopen": "dup3",
	"fdopen": "openat", "tmpfile": "openat", "popen": "pipe2", "opendir": "openat", "fdopendir": "openat", "mkstemp": "openat",
	"shm_open": "openat", "posix_openpt": "openat",
}

// TestWrappers: every wrapper of libc is seen with its caller, whatever way libc
// goes inside, and so is what closes it.
func TestWrappers(t *testing.T) {
	for name, flags := range map[string][]string{"glibc": nil, "static": {"-static"}, "far": linked.flags[1:]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prog, tr := wrap(t, flags...)
			for _, name := range []string{
				"open_read", "open_create", "openat", "creat", "socket", "socketpair", "accept", "accept4", "pipe", "pipe2", "dup", "dup2", "dup3",
				"fcntl", "fcntl_cloexec", "epoll_create", "epoll_create1", "eventfd", "timerfd_create", "signalfd", "inotify_init",
				"inotify_init1", "fanotify_init", "memfd_create", "pidfd_open", "pidfd_getfd", "userfaultfd", "syscall", "recvmsg", "recvmmsg",
				"fopen", "fopen_c", "freopen", "fdopen", "tmpfile", "popen", "opendir", "fdopendir", "mkstemp", "shm_open", "posix_openpt",
			} {
				call := name
				if other := ofWrapper[name]; other != "" {
					call = other
				}
				for range 2 { // and once more with the same numbers
					opened := answered(t, prog.Ask(name, "ok"))
					tr.look()
					tr.same()
					for _, n := range opened {
						a := tr.heldNumbers()[n]
						names := tr.seen.names(a.Stack)
						if a.Call != call || !slices.Contains(names, "by_"+name) || !slices.Contains(names, "main") {
							t.Errorf("%s: %d by %q, %v", name, n, a.Call, names)
						}
					}
					prog.Ask("close", "ok")
					tr.look()
					tr.same()
					for _, n := range opened {
						if r := tr.seen.released[n]; r.Call != "close" {
							t.Errorf("%s: %d went by %q", name, n, r.Call)
						}
					}
				}
			}
			for _, g := range tr.seen.gaps {
				t.Errorf("gap: %v", g)
			}
			prog.Quit()
		})
	}
}

// TestReplaced: dup2 closes what it takes the place of, when it succeeds.
func TestReplaced(t *testing.T) {
	prog, tr := wrap(t)
	over := answered(t, prog.Ask("over", "ok"))
	tr.look()
	tr.same()
	if a := tr.heldNumbers()[over[1]]; a.Call != "dup2" {
		t.Errorf("%d by %q", over[1], a.Call)
	}
	prog.Ask("range", "ok")
	tr.look()
	tr.same()
	if r := tr.seen.released[over[1]]; r.Call != "close_range" {
		t.Errorf("%d went by %q", over[1], r.Call)
	}
	for range 2 {
		kept := answered(t, prog.Ask("refused", "ok"))
		tr.look()
		tr.same()
		if a := tr.heldNumbers()[kept[0]]; a.Call != "openat" || !slices.Contains(tr.seen.names(a.Stack), "by_open_read") {
			t.Errorf("%d by %q, %v", kept[0], a.Call, tr.seen.names(a.Stack))
		}
	}
	prog.Quit()
}

// TestUnseen: what a program opens and closes by system calls of its own is
// told, by nobody.
func TestUnseen(t *testing.T) {
	prog, tr := wrap(t)
	n := answered(t, prog.Ask("raw", "ok"))[0]
	tr.look()
	tr.look()
	tr.same()
	if a := tr.heldNumbers()[n]; a.Call != "" || a.Stack != 0 {
		t.Errorf("%+v", a)
	}
	prog.Ask("close", "ok")
	tr.look()
	tr.same()
	if r := tr.seen.released[n]; r.Call != "close" {
		t.Errorf("went by %q", r.Call)
	}
	n = answered(t, prog.Ask("open_read", "ok"))[0]
	tr.look()
	prog.Ask("rawclose", "ok")
	tr.look()
	tr.same()
	if r := tr.seen.released[n]; r.Call != "" {
		t.Errorf("went by %q", r.Call)
	}
	if again := answered(t, prog.Ask("open_read", "ok"))[0]; again != n {
		t.Fatalf("%d, not %d", again, n)
	}
	tr.look()
	tr.same()
	if a := tr.heldNumbers()[n]; a.Call != "openat" || a.Stack == 0 {
		t.Errorf("%+v", a)
	}
	prog.Quit()
}

// TestDescriptorsMusl: where closes cannot be seen, nobody is said to have opened
// anything, and what is open is told all the same.
func TestDescriptorsMusl(t *testing.T) {
	prog := musl.start(t, "fdwrap")
	o := options()
	o.Descriptors, o.Inputs = true, true
	tr := place(t, prog, o)
	if notes := tr.p.Placement().Notes; len(notes) != 1 || !strings.Contains(notes[0], "who opens descriptors is not seen: close of") {
		t.Errorf("notes: %q", notes)
	}
	tr.look()
	for _, name := range []string{"open_read", "socketpair", "fopen"} {
		opened := answered(t, prog.Ask(name, "ok"))
		tr.look()
		tr.look()
		tr.same()
		for _, n := range opened {
			if a := tr.heldNumbers()[n]; a.Stack != 0 || a.Call != "" {
				t.Errorf("%s: %+v", name, a)
			}
		}
		prog.Ask("close", "ok")
		tr.look()
		tr.same()
	}
	prog.Quit()
}

// TestChildrenOfTheirOwn: what a child does with its copy of the table is not
// what its parent does, also while it borrows its parent's memory.
func TestChildrenOfTheirOwn(t *testing.T) {
	prog, tr := wrap(t)
	for range 10 {
		for _, n := range answered(t, prog.Ask("spawn", "ok")) {
			tr.look()
			if a := tr.heldNumbers()[n]; a.Call != "openat" || !slices.Contains(tr.seen.names(a.Stack), "spawn_some") {
				t.Errorf("%d by %q, %v", n, a.Call, tr.seen.names(a.Stack))
			}
		}
		tr.same()
		prog.Ask("close", "ok")
		tr.look()
		tr.same()
	}
	prog.Quit()
}

// TestCancelled: a thread is cancelled in accept as ever, its frames unwound; and
// the probe goes on.
func TestCancelled(t *testing.T) {
	prog, tr := wrap(t)
	stop := tr.watching()
	for range 5 {
		prog.Ask("cancel 20", "ok")
		prog.Ask("served 20", "ok")
	}
	stop()
	tr.look()
	tr.same()
	prog.Quit()
}

// TestDescriptorThreads: four threads open and close as fast as they can, while
// the probe is placed, looked at and removed.
func TestDescriptorThreads(t *testing.T) {
	prog, tr := wrap(t)
	stop := tr.watching()
	prog.Ask("threads 5000", "ok")
	stop()
	tr.look()
	tr.same()
	var sum leak.Count
	for k, y := range tr.seen.tallies {
		if k.kind == leak.KindDescriptor {
			sum.N += y.Acquired.N
			if y.Acquired != y.Released {
				t.Errorf("%v acquired, %v released by %v", y.Acquired, y.Released, tr.seen.names(k.stack))
			}
		}
	}
	if sum.N != 4*5000*3 {
		t.Errorf("%v were opened", sum.N)
	}
	prog.Say("threads 20000")
	for range 5 {
		again := placeIn(t, prog.PID(), func() Options { o := options(); o.Descriptors = true; return o }())
		again.look()
		if err := again.p.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	prog.Expect("ok")
	prog.Quit()
}

// BenchmarkDescriptors measures what the probe adds to an open and its close.
func BenchmarkDescriptors(b *testing.B) { added(b, "pairs 20000", Options{Descriptors: true}) }

// BenchmarkReads measures what it adds to a read.
func BenchmarkReads(b *testing.B) { added(b, "reads 50000", Options{Inputs: true}) }

func added(b *testing.B, command string, o Options) {
	prog := fixture.Start(b, fixture.Build(b, "fdwrap", "-O2"))
	run := func() float64 {
		var ns float64
		if _, err := sscan(prog.Ask(command, "ok"), "ok %g", &ns); err != nil {
			b.Fatal(err)
		}
		return ns
	}
	o.MaxOverhead, o.MaxPause = -1, options().MaxPause
	var native, probed, hook []float64
	for range b.N {
		native = append(native, run())
		tr := placeIn(b, prog.PID(), o)
		tr.look()
		probed = append(probed, run())
		if _, s, err := tr.p.measure(); err == nil && s.timed > 0 {
			hook = append(hook, tr.p.clock.seconds(s.cycles/s.timed)*1e9)
		}
		if err := tr.p.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(native), "native-ns")
	b.ReportMetric(median(probed)-median(native), "added-ns")
	if len(hook) > 0 {
		b.ReportMetric(median(hook), "ns/slow-hook") // as they measure themselves
	}
	b.ReportMetric(0, "ns/op")
}
