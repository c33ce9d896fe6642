// Bench measures what stanch costs a target and how fast it looks, beside the
// tools that people use today, as ratios and differences within one run: the
// figures of docs/BENCHMARKS.md. It drives bin/stanch as a user does.
//
//	go run ./bench [-o docs/BENCHMARKS.md] [-only REGEXP] [-stanch bin/stanch]
//
// It needs the rights to trace, about 8 GB of memory, two processors, gdb,
// heaptrack, valgrind and redis, a quarter of an hour and a quiet machine: a figure that is missed is said to be missed, and the exit
// code is 0 all the same.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A suite measures some figures.
type suite struct {
	name string
	run  func(*bench) []figure
}

var suites = []suite{
	{"snapshot", snapshot},
	{"scan", scan},
	{"pair", pair},
	{"exact", exact},
	{"server", server},
	{"throughput", throughput},
	{"redis", redis},
	{"start", start},
	{"descriptors", descriptors},
	{"watch", watch},
	{"history", history},
}

// figure is one number with its bound.
type figure struct {
	name   string
	value  float64
	bound  float64 // zero: nothing was promised
	least  bool    // the bound is the least it may be, not the most
	unit   string
	beside string // the same of other tools, in words
	why    string // what is known of the reason, where it is missed
}

func (f figure) verdict() string {
	switch {
	case f.bound == 0:
		return ""
	case f.least && f.value >= f.bound, !f.least && f.value <= f.bound:
		return "PASS"
	}
	return "MISS"
}

func main() {
	out := flag.String("o", "", "also write the table, as Markdown, to this file; with -only the rows of other suites stay")
	only := flag.String("only", "", "run only the suites whose name matches")
	stanch := flag.String("stanch", "bin/stanch", "the program to measure")
	flag.Parse()
	if err := run(*stanch, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(stanch, only, out string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if stanch, err = filepath.Abs(stanch); err != nil {
		return err
	}
	if _, err := os.Stat(stanch); err != nil {
		return fmt.Errorf("%w: run make first", err)
	}
	remove, err := makeScratch()
	if err != nil {
		return err
	}
	defer remove()
	machine := describe()
	fmt.Fprintln(os.Stderr, machine)
	var figures []figure
	for _, s := range suites {
		if !match.MatchString(s.name) {
			continue
		}
		began := time.Now()
		got, err := measure(s, stanch)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		figures = append(figures, got...)
		fmt.Fprintf(os.Stderr, "%s took %v\n", s.name, time.Since(began).Round(time.Second))
	}
	rows := rowsOf(figures)
	if err := writeTable(os.Stdout, rows); err != nil {
		return err
	}
	missed := 0
	for _, f := range figures {
		if f.verdict() == "MISS" {
			missed++
		}
	}
	fmt.Fprintf(os.Stderr, "%d of %d figures missed\n", missed, len(figures))
	if out == "" {
		return nil
	}
	if only != "" {
		if rows, err = among(out, rows); err != nil {
			return err
		}
	}
	return writeFile(out, machine, rows)
}

// head is the first row of the table.
var head = []string{"figure", "measured", "bound", "", "beside it, in the same run"}

// rowsOf writes figures as rows.
func rowsOf(figures []figure) (rows [][]string) {
	for _, f := range figures {
		bound := ""
		if f.bound > 0 {
			bound = fmt.Sprintf("%.4g %s", f.bound, f.unit)
			if f.least {
				bound = "at least " + bound
			}
		}
		if f.verdict() == "MISS" && f.why != "" {
			f.beside = strings.TrimPrefix(f.beside+". Missed: "+f.why, ". ")
		}
		rows = append(rows, []string{f.name, fmt.Sprintf("%.3g %s", f.value, f.unit), bound, f.verdict(), f.beside})
	}
	return rows
}

// among puts rows in the place of those of the same name in the table of a
// file, and those that are not there behind it.
func among(path string, rows [][]string) ([][]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rows, nil
	}
	if err != nil {
		return nil, err
	}
	fresh := map[string][]string{}
	for _, r := range rows {
		fresh[r[0]] = r
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) != len(head) {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch r := fresh[cells[0]]; {
		case cells[0] == head[0]:
		case r != nil:
			all = append(all, r)
			delete(fresh, cells[0])
		default:
			all = append(all, cells)
		}
	}
	for _, r := range rows {
		if fresh[r[0]] != nil {
			all = append(all, r)
		}
	}
	return all, nil
}

// writeTable writes rows as a Markdown table, with its columns aligned for the
// eye.
func writeTable(w io.Writer, rows [][]string) error {
	rows = append([][]string{head}, rows...)
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell), 3)
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			if _, err := fmt.Fprintf(w, "| %-*s ", width[i], cell); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(w, "|"); err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		for _, n := range width {
			fmt.Fprintf(w, "|%s", string(slices.Repeat([]byte("-"), n+2)))
		}
		fmt.Fprintln(w, "|")
	}
	return nil
}

const preface = `# What stanch costs

Written by ` + "`make bench`" + `, beside the tools that people use today. Every number is
a difference or a median within one run of its suite, so that the machine's own
noise is in both sides of it; suites may be measured anew by themselves (-only).

%s

`

const method = `
How each is measured. Where pauses, requests and redis are measured, the programs
run before others (nice -15), so that what else the machine does counts less:

- **pause**: a thread beats at 1 kHz in a program with so many GB of touched
  4 KiB pages and 14 threads. Each of 9 rounds takes the two largest gaps between
  two beats during ` + "`stanch scan PID`" + `, one for each of its two snapshots, less the
  largest gap of an idle time as long as the scan. The median of the 18, per GB.
  gcore: the largest gap in the same way, in fewer rounds. fork(2): how long a
  call by the program itself takes to return, the median of 9.
- **scan**: ` + "`stanch scan PID`" + ` takes two looks a second apart: half of what it takes
  from its start to its exit, without that second; and its own largest resident
  memory (wait4). Median of 3.
- **pair**: CPU time of the threads that do nothing but malloc and free, blocks
  of 16 to 512 bytes, while ` + "`stanch diagnose`" + ` has its probe inside, less the same
  before and after; median of 3. Each block is freed 64 blocks later. heaptrack
  runs the program from its start.
- **every block recorded**: the same while ` + "`stanch record --mode exact`" + ` watches, its
  governor off (--max-overhead 100). Last in, first out: 16 blocks, then all of
  them freed in the opposite order. Random lifetimes: after the attach the
  program fills itself with 1 million blocks of 16 to 512 bytes, then frees any
  one of them and allocates another, a million times a round; 3 processes with
  stanch and 3 without. heaptrack and memcheck run the program from its start.
  CPU time is that of the threads that allocate; by the clock is what they take
  in all, with their waiting for a lock, for a processor and for heaptrack's own
  process.
- **memory that exact recording adds**: anonymous memory and swap of that process
  (smaps_rollup) after the last round, less that of one without stanch after the
  same, over the live blocks. It holds all of the probe: code, tables, books.
- **aimed at another size**: ` + "`stanch record --size 777777`" + `, which never occurs.
- **longest request**: a closed loop of 8 connections, 3000 requests a second, 20
  blocks each, timed from when a request should have been sent. The longest of
  each of 5 runs of ` + "`stanch diagnose`" + `, from before the attach to after the
  detach; the median. Without a bound: the longest with nothing attached.
- **requests per second, 99th percentile**: the same server, without scrubbing its
  old stack; 16 connections with a request on the way in each at any time. The
  server has one processor, the load and stanch have another, heaptrack's own
  process goes anywhere. 1.5 s alone and 1.5 s with ` + "`stanch record`" + ` attached in
  turns, its governor off: sampling, aimed at a size of which each request makes
  one block, exact. Each is divided by the mean of the two alone beside it. The
  median of 9; the 2nd and the 8th of them enclose it with 95 %. CPU time is the
  server's, user and system.
- **redis SET**: user and system time of redis-server for one request of
  redis-benchmark, 16 connections over loopback, values of 100 bytes, 100 000
  keys, in turns in the same way; aimed at the size of the values. It allocates
  with jemalloc. heaptrack's own process is not counted.
- **stanch run /bin/true**: from start to exit, less /bin/true alone; medians of 9.
- **descriptors**: a loop of open and close of /dev/null, 8 calls deep, 300 ms at a
  time, before, during and after ` + "`stanch fds --for`" + ` watches (raw tracepoints, as
  for every watch below 5 minutes), and the same in a process that it does not
  watch; medians of 9. A watch of 5 minutes or more takes the tracepoints of single
  calls; medians of 3. Both have one processor, stanch the other. strace -k runs
  the program from its start. Accepts: a server that takes and closes 10,000
  connections a second over loopback for 5 s. The list: ` + "`stanch fds`" + ` from start to
  exit, of files, sockets and eventfds in equal parts.
- **watch**: 1,000 processes that sleep, and whatever else the machine runs. CPU
  time of all threads of ` + "`stanch watch`" + ` at its own pace, over 4 minutes, in which
  all that it does once in 4 minutes is done for each process; after the first
  two minutes, in which it names them. Its memory is the most since it began
  (VmHWM). One look: that CPU time for 10 s; ps and lsof once, medians of 3; atop
  what each further look adds, written to a file, without process accounting.
- **history**: the store of a watch gets a week of 50 made-up processes, 10 numbers
  of each every 10 s, 7 more every minute and 7 of the host, with a ticker that is up to
  3 ms late; it compacts on its way. All files of its directory over all samples. Then
  every point of one service and of the host is read from the files and judged; median of 7.
`

func writeFile(path, machine string, rows [][]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, preface, machine); err != nil {
		return err
	}
	if err := writeTable(f, rows); err != nil {
		return err
	}
	if _, err := io.WriteString(f, method); err != nil {
		return err
	}
	return f.Close()
}
