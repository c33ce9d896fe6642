package ptrace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// patience is how long a test waits for something that should come at once.
const testPatience = 30 * time.Second

// subject is a running test program. Nobody waits for it before the test ends:
// a wait by this process would take the tracer's news.
type subject struct {
	*proc.Target
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	fds   int

	growsFDs bool // calls that are made again open descriptors again
}

var (
	built  = map[string]string{}
	builds sync.Mutex
	outDir string // made and removed by TestMain
)

// build compiles testdata/NAME.c once per test run.
func build(t testing.TB, name string, flags ...string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	key := strings.Join(append([]string{name}, flags...), " ")
	if built[key] != "" {
		return built[key]
	}
	exe := filepath.Join(outDir, fmt.Sprintf("%s-%d", name, len(built)))
	args := append([]string{"-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", exe, "testdata/" + name + ".c"}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", name, err, out)
	}
	built[key] = exe
	return exe
}

// launch starts a test program and waits for its line "ready".
func launch(t testing.TB, exe string, args ...string) *subject {
	t.Helper()
	return launchCmd(t, exec.Command(exe, args...))
}

func launchCmd(t testing.TB, cmd *exec.Cmd) *subject {
	t.Helper()
	s := &subject{t: t, cmd: cmd, lines: make(chan string, 100)}
	out, childOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	childIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	cmd.Stdin, cmd.Stdout, cmd.Stderr = childIn, childOut, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = childIn.Close()
	_ = childOut.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(s.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			s.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		fmt.Fprintln(in, "quit")
		_ = in.Close()
		done := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		if t.Failed() {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		done.Stop()
		_ = out.Close()
		<-read
	})
	if s.Target, err = proc.Default.Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got := s.line(); got != "ready" {
		t.Fatalf("%s says %q", cmd.Path, got)
	}
	if n, err := s.DescriptorCount(); err == nil { // fails for one that starts another program just now
		s.fds = n
	}
	return s
}

func (s *subject) count(t testing.TB) int {
	t.Helper()
	n, err := s.DescriptorCount()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// line is the next line the program writes.
func (s *subject) line() string {
	s.t.Helper()
	select {
	case l, ok := <-s.lines:
		if !ok {
			s.t.Fatalf("the test program ended: %v", s.cmd.Wait())
		}
		return l
	case <-time.After(testPatience):
		st, _ := os.ReadFile(s.Path("status"))
		s.t.Fatalf("the test program does not answer:\n%s", st)
	}
	return ""
}

func (s *subject) ask(line string) string {
	s.t.Helper()
	fmt.Fprintln(s.in, line)
	return s.line()
}

// check lets the program check itself, and looks for traces of us.
func (s *subject) check() string {
	s.t.Helper()
	got := s.ask("check")
	if !strings.HasPrefix(got, "ok") {
		s.t.Errorf("the target found an error in itself: %s", got)
	}
	s.clean()
	return got
}

// clean looks for what a snapshot must not leave behind.
func (s *subject) clean() {
	s.t.Helper()
	tids, err := s.Threads()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, tid := range tids {
		if st, err := s.ThreadStatus(tid); err == nil && st.TracerPID != 0 {
			s.t.Errorf("thread %d is still traced by %d", tid, st.TracerPID)
		}
	}
	if z := s.zombieChildren(); len(z) > 0 {
		s.t.Errorf("zombies are left: %v", z)
	}
	// accept and open hold a number while they wait, and give it up for a
	// moment when they are restarted.
	n := s.count(s.t)
	for end := time.Now().Add(2 * time.Second); n != s.fds && !s.growsFDs && time.Now().Before(end); n = s.count(s.t) {
		time.Sleep(time.Millisecond)
	}
	if n != s.fds && !s.growsFDs {
		s.t.Errorf("the target has %d descriptors, %d before", n, s.fds)
	}
	if left, err := leftovers(s.Target); err != nil || len(left) > 0 {
		s.t.Errorf("stubs are left: %v %v", left, err)
	}
}

func (s *subject) zombieChildren() []int {
	var out []int
	for _, pid := range children(s.Target) {
		if st, err := readThreadStat(s.Root.Path(pid)); err == nil && st.state == 'Z' {
			out = append(out, pid)
		}
	}
	return out
}

// hold starts a stop that must succeed. A loaded machine may need more time
// than the default allows.
func (s *subject) hold() *Stop {
	s.t.Helper()
	stop, err := Start(context.Background(), s.Target, Options{MaxPause: 10 * time.Second, StopWait: 5 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	return stop
}

// snapshot makes one snapshot, reads a little, and closes it.
func (s *subject) snapshot() {
	s.t.Helper()
	snap := s.open()
	readSome(s.t, snap)
	if err := snap.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) open() *Snapshot {
	s.t.Helper()
	stop := s.hold()
	snap, err := stop.Snapshot(SnapshotOptions{})
	if err != nil {
		s.t.Fatal(errors.Join(err, stop.Release()))
	}
	return snap
}

func readSome(t testing.TB, snap *Snapshot) {
	t.Helper()
	var b [64]byte
	for _, th := range snap.Threads() {
		if n, err := snap.ReadAt(b[:], leak.Addr(th.Regs.Rsp)); n == 0 {
			t.Errorf("stack of thread %d in the snapshot: %v", th.TID, err)
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == helperWord && os.Args[2] == "watch" {
		helperWatch(os.Args[3])
		return
	}
	if len(os.Args) > 3 && os.Args[1] == helperWord && os.Args[2] == "unprivileged" {
		helperUnprivileged(os.Args[3])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == helperWord {
		helperMain(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == goTargetWord {
		goTargetMain()
	}
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: these tests need root (ptrace, cgroups)")
		return
	}
	var err error
	if outDir, err = os.MkdirTemp("", "stanch-ptrace-"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := os.Chmod(outDir, 0o755); err != nil { // other users run what is in it
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(outDir)
	os.Exit(code)
}

// helperWord makes this test binary do one thing to a target and exit.
const helperWord = "stanch-ptrace-helper"

// helperMain is: PID [HOST [forever]]. It makes a call and a snapshot, and
// closes it.
func helperMain(args []string) {
	pid, _ := strconv.Atoi(args[0])
	host := 0
	if len(args) > 1 {
		host, _ = strconv.Atoi(args[1])
	}
	t, err := proc.Default.Open(pid)
	if err == nil {
		err = oneSnapshot(t, host)
	}
	for err == nil && len(args) > 2 {
		err = oneSnapshot(t, host)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func oneSnapshot(t *proc.Target, host int) error {
	stop, err := Start(context.Background(), t, Options{MaxPause: 10 * time.Second, StopWait: 5 * time.Second})
	if err != nil {
		return err
	}
	stop.prefer = host
	if _, err := stop.Call(unix.SYS_GETPID); err != nil {
		return errors.Join(err, stop.Release())
	}
	snap, err := stop.Snapshot(SnapshotOptions{})
	if err != nil {
		return errors.Join(err, stop.Release())
	}
	var b [64]byte
	_, err = snap.ReadAt(b[:], leak.Addr(snap.Threads()[0].Regs.Rsp))
	return errors.Join(err, snap.Close())
}

// helper builds this test binary with the fault points.
var helper = sync.OnceValues(func() (string, error) {
	exe := filepath.Join(outDir, "helper")
	cmd := exec.Command("go", "test", "-c", "-tags", "faults", "-o", exe, ".")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return exe, err
})

func killed(err error) bool {
	var e *exec.ExitError
	return errors.As(err, &e) && e.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}
