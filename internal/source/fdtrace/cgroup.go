package fdtrace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"stanch/internal/proc"
)

// cgroupMounts are where version 2 is mounted: alone, or beside version 1.
var cgroupMounts = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// enterCgroup makes the target's cgroup the one that is watched.
func (t *Tracer) enterCgroup(target *proc.Target) error {
	path, err := cgroupOf(target.Path("cgroup"))
	if err != nil {
		return fmt.Errorf("read the cgroup of process %d: %w", target.ID.PID, err)
	}
	for _, mount := range cgroupMounts {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); path == "" || err != nil {
			continue
		}
		f, err := os.Open(filepath.Join(mount, path))
		if err != nil {
			return fmt.Errorf("open the cgroup of process %d: %w", target.ID.PID, err)
		}
		defer func() { _ = f.Close() }()
		t.cgroup = path
		return t.objects.Maps["cgroups"].Put(uint32(0), uint32(f.Fd()))
	}
	return fmt.Errorf("tracing a cgroup needs cgroup version 2, which is not mounted: %w", proc.ErrUnsupported)
}

// inCgroup reports whether a process runs in the watched cgroup or below it.
func (t *Tracer) inCgroup(pid int) bool {
	path, err := cgroupOf(t.target.Root.Path(pid, "cgroup"))
	return err == nil && (path == t.cgroup || strings.HasPrefix(path, strings.TrimSuffix(t.cgroup, "/")+"/"))
}

// cgroupOf reads the path of version 2 in a /proc/PID/cgroup.
func cgroupOf(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", nil
}
