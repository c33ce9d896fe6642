package ptrace

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// markLimit is a resource limit, in bytes, that no administrator sets: the
// ASCII letters "stanch". A child that never runs does not mind it, and it can
// still be read from the zombie.
const markLimit = 0x7374616e6368

// markResources are limits that usually are infinite, and their lines in
// /proc/PID/limits.
var markResources = []struct {
	which int
	line  string
}{
	{unix.RLIMIT_FSIZE, "Max file size"},
	{unix.RLIMIT_AS, "Max address space"},
	{unix.RLIMIT_DATA, "Max data size"},
	{unix.RLIMIT_CORE, "Max core file size"},
}

// mark makes a child recognizable as a snapshot's. Where no limit can be set
// to the mark, the child goes without; Clean then leaves its zombie.
func mark(pid int) {
	limit := &unix.Rlimit{Cur: markLimit, Max: markLimit}
	for _, r := range markResources {
		step("mark child")
		if unix.Prlimit(pid, r.which, limit, nil) == nil {
			return
		}
	}
}

// marked reports whether a process, also a zombie, carries the mark.
func marked(r proc.Root, pid int) bool {
	b, err := os.ReadFile(r.Path(pid, "limits"))
	if err != nil {
		return false
	}
	value := strconv.FormatUint(markLimit, 10)
	for line := range strings.Lines(string(b)) {
		for _, res := range markResources {
			if rest, ok := strings.CutPrefix(line, res.line); ok {
				if f := strings.Fields(rest); len(f) >= 2 && f[0] == value && f[1] == value {
					return true
				}
			}
		}
	}
	return false
}

// ours reports whether pid is the zombie of a snapshot of parent: a child that
// ended without a signal to its parent, and was killed while it bore the mark
// or exited from the stub.
func ours(r proc.Root, pid, parent int) bool {
	st, err := readThreadStat(r.Path(pid))
	if err != nil || st.ppid != parent || st.state != 'Z' || st.exitSignal != 0 {
		return false
	}
	return st.exitCode == exitStatus<<8 || st.exitCode == int(unix.SIGKILL) && marked(r, pid)
}
