package sampler

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
	"stanch/internal/series"
)

// role is the variable by which the test program becomes another program.
const role = "STANCH_SAMPLER_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "holder":
		holder()
	case "visitor":
		visitor()
	default:
		os.Exit(m.Run())
	}
}

// holder holds a little of everything, says "ready", and waits for its end.
func holder() {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var held []io.Closer // what is forgotten would be closed
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	for range 5 { // connections whose other end is closed, and ours is not
		there, err := net.Dial("tcp", listener.Addr().String())
		must(err)
		here, err := listener.Accept()
		must(err)
		must(there.Close())
		held = append(held, here)
	}
	for range 3 { // zombies
		cmd := exec.Command("true")
		must(cmd.Start())
	}
	for range 7 {
		_, err := unix.Eventfd(0, 0)
		must(err)
	}
	for range 4 {
		r, w, err := os.Pipe()
		must(err)
		held = append(held, r, w)
	}
	for range 6 { // threads for good
		go func() {
			runtime.LockOSThread()
			var fds [1]unix.PollFd
			for {
				_, _ = unix.Poll(fds[:0], -1) // for ever
			}
		}()
	}
	memory := make([]byte, 64<<20)
	for i := range memory {
		memory[i] = byte(i)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
	runtime.KeepAlive(memory)
	runtime.KeepAlive(held)
	runtime.KeepAlive(listener)
}

// start runs the test program in a role.
func start(t *testing.T, cmd *exec.Cmd, as string) *bufio.Reader {
	t.Helper()
	cmd.Env = append(os.Environ(), role+"="+as)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill() // some are gone
		_ = cmd.Wait()
	})
	return bufio.NewReader(out)
}

// TestReal holds what is said of a real process against what /proc says.
func TestReal(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	if line, err := start(t, cmd, "holder").ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	pid := cmd.Process.Pid
	h := &Host{MinAge: -1, Slow: time.Nanosecond, Share: 1, Only: func(p *Process) bool { return p.ID.PID == pid }}
	t.Cleanup(func() { _ = h.Close() })
	var stamper Stamper
	var got map[string]float64
	var process Process
	sweep := func() {
		now, _ := stamper.Now()
		s, err := h.Sweep(context.Background(), now)
		if err != nil {
			t.Fatal(err)
		}
		got = map[string]float64{}
		for _, x := range s.Samples {
			if x.Key.Worker != "" {
				got[strings.TrimSpace(string(x.Key.Metric)+" "+x.Key.Part)] = x.Value
			}
		}
		process = h.Processes()[0]
	}
	value := func(m series.Metric, part string) float64 {
		return got[strings.TrimSpace(string(m)+" "+part)]
	}
	// The last child becomes a zombie in its own time, as the threads do begin.
	deadline := time.Now().Add(20 * time.Second)
	for sweep(); value(series.Zombies, "") != 3 || value(series.Sockets, "CLOSE_WAIT") != 5; sweep() {
		if time.Now().After(deadline) {
			t.Fatalf("of 3 zombies and 5 sockets in CLOSE_WAIT these are seen: %v", got)
		}
		time.Sleep(time.Millisecond)
	}
	target, err := proc.Default.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	status, err := target.Status()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := target.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	counts, limits := proc.CountFDs(fds), mustLimits(t, target)
	usage, err := target.Rollup()
	if err != nil {
		t.Fatal(err)
	}
	for sweep(); value(series.FDKinds, "socket") == 0; sweep() { // until the costly part has its turn again
		if time.Now().After(deadline) {
			t.Fatalf("the descriptors are not listed again: %v", got)
		}
		time.Sleep(time.Millisecond)
	}
	about := func(m series.Metric, want, tolerance float64) {
		t.Helper()
		if v := value(m, ""); v < want-tolerance || v > want+tolerance {
			t.Errorf("%s is %.0f, /proc says %.0f", m, v, want)
		}
	}
	about(series.RSS, float64(status.VMRSS), 2<<20)
	about(series.Anonymous, float64(status.RSSAnon), 2<<20)
	about(series.Virtual, float64(status.VMSize), 8<<20)
	about(series.Data, float64(status.VMData), 8<<20)
	about(series.PSS, float64(usage.PSS), 2<<20)
	about(series.PrivateDirty, float64(usage.PrivateDirty), 2<<20)
	about(series.Threads, float64(status.Threads), 2)
	about(series.FDs, float64(len(fds)), 0)
	about(series.FDLimit, float64(limits.NOFILE.Soft), 0)
	about(series.PID, float64(pid), 0)
	if value(series.Threads, "") < 7 || value(series.RSS, "") < 64<<20 || value(series.CPU, "") <= 0 || value(series.Received, "") <= 0 {
		t.Errorf("too little is seen: %v", got)
	}
	for kind, n := range counts.Kinds {
		if v := value(series.FDKinds, kind); v != float64(n) {
			t.Errorf("%v descriptors of kind %s, /proc has %d", v, kind, n)
		}
	}
	if counts.Kinds["eventfd"] < 7 || counts.Pipe < 8 || value(series.Sockets, "LISTEN") != 1 {
		t.Errorf("kinds %v, values %v", counts.Kinds, got)
	}
	if ago := time.Since(process.Started); ago < 0 || ago > time.Minute || process.PPID != os.Getpid() || process.Kind == "" {
		t.Errorf("%+v", process)
	}
}

func mustLimits(t *testing.T, target *proc.Target) *proc.Limits {
	t.Helper()
	l, err := target.Limits()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// seen is what a visitor tells.
type seen struct {
	Own, Other int // metrics that are said of a process of its own, and of the test's
	FDs        float64
	Notes      []string
}

// visitor samples as a user without rights: the test, which is root's, and a
// child of its own.
func visitor() {
	signal.Ignore(syscall.SIGPIPE)
	own := exec.Command("sleep", "60")
	if err := own.Start(); err != nil {
		panic(err)
	}
	defer own.Process.Kill() //nolint:errcheck // it may be gone
	h := &Host{MinAge: -1, Slow: time.Nanosecond, Share: 1}
	var stamper Stamper
	var result seen
	metrics := map[string]map[series.Metric]bool{}
	for range 3 {
		now, _ := stamper.Now()
		s, err := h.Sweep(context.Background(), now)
		if err != nil {
			panic(err)
		}
		result.Notes = append(result.Notes, s.Notes...)
		of := map[series.Key]int{}
		for _, p := range h.Processes() {
			of[series.Key{Service: p.Service, Worker: p.Worker}] = p.ID.PID
		}
		for _, x := range s.Samples {
			pid := of[series.Key{Service: x.Key.Service, Worker: x.Key.Worker}]
			who := ""
			switch {
			case pid == own.Process.Pid:
				who = "own"
			case pid == os.Getppid():
				who = "other"
				if x.Key.Metric == series.FDs {
					result.FDs = x.Value
				}
			}
			if metrics[who] == nil {
				metrics[who] = map[series.Metric]bool{}
			}
			metrics[who][x.Key.Metric] = true
		}
	}
	result.Own, result.Other = len(metrics["own"]), len(metrics["other"])
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
}

// TestUnprivileged samples as nobody: what may not be read of others is left
// out, and said once.
func TestUnprivileged(t *testing.T) {
	// nobody must be able to run the test program.
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "visitor")
	if err := os.WriteFile(program, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var got seen
	if err := json.NewDecoder(start(t, cmd, "visitor")).Decode(&got); err != nil {
		t.Fatal(err)
	}
	// Of others: all that is fast, VmData, VmSwap and the limit of descriptors.
	if got.Own < 17 || got.Other < 12 || got.Other >= got.Own || got.FDs == 0 {
		t.Errorf("%+v", got)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "run it as root, or give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
		t.Errorf("notes: %q", got.Notes)
	}
}

// TestNoGrowth sweeps 2,000 times while processes come and go, and grows by
// nothing: no memory, no descriptors, no maps.
func TestNoGrowth(t *testing.T) {
	f := newTree(t)
	commands := 0
	churn := func() {
		commands++
		dir := strconv.Itoa(1000 + commands%40)
		f.write(dir+"/stat", fmt.Sprintf("1 (job) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d\n", 1000+commands))
		f.write(dir+"/cmdline", "job\x00"+strconv.Itoa(commands))
	}
	for i := range 40 {
		f.run(fake{pid: 1000 + i, comm: "job", exe: "/usr/bin/job", cgroup: "0::/\n"})
		churn()
	}
	h := f.host()
	h.Slow = time.Minute
	sweeps := func(n int) (heap uint64, fds, services int) {
		for range n {
			churn()
			f.sweep(h)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return m.HeapAlloc, len(list), len(h.services)
	}
	heap, fds, services := sweeps(500)
	heap2, fds2, services2 := sweeps(1500)
	if heap2 > heap+1<<20 || fds2 != fds || services2 > max(services, manyCommands+1) {
		t.Errorf("after 2,000 sweeps: %d bytes (%d after 500), %d descriptors (%d), %d services (%d)", heap2, heap, fds2, fds, services2, services)
	}
	if len(h.byPID) != 40 || len(h.all) != 40 || cap(h.pids) > 1000 {
		t.Errorf("%d by PID, %d in all, room for %d PIDs", len(h.byPID), len(h.all), cap(h.pids))
	}
}

// TestNoGrowthReal sweeps the host that the test runs on, with processes of its
// own that come and go.
func TestNoGrowthReal(t *testing.T) {
	h := &Host{MinAge: -1, Slow: time.Nanosecond}
	t.Cleanup(func() { _ = h.Close() })
	var stamper Stamper
	fds := 0
	for i := range 30 {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		now, _ := stamper.Now()
		_, err := h.Sweep(context.Background(), now)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		own := len(list) - 3*h.grips // other processes of the host come and go too
		if i == 10 {
			fds = own
		}
		if i > 10 && own > fds+2 {
			t.Fatalf("%d descriptors after %d sweeps, %d after 10", own, i, fds)
		}
	}
	if len(h.all) > len(h.pids) || h.grips > len(h.sampled) {
		t.Errorf("%d processes are kept, %d live; %d are held, %d sampled", len(h.all), len(h.pids), h.grips, len(h.sampled))
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir("/proc/self/fd"); err != nil || len(list) > fds+2 {
		t.Errorf("%d descriptors after the end, %d before, %v", len(list), fds, err)
	}
}
