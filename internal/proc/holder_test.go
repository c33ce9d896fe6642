package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// TestMain fails when a test leaves a child or a descriptor behind.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "proc-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if left := leftovers(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "left over after the tests:", left)
		code = 1
	}
	os.Exit(code)
}

// leftovers names children and descriptors that the tests forgot. The Go
// runtime's own epoll, its eventfd, and the standard streams do not count.
func leftovers() string {
	children, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range children {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return "children " + string(b)
		}
	}
	self, err := Default.Self()
	if err != nil {
		return err.Error()
	}
	fds, err := self.Descriptors()
	if err != nil {
		return err.Error()
	}
	for _, fd := range fds {
		if fd.Num > 2 && (fd.Kind == "socket" || strings.Contains(fd.Link, buildDir)) {
			return fmt.Sprintf("descriptor %d %s", fd.Num, fd.Link)
		}
	}
	return ""
}

var (
	buildDir string
	buildMu  sync.Mutex
)

// build compiles testdata/NAME once and returns the executable.
func build(t *testing.T, source string, flags ...string) string {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	exe := filepath.Join(buildDir, strings.TrimSuffix(source, ".c"))
	if _, err := os.Stat(exe); err == nil {
		return exe
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc: apt-get install gcc libc6-dev")
	}
	args := append(flags, "-g", "-O1", "-pthread", "-o", exe, filepath.Join("testdata", source))
	if out, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", source, err, out)
	}
	return exe
}

// holder is a running testdata/holder.c.
type holder struct {
	*Target
	at   map[string]leak.Addr
	fd   map[string]int
	kill func() // kills and reaps it; may be called twice
	wait func() // waits for its end
}

// startHolder starts the program; it ends with the test.
func startHolder(t *testing.T) *holder {
	t.Helper()
	return startProgram(t, t.TempDir(), build(t, "holder.c"))
}

// closing closes something that must not fail to.
func closing(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func startProgram(t *testing.T, dir string, argv ...string) *holder {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{at: map[string]leak.Addr{}, fd: map[string]int{}}
	h.wait = sync.OnceFunc(func() {
		_ = cmd.Wait()    // killed, or ended by its standard input
		_ = stdin.Close() // Wait may have done it
	})
	h.kill = func() {
		_ = cmd.Process.Kill()
		h.wait()
	}
	t.Cleanup(h.kill)
	alarm := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer alarm.Stop()
	h.listen(t, stdout)
	if h.Target, err = Default.Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	// What main says tells nothing of the other thread, which may have got no
	// further than the dynamic linker.
	eventually(t, "all threads wait", h.waits)
	return h
}

// waits reports whether all threads wait in a system call.
func (h *holder) waits() bool {
	tids, err := h.Threads()
	for _, tid := range tids {
		b, err := os.ReadFile(h.Path("task", strconv.Itoa(tid), "stat"))
		if err != nil {
			return false
		}
		if st, err := parseStat(b); err != nil || st.State != 'S' {
			return false
		}
	}
	return err == nil
}

// listen reads what the program says of itself, up to "ready".
func (h *holder) listen(t *testing.T, r io.Reader) {
	t.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch f[0] {
		case "ready":
			return
		case "at":
			a, err := strconv.ParseUint(f[2], 0, 64)
			if err != nil {
				t.Fatal(err)
			}
			h.at[f[1]] = leak.Addr(a)
		case "fd":
			h.fd[f[1]], _ = strconv.Atoi(f[2])
		}
	}
	t.Fatal("the program ended before it was ready")
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !met(); {
		if time.Now().After(end) {
			t.Fatalf("it never happened: %s", what)
		}
		// A poll of the clock, not a sleep that a result depends on.
		ts := unix.NsecToTimespec(int64(2 * time.Millisecond))
		_ = unix.Nanosleep(&ts, nil)
	}
}

// copyFile makes an executable copy under another name.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
