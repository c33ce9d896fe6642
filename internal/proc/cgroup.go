package proc

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Cgroup is what limits a process through its control groups: version 1, 2 and
// both at once, as far as stanch's own mounts show them.
type Cgroup struct {
	Memory   []MemoryLevel // the process's own level first, then its parents; empty without the controller
	Pids     []PidsLevel   // likewise
	OOMGroup string        // a level whose memory.oom.group is 1 (Linux 4.19, v2): out of memory there kills all in it; "" for none
	Notes    []string      // what is not visible, in words for a report
}

// MemoryLevel is one level of the memory controller; bytes, Unlimited where
// there is no limit.
type MemoryLevel struct {
	Path        string // in its hierarchy, as /proc/PID/cgroup names it
	V2          bool
	Usage       uint64 // page cache included
	Max         uint64 // memory.max, or memory.limit_in_bytes
	High        uint64 // memory.high: above it the kernel slows the group down; v2 alone
	SwapUsage   uint64 // v1 alone: memory and swap together, memory.memsw.usage_in_bytes
	SwapMax     uint64 // v1 alone: memory.memsw.limit_in_bytes
	Reclaimable uint64 // half of the clean inactive page cache in Usage: what a sudden need may count on
	Clean       uint64 // what of Usage the kernel takes back before it ends anybody, as GroupUsage leaves it out
}

// PidsLevel is one level of the pids controller: threads, not processes.
type PidsLevel struct {
	Path         string
	Current, Max uint64 // Unlimited for pids.max "max"
}

// cgroupPath is one line of /proc/PID/cgroup.
type cgroupPath struct {
	controllers []string // empty for v2
	v2          bool
	path        string
}

// has reports whether the line belongs to a v1 hierarchy of this controller.
func (c *cgroupPath) has(controller string) bool {
	return !c.v2 && slices.Contains(c.controllers, controller)
}

// parseCgroup reads "4:memory:/a/b" and "0::/a/b".
func parseCgroup(text string) []cgroupPath {
	var list []cgroupPath
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 {
			continue
		}
		c := cgroupPath{path: strings.TrimSuffix(f[2], " (deleted)"), v2: f[0] == "0" && f[1] == ""}
		if f[1] != "" {
			c.controllers = strings.Split(f[1], ",")
		}
		list = append(list, c)
	}
	return list
}

func (r Root) cgroupPaths(pid int) ([]cgroupPath, error) {
	b, err := os.ReadFile(r.Path(pid, "cgroup"))
	if err != nil {
		return nil, gone(pid, err)
	}
	return parseCgroup(string(b)), nil
}

// Cgroup reads the limits and usages of every level from the process up to the
// root, or to what stanch or the process itself sees of it.
func (t *Target) Cgroup() (*Cgroup, error) {
	paths, err := t.Root.cgroupPaths(t.ID.PID)
	if err != nil {
		return nil, err
	}
	mounts, err := t.Root.mounts()
	if err != nil {
		return nil, err
	}
	// Of a process in another container stanch may see no group, as beside it in
	// a pod; the process has its own ones mounted where it sees them.
	mounts = append(mounts, t.Root.mountsInside(t.ID.PID)...)
	c := &Cgroup{}
	if l := c.levels("memory", paths, mounts); l != nil {
		c.readMemory(l)
	}
	if l := c.levels("pids", paths, mounts); l != nil {
		c.readPids(l)
	}
	return c, nil
}

// level is a cgroup on the way from a process to the root.
type level struct {
	path string
	dir  string // in stanch's file system
	v2   bool
	top  bool // the highest that stanch sees
}

// levels finds where a controller's groups of the process are mounted. A
// controller that a v1 hierarchy has is not in v2.
func (c *Cgroup) levels(controller string, paths []cgroupPath, mounts []mount) []level {
	i := slices.IndexFunc(paths, func(p cgroupPath) bool { return p.has(controller) })
	if i < 0 {
		i = slices.IndexFunc(paths, func(p cgroupPath) bool { return p.v2 })
	}
	if i < 0 {
		return nil
	}
	own := paths[i]
	for _, m := range mounts {
		if own.v2 && m.kind != "cgroup2" || !own.v2 && (m.kind != "cgroup" || !slices.Contains(m.options, controller)) {
			continue
		}
		rel, ok := below(own.path, m.root)
		if !ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(m.point, rel)); err != nil {
			continue
		}
		if m.root != "/" {
			c.note("%s limits above cgroup %s are not visible from here", controller, m.root)
		}
		var list []level
		for ; ; rel = path.Dir(rel) {
			list = append(list, level{path: path.Join(m.root, rel), dir: filepath.Join(m.point, rel), v2: own.v2, top: rel == "/"})
			if rel == "/" {
				return list
			}
		}
	}
	if !own.v2 || own.path != "/" {
		c.note("the %s cgroup %s is not visible from here, its limits are unknown", controller, own.path)
	}
	return nil
}

// below gives p relative to root, with a leading slash. Both are as stanch's
// cgroup namespace has them: what is not in it begins with "/..", a mount made
// outside too.
func below(p, root string) (string, bool) {
	rest, ok := strings.CutPrefix(p+"/", strings.TrimSuffix(root, "/")+"/")
	if !ok || rest == ".." || strings.HasPrefix(rest, "../") {
		return "", false
	}
	return path.Clean("/" + rest), true
}

func (c *Cgroup) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

func (c *Cgroup) readMemory(levels []level) {
	for i, l := range levels {
		if i > 0 && !l.v2 {
			// Before Linux 5.11 a v1 group may not count what its children use.
			if on, ok := cgroupNumber(l.dir, "memory.use_hierarchy"); ok && on == 0 {
				return
			}
		}
		m := MemoryLevel{Path: l.path, V2: l.v2, Max: Unlimited, High: Unlimited, SwapMax: Unlimited}
		var known bool
		if l.v2 {
			known = m.readV2(l.dir)
			if on, _ := cgroupNumber(l.dir, "memory.oom.group"); on == 1 {
				c.OOMGroup = l.path
			}
			if known && l.top && l.path == "/" {
				// The true root has no memory.current.
				c.note("memory limits above stanch's own cgroup namespace are not visible")
			}
		} else {
			known = m.readV1(l.dir)
		}
		if known {
			c.Memory = append(c.Memory, m)
		}
	}
}

func (m *MemoryLevel) readV2(dir string) bool {
	usage, ok := cgroupNumber(dir, "memory.current")
	if !ok {
		return false // the root, or the controller is not on at this level
	}
	m.Usage = usage
	if v, ok := cgroupNumber(dir, "memory.max"); ok {
		m.Max = v
	}
	if v, ok := cgroupNumber(dir, "memory.high"); ok {
		m.High = v
	}
	m.readCache(dir)
	return true
}

func (m *MemoryLevel) readV1(dir string) bool {
	usage, ok := cgroupNumber(dir, "memory.usage_in_bytes")
	if !ok {
		return false
	}
	// "No limit" is the largest multiple of the page size in 63 bits.
	const none = 1<<63 - pageSize
	m.Usage = usage
	if v, ok := cgroupNumber(dir, "memory.limit_in_bytes"); ok && v < none {
		m.Max = v
	}
	if v, ok := cgroupNumber(dir, "memory.memsw.limit_in_bytes"); ok && v < none {
		m.SwapMax = v
		m.SwapUsage, _ = cgroupNumber(dir, "memory.memsw.usage_in_bytes")
	}
	m.readCache(dir)
	return true
}

// readCache reads what can be taken back. Of the inactive page cache, which the
// kernel drops first, half may come into use meanwhile.
func (m *MemoryLevel) readCache(dir string) {
	if b, err := os.ReadFile(filepath.Join(dir, "memory.stat")); err == nil {
		inactive, all := cleanCache(b, m.V2)
		m.Reclaimable, m.Clean = inactive/2, all
	}
}

// cleanCache reads the text of memory.stat: the clean part of the inactive page
// cache, and all that the kernel can take back at once.
func cleanCache(text []byte, v2 bool) (inactive, all uint64) {
	var busy uint64
	pairs(text, func(key []byte, n uint64) {
		if !v2 {
			var ok bool
			if key, ok = bytes.CutPrefix(key, []byte("total_")); !ok {
				return // without what is below
			}
		}
		switch string(key) {
		case "inactive_file":
			inactive = n
			all += n
		case "active_file", "slab_reclaimable":
			all += n
		case "file_dirty", "file_writeback", "dirty", "writeback":
			busy += n
		}
	})
	return less(inactive, busy), less(all, busy)
}

func (c *Cgroup) readPids(levels []level) {
	for _, l := range levels {
		current, ok := cgroupNumber(l.dir, "pids.current")
		if !ok {
			continue // the root has none
		}
		p := PidsLevel{Path: l.path, Current: current, Max: Unlimited}
		if v, ok := cgroupNumber(l.dir, "pids.max"); ok {
			p.Max = v
		}
		c.Pids = append(c.Pids, p)
	}
}

// cgroupNumber reads a file that holds one number, or "max" for Unlimited.
func cgroupNumber(dir, name string) (uint64, bool) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, false
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return Unlimited, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// less is a - b, zero when b is the larger.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
