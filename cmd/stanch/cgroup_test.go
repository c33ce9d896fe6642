package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cgroup is a control group made for one test.
type cgroup struct {
	dir string
	v2  bool
}

// newCgroup makes a group below the test's own, or below the top of the tree,
// in which controller ("memory", "pids") works. It is removed at the end of the
// test, after whatever was started later is gone. Where none can be made, the
// test is skipped and says why.
func newCgroup(tb testing.TB, controller string) *cgroup {
	tb.Helper()
	var last error
	for _, parent := range cgroupParents(tb, controller) {
		g := &cgroup{dir: filepath.Join(parent.dir, fmt.Sprintf("stanch-test-%d-%d", os.Getpid(), time.Now().UnixNano())), v2: parent.v2}
		if last = os.Mkdir(g.dir, 0o755); last != nil {
			continue
		}
		if _, last = os.Stat(filepath.Join(g.dir, g.file(controller))); last == nil {
			tb.Cleanup(func() { g.remove(tb) })
			return g
		}
		_ = os.Remove(g.dir) // made a moment ago, empty
	}
	tb.Skipf("no %s control group can be made here: %v", controller, last)
	return nil
}

// cgroupParents lists where a group may be made: cgroup v1 mounts a tree for
// the controller, v2 has one tree for all.
func cgroupParents(tb testing.TB, controller string) []cgroup {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		tb.Skip(err)
	}
	var out []cgroup
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch f[1] {
		case controller:
			top := filepath.Join("/sys/fs/cgroup", controller)
			out = append([]cgroup{{filepath.Join(top, f[2]), false}, {top, false}}, out...)
		case "":
			for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
				out = append(out, cgroup{filepath.Join(top, f[2]), true}, cgroup{top, true})
			}
		}
	}
	return out
}

// file is the name of the limit of a controller.
func (g *cgroup) file(controller string) string {
	switch {
	case controller == "pids":
		return "pids.max"
	case g.v2:
		return "memory.max"
	}
	return "memory.limit_in_bytes"
}

// limit sets a limit.
func (g *cgroup) limit(tb testing.TB, controller string, n uint64) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, g.file(controller)), []byte(strconv.FormatUint(n, 10)), 0); err != nil {
		tb.Fatal(err)
	}
	if controller != "memory" {
		return
	}
	// Memory must not go to swap instead.
	if g.v2 {
		_ = os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0) // absent without swap accounting
	} else {
		_ = os.WriteFile(filepath.Join(g.dir, "memory.swappiness"), []byte("0"), 0) // likewise
	}
}

// command is a command that runs inside of the group from its first
// instruction.
func (g *cgroup) command(exe string, args ...string) *exec.Cmd {
	script := `echo 0 >"$1/cgroup.procs" && shift && exec "$@"`
	return exec.Command("/bin/sh", append([]string{"-c", script, "sh", g.dir, exe}, args...)...)
}

// used reads how much of the controller's resource the group uses.
func (g *cgroup) used(tb testing.TB, controller string) uint64 {
	tb.Helper()
	name := controller + ".current"
	if !g.v2 && controller == "memory" {
		name = "memory.usage_in_bytes"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// oomKills is how often the kernel killed something in the group.
func (g *cgroup) oomKills(tb testing.TB) string {
	tb.Helper()
	name := "memory.oom_control"
	if g.v2 {
		name = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(n)
		}
	}
	return "0"
}

func (g *cgroup) remove(tb testing.TB) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := os.Remove(g.dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			tb.Error(err)
			return
		}
		time.Sleep(5 * time.Millisecond) // the kernel still counts what has ended
	}
}
