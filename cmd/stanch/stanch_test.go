package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"stanch/internal/leak"
	"stanch/internal/render"
)

// TestMain makes stanch a command that tests and scripts can run: this very
// binary under another name.
func TestMain(m *testing.M) {
	// These tests mostly wait for targets and for --for to pass.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	testscript.Main(suite{m}, map[string]func(){"stanch": main, harmCommand: harmMain, tracerCommand: tracerMain})
}

// privileged skips a test where this kernel does not let stanch attach to the
// processes that a test starts, which are no children of stanch.
func privileged(tb testing.TB) {
	tb.Helper()
	const capSysPtrace = 1 << 19
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if word := strings.TrimSpace(string(scope)); err != nil || word == "0" {
		return // without yama, processes of the same user may be traced
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:")
	word, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	if caps, err := strconv.ParseUint(word, 16, 64); err != nil || caps&capSysPtrace == 0 {
		tb.Skipf("kernel.yama.ptrace_scope is %s and this process has no CAP_SYS_PTRACE: run the tests as root", bytes.TrimSpace(scope))
	}
}

// suite removes what tests share once all have run.
type suite struct{ *testing.M }

func (s suite) Run() int {
	// A stanch that a test starts would ignore what nohup has made the tests
	// ignore; what is caught here begins as usual in a child.
	for _, sig := range []os.Signal{syscall.SIGHUP, os.Interrupt} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	code := s.M.Run()
	for _, dir := range shared.dirs {
		if err := os.RemoveAll(dir); err != nil {
			code = max(code, 1)
		}
	}
	return code
}

// shared are directories that outlive one test. Other users can enter them.
var shared struct {
	sync.Mutex
	dirs []string
}

func sharedDir() (string, error) {
	dir, err := os.MkdirTemp("", "stanch-test")
	if err != nil {
		return "", err
	}
	shared.Lock()
	shared.dirs = append(shared.dirs, dir)
	shared.Unlock()
	return dir, os.Chmod(dir, 0o755)
}

// roomy allows pauses that are longer than the default: other tests may keep
// the processors busy, and these tests are about something else.
const roomy = "--max-pause=5s"

// limit is how long one stanch may take. It is long because tests share the
// machine; nothing waits for it when all is well.
const limit = 2 * time.Minute

// outcome is how a stanch ended.
type outcome struct {
	code     int // -1: killed by a signal
	out, err string
}

// session is a running stanch.
type session struct {
	tb    testing.TB
	cmd   *exec.Cmd
	ctx   context.Context // ends with limit
	stop  context.CancelFunc
	out   bytes.Buffer
	lines chan string // its stderr
	done  chan struct{}
	mu    sync.Mutex
	text  strings.Builder // its stderr so far
}

// begin starts stanch.
func begin(tb testing.TB, args ...string) *session {
	tb.Helper()
	return beginAs(tb, func(*exec.Cmd) {}, args...)
}

// beginAs starts stanch after the command was changed by prepare: another
// binary, environment, user.
func beginAs(tb testing.TB, prepare func(*exec.Cmd), args ...string) *session {
	tb.Helper()
	return beginFor(tb, limit, prepare, args...)
}

// ownCgroups reports whether a watch can be started in a cgroup namespace of its
// own, where the container or unit that the tests run in, if any, is the root:
// else all their programs would be that one service.
var ownCgroups = sync.OnceValue(func() bool {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWCGROUP}
	return cmd.Run() == nil
})

// beginFor is beginAs with its own limit.
func beginFor(tb testing.TB, limit time.Duration, prepare func(*exec.Cmd), args ...string) *session {
	tb.Helper()
	ctx, stop := context.WithTimeout(context.Background(), limit)
	s := &session{tb: tb, ctx: ctx, stop: stop, lines: make(chan string, 4096), done: make(chan struct{})}
	s.cmd = exec.CommandContext(ctx, "stanch", args...)
	s.cmd.Stdout = &s.out
	r, w := io.Pipe()
	s.cmd.Stderr = w
	prepare(s.cmd)
	if (args[0] == "watch" || args[0] == "suspects") && ownCgroups() {
		if s.cmd.SysProcAttr == nil {
			s.cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		s.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWCGROUP
	}
	if err := s.cmd.Start(); err != nil {
		stop()
		tb.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(s.lines)
		in := bufio.NewScanner(r)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			s.mu.Lock()
			s.text.WriteString(in.Text() + "\n")
			s.mu.Unlock()
			select {
			case s.lines <- in.Text():
			default: // nobody waits for so many
			}
		}
	}()
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // what it says is read from ProcessState
		_ = w.Close()
		<-read
	}()
	tb.Cleanup(func() {
		stop()
		<-s.done
	})
	return s
}

// await waits until stanch says a line that contains the words.
func (s *session) await(words string) {
	s.tb.Helper()
	timeout := time.After(limit)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.tb.Fatalf("stanch %s ended before it said %q:\n%s%s", s.args(), words, s.stderr(), s.out.String())
			}
			if strings.Contains(line, words) {
				return
			}
		case <-timeout:
			s.tb.Fatalf("stanch %s did not say %q:\n%s", s.args(), words, s.stderr())
		}
	}
}

// running reports whether stanch still runs.
func (s *session) running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// next waits until stanch says something or ends.
func (s *session) next() {
	<-s.lines // closed at the end
}

func (s *session) stderr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *session) args() string { return strings.Join(s.cmd.Args[1:], " ") }

// wait waits for the end. A stanch that takes longer than the limit fails the
// test.
func (s *session) wait() outcome {
	s.tb.Helper()
	<-s.done
	o := outcome{s.cmd.ProcessState.ExitCode(), s.out.String(), s.stderr()}
	if errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		s.tb.Errorf("stanch %s did not end in time:\n%s", s.args(), o.err)
	}
	s.stop()
	return o
}

// kill ends stanch at once.
func (s *session) kill() outcome {
	s.tb.Helper()
	_ = s.cmd.Process.Kill() // it may have ended by itself
	return s.wait()
}

// stanch runs a command line to its end.
func stanch(tb testing.TB, args ...string) outcome {
	tb.Helper()
	return begin(tb, args...).wait()
}

// patiently runs a command line to its end, again when the machine was so busy
// that the target's threads did not stop in time, or stood still for too long.
func patiently(tb testing.TB, args ...string) outcome {
	tb.Helper()
	for try := 1; ; try++ {
		o := stanch(tb, args...)
		busy := false
		for _, words := range []string{"does not stop", "pause too long", "no safe moment"} {
			busy = busy || strings.Contains(o.err, words)
		}
		if o.code != 1 || try == 10 || !busy {
			return o
		}
		tb.Logf("try %d: %s", try, complaint(o))
	}
}

// complaint is the last line of stderr of a stanch that failed.
func complaint(o outcome) string {
	if o.code != 1 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(o.err), "\n")
	return lines[len(lines)-1]
}

// wantCode fails the test unless stanch ended with one of the codes.
func (o outcome) wantCode(tb testing.TB, codes ...int) {
	tb.Helper()
	for _, c := range codes {
		if o.code == c {
			return
		}
	}
	tb.Fatalf("exit code %d, want %v\nstderr:\n%s\nstdout:\n%s", o.code, codes, o.err, o.out)
}

// wantLine fails the test unless stanch ended with this code and its last
// words, one line, contain all of these; and nothing on stdout.
func (o outcome) wantLine(tb testing.TB, code int, words ...string) {
	tb.Helper()
	o.wantCode(tb, code)
	lines := strings.Split(strings.TrimSuffix(o.err, "\n"), "\n")
	last := lines[len(lines)-1]
	for _, w := range append(words, "stanch: ") {
		if !strings.Contains(last, w) {
			tb.Errorf("the last line lacks %q:\n%s", w, o.err)
		}
	}
	for _, l := range lines[:len(lines)-1] {
		if strings.HasPrefix(l, "stanch: ") {
			tb.Errorf("more than one line of complaint:\n%s", o.err)
		}
	}
	if o.out != "" {
		tb.Errorf("a report all the same:\n%s", o.out)
	}
}

// command is the path of a command of TestMain.
func command(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// report reads what stanch wrote with --format json.
func (o outcome) report(tb testing.TB) *leak.Report {
	tb.Helper()
	r, err := render.ReadJSON(strings.NewReader(o.out))
	if err != nil {
		tb.Fatalf("exit code %d, no report: %v\nstderr:\n%s\nstdout:\n%s", o.code, err, o.err, o.out)
	}
	return r
}

// builds are what tests compile once: commands of this module.
var builds = struct {
	sync.Mutex
	made map[string]string
}{made: map[string]string{}}

// build compiles cmd/stanch with build tags into a directory that every user
// can enter.
func build(tb testing.TB, tags string) string {
	tb.Helper()
	return once(tb, "stanch "+tags, func(dir string) (string, *exec.Cmd) {
		exe := filepath.Join(dir, "stanch")
		return exe, exec.Command("go", "build", "-tags", tags, "-o", exe, ".")
	})
}

// compile compiles testdata/NAME, a C program of these tests, which may use
// the fixture protocol.
func compile(tb testing.TB, name string, flags ...string) string {
	tb.Helper()
	return once(tb, name+" "+strings.Join(flags, " "), func(dir string) (string, *exec.Cmd) {
		exe := filepath.Join(dir, strings.TrimSuffix(name, filepath.Ext(name)))
		args := append([]string{"-g", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-I", "../../testdata/leaky"}, flags...)
		return exe, exec.Command("gcc", append(args, "-o", exe, filepath.Join("testdata", name))...)
	})
}

func once(tb testing.TB, key string, make func(dir string) (string, *exec.Cmd)) string {
	tb.Helper()
	builds.Lock()
	defer builds.Unlock()
	if exe := builds.made[key]; exe != "" {
		return exe
	}
	dir, err := sharedDir()
	if err != nil {
		tb.Fatal(err)
	}
	exe, cmd := make(dir)
	if b, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, b)
	}
	builds.made[key] = exe
	return exe
}
