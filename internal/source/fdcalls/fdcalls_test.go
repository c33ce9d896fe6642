package fdcalls

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stanch/internal/fixture"
)

// TestExhaust has a static program without frame pointers that opens too many
// descriptors, closes a range, and starts another program by vfork.
func TestExhaust(t *testing.T) {
	s := run(t, compile(t, "exhaust", "-static"))
	s.wait()
	if len(s.books.failed) == 0 {
		t.Fatal("no failed call was said")
	}
	f := s.books.failed[len(s.books.failed)-1]
	if f.Errno != "EMFILE" || f.Call != "openat" || f.N < 10 || !s.inStack(f.Stack, "open_too_many") {
		t.Errorf("%+v of %v", f, s.functions(f.Stack))
	}
	kept := s.last[s.family.PID()]
	for _, want := range []struct {
		num  int
		call string
		in   string
	}{{3, "openat", "open_too_many"}, {10, "socketpair", "kept_pair"}, {11, "socketpair", "kept_pair"}, {20, "dup2", "kept_pair"}} {
		a := kept[want.num]
		if a.Call != want.call || !s.inStack(a.Stack, want.in) || !s.inStack(a.Stack, "main") {
			t.Errorf("%d: %q by %v", want.num, a.Call, s.functions(a.Stack))
		}
	}
	if n := s.books.released["close_range"]; n < 20 { // and what the test itself inherited
		t.Errorf("%d closed by close_range", n)
	}
	for pid, open := range s.last {
		if _, has := open[20]; pid != s.family.PID() && (has || open[10].Call != "exec" || !s.inStack(open[10].Stack, "kept_pair")) {
			t.Errorf("the child has %v", open)
		}
	}
}

// TestShared has a process that shares its table with its parent.
func TestShared(t *testing.T) {
	s := run(t, compile(t, "exhaust", "-static"), "share")
	s.wait()
	calls := map[string]int{}
	for num, a := range s.last[s.family.PID()] {
		if s.inStack(a.Stack, "shared_table") {
			calls[a.Call]++
		} else if a.Call != "exec" {
			t.Errorf("%d: %q by %v", num, a.Call, s.functions(a.Stack))
		}
	}
	if want := map[string]int{"clone": 1, "openat": 1, "dup": 1}; !maps.Equal(calls, want) {
		t.Errorf("kept %v", calls)
	}
}

// TestPrograms has programs of everyday, which start others in their own ways.
func TestPrograms(t *testing.T) {
	const python = `
import os, socket, subprocess, threading, tempfile
def work():
    for i in range(20):
        with tempfile.TemporaryFile() as f: f.write(b"x")
        subprocess.run(["/bin/true"], close_fds=bool(i % 2), stdout=subprocess.PIPE)
threads = [threading.Thread(target=work) for _ in range(3)]
for t in threads: t.start()
for t in threads: t.join()
a, b = socket.socketpair()
socket.send_fds(a, [b"x"], [0, 1, 2])
kept = socket.recv_fds(b, 1, 3)
`
	for _, args := range [][]string{
		{"/usr/bin/python3", "-c", python},
		{"/bin/bash", "-c", "for i in 1 2 3; do ls / | sort | (exec 9<&0; cat <&9) | wc -l; done >/dev/null; exec 7</dev/null; (sleep 0 &) ; exec /bin/true"},
	} {
		t.Run(filepath.Base(args[0]), func(t *testing.T) {
			s := run(t, args[0], args[1:]...)
			s.wait()
			if n := s.books.acquired["received"]; filepath.Base(args[0]) == "python3" && n != 3 {
				t.Errorf("%d received", n)
			}
			t.Logf("%d processes; came %v, went %v", len(s.last), s.books.acquired, s.books.released)
		})
	}
}

// TestModel has a random sequence over threads, forks, execs and messages by a
// program that knows at its end who opened what.
func TestModel(t *testing.T) {
	exe := fixture.Build(t, "fdmodel", "-O2", "-fomit-frame-pointer")
	for _, c := range []struct{ seed, mode string }{{"1", "norace"}, {"2", "norace"}, {"3", "races"}, {"4", "races"}} {
		t.Run(c.seed+" "+c.mode, func(t *testing.T) {
			s := run(t, exe, c.seed, "3000", c.mode)
			if got := s.line(); !strings.HasPrefix(got, "ready") {
				t.Fatal(got)
			}
			s.say("go")
			for got := s.line(); got != "done"; got = s.line() {
				t.Error(got)
			}
			known, unknown := s.held()
			s.say("quit")
			s.wait()
			t.Logf("%d openers known, %d unknown", known, unknown)
			if unknown > known/20 {
				t.Errorf("%d of %d openers are unknown", unknown, known+unknown)
			}
		})
	}
}

// held holds the books against what the program says of itself and of its
// children.
func (s *session) held() (known, unknown int) {
	s.say("report")
	for line := s.line(); line != "end"; line = s.line() {
		var pid, n int
		if _, err := fmt.Sscanf(line, "process %d %d", &pid, &n); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		for range n {
			num, who := 0, s.line()
			_, _ = fmt.Sscanf(who, "%d", &num)
			if num < 3 {
				continue
			}
			a, names := s.opener(pid, num)
			fields := strings.Fields(who)
			by := fields[len(fields)-1]
			switch {
			case by == "unknown" || strings.Contains(who, " unknown "):
			case a.Stack == 0:
				s.t.Logf("process %d: %s; the books say %q", pid, who, a.Call)
				unknown++
			case slices.ContainsFunc(strings.Split(by, "|"), func(f string) bool { return slices.Contains(names, f) }):
				known++
			default:
				s.t.Errorf("process %d: %s; the books say %q by %v", pid, who, a.Call, names)
			}
		}
	}
	return known, unknown
}

// TestGo has a static Go program, which makes its system calls by itself.
func TestGo(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "fdgo")
	build := exec.Command("go", "build", "-o", exe, ".")
	build.Dir = filepath.Join(fixture.RepoRoot(t), "testdata", "leaky", "fdgo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := run(t, exe)
	if got := s.line(); got != "ready" {
		t.Fatal(got)
	}
	s.say("files 7")
	t.Log(s.line())
	s.say("leak 5")
	t.Log(s.line())
	s.say("quit")
	s.wait()
	files, sockets := 0, 0
	for _, a := range s.last[s.family.PID()] {
		names := s.functions(a.Stack)
		switch in := strings.Join(names, " "); {
		case a.Call == "openat" && strings.Contains(in, "main."):
			files++
			if last := names[len(names)-1]; !strings.HasPrefix(last, "runtime.goexit") {
				t.Errorf("cut at %s", last)
			}
		case a.Call == "socket" && strings.Contains(in, "net/http."), a.Call == "accept4" && strings.Contains(in, "net/http."):
			sockets++
		}
	}
	if files != 7 || sockets < 10 {
		t.Errorf("%d files and %d sockets: %v", files, sockets, s.last[s.family.PID()])
	}
}

// TestGoSpawns has a Go program that starts others from several goroutines,
// which gives it a descriptor for each (CLONE_PIDFD).
func TestGoSpawns(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := run(t, self, spawnsWord)
	s.wait()
	if n := s.books.acquired["clone"] + s.books.acquired["clone3"] + s.books.acquired["pidfd_open"]; n < 40 {
		t.Errorf("%d descriptors for processes; came %v, went %v", n, s.books.acquired, s.books.released)
	}
}

// BenchmarkPair prints what a pair of open and close costs, with the stacks of
// both, and without a tracer.
func BenchmarkPair(b *testing.B) {
	exe := compile(b, "exhaust", "-static")
	if out, err := exec.Command(exe, "time", "native").CombinedOutput(); err != nil {
		b.Fatal(err)
	} else {
		b.Logf("%s", out)
	}
	t := &testing.T{}
	s := run(t, exe, "time", "traced")
	s.wait()
}
