package ptrace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// Thread is one stopped thread of a target.
type Thread struct {
	TID       int
	Regs      unix.PtraceRegs // as at the stop; Fs_base is the thread pointer
	InSyscall bool            // inside a system call: Regs.Orig_rax is its number, and Regs.Rip follows the instruction
}

// thread is a Thread while the tracer holds it.
type thread struct {
	Thread
	state   threadState
	told    bool            // to stop
	restore unix.PtraceRegs // what it goes on with: Regs, with an interrupted call made restartable
	mask    uint64          // the signal mask to go on with, known once it was a host
	busy    bool            // inside the stub; it finishes alone if it is let go
	parked  bool            // its family holds it, before and after this stop
	group   int             // the signal that stopped it, zero when it ran
}

type threadState uint8

const (
	running threadState = iota // seized, not known to stand still
	stopped
	ended
)

// threadStat is what stanch uses of /proc/PID/task/TID/stat.
type threadStat struct {
	comm       string
	state      byte
	flags      uint64
	ppid       int
	exitSignal int // field 38: what its parent is sent when it ends
	exitCode   int // field 52: as wait4 gives it; 0 without the rights of ptrace
}

// Flags of tasks that never run user code, from include/linux/sched.h. They
// are listed among the threads of a process but have no user registers.
const (
	flagIOWorker   = 0x00000010 // PF_IO_WORKER, io_uring
	flagUserWorker = 0x00004000 // PF_USER_WORKER, vhost and io_uring, Linux 6.4
	flagKernel     = 0x00200000 // PF_KTHREAD
)

// flagExiting is PF_EXITING: a task on its way to being a zombie.
const flagExiting = 0x00000004

func (s *threadStat) worker() bool {
	return s.flags&(flagIOWorker|flagUserWorker|flagKernel) != 0
}

func readThreadStat(path string) (*threadStat, error) {
	b, err := os.ReadFile(filepath.Join(path, "stat"))
	if err != nil {
		return nil, err
	}
	return parseThreadStat(b)
}

func parseThreadStat(b []byte) (*threadStat, error) {
	// comm may contain spaces and parentheses: the last one ends it.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return nil, fmt.Errorf("malformed stat line %q", b)
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 36 {
		return nil, fmt.Errorf("short stat line %q", b)
	}
	st := &threadStat{comm: string(b[open+1 : end]), state: f[0][0]}
	st.ppid, _ = strconv.Atoi(string(f[4-3]))
	st.flags, _ = strconv.ParseUint(string(f[9-3]), 10, 64)
	st.exitSignal, _ = strconv.Atoi(string(f[38-3]))
	if len(f) > 52-3 {
		st.exitCode, _ = strconv.Atoi(string(f[52-3]))
	}
	return st, nil
}

// stateWords explains the letters of a thread state as ps(1) does.
var stateWords = map[byte]string{
	'R': "running", 'S': "sleeping", 'D': "uninterruptible sleep", 'T': "stopped by a signal",
	't': "stopped by a tracer", 'Z': "zombie", 'X': "dead", 'I': "idle", 'P': "parked",
}

// describe says which thread it is and what it does, for an error message.
func describe(t *proc.Target, tid int) string {
	path := t.Path("task", strconv.Itoa(tid))
	st, err := readThreadStat(path)
	if err != nil {
		return fmt.Sprintf("thread %d (ended)", tid)
	}
	what := stateWords[st.state]
	if what == "" {
		what = "state " + string(st.state)
	}
	// "58 0x0 ..." or "running"; needs the rights of a tracer.
	if b, err := os.ReadFile(filepath.Join(path, "syscall")); err == nil {
		nr, _, _ := bytes.Cut(b, []byte{' '})
		switch n, err := strconv.Atoi(string(nr)); {
		case err != nil:
		case st.state == 'D' && spawns(n):
			what += ", waits for a child it made with vfork or posix_spawn"
		case n >= 0:
			what += fmt.Sprintf(", in system call %d", n)
		}
	}
	return fmt.Sprintf("thread %d %q: %s", tid, st.comm, what)
}

// word reads a little-endian word of a stopped thread's memory.
func word(m *proc.Mem, a uint64) (uint64, error) {
	var b [8]byte
	if _, err := m.ReadAt(b[:], addr(a)); err != nil {
		return 0, err
	}
	return order.Uint64(b[:]), nil
}
