package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processors are the first two that bench may use, or the only one twice.
func processors() (server, load int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0
	}
	var all []int
	for cpu := 0; len(all) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all[0], all[min(1, len(all)-1)]
}

// loadCPU is where loads run, as taskset takes it.
func loadCPU() string {
	_, cpu := processors()
	return strconv.Itoa(cpu)
}

// pin keeps all threads that a server has on its processor. Threads of a tool
// beside it, and stanch, run elsewhere.
func (b *bench) pin(pid int) {
	cpu, _ := processors()
	var set unix.CPUSet
	set.Set(cpu)
	for _, tid := range b.threads(pid) {
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) threads(pid int) []int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	var tids []int
	for _, e := range entries {
		tid, _ := strconv.Atoi(e.Name())
		tids = append(tids, tid)
	}
	return tids
}

// below finds the program exe among pid and its descendants: what a wrapper
// started.
func (b *bench) below(pid int, exe string) int {
	is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	want, err2 := os.Stat(exe)
	if err == nil && err2 == nil && os.SameFile(is, want) {
		return pid
	}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may just have ended
		for _, word := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(word)
			if found := b.below(child, exe); found != 0 {
				return found
			}
		}
	}
	return 0
}

// cpuSeconds is the CPU time, user and system, of all threads that a process
// has, to the nanosecond (Documentation/scheduler/sched-stats.rst).
func (b *bench) cpuSeconds(pid int) float64 {
	var sum uint64
	for _, tid := range b.threads(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, tid))
		if err != nil {
			b.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += ns
	}
	return float64(sum) / 1e9
}

// touched is how much memory of its own a process has touched.
func (b *bench) touched(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	var bytes float64
	for _, word := range []string{"Anonymous:", "Swap:"} {
		bytes += 1024 * b.number(string(text), word)
	}
	return bytes
}
