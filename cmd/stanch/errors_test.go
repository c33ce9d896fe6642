package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/fixture"
	"stanch/internal/proc"
)

// nobody is a user without any rights.
const nobody = 65534

func TestNoSuchProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	gone := strconv.Itoa(cmd.ProcessState.Pid())
	for _, command := range [][]string{{"scan", gone}, {"diagnose", gone}, {"record", gone}, {"detach", gone}, {"scan", "--dry-run", gone}, {"doctor", gone}} {
		stanch(t, command...).wantLine(t, 1, "no process has the PID "+gone)
	}
	stanch(t, "scan", "no-such-process-name").wantLine(t, 1, `"no-such-process-name"`)
}

func TestSeveralMatches(t *testing.T) {
	privileged(t)
	t.Parallel()
	name := fmt.Sprintf("twin%d", os.Getpid())
	exe := filepath.Join(t.TempDir(), name)
	copyFile(t, fixture.Build(t, "direct"), exe)
	one, two := fixture.Start(t, exe), fixture.Start(t, exe)
	one.Ask("leak 20", "ok")
	before := look(t, one.PID())

	o := stanch(t, "scan", name)
	o.wantCode(t, 2)
	for _, words := range []string{name, "2 processes", pid(one), pid(two), "--all", "MEMORY", "DESCRIPTORS", "PARENT"} {
		if !strings.Contains(o.err, words) {
			t.Errorf("the list lacks %q:\n%s", words, o.err)
		}
	}
	untouched(t, one.PID(), before)

	r := stanch(t, "scan", roomy, "--all", "--format", "json", name).report(t)
	if len(r.Targets) != 2 || r.Targets[0].PID == r.Targets[1].PID {
		t.Errorf("--all: %+v", r.Targets)
	}
	for i := range r.Findings {
		if r.Targets[r.Findings[i].Target-1].PID != one.PID() {
			t.Errorf("a loss in the wrong process: %s", r.Findings[i].Title)
		}
	}
	two.Quit()
	// One is left, and its name is enough.
	stanch(t, "scan", roomy, name).wantCode(t, 3)
	one.Quit()
}

func TestKernelThread(t *testing.T) {
	t.Parallel()
	pids, err := proc.Default.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		target, err := proc.Default.Open(pid)
		if err != nil {
			continue
		}
		if st, err := target.Stat(); err == nil && st.Kernel() {
			stanch(t, "scan", strconv.Itoa(pid)).wantLine(t, 1, "is a kernel thread")
			return
		}
	}
	t.Skip("no kernel thread is visible in this PID namespace")
}

func TestZombie(t *testing.T) {
	t.Parallel()
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := p.Wait(); err != nil {
			t.Error(err)
		}
	}()
	awaitState(t, p.Pid, 'Z')
	o := stanch(t, "scan", strconv.Itoa(p.Pid))
	o.wantLine(t, 1, "is a zombie", fmt.Sprintf("pid %d", os.Getpid()))
}

// awaitState waits until a process is in a state.
func awaitState(t *testing.T, pid int, state byte) {
	t.Helper()
	target, err := proc.Default.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if st, err := target.Stat(); err == nil && st.State == state {
			return
		}
	}
	t.Fatalf("pid %d does not come into state %c", pid, state)
}

// TestEndsWhileWatched: that the target ends is an ending, no fault; what was
// seen until then is reported.
func TestEndsWhileWatched(t *testing.T) {
	privileged(t)
	t.Parallel()
	for _, way := range []string{"exit", "exec", "kill"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			p := fixture.Start(t, compile(t, "shifty.c"))
			p.Ask("leak 100", "ok")
			s := begin(t, "diagnose", roomy, "--for", "30s", pid(p))
			s.await("watching")
			began := time.Now()
			switch way {
			case "exit":
				p.Say("exit")
				if err := p.Wait(); err != nil {
					t.Error(err)
				}
			case "exec":
				p.Ask("exec", "ready")
			case "kill":
				p.Kill()
			}
			o := s.wait()
			o.wantCode(t, 0, 3)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("stanch went on for %v without a target", took)
			}
			want := "ended while it was watched"
			if way == "exec" {
				want = "another program"
			}
			if !strings.Contains(o.out, want) || !strings.Contains(o.out, "400") && !strings.Contains(o.out, "408") {
				t.Errorf("the report lacks %q or the loss:\n%s\n%s", want, o.out, o.err)
			}
			if way == "exec" {
				p.Ask("leak 1", "ok")
				if again := look(t, p.PID()); again.code != 0 {
					t.Errorf("the new program has %d anonymous executable mappings", again.code)
				}
				p.Quit()
			}
		})
	}
}

// TestStoppedWhileWatched: a target that somebody stops (Ctrl-Z, a debugger's
// SIGSTOP) stays stopped, and goes on when it is told to.
func TestStoppedWhileWatched(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, compile(t, "shifty.c"))
	p.Ask("leak 100", "ok")
	before := look(t, p.PID())
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitState(t, p.PID(), 'T')
	stanch(t, "scan", roomy, pid(p)).wantCode(t, 3)
	stanch(t, "diagnose", roomy, "--for", "2s", pid(p)).wantCode(t, 3)
	awaitState(t, p.PID(), 'T')
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.Ask("leak 1", "ok")
	untouched(t, p.PID(), before)
	p.Quit()
}

func TestThirtyTwoBit(t *testing.T) {
	t.Parallel()
	exe := filepath.Join(t.TempDir(), "tiny32")
	if err := os.WriteFile(exe+".bytes", tiny32(), 0o600); err != nil {
		t.Fatal(err)
	}
	copyFile(t, exe+".bytes", exe)
	cmd := exec.Command(exe)
	if err := cmd.Start(); err != nil {
		t.Skipf("this kernel runs no 32-bit programs: %v", err)
	}
	defer func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("the 32-bit program has ended: %v", err)
		}
		_ = cmd.Wait() // killed
	}()
	for _, command := range [][]string{{"scan"}, {"diagnose"}, {"record"}, {"detach"}} {
		stanch(t, append(command, strconv.Itoa(cmd.Process.Pid))...).wantLine(t, 1, "32-bit")
	}
}

// tiny32 is an ELF executable for i386 that calls pause(2) for ever.
func tiny32() []byte {
	code := []byte{
		0xb8, 29, 0, 0, 0, // mov eax, 29: __NR_pause
		0xcd, 0x80, // int 0x80
		0xeb, 0xf7, // jmp to the start
	}
	const base, headers = 0x08048000, 52 + 32
	le := binary.LittleEndian
	b := []byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, 3) // EM_386
	for _, word := range []uint32{1, base + headers, 52, 0, 0} {
		b = le.AppendUint32(b, word) // version, entry, program headers, no section headers, flags
	}
	for _, half := range []uint16{52, 32, 1, 40, 0, 0} {
		b = le.AppendUint16(b, half) // sizes and numbers of headers
	}
	size := uint32(headers + len(code))
	for _, word := range []uint32{1, 0, base, base, size, size, 5, 0x1000} {
		b = le.AppendUint32(b, word) // PT_LOAD, r-x
	}
	return append(b, code...)
}

// TestAlreadyTraced: a process has one tracer at most; stanch names it.
func TestAlreadyTraced(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, compile(t, "shifty.c"))
	tracer := fixture.StartCmd(t, &exec.Cmd{Path: command(t, tracerCommand), Args: []string{tracerCommand, pid(p)}})
	for _, command := range [][]string{{"scan"}, {"diagnose", "--for", "2s"}, {"record", "--for", "2s"}, {"detach"}} {
		stanch(t, append(command, pid(p))...).wantLine(t, 1, "already traced by "+tracerCommand, "["+pid(tracer)+"]")
	}
	o := stanch(t, "scan", "--dry-run", pid(p))
	if o.code != 1 || !strings.Contains(o.out+o.err, "already traced by") {
		t.Errorf("--dry-run: exit code %d\n%s%s", o.code, o.out, o.err)
	}
	tracer.Kill()
	stanch(t, "scan", roomy, pid(p)).wantCode(t, 0)
	p.Quit()
}

// tracerCommand is this binary as a debugger that attaches to the PID it is
// given and does nothing.
const tracerCommand = "other-tracer"

func tracerMain() {
	runtime.LockOSThread() // the tracer of a process is a thread
	pid, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = unix.PtraceSeize(pid)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// TestSecondStanch: one stanch per target.
func TestSecondStanch(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, compile(t, "shifty.c"))
	p.Ask("leak 50", "ok")
	first := begin(t, "diagnose", roomy, "--for", "20s", pid(p))
	first.await("watching")
	for _, command := range [][]string{{"scan"}, {"diagnose", "--for", "2s"}, {"record", "--for", "2s"}, {"detach"}} {
		stanch(t, append(command, pid(p))...).wantLine(t, 1, "another stanch", pid(p))
	}
	// The user has seen enough: Ctrl-C ends it with what there is.
	if err := first.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	o := first.wait()
	o.wantCode(t, 3)
	if !strings.Contains(o.out, "LEAK") {
		t.Errorf("no leak in the report:\n%s", o.out)
	}
	stanch(t, "scan", roomy, pid(p)).wantCode(t, 3)
	p.Quit()
}

// TestSignals: SIGHUP and SIGTERM end a diagnosis like Ctrl-C; the probe is
// removed and the report written.
func TestSignals(t *testing.T) {
	privileged(t)
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		p := fixture.Start(t, compile(t, "shifty.c"))
		p.Ask("leak 50", "ok")
		before := look(t, p.PID())
		s := begin(t, "diagnose", roomy, "--for", "1h", "--format", "json", pid(p))
		s.await("watching")
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		o := s.wait()
		o.wantCode(t, 3)
		if r := o.report(t); r.Observed.ProbeRemoved == nil || !*r.Observed.ProbeRemoved {
			t.Errorf("%v: the probe is not said to be removed: %+v", sig, r.Observed)
		}
		untouched(t, p.PID(), before)
		p.Quit()
	}
}

// heeding starts a command with the signals as they are.
func heeding(*exec.Cmd) {}

// ignoring starts a command as nohup and the shell's background jobs do.
func ignoring(c *exec.Cmd) {
	c.Args = append([]string{"sh", "-c", `trap "" HUP INT; exec "$@"`, "sh", c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
}

// TestIgnoredSignals: a stanch that was started to ignore a signal does.
func TestIgnoredSignals(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, compile(t, "shifty.c"))
	s := beginAs(t, ignoring, "diagnose", roomy, "--for", "8s", "--format", "json", pid(p))
	s.await("watching")
	for _, sig := range []os.Signal{syscall.SIGHUP, os.Interrupt} {
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	o := s.wait()
	o.wantCode(t, 0)
	if r := o.report(t); r.Observed.DurationS < 8 {
		t.Errorf("it watched for %.1f s instead of 8", r.Observed.DurationS)
	}
	p.Quit()
}

// TestNotPermitted: stanch as a user who may not look says which check refused
// and what to do, and touches nothing.
func TestNotPermitted(t *testing.T) {
	privileged(t)
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can start stanch as another user")
	}
	dir, err := sharedDir()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "stanch")
	copyFile(t, self, exe)
	p := fixture.Start(t, compile(t, "shifty.c"))
	before := look(t, p.PID())
	asNobody := func(c *exec.Cmd) {
		c.Path, c.Dir = exe, "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	for _, command := range [][]string{{"scan"}, {"diagnose", "--for", "2s"}, {"record", "--for", "2s"}, {"detach"}} {
		beginAs(t, asNobody, append(command, pid(p))...).wait().wantLine(t, 1, "runs as root", "uid 65534", "sudo stanch")
	}
	untouched(t, p.PID(), before)
	o := beginAs(t, asNobody, "doctor").wait()
	if !strings.Contains(o.out, "sudo stanch") {
		t.Errorf("doctor does not say what to do:\n%s", o.out)
	}
	p.Quit()

	// An own process of that user may be looked at, where yama allows it.
	own := exec.Command(compile(t, "shifty.c"))
	own.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	q := fixture.StartCmd(t, own)
	q.Ask("leak 20", "ok")
	before = look(t, q.PID())
	scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	o = beginAs(t, asNobody, "scan", roomy, pid(q)).wait()
	if s := strings.TrimSpace(string(scope)); s == "" || s == "0" {
		o.wantCode(t, 3)
	} else {
		o.wantLine(t, 1, "ptrace_scope", "sudo stanch")
	}
	untouched(t, q.PID(), before)
	q.Quit()
}

// TestPauseTooLong: a pause that is predicted longer than allowed is refused
// before anything is touched.
func TestPauseTooLong(t *testing.T) {
	privileged(t)
	t.Parallel()
	p := fixture.Start(t, compile(t, "filler.c"), "100", "2")
	before := look(t, p.PID())
	stanch(t, "scan", "--max-pause", "1ms", pid(p)).wantLine(t, 1, "longer than the allowed 1ms", "--max-pause")
	stanch(t, "diagnose", "--for", "2s", "--max-pause", "1ms", pid(p)).wantLine(t, 1, "longer than the allowed 1ms")
	o := stanch(t, "scan", "--max-pause", "1ms", "--dry-run", pid(p))
	if o.code != 1 || !strings.Contains(o.out, "refused") {
		t.Errorf("--dry-run: exit code %d\n%s%s", o.code, o.out, o.err)
	}
	untouched(t, p.PID(), before)
	p.Ask("check", "ok")
	p.Quit()
}

// TestBadCores: files that are no core of a 64-bit x86 process, or only a part
// of one.
func TestBadCores(t *testing.T) {
	privileged(t)
	t.Parallel()
	gcore := fixture.Package(t, "gcore")
	p := fixture.Start(t, fixture.Build(t, "direct"))
	p.Ask("leak 10", "ok")
	dir := t.TempDir()
	if b, err := exec.Command(gcore, "-o", filepath.Join(dir, "core"), pid(p)).CombinedOutput(); err != nil {
		t.Fatalf("gcore: %v\n%s", err, b)
	}
	p.Quit()
	whole := filepath.Join(dir, "core."+pid(p))
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	foreign := append([]byte(nil), content...)
	binary.LittleEndian.PutUint16(foreign[18:], 183) // e_machine: EM_AARCH64
	for name, c := range map[string]struct {
		content []byte
		words   string
	}{
		"truncated": {content[:len(content)*2/3], "truncated"},
		"foreign":   {foreign, "another architecture (aarch64)"},
		"text":      {[]byte("what somebody wrote down about a crash, in words\n"), "not an ELF file"},
		"program":   {tiny32(), "not a core file"},
		"empty":     {nil, "empty"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		stanch(t, "scan", path).wantLine(t, 2, path, c.words)
	}
}

// copyFile copies a program. Another process does it: a descriptor of this one
// could be inherited by a child that is just being started, and a file that
// somebody may write to cannot be executed.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if b, err := exec.Command("install", "-m", "755", from, to).CombinedOutput(); err != nil {
		t.Fatalf("install %s: %v\n%s", to, err, b)
	}
}
