package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/fixture"
	"stanch/internal/leak"
)

// ran runs a command under stanch run and reads its report.
func ran(t *testing.T, args ...string) (outcome, *leak.Report) {
	t.Helper()
	return ranAs(t, func(*exec.Cmd) {}, args...)
}

func ranAs(t *testing.T, prepare func(*exec.Cmd), args ...string) (outcome, *leak.Report) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	o := beginAs(t, prepare, append([]string{"run", "-o", file}, args...)...).wait()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("no report: %v\n%s%s", err, o.out, o.err)
	}
	r := &leak.Report{}
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return o, r
}

// leaks adds up what is called lost: blocks, directly lost ones among them, by
// the function of their line.
func leaks(r *leak.Report) map[string][2]uint64 {
	sums := map[string][2]uint64{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity != leak.SeverityLeak {
			continue
		}
		name := "?"
		if f.Site < len(f.Stack) {
			name = f.Stack[f.Site].Function
		}
		s := sums[name]
		sums[name] = [2]uint64{s[0] + f.Count, s[1] + f.Direct}
	}
	return sums
}

// TestRun: what a program and its children lose is found to the block, with
// the function that lost it, and the exit code is the program's own.
func TestRun(t *testing.T) {
	exe := fixture.Build(t, "runme")
	static := fixture.Build(t, "runme", "-static")
	early := fixture.Build(t, "runme", "-DCONSTRUCTOR", "-no-pie")
	const found, none = 3, 0
	for _, c := range []struct {
		args  string
		exe   string
		code  int
		lost  uint64 // blocks that lose lost
		chain uint64 // and blocks of chain, all but one of each lost with it
	}{
		{args: "say hello", code: none},
		{args: "keep 10 100 return 0", code: none},
		{args: "lose 1 100", code: found, lost: 1},
		{args: "lose 7 24 chain 9 64 keep 3 64", code: found, lost: 7, chain: 9},
		{args: "lose 1 100 return 5", code: 5, lost: 1},
		{args: "lose 1 100 quick 6", code: 6, lost: 1},
		{args: "return 7", code: 7},
		{args: "lose 2 100 abort", code: 128 + 6, lost: 2},
		{args: "lose 2 100 crash", code: 128 + 11, lost: 2},
		{args: "kill 9", code: 128 + 9},
		{args: "lose 2 100 kill 15", code: 128 + 15, lost: 2},
		{args: "lose 2 100 fork lose 5 40 exit 0", code: found, lost: 7},
		{args: "lose 2 100 fork quick 4", code: 4, lost: 2},
		{args: "fork fork fork lose 5 40", code: found, lost: 5},
		{args: "lose 2 100 spawn lose 5 40", code: found, lost: 7},
		{args: "lose 2 100 vfork lose 5 40 fork lose 1 1", code: found, lost: 8},
		{args: "lose 2 100 exec lose 5 40", code: found, lost: 5},
		{args: "daemon sleep 300 lose 5 40", code: found, lost: 5},
		{args: "thread lose 5 40 keep 2 40", code: found, lost: 5},
		{args: "thread lose 5 40 exit 0", code: found, lost: 5},
		{args: "thread fork lose 5 40", code: found, lost: 5},
		{args: "thread exec lose 5 40", code: found, lost: 5},
		{args: "closeall lose 5 40", code: found, lost: 5},
		{args: "undumpable lose 5 40", code: found, lost: 5},
		{args: "usr1 lose 5 40", code: found, lost: 5},
		{args: "lose 5 40 fork lose 1 40", exe: static, code: found, lost: 6},
		{args: "keep 5 40", exe: early, code: found, lost: 2},
	} {
		if c.exe == "" {
			c.exe = exe
		}
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			o, r := ran(t, append([]string{"--", c.exe}, strings.Fields(c.args)...)...)
			got := leaks(r)
			if o.code != c.code || got["lose"][0] != c.lost || got["chain"][0] != c.chain {
				t.Errorf("exit code %d, want %d; lost %v, want %d and %d\n%s%s\n%+v", o.code, c.code, got, c.lost, c.chain, o.out, o.err, r)
			}
			if c.chain > 0 && got["chain"][1] != 1 {
				t.Errorf("%d heads of one chain", got["chain"][1])
			}
			delete(got, "lose")
			delete(got, "chain")
			if len(got) > 0 {
				t.Errorf("called lost: %v", got)
			}
		})
	}
}

// TestRunHarm: a program that would notice any disturbance, some fifty threads
// with signals at 1 kHz and children that come and go, is traced all its life and
// looked at twice on the way.
func TestRunHarm(t *testing.T) {
	in, commands := io.Pipe()
	go func() {
		say := func(line string, wait time.Duration) {
			_, _ = io.WriteString(commands, line+"\n") // fails when the program has ended, which the test sees
			time.Sleep(wait)
		}
		say("load low", 4*time.Second)
		say("check", 4*time.Second)
		say("check", 4*time.Second)
		say("check", 0)
		say("quit", 0)
		_ = commands.Close()
	}()
	o, r := ranAs(t, func(c *exec.Cmd) { c.Stdin = in }, "--check-every", "5s", "--", fixture.Build(t, "harm"))
	if o.code != 0 || strings.Count(o.out, "ok rounds=") != 3 || strings.Contains(o.out, "violation") {
		t.Errorf("exit code %d\n%s%s", o.code, o.out, o.err)
	}
	noLeaks(t, r)
}

// TestRunBusy: threads that are in the middle of malloc when the program exits.
func TestRunBusy(t *testing.T) {
	exe := fixture.Build(t, "runme")
	for i := range 5 {
		o, r := ran(t, "--", exe, "busy", "4", "lose", "5", "40", "sleep", "20", "exit", "0")
		for name, n := range leaks(r) {
			if name != "lose" || n[0] > 5 {
				t.Errorf("round %d: %s: %d blocks\n%s", i, name, n[0], o.err)
			}
		}
	}
}

// TestRunPassesThrough: standard streams are the program's own.
func TestRunPassesThrough(t *testing.T) {
	t.Parallel()
	o, _ := ranAs(t, func(c *exec.Cmd) { c.Stdin = strings.NewReader("one\ntwo\n") }, "--", fixture.Build(t, "runme"), "copy")
	if o.code != 0 || o.out != "one\ntwo\n" || strings.Count(o.err, "\n") != 1 || !strings.Contains(o.err, "stanch report report.json") {
		t.Errorf("exit code %d, standard output %q, standard error %q", o.code, o.out, o.err)
	}
}

// TestRunInherits: a program starts under stanch as it would without: priority,
// timer slack, ignored and blocked signals, open descriptors, limits.
func TestRunInherits(t *testing.T) {
	t.Parallel()
	script := "cut -d' ' -f19 /proc/self/stat; cat /proc/self/timerslack_ns; grep -E 'SigIgn|SigBlk|NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/self/fd; cat /proc/self/limits /proc/self/oom_score_adj"
	for _, start := range []func(*exec.Cmd){heeding, ignoring} {
		cmd := exec.Command("/bin/sh", "-c", script)
		start(cmd)
		alone, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := ranAs(t, start, "--fail-on", "none", "--", "sh", "-c", script); o.out != string(alone) {
			t.Errorf("alone:\n%s\nunder stanch:\n%s", alone, o.out)
		}
	}
}

// TestRunDescriptors: what a program, or its child, opened and left open.
func TestRunDescriptors(t *testing.T) {
	t.Parallel()
	exe := fixture.Build(t, "runme")
	for _, c := range []struct {
		args []string
		want uint64
	}{
		{[]string{"--", exe, "open", "4"}, 4},
		{[]string{"--", exe, "open", "3", "fork", "open", "5"}, 5 + 3},
		{[]string{"--", exe, "open", "9", "exec", "say", "hello"}, 0},
		{[]string{"--", exe, "open", "2"}, 0},
		{[]string{"--reachable", "--", exe, "open", "2"}, 2},
		{[]string{"--", exe, "open", "9", "closeall"}, 0},
	} {
		o, r := ran(t, c.args...)
		var got uint64
		for _, f := range r.Findings {
			if f.Rule == "fd.unclosed" {
				got += f.Count
			}
		}
		if o.code != 0 || got != c.want {
			t.Errorf("%v: exit code %d, %d descriptors were not closed, want %d\n%s", c.args[1:], o.code, got, c.want, o.err)
		}
	}
}

// TestRunSignals: what is sent to stanch reaches the program.
func TestRunSignals(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		s := begin(t, "run", "--", fixture.Build(t, "runme"), "lose", "2", "50", "warn", "there", "sleep", "100000")
		s.await("there")
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if o := s.wait(); o.code != 128+int(sig) || !strings.Contains(o.err, "LEAK  2 blocks") {
			t.Errorf("%v: exit code %d\n%s", sig, o.code, o.err)
		}
	}
}

// TestRunChecks: a program that goes on is looked at while it runs, and only what
// is new is said.
func TestRunChecks(t *testing.T) {
	t.Parallel()
	s := begin(t, "run", "--check-every", "5s", "--", fixture.Build(t, "runme"), "lose", "3", "100", "sleep", "8000", "lose", "2", "50", "sleep", "100000")
	s.await("new since")
	s.await("3 blocks, 300 bytes")
	s.await("new since")
	s.await("5 blocks, 400 bytes")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if o := s.wait(); o.code != 128+15 || strings.Count(o.err, "new since") != 2 || strings.Count(o.err, "LEAK") != 3 {
		t.Errorf("exit code %d\n%s", o.code, o.err)
	}
}

// TestRunKilled: a stanch that is killed leaves the report as it stood, and a
// program that runs on.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	exe := fixture.Build(t, "runme")
	file := filepath.Join(t.TempDir(), "report.json")
	done := filepath.Join(t.TempDir(), "done")
	s := begin(t, "run", "--save-every", "1s", "-o", file, "--", "sh", "-c",
		fmt.Sprintf("%s lose 4 100; %s lose 2 50 warn there sleep 4000 lose 1 1 && touch %s", exe, exe, done))
	s.await("there")
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is saved")
		}
	}
	s.kill()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := &leak.Report{}
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	if got := leaks(r)["lose"][0]; got != 4 {
		t.Errorf("the report holds %d lost blocks:\n%s", got, text)
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(done); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the program does not run on")
		}
	}
}

// TestRunPools: blocks of an allocator of the program's own.
func TestRunPools(t *testing.T) {
	t.Parallel()
	exe := compile(t, "pools.c")
	o, r := ran(t, "--alloc", "pool_get:size=1", "--free", "pool_put:ptr=1", "--", "sh", "-c", exe+"; true")
	found := 0
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Kind == leak.KindPool.String() && f.Count == 20 && f.Bytes == 960 && f.Stack[f.Site].Function == "work" {
			found++
		}
	}
	if o.code != 0 || found != 1 {
		t.Errorf("exit code %d, %+v\n%s", o.code, r.Findings, o.err)
	}
	if _, r := ran(t, "--alloc", "pool_none:size=1", "--", exe); !strings.Contains(strings.Join(r.Notes, " "), "--alloc and --free") {
		t.Errorf("the notes do not say that nothing was watched: %q", r.Notes)
	}
	stanch(t, "run", "--alloc", "pool_get:sz=1", "--", exe).wantLine(t, 2, "--alloc pool_get:sz=1")
	stanch(t, "run", "--free", "pool_put", "--", exe).wantLine(t, 2, "ptr=1")
}

// TestRunSandbox: a program whose filter would kill it for what stanch might do
// runs on, and is checked as far as that goes.
func TestRunSandbox(t *testing.T) {
	t.Parallel()
	o, r := ran(t, "--", compile(t, "filtered.c"))
	if got := leaks(r); o.code != 3 || got["lose"][0] < 5 || got["lose"][0]+got["?"][0] != 9 {
		t.Errorf("exit code %d, lost %v\n%s", o.code, got, o.err)
	}
}

// TestRunOtherAllocator: where no heap can be walked, the books tell what was
// never freed, and nothing is called a leak.
func TestRunOtherAllocator(t *testing.T) {
	t.Parallel()
	o, r := ranAs(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "LD_PRELOAD=libjemalloc.so.2") }, "--", fixture.Build(t, "runme"), "lose", "3", "100")
	if len(leaks(r)) > 0 || o.code != 0 {
		t.Errorf("exit code %d, lost %v", o.code, leaks(r))
	}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Count == 3 && f.Bytes == 300 && f.Stack[f.Site].Function == "lose" {
			return
		}
	}
	t.Errorf("the blocks of lose are missing: %+v", r.Findings)
}

// TestRunDebugger: a debugger among the programs works as ever; what it traces is
// not checked.
func TestRunDebugger(t *testing.T) {
	t.Parallel()
	o, r := ran(t, "--fail-on", "none", "--", fixture.Package(t, "gdb"), "-nx", "-q", "-batch", "-ex", "run", "-ex", "bt", "--args", fixture.Build(t, "runme"), "lose", "2", "50", "abort")
	if o.code != 0 || !strings.Contains(o.out, "SIGABRT") || !strings.Contains(o.out, "perform (") {
		t.Errorf("exit code %d\n%s%s", o.code, o.out, o.err)
	}
	if leaks(r)["lose"][0] != 0 {
		t.Errorf("a traced program was checked: %v", leaks(r))
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "traced by a program of the run") {
		t.Errorf("the notes do not say so: %s", notes)
	}
}

// TestRunCannotStart: the codes of env(1) and of the shells.
func TestRunCannotStart(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("exit 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stanch(t, "run", "--", "/no/such/program").wantLine(t, 127, "cannot start /no/such/program")
	stanch(t, "run", "--", "no-such-program").wantLine(t, 127, "cannot start no-such-program")
	stanch(t, "run", "--", script).wantLine(t, 126, "cannot start "+script)
	stanch(t, "run").wantLine(t, 2, "takes a command")
	stanch(t, "run", "--mode", "all", "--", "true").wantLine(t, 2, "--mode")
}

// TestRunScripts: a shell script, make, and a test runner in python3 that loads
// a C library: what their children lose is found.
func TestRunScripts(t *testing.T) {
	exe := fixture.Build(t, "runme")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // a script of the test's own
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		lost uint64
	}{
		{"script", []string{write("tests.sh", fmt.Sprintf("#!/bin/sh\n%s lose 2 30\n(%s lose 3 30) &\nwait\nx=$(%s say hi lose 4 30)\n", exe, exe, exe))}, 3, 9},
		{"failing script", []string{write("fail.sh", fmt.Sprintf("#!/bin/sh\n%s lose 2 30\nexit 9\n", exe))}, 9, 2},
		{"make", []string{"make", "-s", "-j2", "-f", write("Makefile", fmt.Sprintf("all: a b c\na b c:\n\t%s lose 2 30\n", exe))}, 3, 6},
		{"only itself", []string{"--no-children", "--", "sh", "-c", exe + " lose 5 30; true"}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			args := c.args
			if args[0] != "--no-children" {
				args = append([]string{"--"}, args...)
			}
			o, r := ran(t, args...)
			if got := leaks(r)["lose"][0]; o.code != c.code || got != c.lost {
				t.Errorf("exit code %d, want %d; lost %d, want %d\n%s%s", o.code, c.code, got, c.lost, o.out, o.err)
			}
		})
	}
}

// TestRunUnprivileged: one's own programs need no rights.
func TestRunUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody without rights")
	}
	exe := fixture.Build(t, "runme")
	dir, err := sharedDir()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "stanch")
	copyFile(t, command(t, "stanch"), own)
	asNobody := func(c *exec.Cmd) {
		c.Path, c.Dir = own, "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	o := beginAs(t, asNobody, "run", "--", exe, "lose", "3", "50", "fork", "lose", "2", "50").wait()
	o.wantCode(t, 3)
	if !strings.Contains(o.err, "LEAK  5 blocks") {
		t.Errorf("the report lacks something:\n%s", o.err)
	}

	// A set-user-ID program would not be what it is.
	raised := filepath.Join(dir, "raised")
	copyFile(t, exe, raised)
	if err := os.Chmod(raised, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	beginAs(t, asNobody, "run", "--", raised, "lose", "3", "50").wait().wantLine(t, 126, "set-user-ID", "as root")
	beginAs(t, asNobody, "run", "--", "/bin/sh", "-c", raised+" lose 3 50").wait().wantCode(t, 3)
	stanch(t, "run", "--", raised, "lose", "3", "50").wantCode(t, 3)
}
