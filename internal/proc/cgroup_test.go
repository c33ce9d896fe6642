package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cgroupFixture is a fake machine with process 7 and a cgroup file system.
func cgroupFixture(t *testing.T, cgroup string) fakeProc {
	t.Helper()
	f := fakeProc{t, t.TempDir()}
	f.process(7, 1, "daemon", "7", cgroup)
	return f
}

func (f fakeProc) target() *Target {
	f.t.Helper()
	target, err := Root(f.dir).Open(7)
	if err != nil {
		f.t.Fatal(err)
	}
	return target
}

func TestCgroupV2(t *testing.T) {
	f := cgroupFixture(t, "0::/system.slice/x.service\n")
	f.write("self/mountinfo", "35 31 0:32 / "+f.dir+"/fs rw - cgroup2 cgroup2 rw,nsdelegate\n")
	own := "fs/system.slice/x.service/"
	f.write(own+"memory.current", "900000000\n")
	f.write(own+"memory.max", "1000000000\n")
	f.write(own+"memory.high", "950000000\n")
	f.write(own+"memory.oom.group", "1\n")
	f.write(own+"memory.stat", "anon 5\ninactive_file 40000000\nfile_dirty 5000000\nfile_writeback 1000000\n")
	f.write(own+"pids.current", "12\n")
	f.write(own+"pids.max", "max\n")
	f.write("fs/system.slice/memory.current", "7000000000\n")
	f.write("fs/system.slice/memory.max", "max\n")
	f.write("fs/system.slice/pids.current", "300\n")
	f.write("fs/system.slice/pids.max", "310\n")
	got, err := f.target().Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	want := &Cgroup{
		Memory: []MemoryLevel{
			{Path: "/system.slice/x.service", V2: true, Usage: 900000000, Max: 1000000000, High: 950000000, SwapMax: Unlimited, Reclaimable: 17000000, Clean: 34000000},
			{Path: "/system.slice", V2: true, Usage: 7000000000, Max: Unlimited, High: Unlimited, SwapMax: Unlimited},
		},
		Pids:     []PidsLevel{{"/system.slice/x.service", 12, Unlimited}, {"/system.slice", 300, 310}},
		OOMGroup: "/system.slice/x.service",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestCgroupHybrid(t *testing.T) {
	// Memory and pids in v1, everything's names in v2 without controllers. The
	// container sees its own group as the root of each mount.
	f := cgroupFixture(t, "4:memory:/docker/abc\n8:pids:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n")
	f.write("self/mountinfo", "35 31 0:32 /docker/abc "+f.dir+"/with\\040blank rw - cgroup cgroup rw,memory\n"+
		"36 31 0:33 / "+f.dir+"/pids rw shared:9 - cgroup cgroup rw,pids\n37 31 0:34 / "+f.dir+"/unified rw - cgroup2 cgroup2 rw\n")
	f.write("with blank/memory.usage_in_bytes", "100\n")
	f.write("with blank/memory.limit_in_bytes", "1000\n")
	f.write("with blank/memory.memsw.usage_in_bytes", "600\n")
	f.write("with blank/memory.memsw.limit_in_bytes", "1000\n")
	f.write("pids/docker/abc/pids.current", "3\n")
	f.write("pids/docker/abc/pids.max", "5\n")
	f.write("unified/docker/abc/memory.max", "1\n") // not a controller here: must not be read
	got, err := f.target().Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	want := &Cgroup{
		Memory: []MemoryLevel{{Path: "/docker/abc", Usage: 100, Max: 1000, High: Unlimited, SwapUsage: 600, SwapMax: 1000}},
		Pids:   []PidsLevel{{"/docker/abc", 3, 5}},
		Notes:  []string{"memory limits above cgroup /docker/abc are not visible from here"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestCgroupElsewhere reads groups that are not in stanch's cgroup namespace:
// through a mount that was made outside it, and through the process's own one.
func TestCgroupElsewhere(t *testing.T) {
	limited := func(path, note string) *Cgroup {
		c := &Cgroup{Memory: []MemoryLevel{{Path: path, V2: true, Usage: 10, Max: 100, High: Unlimited, SwapMax: Unlimited}}}
		for _, controller := range []string{"memory", "pids"} {
			c.Notes = append(c.Notes, controller+" limits above cgroup "+note+" are not visible from here")
		}
		return c
	}
	for _, tt := range []struct {
		name, cgroup, own, inside, dir string
		want                           *Cgroup
	}{
		{"a mount made outside", "0::/../../x\n", "/../..", "", "fs/x", limited("/x", "/../..")},
		{"beside it in a pod", "0::/../ctr\n", "/", "/../ctr", "7/root/fs", limited("/ctr", "/../ctr")},
		{"nowhere", "0::/../ctr\n", "/", "", "fs", &Cgroup{Notes: []string{
			"the memory cgroup /../ctr is not visible from here, its limits are unknown", "the pids cgroup /../ctr is not visible from here, its limits are unknown"}}},
		{"above the mount", "0::/..\n", "/../ctr", "", "fs", &Cgroup{Notes: []string{
			"the memory cgroup /.. is not visible from here, its limits are unknown", "the pids cgroup /.. is not visible from here, its limits are unknown"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := cgroupFixture(t, tt.cgroup)
			f.write("self/mountinfo", "35 31 0:32 "+tt.own+" "+f.dir+"/fs rw - cgroup2 cgroup2 rw\n")
			if tt.inside != "" {
				f.write("7/mountinfo", "35 31 0:32 "+tt.inside+" /fs rw - cgroup2 cgroup2 rw\n")
			}
			f.write(tt.dir+"/memory.current", "10\n")
			f.write(tt.dir+"/memory.max", "100\n")
			got, err := f.target().Cgroup()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCgroupV1Hierarchy(t *testing.T) {
	f := cgroupFixture(t, "4:memory:/a/b\n")
	f.write("self/mountinfo", "35 31 0:32 / "+f.dir+"/m rw - cgroup cgroup rw,memory\n")
	for dir, files := range map[string]map[string]string{
		"m/a/b": {"memory.usage_in_bytes": "10", "memory.limit_in_bytes": "9223372036854771712"},
		"m/a":   {"memory.usage_in_bytes": "20", "memory.limit_in_bytes": "200", "memory.use_hierarchy": "1"},
		"m":     {"memory.usage_in_bytes": "30", "memory.limit_in_bytes": "300", "memory.use_hierarchy": "0"},
	} {
		for name, value := range files {
			f.write(dir+"/"+name, value+"\n")
		}
	}
	got, err := f.target().Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	want := []MemoryLevel{
		{Path: "/a/b", Usage: 10, Max: Unlimited, High: Unlimited, SwapMax: Unlimited},
		{Path: "/a", Usage: 20, Max: 200, High: Unlimited, SwapMax: Unlimited},
	} // the root does not count what its children use
	if d := cmp.Diff(want, got.Memory); d != "" {
		t.Error(d)
	}
}

func TestCgroupOutOfSight(t *testing.T) {
	f := cgroupFixture(t, "0::/../other\n")
	f.write("self/mountinfo", "35 31 0:32 / "+f.dir+"/fs rw - cgroup2 cgroup2 rw\n")
	f.write("fs/memory.max", "100\n")
	f.write("fs/memory.current", "50\n")
	got, err := f.target().Cgroup()
	if err != nil || len(got.Memory) != 0 || len(got.Notes) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestCgroupReal holds the walk against groups made for the test, where the
// machine allows it.
func TestCgroupReal(t *testing.T) {
	h := startHolder(t)
	g, err := h.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Memory) == 0 {
		t.Skipf("no memory controller is visible: %v", g.Notes)
	}
	mounts, err := Default.mounts()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := Default.cgroupPaths(h.ID.PID)
	if err != nil {
		t.Fatal(err)
	}
	levels := (&Cgroup{}).levels("memory", paths, mounts)
	root := levels[len(levels)-1]
	if root.v2 {
		t.Skip("making groups in v2 would have to turn controllers on for everybody")
	}
	dir := filepath.Join(root.dir, "stanch-proc-test-"+strconv.Itoa(os.Getpid()))
	child := filepath.Join(dir, "child")
	for _, d := range []string{dir, child} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Skipf("no group can be made: %v", err)
		}
		defer func() {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}()
	}
	put := func(dir, name, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const limit = 300 << 20
	put(dir, "memory.limit_in_bytes", strconv.Itoa(limit))
	put(child, "cgroup.procs", strconv.Itoa(h.ID.PID))
	defer h.kill() // before the groups go
	g, err = h.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Memory) < 2 || g.Memory[0].Max != Unlimited || g.Memory[1].Max != limit {
		t.Fatalf("levels %+v", g.Memory)
	}
	room, err := h.Headroom()
	if err != nil {
		t.Fatal(err)
	}
	least := room.Least(RoomMemory)
	if least.By != "cgroup memory.limit_in_bytes" || least.Path != g.Memory[1].Path || least.Left > limit || least.Left < limit/2 {
		t.Errorf("least room %+v", least)
	}
}

func TestHeadroom(t *testing.T) {
	f := cgroupFixture(t, "0::/x\n")
	f.write("self/mountinfo", "35 31 0:32 / "+f.dir+"/fs rw - cgroup2 cgroup2 rw\n")
	f.write("fs/x/memory.current", "90000000\n")
	f.write("fs/x/memory.max", "100000000\n")
	f.write("fs/x/pids.current", "5\n")
	f.write("fs/x/pids.max", "8\n")
	f.write("7/status", "Tgid:\t7\nUid:\t1000\t1000\t1000\t1000\nVmSize:\t  50000 kB\nVmData:\t  20000 kB\nThreads:\t6\n")
	f.write("7/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"+
		"Max data size             unlimited            unlimited            bytes     \n"+
		"Max processes             10                   20                   processes \n"+
		"Max address space         55296000             unlimited            bytes     \n")
	f.write("meminfo", "MemTotal:       1000000 kB\nMemAvailable:    600000 kB\nCommitLimit:     700000 kB\nCommitted_AS:    650000 kB\n")
	f.write("loadavg", "0.00 0.00 0.00 2/123 4711\n")
	f.write("sys/kernel/pid_max", "4194304\n")
	f.write("sys/kernel/threads-max", "124\n")
	f.write("sys/vm/overcommit_memory", "2\n")
	f.write("sys/vm/admin_reserve_kbytes", "8192\n")
	f.write("sys/vm/user_reserve_kbytes", "131072\n")
	h, err := f.target().Headroom()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kinds []RoomKind
		by    string
		left  uint64
	}{
		{[]RoomKind{RoomMemory}, "cgroup memory.max", 10000000},
		{[]RoomKind{RoomCommit}, "commit limit (vm.overcommit_memory=2)", 0},
		{[]RoomKind{RoomAddress}, "RLIMIT_AS", 55296000 - 50000<<10},
		{[]RoomKind{RoomTasks}, "kernel.threads-max", 1},
		{[]RoomKind{RoomMemory, RoomAddress}, "RLIMIT_AS", 55296000 - 50000<<10},
		{nil, "commit limit (vm.overcommit_memory=2)", 0},
	} {
		if r := h.Least(c.kinds...); r.By != c.by || r.Left != c.left {
			t.Errorf("%v: %+v, want %s %d", c.kinds, r, c.by, c.left)
		}
	}
	var names []string
	for _, r := range h.Rooms {
		names = append(names, r.String())
	}
	want := []string{"cgroup memory.max of /x", "cgroup pids.max of /x", "host memory", "commit limit (vm.overcommit_memory=2)",
		"RLIMIT_AS", "kernel.pid_max", "kernel.threads-max", "RLIMIT_NPROC of uid 1000"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if r := (&Headroom{}).Least(); r.Left != Unlimited || r.By != "" {
		t.Errorf("no limits: %+v", r)
	}
}
