// Bench measures what stanch costs a target and how fast it looks, beside the
// tools that people use today, as ratios and differences within one run: the
// figures of docs/BENCHMARKS.md. It drives bin/stanch as a user does.
//
//	go run ./bench [-o docs/BENCHMARKS.md] [-only REGEXP] [-stanch bin/stanch]
//
// It needs the rights to trace, about 8 GB of memory, gdb and heaptrack, and a
// quiet machine: a figure that is missed is said to be missed, and the exit
// code is 0 all the same.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	{"server", server},
}

// figure is one number with its bound.
type figure struct {
	name   string
	value  float64
	bound  float64 // zero: nothing was promised
	unit   string
	beside string // the same of other tools, in words
}

func (f figure) verdict() string {
	switch {
	case f.bound == 0:
		return ""
	case f.value <= f.bound:
		return "PASS"
	}
	return "MISS"
}

func main() {
	out := flag.String("o", "", "also write the table, as Markdown, to this file")
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
	if err := writeTable(os.Stdout, figures); err != nil {
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
	return writeFile(out, machine, figures)
}

// writeTable writes the figures as a Markdown table, with its columns aligned
// for the eye.
func writeTable(w io.Writer, figures []figure) error {
	rows := [][]string{{"figure", "measured", "bound", "", "beside it, in the same run"}}
	for _, f := range figures {
		bound := ""
		if f.bound > 0 {
			bound = fmt.Sprintf("%.4g %s", f.bound, f.unit)
		}
		rows = append(rows, []string{f.name, fmt.Sprintf("%.3g %s", f.value, f.unit), bound, f.verdict(), f.beside})
	}
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

Written by ` + "`make bench`" + `, which measures all of it in one run, beside the tools
that people use today. Every number is a difference or a median within that
run, so that the machine's own noise is in both sides of it.

%s

`

const method = `
How each is measured. The programs of the first and the last run before others
(nice -15), so that what else the machine does counts less:

- **pause**: a thread beats at 1 kHz in a program with so many GB of touched
  4 KiB pages and 14 threads. Each of 9 rounds takes the two largest gaps between
  two beats during ` + "`stanch scan PID`" + `, one for each of its two snapshots, less the
  largest gap of an idle time as long as the scan. The median of the 18, per GB.
  gcore: the largest gap in the same way, in fewer rounds.
- **scan**: ` + "`stanch scan PID`" + ` takes two looks a second apart: half of what it takes
  from its start to its exit, without that second; and its own largest resident
  memory (wait4). Median of 3.
- **pair**: CPU time of the threads that do nothing but malloc and free, blocks
  of 16 to 512 bytes, while ` + "`stanch diagnose`" + ` has its probe inside, less the same
  before and after; median of 3. heaptrack runs the program from its start.
- **longest request**: a closed loop of 8 connections, 3000 requests a second, 20
  blocks each, timed from when a request should have been sent. The longest of
  each of 5 runs of ` + "`stanch diagnose`" + `, from before the attach to after the
  detach; the median. Without a bound: the longest with nothing attached.
`

func writeFile(path, machine string, figures []figure) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, preface, machine); err != nil {
		return err
	}
	if err := writeTable(f, figures); err != nil {
		return err
	}
	if _, err := io.WriteString(f, method); err != nil {
		return err
	}
	return f.Close()
}
