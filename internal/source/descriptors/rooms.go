package descriptors

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// headroom says the limits on memory and tasks. Of cgroups in each other it
// says the one that leaves least.
func (w *watcher) headroom(context.Context) error {
	room, err := w.target.Headroom()
	if err != nil {
		return w.unread("limits on memory and tasks", err)
	}
	limits, err := w.target.Limits()
	if err != nil {
		return w.unread("limits", err)
	}
	for _, note := range room.Notes {
		w.gap("%s", note)
	}
	least := map[leak.UsageName]proc.Room{}
	for _, r := range room.Rooms {
		name := nameOf(r)
		if known, ok := least[name]; name != "" && (!ok || r.Left < known.Left) {
			least[name] = r
		}
	}
	for _, name := range slices.Sorted(maps.Keys(least)) {
		r := least[name]
		u := leak.Usage{Name: name, Scope: r.Path, Used: r.Used, Max: r.Limit, Limit: r.By, Bytes: r.Kind != proc.RoomTasks}
		switch name {
		case leak.UsageAddressSpace:
			u.Hard = hard(limits.AS)
		case leak.UsageData:
			u.Hard = hard(limits.DATA)
		case leak.UsageUserTasks:
			u.Limit, u.Scope, _ = strings.Cut(r.By, " of ")
			u.Hard = hard(limits.NPROC)
		case leak.UsageCommit:
			u.Limit = "CommitLimit"
		}
		w.usage(u)
	}
	return nil
}

// hard is 0 when the owner may lift the limit altogether.
func hard(l proc.Limit) uint64 {
	if l.Hard == proc.Unlimited {
		return 0
	}
	return l.Hard
}

// nameOf is "" for what is not said: limits on all tasks of the host.
func nameOf(r proc.Room) leak.UsageName {
	switch {
	case r.By == "host memory":
		return leak.UsageHostMemory
	case r.Kind == proc.RoomMemory:
		return leak.UsageCgroupMemory
	case r.Kind == proc.RoomCommit:
		return leak.UsageCommit
	case r.By == "RLIMIT_AS":
		return leak.UsageAddressSpace
	case r.By == "RLIMIT_DATA":
		return leak.UsageData
	case r.By == "cgroup pids.max":
		return leak.UsageTasks
	case strings.HasPrefix(r.By, "RLIMIT_NPROC"):
		return leak.UsageUserTasks
	}
	return ""
}

// mappings says how many memory mappings the process has.
func (w *watcher) mappings(context.Context) error {
	limit, ok := w.target.Root.Sysctl("vm/max_map_count")
	if !ok {
		return nil
	}
	used, err := countMappings(w.target)
	if err != nil {
		return w.unread("mappings", err)
	}
	w.usage(leak.Usage{Name: leak.UsageMappings, Used: used, Max: limit, Limit: "vm.max_map_count"})
	return nil
}

// countMappings counts the lines of /proc/PID/maps, but for that of the old
// system call page, which is no mapping of the process.
func countMappings(t *proc.Target) (uint64, error) {
	file, err := os.Open(t.Path("maps"))
	if err != nil {
		if gone := t.Check(); gone != nil {
			return 0, gone
		}
		return 0, err
	}
	defer file.Close()
	var lines uint64
	var last []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		lines += uint64(bytes.Count(buf[:n], []byte{'\n'}))
		if n > 0 {
			last = append(last[:0], buf[max(0, n-len("[vsyscall]\n")):n]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, errors.Join(err, t.Check())
		}
	}
	if string(last) == "[vsyscall]\n" {
		lines--
	}
	return lines, t.Check()
}
