package proc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// wantRefusal checks that err is one line, of a kind, and says what is wanted.
func wantRefusal(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v is not %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}

func TestResolveName(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "stanch-test-long-name") // comm keeps 15 characters
	copyFile(t, build(t, "holder.c"), exe)
	one := startProgram(t, t.TempDir(), exe).ID.PID
	for _, word := range []string{"stanch-test-long-name", "stanch-test-lon", strconv.Itoa(one)} {
		got, err := Default.Resolve(word)
		if err != nil || len(got) != 1 || got[0].ID.PID != one || got[0].Check() != nil {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
	two := startProgram(t, t.TempDir(), exe, "601", "--password", "hunter2").ID.PID
	targets, err := Default.Resolve("stanch-test-long-name")
	var amb *AmbiguousError
	if !errors.As(err, &amb) || len(targets) != 2 || len(amb.Matches) != 2 {
		t.Fatalf("%+v, %v", targets, err)
	}
	for _, m := range amb.Matches {
		if m.PPID != os.Getpid() || m.Parent == "" || m.RSS == 0 || m.Descriptors < 3 || m.Comm != "stanch-test-lon" {
			t.Errorf("match %+v", m)
		}
		if m.PID == two && !strings.HasSuffix(m.Args, "601 --password ***") {
			t.Errorf("args %q", m.Args)
		}
	}
	for _, word := range []string{"2 processes", strconv.Itoa(one), strconv.Itoa(two), "descriptors", "--all"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q lacks %q", err, word)
		}
	}
}

func TestResolveNobody(t *testing.T) {
	_, err := Default.Resolve("no-such-program-here")
	wantRefusal(t, err, ErrGone, "no-such-program-here")
	_, err = Default.Resolve("")
	wantRefusal(t, err, ErrGone)
	_, err = Default.Resolve("0")
	wantRefusal(t, err, ErrGone, "PID 0")
	_, err = Default.Resolve("99999999")
	wantRefusal(t, err, ErrGone, "no process has the PID 99999999")
	_, err = Default.Resolve("deadbeefdeadbeef")
	wantRefusal(t, err, ErrGone)

	// stanch itself and its parents are never meant by a name.
	for _, word := range []string{"proc.test"} {
		if targets, err := Default.Resolve(word); err == nil && targets[0].ID.PID == os.Getpid() {
			t.Errorf("%s is stanch itself", word)
		}
	}
}

func TestResolveZombie(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	eventually(t, "it is a zombie", func() bool {
		st, err := Default.stat(pid)
		return err == nil && st.State == 'Z'
	})
	_, err := Default.Resolve(strconv.Itoa(pid))
	wantRefusal(t, err, ErrGone, "zombie", strconv.Itoa(os.Getpid()))
}

func TestResolveKernelThread(t *testing.T) {
	pids, err := Default.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if st, err := Default.stat(pid); err == nil && st.Kernel() {
			_, err := Default.Resolve(strconv.Itoa(pid))
			wantRefusal(t, err, ErrUnsupported, "kernel thread", st.Comm)
			return
		}
	}
	t.Skip("no kernel thread is visible in this PID namespace")
}

func TestResolveThread(t *testing.T) {
	h := startHolder(t)
	tids, err := h.Threads()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Default.Resolve(strconv.Itoa(tids[1]))
	wantRefusal(t, err, ErrUnsupported, "thread of process "+strconv.Itoa(h.ID.PID))
}

func TestResolveTraced(t *testing.T) {
	h := startHolder(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const seize = 0x4206 // PTRACE_SEIZE
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(h.ID.PID), 0, 0, 0, 0); errno != 0 {
		t.Skipf("ptrace: %v", errno)
	}
	// A seized process that runs cannot be detached: its end detaches it.
	defer h.kill()
	_, err := Default.Resolve(strconv.Itoa(h.ID.PID))
	wantRefusal(t, err, ErrDenied, "traced by", strconv.Itoa(os.Getpid()))
}

func TestResolve32Bit(t *testing.T) {
	exe := build(t, "tiny32.c", "-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie")
	cmd := exec.Command(exe)
	if err := cmd.Start(); err != nil {
		t.Skipf("this kernel runs no 32-bit programs: %v", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	_, err := Default.Resolve(strconv.Itoa(cmd.Process.Pid))
	wantRefusal(t, err, ErrUnsupported, "32-bit", "386")
}

func TestResolveDenied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	// The test itself becomes an ordinary user for the length of one call; the
	// thread that does is thrown away.
	h := startHolder(t)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			result <- errno
			return
		}
		result <- h.Usable()
	}()
	err := <-result
	if errors.As(err, new(syscall.Errno)) {
		t.Skip(err)
	}
	wantRefusal(t, err, ErrDenied, "root")
}

// fakeProc builds a procfs with the processes of a systemd machine with
// containers.
type fakeProc struct {
	t   *testing.T
	dir string
}

func (f fakeProc) write(path, text string) {
	f.t.Helper()
	full := filepath.Join(f.dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f fakeProc) process(pid, ppid int, comm, nspid, cgroup string) {
	f.t.Helper()
	p := strconv.Itoa(pid)
	f.write(p+"/stat", p+" ("+comm+") S "+strconv.Itoa(ppid)+" 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 "+p+" 0 0 0 0 0 0\n")
	f.write(p+"/status", "Name:\t"+comm+"\nState:\tS (sleeping)\nTgid:\t"+p+"\nPid:\t"+p+"\nPPid:\t"+strconv.Itoa(ppid)+
		"\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nNSpid:\t"+nspid+"\nThreads:\t1\n")
	f.write(p+"/cgroup", cgroup)
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(f.dir, p, "exe")); err != nil {
		f.t.Fatal(err)
	}
}

func TestResolveUnitsAndContainers(t *testing.T) {
	const (
		id1 = "3f4e8a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7"
		id2 = "aa4e8a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7"
	)
	f := fakeProc{t, t.TempDir()}
	f.process(1, 0, "systemd", "1", "0::/init.scope\n")
	f.process(100, 1, "nginx", "100", "0::/system.slice/nginx.service\n")
	f.process(101, 100, "nginx", "101", "0::/system.slice/nginx.service\n")
	f.process(110, 1, "bus-daemon", "110", "5:memory:/\n1:name=systemd:/system.slice/bus.service\n0::/system.slice/bus.service\n")
	f.process(120, 1, "java", "120", "0::/system.slice/app@1.service/sub\n")
	f.process(121, 120, "helper", "121", "0::/system.slice/app@1.service/sub/deeper\n")
	f.process(200, 1, "shim", "200", "0::/system.slice/containerd.service\n")
	f.process(201, 200, "tini", "201 1", "0::/system.slice/docker-"+id1+".scope\n")
	f.process(202, 201, "server", "202 7", "0::/system.slice/docker-"+id1+".scope\n")
	f.process(203, 200, "bash", "203 30", "0::/system.slice/docker-"+id1+".scope\n") // docker exec
	f.process(300, 1, "conmon", "300", "0::/machine.slice/libpod-conmon-"+id2+".scope\n")
	f.process(301, 300, "redis-server", "301", "0::/machine.slice/libpod-"+id2+".scope/container\n") // --pid=host
	f.process(302, 301, "redis-child", "302", "0::/machine.slice/libpod-"+id2+".scope/container\n")
	root := Root(f.dir)

	for word, want := range map[string][]int{
		"nginx":                    {100, 101}, // a name comes before a unit
		"nginx.service":            {100},
		"bus":                      {110},
		"bus.service":              {110},
		"app@1":                    {120},
		"app@1.service":            {120},
		id1[:12]:                   {201},
		id1:                        {201},
		id2[:14]:                   {301},
		"server":                   {202},
		"301":                      {301},
		"docker-" + id1 + ".scope": {201},
	} {
		targets, err := root.Resolve(word)
		var amb *AmbiguousError
		if err != nil && !errors.As(err, &amb) {
			t.Errorf("%s: %v", word, err)
			continue
		}
		var got []int
		for _, x := range targets {
			got = append(got, x.ID.PID)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", word, d)
		}
	}
	for _, word := range []string{"3f4e8a1b2c3", "absent.service", "nginx.socket", id2[:11] + "x"} {
		_, err := root.Resolve(word)
		wantRefusal(t, err, ErrGone, word)
	}
}
