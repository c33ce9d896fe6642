package sampler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/proc"
	"stanch/internal/series"
)

// tree is a procfs made of files, and the time that goes with it.
type tree struct {
	t   testing.TB
	dir string
	now Time
}

// newTree begins an hour after the boot.
func newTree(t testing.TB) *tree {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stanch-sampler-") // many files, written again and again
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &tree{t, dir, Time{At: 1_700_003_600_000, Boot: time.Hour}}
	f.write("self/mountinfo", "")
	return f
}

func (f *tree) write(path, text string) {
	f.t.Helper()
	full := filepath.Join(f.dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// fake is a process of the tree; what is left out has a plain value.
type fake struct {
	pid, ppid int
	start     uint64 // ticks after boot; zero is half an hour after it, in the order of the PIDs
	comm      string
	exe       string
	args      []string
	cgroup    string // the text of the file
	state     string
	threads   int
	flags     int
	rss       int // pages
	faults    int // over 100
}

func (f *tree) run(p fake) {
	f.t.Helper()
	if p.start == 0 {
		p.start = 180_000 + uint64(p.pid)
	}
	if p.state == "" {
		p.state = "S"
	}
	dir := strconv.Itoa(p.pid)
	f.write(dir+"/stat", fmt.Sprintf("%d (%s) %s %d 1 1 0 -1 %d %d 0 7 0 250 50 0 0 20 0 %d 0 %d 4096 1\n",
		p.pid, p.comm, p.state, p.ppid, p.flags, 100+p.faults, max(1, p.threads), p.start))
	f.write(dir+"/statm", fmt.Sprintf("1000 %d 40 9 0 99 0\n", max(50, p.rss)))
	f.write(dir+"/cmdline", strings.Join(p.args, "\x00")+"\x00")
	f.write(dir+"/cgroup", p.cgroup)
	f.write(dir+"/status", "Name:\tx\nVmData:\t     512 kB\nVmSwap:\t       8 kB\n")
	f.write(dir+"/limits", "Limit                     Soft Limit           Hard Limit           Units     \n"+
		"Max open files            1024                 4096                 files     \n"+
		"Max address space         unlimited            unlimited            bytes     \n")
	f.write(dir+"/io", "rchar: 12345\nwchar: 678\nsyscr: 9\n")
	f.write(dir+"/smaps_rollup", "00400000-7ffd [rollup]\nRss: 100 kB\nPss:   60 kB\nPrivate_Dirty:    44 kB\n")
	if p.exe != "" {
		f.link(dir+"/exe", p.exe)
	}
	if err := os.MkdirAll(filepath.Join(f.dir, dir, "fd"), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

func (f *tree) link(path, to string) {
	f.t.Helper()
	full := filepath.Join(f.dir, path)
	_ = os.Remove(full) // there may be none
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Symlink(to, full); err != nil {
		f.t.Fatal(err)
	}
}

func (f *tree) end(pids ...int) {
	f.t.Helper()
	for _, pid := range pids {
		if err := os.RemoveAll(filepath.Join(f.dir, strconv.Itoa(pid))); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *tree) host() *Host {
	h := &Host{Root: proc.Root(f.dir)}
	f.t.Cleanup(func() { _ = h.Close() })
	return h
}

// sweep sweeps, and lets 10 s pass.
func (f *tree) sweep(h *Host) Sweep {
	f.t.Helper()
	s, err := h.Sweep(context.Background(), f.now)
	if err != nil {
		f.t.Fatal(err)
	}
	f.now.At += 10_000
	f.now.Boot += 10 * time.Second
	return s
}

// values are the samples of a sweep, by their keys.
func values(t testing.TB, s Sweep) map[series.Key]float64 {
	t.Helper()
	m := map[series.Key]float64{}
	for _, x := range s.Samples {
		if _, twice := m[x.Key]; twice {
			t.Errorf("%v is said twice in one sweep", x.Key)
		}
		if x.At != s.At.At {
			t.Errorf("%v has another time than its sweep", x)
		}
		m[x.Key] = x.Value
	}
	return m
}

// workers are the PIDs of a service by worker, "0=7 1=8".
func workers(h *Host, service string) string {
	var list []string
	for at := range 100 {
		for _, p := range h.Processes() {
			if p.Service == service && p.Worker == strconv.Itoa(at) {
				list = append(list, fmt.Sprintf("%d=%d", at, p.ID.PID))
			}
		}
	}
	return strings.Join(list, " ")
}
