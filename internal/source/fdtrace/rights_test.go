package fdtrace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// TestMain lets the test binary be a process that only tries to load.
func TestMain(m *testing.M) {
	switch os.Getenv("FDTRACE_TRY") {
	case "seccomp":
		if err := refuseBPF(); err != nil {
			fmt.Println("seccomp:", err)
			os.Exit(1)
		}
		fallthrough
	case "load":
		err := Available()
		fmt.Printf("denied=%v unsupported=%v: %v\n", errors.Is(err, proc.ErrDenied), errors.Is(err, proc.ErrUnsupported), err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// refuseBPF makes bpf() fail in this process, as the filters of containers do.
func refuseBPF() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_BPF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// elsewhere runs the test binary by a command line before it, in a directory
// that everybody may read.
func elsewhere(t *testing.T, try string, before []string, args ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fdtrace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.WriteFile(exe, self, 0o755), os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o700), os.Chmod(tmp, 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(before[0], append(append(before[1:], exe), args...)...)
	cmd.Env = append(os.Environ(), "FDTRACE_TRY="+try, "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%q: %v\n%s", before, err, out)
	}
	return string(out)
}

// TestPIDNamespace runs the test of openers where processes have other
// numbers than in the kernel.
func TestPIDNamespace(t *testing.T) {
	out := elsewhere(t, "", []string{"unshare", "-pf", "--mount-proc"}, "-test.v", "-test.run", "^TestOpeners$/raw=true|^TestLives$")
	if !strings.Contains(out, "PASS: TestOpeners/raw=true") && !strings.Contains(out, "PASS: TestOpeners") || !strings.Contains(out, "PASS: TestLives") {
		t.Error(out)
	}
}

var nobody = []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}

// TestFewRights holds that CAP_BPF and CAP_PERFMON are enough.
func TestFewRights(t *testing.T) {
	caps := append(nobody[:len(nobody):len(nobody)], "--inh-caps=+bpf,+perfmon", "--ambient-caps=+bpf,+perfmon")
	if out := elsewhere(t, "", caps, "-test.v", "-test.run", "^TestLives$"); !strings.Contains(out, "PASS: TestLives") {
		t.Error(out)
	}
}

// TestRefused holds what is said where the programs cannot be loaded.
func TestRefused(t *testing.T) {
	noBTF := []string{"unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$0\""}
	for _, c := range []struct {
		name, try string
		before    []string
		want      string
	}{
		{"rights", "load", nobody, "denied=true unsupported=false: tracing descriptors needs CAP_BPF and CAP_PERFMON"},
		{"seccomp", "seccomp", []string{"env"}, "denied=true unsupported=false: tracing descriptors needs CAP_BPF and CAP_PERFMON (Linux 5.8), or root, and a system call filter"},
		{"btf", "load", noBTF, "denied=false unsupported=true: the kernel does not describe itself"},
	} {
		if out := elsewhere(t, c.try, c.before); !strings.Contains(out, c.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %q", c.name, out)
		}
	}
}
