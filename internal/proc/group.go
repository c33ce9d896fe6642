package proc

import (
	"bytes"
	"path"
	"path/filepath"
	"slices"
)

// Group is the control group of a service, found through one of its processes,
// to be read again and again. Version 1 and version 2 give the same numbers.
type Group struct {
	memory, pids []level // from the service's own level up; empty where it has none of its own
}

// GroupUsage is what a Group uses and may use; bytes, Unlimited where there is
// no limit.
type GroupUsage struct {
	HasMemory bool
	// Memory is what is charged, without the clean page cache and, in version
	// 2, the slab caches that can shrink: what the kernel takes back before it
	// ends anybody.
	Memory    uint64
	MemoryMax uint64      // the lowest limit of all levels
	Events    GroupEvents // of the limit
	HasTasks  bool
	Tasks     uint64 // processes and threads
	TasksMax  uint64 // the lowest limit of all levels
}

// GroupEvents are how often things happened since the group was made. Version
// 1 knows Max, which it calls failcnt, and OOMKill (Linux 4.13) alone.
type GroupEvents struct{ Low, High, Max, OOM, OOMKill uint64 }

// Hierarchies are where stanch sees control groups mounted. They are read once
// for many groups: a host of containers has thousands of other mounts.
type Hierarchies struct{ mounts []mount }

// Hierarchies reads /proc/self/mountinfo.
func (r Root) Hierarchies() (Hierarchies, error) {
	mounts, err := r.mounts()
	return Hierarchies{slices.DeleteFunc(mounts, func(m mount) bool { return m.kind != "cgroup" && m.kind != "cgroup2" })}, err
}

// Group finds the control group that is called name, "nginx.service", on the
// way from the process to the root: the process itself may be in a group below
// it. In hierarchies where no such group is, as those that systemd does not use
// for the service, there is nothing to read; a Group may be empty.
func (t *Target) Group(name string, in Hierarchies) (*Group, error) {
	paths, err := t.Root.cgroupPaths(t.ID.PID)
	if err != nil {
		return nil, err
	}
	mounts := in.mounts
	var c Cgroup
	return &Group{
		memory: from(name, c.levels("memory", paths, mounts)),
		pids:   from(name, c.levels("pids", paths, mounts)),
	}, nil
}

// Empty reports whether there is nothing to read.
func (g *Group) Empty() bool { return len(g.memory) == 0 && len(g.pids) == 0 }

// from cuts off the levels below the one that is called name.
func from(name string, levels []level) []level {
	for i, l := range levels {
		if path.Base(l.path) == name {
			return levels[i:]
		}
	}
	return nil
}

// CgroupPaths calls each with the place of a process in every hierarchy, as
// /proc/PID/cgroup names it; named says that the hierarchy is the unified one
// or systemd's own, where systemd's units are.
func (r *Reader) CgroupPaths(pid int, each func(path []byte, named bool)) error {
	b, err := r.File(pid, "cgroup")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		_, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{':'})
		controllers, place, ok := bytes.Cut(rest, []byte{':'})
		if ok {
			each(bytes.TrimSuffix(place, []byte(" (deleted)")), len(controllers) == 0 || string(controllers) == "name=systemd")
		}
	}
	return nil
}

// Group reads the numbers of a group. What may not be read, and what an older
// kernel does not tell, is zero.
func (r *Reader) Group(g *Group) GroupUsage {
	u := GroupUsage{MemoryMax: Unlimited, TasksMax: Unlimited}
	if len(g.memory) > 0 {
		own := g.memory[0]
		current, limit := "memory.usage_in_bytes", "memory.limit_in_bytes"
		if own.v2 {
			current, limit = "memory.current", "memory.max"
		}
		var used uint64
		used, u.HasMemory = r.number(own.dir, current)
		if u.HasMemory {
			u.Memory = less(used, r.cache(own))
			u.Events = r.events(own)
			u.MemoryMax = r.lowest(g.memory, limit)
		}
	}
	if len(g.pids) > 0 {
		u.Tasks, u.HasTasks = r.number(g.pids[0].dir, "pids.current")
		u.TasksMax = r.lowest(g.pids, "pids.max")
	}
	return u
}

// lowest gives the limit that is met first: those of the levels above hold too.
func (r *Reader) lowest(levels []level, file string) uint64 {
	// "No limit" is the largest multiple of the page size in 63 bits in v1.
	const none = 1<<63 - pageSize
	least := uint64(Unlimited)
	for _, l := range levels {
		if n, ok := r.number(l.dir, file); ok && n < none {
			least = min(least, n)
		}
	}
	return least
}

// number reads a file that holds one number, or "max" for Unlimited.
func (r *Reader) number(dir, name string) (uint64, bool) {
	b, err := r.Host(filepath.Join(dir, name))
	if err != nil {
		return 0, false
	}
	b = bytes.TrimSpace(b)
	if string(b) == "max" {
		return Unlimited, true
	}
	return number10(b)
}

// cache is what the kernel can take back at once.
func (r *Reader) cache(l level) uint64 {
	b, err := r.Host(filepath.Join(l.dir, "memory.stat"))
	if err != nil {
		return 0
	}
	_, clean := cleanCache(b, l.v2)
	return clean
}

func (r *Reader) events(l level) (e GroupEvents) {
	if !l.v2 {
		e.Max, _ = r.number(l.dir, "memory.failcnt")
		if b, err := r.Host(filepath.Join(l.dir, "memory.oom_control")); err == nil {
			pairs(b, func(key []byte, n uint64) {
				if string(key) == "oom_kill" {
					e.OOMKill = n
				}
			})
		}
		return e
	}
	b, err := r.Host(filepath.Join(l.dir, "memory.events"))
	if err != nil {
		return e
	}
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "low":
			e.Low = n
		case "high":
			e.High = n
		case "max":
			e.Max = n
		case "oom":
			e.OOM = n
		case "oom_kill":
			e.OOMKill = n
		}
	})
	return e
}

// pairs calls each with the lines "key 123".
func pairs(b []byte, each func(key []byte, n uint64)) {
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		if n, ok := number10(value); ok {
			each(key, n)
		}
	}
}
