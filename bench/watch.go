package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watch measures what it costs to sample a host with 1,000 processes, beside
// one look at them by the tools that people look with.
func watch(b *bench) []figure {
	const (
		processes = 1000
		every     = 10 * time.Second
		first     = 130 * time.Second // all come of age and are named, and what is costly is done for all the first time
		measured  = 4 * time.Minute   // in which everything has its turn once
	)
	for range processes {
		if err := b.launch(exec.Command("sleep", "1000")); err != nil {
			b.Fatal(err)
		}
	}
	cmd := exec.Command(b.stanch, "watch", "--data", b.TempDir(), "--listen", "127.0.0.1:0", "--every", every.String())
	began := time.Now()
	if err := b.launch(cmd); err != nil {
		b.Fatal(err)
	}
	pid := cmd.Process.Pid
	time.Sleep(first)
	start := b.cpuSeconds(pid)
	b.Logf("watch: %.2f s of CPU in the first %v", start, time.Since(began).Round(time.Second))
	began = time.Now()
	time.Sleep(measured)
	used := (b.cpuSeconds(pid) - start) / time.Since(began).Seconds()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	peak := b.number(string(status), "VmHWM:") * 1024 / 1e6
	look := used * every.Seconds() * 1000
	ps := b.cpuOf("ps", "-eo", "pid,ppid,rss,vsz,nlwp,min_flt,maj_flt,cputimes,lstart,args") * 1000
	lsof := b.cpuOf("lsof", "-n", "-P", "-w") * 1000
	atop := b.atopLook() * 1000
	b.Logf("one look at %d processes and more: stanch %.0f ms, ps %.0f ms, lsof %.0f ms, atop %.0f ms", processes, look, ps, lsof, atop)
	return []figure{{
		name: "stanch watch of 1,000 processes every 10 s, CPU", value: 100 * used, bound: 0.5, unit: "% of one",
		beside: fmt.Sprintf("CPU of one look at them, kept, judged and served: %.0f ms; ps -eo %.0f ms, atop -w %.0f ms, lsof -n -P %.0f ms", look, ps, atop, lsof),
	}, {
		name: "stanch watch of 1,000 processes, largest resident memory", value: peak, bound: 200, unit: "MB",
	}}
}

// cpuOf is the CPU time of a command in seconds, user and system, the median of
// three runs.
func (b *bench) cpuOf(name string, args ...string) float64 {
	var all []float64
	for range 3 {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "ATOPACCT=") // atop must not turn on process accounting
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s: %v\n%.1000s", strings.Join(cmd.Args, " "), err, out)
		}
		all = append(all, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	}
	return median(all)
}

// atopLook is what one more look of atop costs, when it writes to a file.
func (b *bench) atopLook() float64 {
	const few, many = 2, 7
	file := filepath.Join(b.TempDir(), "atop.raw")
	looks := func(n int) float64 {
		return b.cpuOf("sh", "-c", "rm -f "+file+"; exec atop -w "+file+" 1 "+strconv.Itoa(n))
	}
	return (looks(many) - looks(few)) / (many - few)
}
