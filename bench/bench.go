package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/fixture"
)

// bench is what a suite has: the program to measure, and enough of a testing.TB
// for package fixture to start programs and end them.
type bench struct {
	testing.TB // nil: what is not below is not used
	stanch     string
	cleanups   []func()
	dirs       []string
}

// scratch holds all that bench writes while it runs.
var scratch string

// makeScratch makes it; the result removes it, as a signal to end does.
func makeScratch() (remove func(), err error) {
	if scratch, err = os.MkdirTemp("", "stanch-bench-"); err != nil {
		return nil, err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ended
		endGroups()
		_ = os.RemoveAll(scratch)
		os.Exit(1) // the other programs under measurement end with bench
	}()
	return func() { _ = os.RemoveAll(scratch) }, nil
}

// errFailed carries what Fatal said.
type errFailed struct{ text string }

func (e errFailed) Error() string { return e.text }

func (b *bench) Helper()                 {}
func (b *bench) Cleanup(f func())        { b.cleanups = append(b.cleanups, f) }
func (b *bench) Fatal(args ...any)       { panic(errFailed{fmt.Sprint(args...)}) }
func (b *bench) Logf(f string, a ...any) { fmt.Fprintf(os.Stderr, "  "+f+"\n", a...) }

// Fatalf ends the suite.
func (b *bench) Fatalf(format string, args ...any) {
	panic(errFailed{fmt.Sprintf(format, args...)})
}

// Errorf says what went wrong at the end of a program; what it measured holds.
func (b *bench) Errorf(format string, args ...any) { b.Logf(format, args...) }

// TempDir makes a directory that goes with the suite.
func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp(scratch, "part-")
	if err != nil {
		b.Fatal(err)
	}
	b.dirs = append(b.dirs, dir)
	return dir
}

// measure runs a suite and ends all that it started.
func measure(s suite, stanch string) (figures []figure, err error) {
	b := &bench{stanch: stanch}
	defer func() {
		if r := recover(); r != nil {
			failed, ok := r.(errFailed)
			if !ok {
				panic(r)
			}
			err = failed
		}
	}()
	defer b.end()
	return s.run(b), nil
}

func (b *bench) end() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
	b.cleanups = nil
	for _, dir := range b.dirs {
		_ = os.RemoveAll(dir)
	}
}

// step runs part of a suite, and ends what that part started.
func (b *bench) step(f func(*bench)) {
	part := &bench{stanch: b.stanch}
	defer part.end()
	f(part)
}

// ran is a finished command.
type ran struct {
	took   time.Duration
	rss    uint64 // bytes at most
	stdout string
}

// tries is how often a command is tried: stanch refuses when not all threads
// stop at once, as on a busy machine.
const tries = 5

// run runs a command to its end, again when it fails.
func (b *bench) run(name string, args ...string) ran {
	for try := 1; ; try++ {
		r, err := attempt(name, args...)
		if err == nil {
			return r
		}
		b.again(try, err)
	}
}

// again says that an attempt failed, and ends the suite after the last one.
func (b *bench) again(try int, err error) {
	if try == tries {
		b.Fatal(err)
	}
	b.Logf("again: %v", err)
	time.Sleep(time.Second)
}

// attempt runs a command once. Exit codes 0 and 3 (found) are fine.
func attempt(name string, args ...string) (ran, error) {
	cmd := exec.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	var exit *exec.ExitError
	found := errors.As(err, &exit) && exit.ExitCode() == 3
	if err != nil && !found {
		return ran{}, fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return ran{took, uint64(usage.Maxrss) << 10, out.String()}, nil
}

// before is a command line that lets a program run before all others where that
// is allowed (as root), so that its delays are ours and not those of whoever
// else uses the machine.
func before(name string, args ...string) (string, []string) {
	if os.Getuid() != 0 {
		return name, args
	}
	return "/usr/bin/nice", append([]string{"-n", "-15", name}, args...)
}

// first starts a program that runs before all others.
func (b *bench) first(exe string, args ...string) *fixture.Proc {
	name, args := before(exe, args...)
	return fixture.Start(b, name, args...)
}

// scan runs stanch scan on a process.
func (b *bench) scan(pid int) ran { return b.run(b.stanch, "scan", strconv.Itoa(pid)) }

// core takes a core with gcore and removes it.
func (b *bench) core(gcore string, pid int) ran {
	dir := b.TempDir()
	defer func() { _ = os.RemoveAll(dir) }()
	return b.run(gcore, "-o", dir+"/core", strconv.Itoa(pid))
}

// number finds the value behind a word in an answer: "max_us 12 beats 3".
func (b *bench) number(answer, word string) float64 {
	fields := strings.Fields(answer)
	i := slices.Index(fields, word)
	if i < 0 || i+1 >= len(fields) {
		b.Fatalf("no %s in %q", word, answer)
	}
	n, err := strconv.ParseFloat(fields[i+1], 64)
	if err != nil {
		b.Fatalf("%s in %q: %v", word, answer, err)
	}
	return n
}

// median of a list that is not empty; it sorts it.
func median(list []float64) float64 {
	slices.Sort(list)
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

// describe says what machine this is.
func describe() string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "model name\t: "); ok {
				model = strings.TrimSpace(rest)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info)
	load, _ := os.ReadFile("/proc/loadavg")
	busy, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%d x %s, %d GB, Linux %s; load average %s at the start.", runtime.NumCPU(), model,
		info.Totalram*uint64(info.Unit)>>30, unix.ByteSliceToString(name.Release[:]), busy)
}
