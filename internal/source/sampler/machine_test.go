package sampler

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/series"
)

// TestGroups reads control groups of both versions.
func TestGroups(t *testing.T) {
	f := newTree(t)
	f.write("self/mountinfo", "35 31 0:32 / "+f.dir+"/fs rw - cgroup2 cgroup2 rw\n36 31 0:33 / "+f.dir+"/m rw - cgroup cgroup rw,memory\n")
	f.run(fake{pid: 10, comm: "x", cgroup: "0::/system.slice/x.service/sub\n"})
	f.run(fake{pid: 11, comm: "y", cgroup: "0::/system.slice/x.service\n"})
	v2 := "fs/system.slice/x.service/"
	f.write(v2+"sub/memory.current", "1\n")
	f.write(v2+"memory.current", "900000\n")
	f.write(v2+"memory.max", "max\n")
	f.write(v2+"memory.stat", "anon 5\ninactive_file 300000\nactive_file 200000\nfile_dirty 50000\nfile_writeback 50000\nslab_reclaimable 1000\n")
	f.write(v2+"memory.events", "low 0\nhigh 3\nmax 0\noom 0\noom_kill 0\n")
	f.write(v2+"pids.current", "12\n")
	f.write(v2+"pids.max", "100\n")
	f.write("fs/system.slice/memory.current", "7000000\n")
	f.write("fs/system.slice/memory.max", "8000000\n")
	h := f.host()
	got := values(t, f.sweep(h))
	of := func(m series.Metric, part string) series.Key {
		return series.Key{Metric: m, Service: "x.service", Part: part}
	}
	for k, want := range map[series.Key]float64{
		of(series.CgroupMemory, ""): 499000, of(series.CgroupLimit, ""): 8000000, of(series.CgroupTasks, ""): 12, of(series.CgroupTasksMax, ""): 100,
		of(series.CgroupEvents, "high"): 3, of(series.CgroupEvents, "oom_kill"): 0,
	} {
		if v, said := got[k]; !said || v != want {
			t.Errorf("%v is %v (said: %v), want %v", k, v, said, want)
		}
	}
	if _, said := got[of(series.CgroupEvents, "oom")]; said {
		t.Error("an event that never was is said")
	}
	f.write(v2+"memory.events", "low 0\nhigh 3\nmax 9\noom 1\noom_kill 1\n")
	f.write(v2+"memory.max", "1000000\n")
	f.write(v2+"pids.max", "90\n")
	got = values(t, f.sweep(h))
	if got[of(series.CgroupEvents, "oom_kill")] != 1 || got[of(series.CgroupLimit, "")] != 1000000 {
		t.Errorf("what changed is not said at once: %v", got)
	}
	if got[of(series.CgroupTasksMax, "")] != 90 {
		t.Errorf("what changed is not said at once: %v", got)
	}
	// A limit above holds too.
	f.write("fs/system.slice/memory.max", "950000\n")
	got = values(t, f.sweep(h))
	if got[of(series.CgroupLimit, "")] != 950000 {
		t.Errorf("the limit of the slice is not said: %v", got)
	}
	if _, said := got[of(series.CgroupTasksMax, "")]; said {
		t.Error("a limit that is the same is said on every tick")
	}
	// Version 1, of a container.
	f.run(fake{pid: 20, comm: "z", cgroup: "4:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/\n"})
	v1 := "m/docker/" + id + "/"
	f.write(v1+"memory.usage_in_bytes", "1000000\n")
	f.write(v1+"memory.limit_in_bytes", "9223372036854771712\n")
	f.write(v1+"memory.stat", "inactive_file 7\ntotal_inactive_file 400000\ntotal_active_file 100000\ntotal_dirty 100000\ntotal_writeback 0\n")
	f.write(v1+"memory.failcnt", "5\n")
	f.write(v1+"memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
	got = values(t, f.sweep(h))
	of = func(m series.Metric, part string) series.Key {
		return series.Key{Metric: m, Service: "docker/3f4e8a1b2c3d", Part: part}
	}
	if got[of(series.CgroupMemory, "")] != 600000 || got[of(series.CgroupEvents, "max")] != 5 || got[of(series.CgroupEvents, "oom_kill")] != 2 {
		t.Errorf("version 1: %v", got)
	}
	if _, said := got[of(series.CgroupLimit, "")]; said {
		t.Error("a limit that is none is said")
	}
}

// TestMachine reads the numbers of the host.
func TestMachine(t *testing.T) {
	f := newTree(t)
	f.write("meminfo", "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\nSwapTotal:       200 kB\nSwapFree:        150 kB\nSUnreclaim:       30 kB\nCommitLimit:     700 kB\nCommitted_AS:    650 kB\n")
	f.write("vmstat", "nr_free_pages 7\noom_kill 4\nnuma_pte_updates 0\n")
	f.write("sys/fs/file-nr", "1024\t0\t9223372036854775807\n")
	f.write("sys/net/netfilter/nf_conntrack_count", "77\n")
	f.write("sys/net/netfilter/nf_conntrack_max", "65536\n")
	f.write("net/sockstat", "sockets: used 300\nTCP: inuse 20 orphan 1 tw 5 alloc 30 mem 7\nUDP: inuse 3 mem 1\nRAW: inuse 0\n")
	f.write("net/sockstat6", "TCP6: inuse 4\n")
	f.write("net/snmp", "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 55 66\n")
	f.write("net/dev", "Inter-|   Receive  |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"+
		"    lo: 1000 1 0 0 0 0 0 0 1000 1 0 0 0 0 0 0\n  eth0: 500 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n eth1:40 1 0 0 0 0 0 0 3 1 0 0 0 0 0 0\n")
	h := f.host()
	got := values(t, f.sweep(h))
	of := func(m series.Metric) series.Key { return series.Key{Metric: m} }
	in := func(part string) series.Key { return series.Key{Metric: series.HostSockets, Part: part} }
	want := map[series.Key]float64{
		of(series.HostMemory): 1000 << 10, of(series.HostAvailable): 400 << 10, of(series.HostSwap): 200 << 10, of(series.HostSwapFree): 150 << 10,
		of(series.HostSlab): 30 << 10, of(series.HostCommitLimit): 700 << 10, of(series.HostCommitted): 650 << 10, of(series.HostOOMKills): 4,
		of(series.HostFiles): 1024, of(series.HostConntrack): 77, of(series.HostConntrackMax): 65536, of(series.HostProcesses): 0,
		in("all"): 300, in("tcp"): 20, in("tcp orphan"): 1, in("tcp time wait"): 5, in("udp"): 3, in("tcp6"): 4,
		of(series.HostAccepted): 66, of(series.HostReceived): 540, of(series.HostSent): 73,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	f.write("sys/net/netfilter/nf_conntrack_max", "131072\n")
	got = values(t, f.sweep(h))
	if _, said := got[of(series.HostMemory)]; said || got[of(series.HostConntrackMax)] != 131072 {
		t.Errorf("the second sweep: %v", got)
	}
}

// TestRealGroup holds what is said of a control group of the kernel's against
// what its files say.
func TestRealGroup(t *testing.T) {
	mounts := map[string]string{"memory": "memory.usage_in_bytes", "pids": "pids.current"}
	name := fmt.Sprintf("stanch-sampler-test%d.service", os.Getpid()) // others may run the same test
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	t.Cleanup(end)
	for controller, file := range mounts {
		root := "/sys/fs/cgroup/" + controller
		if _, err := os.Stat(root); err != nil {
			t.Skipf("no controller %s of version 1: making groups in version 2 would turn controllers on for everybody", controller)
		}
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("no group can be made: %v", err)
		}
		t.Cleanup(func() {
			end() // a group with processes stays
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	const limit = 64 << 20
	if err := os.WriteFile("/sys/fs/cgroup/memory/"+name+"/memory.limit_in_bytes", []byte(strconv.Itoa(limit)), 0o644); err != nil {
		t.Fatal(err)
	}
	h := &Host{MinAge: -1}
	t.Cleanup(func() { _ = h.Close() })
	now, _ := new(Stamper).Now()
	s, err := h.Sweep(context.Background(), now)
	if err != nil {
		t.Fatal(err)
	}
	got := values(t, s)
	of := func(m series.Metric) series.Key { return series.Key{Metric: m, Service: name} }
	if got[of(series.CgroupTasks)] != 1 || got[of(series.CgroupLimit)] != limit {
		t.Errorf("tasks %v, limit %v", got[of(series.CgroupTasks)], got[of(series.CgroupLimit)])
	}
	if used, said := got[of(series.CgroupMemory)]; !said || used > limit {
		t.Errorf("memory %v (said: %v)", used, said)
	}
	for _, p := range h.Processes() {
		if p.ID.PID == cmd.Process.Pid && (p.Service != name || p.Kind != KindUnit || p.Worker != "0") {
			t.Errorf("%+v", p)
		}
	}
}
