package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// RoomKind says what a limit counts.
type RoomKind uint8

// The kinds of limits.
const (
	RoomMemory  RoomKind = iota + 1 // pages in use, by the process or by its group
	RoomCommit                      // bytes promised to all processes, whether used or not; a fork promises all private writable memory again
	RoomAddress                     // bytes in the address space of this one process; a forked child has its own
	RoomTasks                       // threads
)

// Room is what one limit leaves. Used may be above Limit; Left is then zero.
type Room struct {
	Kind  RoomKind
	By    string // "cgroup memory.max", "host memory", "RLIMIT_AS", "cgroup pids.max", "kernel.pid_max", ...
	Path  string // the cgroup, for limits of one
	Limit uint64 // bytes or threads
	Used  uint64
	Left  uint64
}

// String names the limit for a sentence: "cgroup memory.max of /system.slice/x.service".
func (r Room) String() string {
	if r.Path == "" {
		return r.By
	}
	return r.By + " of " + r.Path
}

// Headroom is what all limits leave to a process.
type Headroom struct {
	Rooms []Room   // one for each limit that exists
	Notes []string // limits that could not be read, in words
}

// Least is the room of the limit that comes first among the kinds; of all kinds
// that count bytes when none is given. When there is no such limit, Left is
// Unlimited and By is "".
func (h *Headroom) Least(kinds ...RoomKind) Room {
	if len(kinds) == 0 {
		kinds = []RoomKind{RoomMemory, RoomCommit, RoomAddress}
	}
	least := Room{Limit: Unlimited, Left: Unlimited}
	for _, r := range h.Rooms {
		for _, k := range kinds {
			if r.Kind == k && r.Left < least.Left {
				least = r
			}
		}
	}
	return least
}

func (h *Headroom) add(kind RoomKind, by, path string, limit, used uint64) {
	if limit == Unlimited {
		return
	}
	h.Rooms = append(h.Rooms, Room{kind, by, path, limit, used, less(limit, used)})
}

// Headroom reads all limits that a snapshot or a probe could hit: the memory
// and pids cgroups of every level, the host's memory, the commit limit when
// vm.overcommit_memory is 2, and the process's own RLIMIT_AS, RLIMIT_DATA and
// RLIMIT_NPROC. Half of the clean inactive page cache of a cgroup counts as
// free, the rest of it as used.
func (t *Target) Headroom() (*Headroom, error) {
	h := &Headroom{}
	group, err := t.Cgroup()
	if err != nil {
		return nil, err
	}
	status, err := t.Status()
	if err != nil {
		return nil, err
	}
	limits, err := t.Limits()
	if err != nil {
		return nil, err
	}
	h.Notes = append(h.Notes, group.Notes...)
	h.addGroup(group)
	if err := h.addHost(t.Root); err != nil {
		return nil, err
	}
	h.add(RoomAddress, "RLIMIT_AS", "", limits.AS.Soft, status.VMSize)
	h.add(RoomAddress, "RLIMIT_DATA", "", limits.DATA.Soft, status.VMData)
	t.addTasks(h, status, limits)
	return h, nil
}

func (h *Headroom) addGroup(g *Cgroup) {
	for _, m := range g.Memory {
		name := "cgroup memory.limit_in_bytes"
		if m.V2 {
			name = "cgroup memory.max"
		}
		used := less(m.Usage, m.Reclaimable)
		h.add(RoomMemory, name, m.Path, m.Max, used)
		h.add(RoomMemory, "cgroup memory.high", m.Path, m.High, used)
		h.add(RoomMemory, "cgroup memory.memsw.limit_in_bytes", m.Path, m.SwapMax, less(m.SwapUsage, m.Reclaimable))
	}
	for _, p := range g.Pids {
		h.add(RoomTasks, "cgroup pids.max", p.Path, p.Max, p.Current)
	}
}

// addHost adds what the machine has left.
func (h *Headroom) addHost(r Root) error {
	mem, err := r.Meminfo()
	if err != nil {
		return err
	}
	if mem.Available > 0 {
		h.add(RoomMemory, "host memory", "", mem.Total, less(mem.Total, mem.Available))
	}
	if mode, _ := r.Sysctl("vm/overcommit_memory"); mode == 2 {
		// __vm_enough_memory of mm/util.c keeps these two back.
		admin, _ := r.Sysctl("vm/admin_reserve_kbytes")
		user, _ := r.Sysctl("vm/user_reserve_kbytes")
		h.add(RoomCommit, "commit limit (vm.overcommit_memory=2)", "", less(mem.CommitLimit, (admin+user)<<10), mem.Committed)
	}
	return nil
}

// Meminfo is what stanch uses of /proc/meminfo; bytes.
type Meminfo struct {
	Total, Free, Available, SwapFree, CommitLimit, Committed uint64
}

// Meminfo reads /proc/meminfo.
func (r Root) Meminfo() (*Meminfo, error) {
	b, err := os.ReadFile(string(r) + "/meminfo")
	if err != nil {
		return nil, err
	}
	m := &Meminfo{}
	fields(string(b), func(key, value string) {
		switch key {
		case "MemTotal":
			m.Total = kib(value)
		case "MemFree":
			m.Free = kib(value)
		case "MemAvailable":
			m.Available = kib(value)
		case "SwapFree":
			m.SwapFree = kib(value)
		case "CommitLimit":
			m.CommitLimit = kib(value)
		case "Committed_AS":
			m.Committed = kib(value)
		}
	})
	return m, nil
}

// addTasks adds the limits on the number of threads.
func (t *Target) addTasks(h *Headroom, s *Status, l *Limits) {
	if running, ok := t.Root.tasks(); ok {
		for _, name := range []string{"kernel/pid_max", "kernel/threads-max"} {
			if limit, ok := t.Root.Sysctl(name); ok {
				h.add(RoomTasks, strings.ReplaceAll(name, "/", "."), "", limit, running)
			}
		}
	} else {
		h.Notes = append(h.Notes, "the number of running threads is unknown (/proc/loadavg)")
	}
	if l.NPROC.Soft == Unlimited || t.mayExceedNPROC(s) {
		return
	}
	used, err := t.Root.userTasks(s.UID[0])
	if err != nil {
		h.Notes = append(h.Notes, fmt.Sprintf("RLIMIT_NPROC: %v", err))
		return
	}
	h.add(RoomTasks, fmt.Sprintf("RLIMIT_NPROC of uid %d", s.UID[0]), "", l.NPROC.Soft, used)
}

// mayExceedNPROC reports whether fork ignores RLIMIT_NPROC for the process:
// root, CAP_SYS_RESOURCE or CAP_SYS_ADMIN, all in the first user namespace
// (copy_process in kernel/fork.c).
func (t *Target) mayExceedNPROC(s *Status) bool {
	const (
		capSysAdmin    = 1 << 21
		capSysResource = 1 << 24
		firstUserNS    = 0xeffffffd // PROC_USER_INIT_INO, include/linux/proc_ns.h
	)
	ns, err := t.Namespaces()
	if err != nil || ns.User != firstUserNS {
		return false
	}
	return s.UID[0] == 0 || s.CapEffective&(capSysAdmin|capSysResource) != 0
}

// tasks counts all threads of the machine, from /proc/loadavg.
func (r Root) tasks() (uint64, bool) {
	b, err := os.ReadFile(string(r) + "/loadavg")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b)) // "0.00 0.01 0.05 1/123 4711"
	if len(f) < 4 {
		return 0, false
	}
	_, all, _ := strings.Cut(f[3], "/")
	n, err := strconv.ParseUint(all, 10, 64)
	return n, err == nil
}

// userTasks counts the threads of one real user, as far as they are visible.
func (r Root) userTasks(uid int) (uint64, error) {
	pids, err := r.PIDs()
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, pid := range pids {
		b, err := os.ReadFile(r.Path(pid, "status"))
		if err != nil {
			continue // ended meanwhile
		}
		if s := parseStatus(string(b)); s.UID[0] == uid {
			n += uint64(max(s.Threads, 1))
		}
	}
	return n, nil
}

// PIDs lists all processes that procfs shows, in no order.
func (r Root) PIDs() ([]int, error) {
	dir, err := os.Open(string(r))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
