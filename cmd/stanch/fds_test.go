package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// openedAt sums up the findings over descriptors by the line that opened them.
func openedAt(r *leak.Report, rules ...string) map[string]uint64 {
	sums := map[string]uint64{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if !slices.Contains(rules, f.Rule) {
			continue
		}
		where := "?"
		if f.Site < len(f.Stack) {
			where = fmt.Sprintf("%s:%d", filepath.Base(f.Stack[f.Site].File), f.Stack[f.Site].Line)
		}
		sums[where] += f.Count
	}
	return sums
}

// wanted is what a program says that it leaves open, by line, when it does the
// forgetful thing n times.
func wanted(t *testing.T, name string, n uint64, once bool) map[string]uint64 {
	t.Helper()
	sums := map[string]uint64{}
	for _, w := range fixture.Wants(t, name) {
		if w.Kind != "fd" || w.Once && !once {
			continue
		}
		each := n
		if w.Once {
			each = 1
		}
		sums[fmt.Sprintf("%s:%d", w.File, w.Line)] += each
	}
	return sums
}

// descriptorsOf is the table of the first process of a report.
func descriptorsOf(t *testing.T, r *leak.Report) *leak.ReportDescriptors {
	t.Helper()
	if len(r.Targets) == 0 || r.Targets[0].Descriptors == nil {
		t.Fatal("no descriptors in the report")
	}
	return r.Targets[0].Descriptors
}

// TestRunFDs runs a program that forgets descriptors in each of the ways to see
// who opens them: every line is named with its count, and nothing else; of its
// clean twin nothing is said.
func TestRunFDs(t *testing.T) {
	privileged(t)
	want := wanted(t, "fdleaker", 3, true)
	for _, way := range []string{"auto", "bpf", "probe", "ptrace"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			_, r := ran(t, "--fds="+way, "--", fixture.Build(t, "fdleaker", "-O2", "-fomit-frame-pointer"), "a", "b", "c")
			if got := openedAt(r, "fd.unclosed"); !maps.Equal(got, want) {
				t.Errorf("left open, by line: %v, want %v", got, want)
			}
			for i := range r.Findings {
				if f := &r.Findings[i]; f.SiteCertainty != leak.CertaintyProved || f.Severity == leak.SeverityLeak {
					t.Errorf("%s: %s, site %s", f.Title, f.Severity, f.SiteCertainty)
				}
			}
			_, r = ran(t, "--fds="+way, "--", fixture.Build(t, "fdleaker", "-O2", "-DCLEAN"), "a", "b", "c")
			if len(r.Findings) != 0 {
				t.Errorf("of the clean twin: %+v", r.Findings)
			}
		})
	}
}

// TestRunFDsFamily follows descriptors through children that a shell starts.
func TestRunFDsFamily(t *testing.T) {
	privileged(t)
	exe := fixture.Build(t, "fdleaker", "-O2")
	want := wanted(t, "fdleaker", 2, true)
	for where, n := range wanted(t, "fdleaker", 1, true) {
		want[where] += n
	}
	for _, way := range []string{"bpf", "probe", "ptrace"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			_, r := ran(t, "--fds="+way, "--", "/bin/sh", "-c", exe+" a; "+exe+" a b; exec 9</dev/null; /bin/true")
			got := openedAt(r, "fd.unclosed")
			delete(got, "?") // the shell's own
			for where := range got {
				if !strings.HasPrefix(where, "fdleaker.c:") {
					delete(got, where)
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("left open, by line: %v, want %v", got, want)
			}
		})
	}
}

// TestRunFDsLanguages names the lines of C++, static Go and Python programs.
// What the C library is not called for needs more than the probe.
func TestRunFDsLanguages(t *testing.T) {
	privileged(t)
	for _, c := range []struct {
		way, name string
		command   func(t *testing.T) []string
		commands  string
		want      map[string]uint64
	}{
		{"bpf", "C++", func(t *testing.T) []string { return []string{fixture.Build(t, "fderror", "-O2")} }, "leak 4\nchurn 5\nquit\n", wanted(t, "fderror", 4, false)},
		{"probe", "C++", func(t *testing.T) []string { return []string{fixture.Build(t, "fderror", "-O2")} }, "leak 4\nchurn 5\nquit\n", wanted(t, "fderror", 4, false)},
		{"bpf", "Go", func(t *testing.T) []string { return []string{fixture.FDGoProgram(t)} }, "files 4\nquit\n", wanted(t, "fdgo", 4, false)},
		{"ptrace", "Go", func(t *testing.T) []string { return []string{fixture.FDGoProgram(t)} }, "files 4\nquit\n", wanted(t, "fdgo", 4, false)},
	} {
		t.Run(c.name+" "+c.way, func(t *testing.T) {
			t.Parallel()
			_, r := ranAs(t, func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(c.commands) }, append([]string{"--fds=" + c.way, "--"}, c.command(t)...)...)
			got := openedAt(r, "fd.unclosed")
			for where, n := range c.want {
				if got[where] != n {
					t.Errorf("%d descriptors of %s are left open, %d are told of; in all %v", n, where, got[where], got)
				}
			}
		})
	}
}

// TestRunFDsUnprivileged: without the right to trace in the kernel the probe
// serves, and the report says so.
func TestRunFDsUnprivileged(t *testing.T) {
	privileged(t)
	t.Parallel()
	exe := fixture.Build(t, "fdleaker", "-O2")
	_, r := ranAs(t, unprivileged(t), "--fds", "--", exe, "a", "b")
	if got, want := openedAt(r, "fd.unclosed"), wanted(t, "fdleaker", 2, true); !maps.Equal(got, want) {
		t.Errorf("left open, by line: %v, want %v", got, want)
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "through the C library only") || !strings.Contains(notes, "CAP_BPF") {
		t.Errorf("which way was taken, and why: %q", r.Notes)
	}
	o := beginAs(t, unprivileged(t), "run", "--fds=bpf", "--", exe, "a").wait()
	o.wantCode(t, 125)
	if !strings.Contains(o.err, "CAP_BPF") {
		t.Errorf("%q", o.err)
	}
}

// unprivileged takes the capabilities away, and the right to read what is
// root's stays.
func unprivileged(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	return func(c *exec.Cmd) {
		c.Args = append([]string{"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", c.Path}, c.Args[1:]...)
		c.Path = "/usr/bin/setpriv"
	}
}

// TestFDs reads what a program has open that is in every bad state, and changes
// nothing in it.
func TestFDs(t *testing.T) {
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "fdpeer"))
	for _, line := range []string{"closewait 12", "silent 7", "finwait2 3", "timewait 5", "backlog 4"} {
		p.Ask(line, "ok")
	}
	before := look(t, p.PID())
	o := stanch(t, "fds", "--format", "json", pid(p))
	r := o.report(t)
	d := descriptorsOf(t, r)
	states := map[string]uint64{}
	for _, g := range d.Groups {
		if g.Protocol == "tcp" {
			states[g.State] += g.Count
		}
	}
	for state, n := range map[string]uint64{"CLOSE_WAIT": 12, "FIN_WAIT2": 3} {
		if states[state] != n {
			t.Errorf("%d connections are in %s, %d are told of: %v", n, state, states[state], states)
		}
	}
	if states["ESTABLISHED"] < 7 || states["LISTEN"] < 2 {
		t.Errorf("connections by state: %v", states)
	}
	limits := map[string]bool{}
	for _, l := range d.Limits {
		limits[l.Limit] = true
	}
	max, err := os.ReadFile("/proc/sys/fs/file-max")
	if err != nil {
		t.Fatal(err)
	}
	unlimited := strings.TrimSpace(string(max)) == strconv.Itoa(math.MaxInt64) // as systemd sets it
	if !limits["RLIMIT_NOFILE"] || limits["fs.file-max"] == unlimited {
		t.Errorf("limits: %v", limits)
	}
	if len(d.List) != 0 {
		t.Errorf("%d descriptors are listed one by one, which nobody asked for", len(d.List))
	}
	all := descriptorsOf(t, stanch(t, "fds", "--all", "--format", "json", pid(p)).report(t))
	if n := len(listFDs(t, p.PID())); len(all.List) != n || all.Open != uint64(n) {
		t.Errorf("%d descriptors are open, %d are listed", n, len(all.List))
	}
	words := strings.Fields(p.Ask("ports", "ports"))
	peer := descriptorsOf(t, stanch(t, "fds", "--all", "--peer", ":"+words[2], "--format", "json", pid(p)).report(t))
	if n := len(peer.List); n < 12+7+3 || n >= len(all.List) {
		t.Errorf("%d of %d descriptors have the peer", n, len(all.List))
	}
	untouched(t, p.PID(), before)
	p.Quit()
}

func listFDs(t *testing.T, pid int) []string {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestFDsWatch watches a program that forgets descriptors while others come and
// go, and its twin that forgets none.
func TestFDsWatch(t *testing.T) {
	privileged(t)
	for _, c := range []struct {
		name    string
		program string
		start   func(t *testing.T) *fixture.Proc
		leaks   string
	}{
		{"C", "fdleaker", func(t *testing.T) *fixture.Proc {
			return fixture.Start(t, fixture.Build(t, "fdleaker", "-O2", "-fomit-frame-pointer"), "serve")
		}, "leak 4"},
		{"C++", "fderror", func(t *testing.T) *fixture.Proc { return fixture.Start(t, fixture.Build(t, "fderror", "-O2")) }, "leak 4"},
		{"Go", "fdgo", func(t *testing.T) *fixture.Proc { return fixture.FDGo(t) }, "files 4"},
		{"Python", "fdpython", func(t *testing.T) *fixture.Proc { return fixture.FDPython(t) }, "sockets 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := c.start(t)
			p.Ask(c.leaks, "ok") // what nobody sees
			s := begin(t, "fds", "--for", "10s", "--format", "json", pid(p))
			s.await("watching")
			lines := []string{c.leaks}
			if c.name != "Go" && c.name != "Python" {
				lines = append(lines, "churn 10")
			}
			n := leakWhile(s, p, lines...)
			o := s.wait()
			r := o.report(t)
			if c.name == "Python" { // its stack is the interpreter's, and its peers have closed
				if got := openedAt(r, "fd.closewait"); len(got) != 1 || got["?"] > 0 {
					t.Errorf("connections in CLOSE_WAIT, by line: %v\n%s", got, o.out)
				}
			} else if got, want := openedAt(r, "fd.accumulating"), wanted(t, c.program, 4*n, false); !mostOf(got, want) {
				t.Errorf("held, by line: %v, at the end %v\n%s", got, want, o.out)
			}
			noLeaks(t, r)
			p.Quit()
		})
	}
}

// TestFDsBodies watches a Go program that is a web server and its own client and
// forgets to close the bodies of answers: its goroutines begin in libraries, and
// are named as far as they are the program's.
func TestFDsBodies(t *testing.T) {
	privileged(t)
	for _, c := range []struct {
		line   string
		leaks  bool
		clean  []string
		titles string
	}{
		{"leak 4", true, nil, "main.run.func1"},
		{"keep 4", false, nil, ""},
		{"leak 4", false, []string{"clean"}, ""},
	} {
		t.Run(strings.Join(append(c.clean, c.line), " "), func(t *testing.T) {
			t.Parallel()
			p := fixture.FDGo(t, c.clean...)
			s := begin(t, "fds", "--for", "10s", "--format", "json", pid(p))
			s.await("watching")
			n := leakWhile(s, p, c.line)
			o := s.wait()
			r := o.report(t)
			var sockets uint64
			named := false
			for i := range r.Findings {
				if f := &r.Findings[i]; f.Rule == "fd.accumulating" {
					sockets += f.Count
					named = named || strings.Contains(f.Title, c.titles)
				}
			}
			if c.leaks && (sockets < 4*n || sockets > 8*n || !named) || !c.leaks && sockets > 0 {
				t.Errorf("%d sockets are told of after %d times %q\n%s", sockets, n, c.line, o.out)
			}
			p.Quit()
		})
	}
}

// leakWhile lets a program do things again and again while stanch watches, and
// gives how often it did.
func leakWhile(s *session, p *fixture.Proc, lines ...string) (n uint64) {
	for {
		for _, line := range lines {
			p.Ask(line, "ok")
		}
		n++
		select {
		case <-s.done:
			return n
		case <-time.After(400 * time.Millisecond): // the leak goes on over the watch
		}
	}
}

// mostOf reports whether the same lines are named, each with most of what came
// in the end: the program goes on a little longer than the watch.
func mostOf(got, want map[string]uint64) bool {
	for where, n := range want {
		if got[where] > n || got[where] < n/2 {
			return false
		}
	}
	return len(got) == len(want)
}

// TestFDsHealthy watches programs that open and close all the time, and keep
// what they need: nothing is said of them but what is so.
func TestFDsHealthy(t *testing.T) {
	privileged(t)
	t.Run("nginx", func(t *testing.T) {
		t.Parallel()
		s := fixture.NginxCrowded(t, 10000)
		crowd := s.Crowd(10000)
		s2 := begin(t, "fds", "--for", "6s", "--format", "json", strconv.Itoa(s.PIDs()[1]))
		s2.await("watching")
		crowd.Ask()
		o := s2.wait()
		r := o.report(t)
		healthy(t, r)
		d := descriptorsOf(t, r)
		if d.Open < 10000 {
			t.Errorf("%d descriptors", d.Open)
		}
		if g := d.Groups[0]; g.Count < 10000 || g.State != "ESTABLISHED" {
			t.Errorf("the largest group is %+v", g)
		}
		crowd.Leave()
	})
	t.Run("python3 subprocess and sockets", func(t *testing.T) {
		t.Parallel()
		p := fixture.FDPython(t)
		s := begin(t, "fds", "--for", "8s", "--format", "json", pid(p))
		s.await("watching")
		leakWhile(s, p, "run 3")
		healthy(t, s.wait().report(t))
		p.Quit()
	})
	for name, start := range map[string]func(testing.TB) *fixture.Server{
		"redis":  fixture.Redis,
		"python": func(tb testing.TB) *fixture.Server { return fixture.PythonHTTP(tb) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			load := s.Load(3, 150)
			for deadline := time.Now().Add(limit); load.SoFar().Requests < 50 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond) // until it is warm, with a deadline
			}
			healthy(t, stanch(t, "fds", "--for", "8s", "--format", "json", strconv.Itoa(s.PIDs()[0])).report(t))
			if got := load.Stop(); got.Errors > 0 {
				t.Errorf("of %d requests %d failed: %v", got.Requests, got.Errors, got.First)
			}
		})
	}
}

// healthy fails the test when a report says more than a note of descriptors.
func healthy(t *testing.T, r *leak.Report) {
	t.Helper()
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity.Rank() > leak.SeverityRisk.Rank() {
			t.Errorf("%s: %s, %q", f.Severity, f.Title, f.Evidence)
		}
	}
}

// TestDiagnoseDescriptors: a heap and descriptors in one ranking, in one report.
func TestDiagnoseDescriptors(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "fdleaker", "-O2"), "serve")
	s := begin(t, "diagnose", roomy, "--for", "9s", "--format", "json", pid(p))
	s.await("watching")
	n := leakWhile(s, p, "leak 3")
	o := s.wait()
	r := o.report(t)
	if got, want := openedAt(r, "fd.accumulating"), wanted(t, "fdleaker", 3*n, false); !mostOf(got, want) {
		t.Errorf("held, by line: %v, at the end %v\n%s", got, want, o.out)
	}
	if r.Targets[0].HeapBlocks == nil {
		t.Error("no heap was walked")
	}
	descriptorsOf(t, r)
	p.Quit()
}

// TestDiagnoseHoldsTracing: tracing ends where it would take more of the
// target's CPU than it may.
func TestDiagnoseHoldsTracing(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "fdbench", "-O2"))
	s := begin(t, "diagnose", roomy, "--for", "6s", "--format", "json", pid(p))
	s.await("watching")
	p.Ask("pair 4000", "ns")
	if notes := strings.Join(s.wait().report(t).Notes, "\n"); !strings.Contains(notes, "was seen for a part of the watch only") {
		t.Errorf("%q", notes)
	}
	p.Quit()
}

// TestMagicSender: a block as large as four letters are as a number, and the
// peer that sent them.
func TestMagicSender(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "fdhttp", "-O2"))
	s := begin(t, "diagnose", roomy, "--for", "8s", "--format", "json", pid(p))
	s.await("watching")
	p.Ask("keep 1", "ok")
	words := strings.Fields(p.Ask("source", "source"))
	o := s.wait()
	want := fmt.Sprintf("fd %s, TCP 127.0.0.1:%s", words[1], words[2])
	if !strings.Contains(o.out, want) {
		t.Errorf("%q is not said:\n%s", want, o.out)
	}
	p.Quit()
}

// TestFDsUnprivileged: who may not trace in the kernel sees what is open and how
// it grows, and is told what is missing.
func TestFDsUnprivileged(t *testing.T) {
	t.Parallel()
	command := exec.Command(fixture.Build(t, "fdleaker", "-O2"), "serve")
	unprivileged(t)(command)
	p := fixture.StartCmd(t, command)
	s := beginAs(t, unprivileged(t), "fds", "--for", "8s", "--format", "json", pid(p))
	s.await("watching")
	leakWhile(s, p, "leak 4")
	o := s.wait()
	r := o.report(t)
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "who opens descriptors is not seen") || !strings.Contains(notes, "CAP_BPF") {
		t.Errorf("what is missing, and why: %q", r.Notes)
	}
	if got := openedAt(r, "fd.growth"); len(got) != 1 {
		t.Errorf("growth: %v\n%s", got, o.out)
	}
	p.Quit()
}

// TestFDsEnds: Ctrl-C ends a watch with what there is, and a target that ends
// is no error.
func TestFDsEnds(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, fixture.Build(t, "fdleaker", "-O2"), "serve")
	s := begin(t, "fds", "--for", "10m", "--format", "json", pid(p))
	s.await("watching")
	p.Ask("leak 3", "ok")
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	d := descriptorsOf(t, s.wait().report(t))
	if d.Open < 5 {
		t.Errorf("%d descriptors", d.Open)
	}
	s = begin(t, "fds", "--for", "10m", "--format", "json", pid(p))
	s.await("watching")
	p.Quit()
	o := s.wait()
	if notes := strings.Join(o.report(t).Notes, "\n"); !strings.Contains(notes, "ended while it was watched") {
		t.Errorf("%q", notes)
	}
}

// TestFDsChildren watches a shell whose child forgets descriptors.
func TestFDsChildren(t *testing.T) {
	privileged(t)
	t.Parallel()
	exe := fixture.Build(t, "fdleaker", "-O2")
	p := fixture.Start(t, "/bin/sh", "-c", exe+" serve; true")
	for _, scope := range []string{"--children", "--cgroup"} {
		s := begin(t, "fds", "--for", "8s", scope, "--format", "json", pid(p))
		s.await("watching")
		n := leakWhile(s, p, "leak 2")
		o := s.wait()
		r := o.report(t)
		if r.Targets[0].PID != p.PID() || r.Targets[0].Comm != "sh" {
			t.Errorf("%s: the first process is %s[%d]", scope, r.Targets[0].Comm, r.Targets[0].PID)
		}
		i := slices.IndexFunc(r.Targets, func(t leak.ReportTarget) bool { return t.Comm == "fdleaker" && t.Descriptors != nil })
		if i < 0 {
			t.Fatalf("%s: the child is not there:\n%s", scope, o.out)
		}
		var got uint64
		for j := range r.Findings {
			if f := &r.Findings[j]; f.Rule == "fd.accumulating" && f.Target == r.Targets[i].ID {
				got += f.Count
			}
		}
		if got < n || got > 2*n {
			t.Errorf("%s: %d descriptors of the child are told of, %d are forgotten\n%s", scope, got, 2*n, o.out)
		}
	}
	p.Quit()
}
