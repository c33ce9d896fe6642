// Package proc is one process seen from outside, through /proc: identity, maps,
// threads, limits, descriptors, cgroups, namespaces. A live process and a core
// file are both a leak.Memory here. It reads and never changes anything.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// What callers act on. An error that wraps ErrDenied names the check that
// refused and what to do; one that wraps ErrUnsupported names what is missing.
var (
	ErrGone        = errors.New("process is gone")
	ErrDenied      = errors.New("not permitted")
	ErrUnsupported = errors.New("not supported")
)

// Root is where procfs is mounted: "/proc", or another place in tests.
type Root string

// Default is the host's procfs.
const Default Root = "/proc"

// Path joins a path below procfs for one process: Path(1, "maps").
func (r Root) Path(pid int, elem ...string) string {
	return filepath.Join(append([]string{string(r), strconv.Itoa(pid)}, elem...)...)
}

// Target is one live process. It holds no descriptor; every method reads
// afresh and returns ErrGone when the process has exited or its PID has a new
// owner.
type Target struct {
	ID   leak.ProcID
	Root Root
}

// Open finds the process with this PID. It returns ErrGone when there is none.
func (r Root) Open(pid int) (*Target, error) {
	st, err := r.stat(pid)
	if err != nil {
		return nil, err
	}
	return &Target{ID: leak.ProcID{PID: pid, Start: st.Start}, Root: r}, nil
}

// Check returns ErrGone unless the process still lives under this identity. A
// process that is ending or a zombie counts as gone.
func (t *Target) Check() error {
	st, err := t.Root.stat(t.ID.PID)
	if err != nil {
		return err
	}
	if st.Start != t.ID.Start || st.State == 'Z' || st.State == 'X' || st.Flags&exiting != 0 {
		return fmt.Errorf("pid %d: %w", t.ID.PID, ErrGone)
	}
	return nil
}

// Path joins a path below the target's procfs directory.
func (t *Target) Path(elem ...string) string { return t.Root.Path(t.ID.PID, elem...) }

// Stat is what stanch uses of /proc/PID/stat.
type Stat struct {
	Comm    string
	State   byte // R S D Z T t X I
	PPID    int
	Flags   uint64 // PF_ flags; PF_KTHREAD is 0x200000
	Start   uint64 // clock ticks after boot
	UTime   uint64 // clock ticks
	STime   uint64
	Threads int
	Stack   leak.Addr // where the main stack begins; zero without the rights of ptrace
	Brk     leak.Addr // where the heap of brk(2) begins; zero without the rights of ptrace
}

// Flags of Stat, include/linux/sched.h.
const (
	exiting = 0x4      // PF_EXITING
	kthread = 0x200000 // PF_KTHREAD
)

// Kernel reports whether this is a kernel thread.
func (s *Stat) Kernel() bool { return s.Flags&kthread != 0 }

// CPU is user plus system time. USER_HZ is 100 on every Linux ABI.
func (s *Stat) CPU() time.Duration {
	return time.Duration(s.UTime+s.STime) * (time.Second / 100)
}

// Stat reads /proc/PID/stat.
func (t *Target) Stat() (*Stat, error) { return t.Root.stat(t.ID.PID) }

func (r Root) stat(pid int) (*Stat, error) {
	b, err := os.ReadFile(r.Path(pid, "stat"))
	if err != nil {
		return nil, gone(pid, err)
	}
	return parseStat(b)
}

func parseStat(b []byte) (*Stat, error) {
	// comm may contain spaces and parentheses: the last one ends it.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return nil, fmt.Errorf("malformed stat line %q", b)
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 {
		return nil, fmt.Errorf("short stat line %q", b)
	}
	num := func(field int) uint64 { // field numbers as in proc(5)
		if field-3 >= len(f) {
			return 0 // an older kernel
		}
		n, _ := strconv.ParseUint(string(f[field-3]), 10, 64)
		return n
	}
	return &Stat{
		Comm: string(b[open+1 : end]), State: f[0][0], PPID: int(num(4)), Flags: num(9),
		UTime: num(14), STime: num(15), Threads: int(num(20)), Start: num(22),
		Stack: leak.Addr(num(28)), Brk: leak.Addr(num(47)),
	}, nil
}

// gone turns the errors that mean "exited" into ErrGone.
func gone(pid int, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("pid %d: %w: %w", pid, ErrDenied, err)
	}
	return err
}

// Threads lists the thread ids, the main thread first.
func (t *Target) Threads() ([]int, error) {
	entries, err := os.ReadDir(t.Path("task"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	tids := make([]int, 0, len(entries))
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}
