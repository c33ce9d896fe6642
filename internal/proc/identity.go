package proc

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// ExecID changes when a process calls execve: the executable's identity and
// the layout of its address space. It is compared with ==. With address
// randomization off, a process that executes the same file anew looks the same.
// For a moment during execve Stack and Brk are zero.
type ExecID struct {
	Dev, Inode uint64 // of /proc/PID/exe
	Stack, Brk leak.Addr
}

// ExecID reads the identity of the program that runs in the process now. It
// needs the rights of ptrace attach.
func (t *Target) ExecID() (ExecID, error) {
	var st unix.Stat_t
	if err := unix.Stat(t.Path("exe"), &st); err != nil {
		return ExecID{}, gone(t.ID.PID, err)
	}
	stat, err := t.Stat()
	if err != nil {
		return ExecID{}, err
	}
	if stat.Start != t.ID.Start {
		return ExecID{}, fmt.Errorf("pid %d: %w", t.ID.PID, ErrGone)
	}
	return ExecID{st.Dev, st.Ino, stat.Stack, stat.Brk}, nil
}

// Exe is the path of the executable as stanch's root sees it; deleted says that
// the file was unlinked or replaced since the start.
func (t *Target) Exe() (path string, deleted bool, err error) {
	path, err = os.Readlink(t.Path("exe"))
	if err != nil {
		return "", false, gone(t.ID.PID, err)
	}
	path, deleted = strings.CutSuffix(path, " (deleted)")
	return path, deleted, nil
}

// OpenExe opens the running executable, also when it was deleted. The caller
// closes it.
func (t *Target) OpenExe() (*os.File, error) {
	f, err := os.Open(t.Path("exe"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	return f, nil
}

// Auxv reads one entry of the auxiliary vector, getauxval(3): AuxEntry and its
// like. An entry that the kernel did not give is zero.
func (t *Target) Auxv(key uint64) (uint64, error) {
	b, err := os.ReadFile(t.Path("auxv"))
	if err != nil {
		return 0, gone(t.ID.PID, err)
	}
	for ; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) == key {
			return binary.LittleEndian.Uint64(b[8:]), nil
		}
	}
	return 0, nil
}

// Args is the command line, one string an argument, as it stands in the
// target's memory. It may hold secrets: see MaskArgs. It is empty for a zombie.
func (t *Target) Args() ([]string, error) {
	b, err := os.ReadFile(t.Path("cmdline"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	text := strings.TrimRight(string(b), "\x00")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\x00"), nil
}

// Uptime is how long the process lives, suspended time included, to 10 ms.
func (t *Target) Uptime() time.Duration {
	// USER_HZ is 100 on every Linux ABI.
	return max(0, boottime()-time.Duration(t.ID.Start)*(time.Second/100))
}

// Namespaces are the identities of the namespaces a process lives in; zero
// where the kernel has none of that kind.
type Namespaces struct {
	Mount, PID, Net, User, Cgroup uint64
}

// Namespaces reads /proc/PID/ns. It needs the rights of ptrace attach.
func (t *Target) Namespaces() (Namespaces, error) {
	var n Namespaces
	for name, id := range map[string]*uint64{"mnt": &n.Mount, "pid": &n.PID, "net": &n.Net, "user": &n.User, "cgroup": &n.Cgroup} {
		link, err := os.Readlink(t.Path("ns", name))
		if os.IsNotExist(err) {
			if gone := t.Check(); gone != nil {
				return n, gone
			}
			continue
		}
		if err != nil {
			return n, gone(t.ID.PID, err)
		}
		*id = parseFD(0, link).Inode // "mnt:[4026531840]"
	}
	return n, nil
}

// Self is stanch itself as a target.
func (r Root) Self() (*Target, error) { return r.Open(os.Getpid()) }

// Kernel is the version of the running kernel as two numbers, 6 and 1 for
// "6.1.0-18-amd64", zeros when it cannot be told.
func (r Root) Kernel() (major, minor int) {
	b, err := os.ReadFile(string(r) + "/sys/kernel/osrelease")
	if err != nil {
		return 0, 0
	}
	first, rest, _ := strings.Cut(strings.TrimSpace(string(b)), ".")
	second, _, _ := strings.Cut(rest, ".")
	digits := strings.IndexFunc(second, func(c rune) bool { return c < '0' || c > '9' })
	if digits >= 0 {
		second = second[:digits]
	}
	return decimal(first), decimal(second)
}

// Sysctl reads a number below /proc/sys: Sysctl("kernel/pid_max"). ok is false
// when there is no such setting.
func (r Root) Sysctl(name string) (value uint64, ok bool) {
	b, err := os.ReadFile(string(r) + "/sys/" + name)
	if err != nil {
		return 0, false
	}
	value, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return value, err == nil
}
